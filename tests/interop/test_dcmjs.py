"""dcmjs-dimse, an implementation that shares no code with DCMTK or pynetdicom."""

import asyncio
import json
from collections.abc import Mapping, Sequence

import pytest

from tests.support.corpus import CorpusFile
from tests.support.exchange import identifier, query, send_instances
from tests.support.instances import Instance, make_instance
from tests.support.peers import Dcmjs
from tests.support.processes import Background, Pacslite


@pytest.fixture(scope="module")
def study(server: Pacslite) -> Sequence[Instance]:
    instances = [make_instance(n, seed=9) for n in range(4)]
    asyncio.run(send_instances(server.port, instances))
    return instances


async def test_echo(server: Pacslite, dcmjs: Dcmjs) -> None:
    outcome = await dcmjs(server.port, server.ae_title, "echo")
    assert outcome["statuses"] == [0]


async def test_wrong_called_ae_title(server: Pacslite, dcmjs: Dcmjs) -> None:
    outcome = await dcmjs(server.port, "WRONG", "echo")
    assert outcome["rejected"] == [1, 1, 7]


async def test_store(server: Pacslite, dcmjs: Dcmjs, corpus_by_name: Mapping[str, CorpusFile]) -> None:
    files = [corpus_by_name[name] for name in ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm")]
    outcome = await dcmjs(server.port, server.ae_title, "store", *(file.path for file in files))
    assert outcome["statuses"] == [0, 0, 0]
    for file in files:
        assert await query(server.port, identifier("STUDY", StudyInstanceUID=str(file.header().StudyInstanceUID)))


async def test_find(server: Pacslite, dcmjs: Dcmjs, study: Sequence[Instance]) -> None:
    keys = {"PatientID": study[0].patient_id, "PatientName": "", "StudyInstanceUID": ""}
    outcome = await dcmjs(server.port, server.ae_title, "find", "study", json.dumps(keys))
    assert outcome["statuses"] == [0xFF00, 0]
    (match,) = outcome["datasets"]
    assert match["StudyInstanceUID"] == study[0].study_uid


async def test_get(server: Pacslite, dcmjs: Dcmjs, study: Sequence[Instance]) -> None:
    outcome = await dcmjs(server.port, server.ae_title, "get", study[0].study_uid)
    assert outcome["statuses"][-1] == 0
    assert sorted(outcome["stored"]) == sorted(item.sop_instance_uid for item in study)


async def test_move(server: Pacslite, dcmjs: Dcmjs, dcmjs_scp: Background, study: Sequence[Instance]) -> None:
    outcome = await dcmjs(server.port, server.ae_title, "move", study[0].study_uid, "DCMJS")
    assert outcome["statuses"][-1] == 0
    arrived = [json.loads(line)["uid"] for line in dcmjs_scp.text().splitlines() if line.startswith("{")]
    assert sorted(arrived) == sorted(item.sop_instance_uid for item in study)
