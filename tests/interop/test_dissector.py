"""Wireshark's DICOM dissector finds nothing malformed in a capture of each service, refusals and aborts included."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pacslite.scu.client import Client
from pacslite.scu.commitment import Reference
from tests.support.exchange import QUERY_CONTEXTS, identifier, send_instances
from tests.support.instances import Instance, make_instance
from tests.support.peers import Capture, Dcmtk, StoreScp
from tests.support.processes import Pacslite
from tests.support.wire import CT_IMAGE, STUDY_ROOT_FIND, RejectedError, Wire


@pytest.fixture(scope="module")
def settings() -> Mapping[str, Mapping[str, object]]:
    return {"commitment": {"grace_seconds": 0.2}}


@pytest.fixture(scope="module")
def study(server: Pacslite) -> Sequence[Instance]:
    instances = [make_instance(n, seed=11, size=30_000) for n in range(3)]
    asyncio.run(send_instances(server.port, instances))
    return instances


async def test_each_service(
    server: Pacslite,
    capture: Capture,
    dcmtk: Dcmtk,
    storescp: StoreScp,
    study: Sequence[Instance],
    ct_slice: Path,
    tmp_path: Path,
) -> None:
    peer = ("-aec", server.ae_title, "127.0.0.1", server.port)
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study[0].study_uid}")
    received = tmp_path / "received"
    received.mkdir()
    await dcmtk("echoscu", *peer)
    await dcmtk("echoscu", "--abort", *peer)
    await dcmtk("storescu", *peer, ct_slice)
    await dcmtk("findscu", "-S", *peer, *keys, "-k", "PatientName", "-k", "ModalitiesInStudy")
    await dcmtk("movescu", "-S", "-aem", "STORESCP", *peer, *keys)
    await dcmtk("movescu", "-S", "-aem", "UNHEARD_OF", *peer, *keys, expect=69)
    await dcmtk("getscu", "-S", "-od", received, *peer, *keys)
    await dcmtk("echoscu", "-aec", "WRONG", "127.0.0.1", server.port, expect=1)
    await dcmtk("findscu", "-S", "--cancel", 1, *peer, "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID")
    async with Client(f"{server.ae_title}@127.0.0.1:{server.port}", calling_ae_title="WS1") as client:
        wanted = [Reference(CT_IMAGE, one.sop_instance_uid) for one in study]
        assert (await client.commitment([*wanted, Reference(CT_IMAGE, "1.2.3.4")], seconds=20)).failed
    with contextlib.suppress(RejectedError):
        await Wire.associate(server.port, QUERY_CONTEXTS, called="WRONG")
    async with await Wire.associate(server.port, QUERY_CONTEXTS) as wire:
        await wire.start_query(STUDY_ROOT_FIND, identifier(None, PatientID=""))
        assert [answer.status async for answer in wire.answers()] == [0xA900]
    seen = await capture.judge()
    for word in (
        "A-ASSOCIATE request",
        "A-ASSOCIATE accept",
        "A-ASSOCIATE reject",
        "A-RELEASE response",
        "ABORT",
        "C-ECHO-RSP",
        "C-STORE-RSP",
        "C-STORE-RQ",
        "C-FIND-RSP",
        "C-MOVE-RSP",
        "C-GET-RSP",
        "C-CANCEL-RQ",
        "N-ACTION-RSP",
        "N-EVENT-REPORT-RQ",
    ):
        assert word in seen, f"no {word} in the capture:\n{seen.output[-3000:]}"
