"""Orthanc as requestor: it verifies, sends to us, queries us and retrieves from us."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from tests.support.exchange import identifier, query, send_instances
from tests.support.instances import make_instance
from tests.support.peers import Dcmtk, Orthanc
from tests.support.processes import Pacslite

MODALITY = "/modalities/PACSLITE"


async def test_echo(server: Pacslite, orthanc: Orthanc) -> None:
    await asyncio.to_thread(orthanc.rest, f"{MODALITY}/echo", {})


async def test_orthanc_sends_to_us(server: Pacslite, orthanc: Orthanc, dcmtk: Dcmtk, ct_slice: Path) -> None:
    await dcmtk("storescu", "-aec", orthanc.ae_title, "127.0.0.1", orthanc.port, ct_slice)
    names: Sequence[str] = await asyncio.to_thread(orthanc.rest, "/instances")
    sent = await asyncio.to_thread(orthanc.rest, f"{MODALITY}/store", list(names))
    assert sent["FailedInstancesCount"] == 0
    assert len(await query(server.port, identifier("STUDY", StudyInstanceUID="", PatientID="1CT1"))) == 1


async def test_orthanc_queries_and_retrieves(server: Pacslite, orthanc: Orthanc) -> None:
    instances = [make_instance(n, seed=10) for n in range(3)]
    await send_instances(server.port, instances)
    question = {"Level": "Study", "Query": {"PatientID": instances[0].patient_id, "StudyInstanceUID": ""}}
    created = await asyncio.to_thread(orthanc.rest, f"{MODALITY}/query", question)
    answers = await asyncio.to_thread(orthanc.rest, f"{created['Path']}/answers?expand&simplify")
    assert [answer["StudyInstanceUID"] for answer in answers] == [instances[0].study_uid]
    await asyncio.to_thread(orthanc.rest, f"{created['Path']}/retrieve", {"TargetAet": orthanc.ae_title})
    arrived = await asyncio.to_thread(orthanc.instances)
    assert {item.sop_instance_uid for item in instances} <= set(arrived)
