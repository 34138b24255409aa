"""Compressed and uncompressed instances to every kind of receiver, whoever asks: the pixels are what was stored."""

import asyncio
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt

from tests.support.corpus import CorpusFile
from tests.support.exchange import fetch, identifier, send
from tests.support.peers import Dcmtk, Orthanc, QrScp, StoreScp
from tests.support.processes import Pacslite
from tests.support.wire import EXPLICIT_LITTLE, IMPLICIT_LITTLE, STUDY_ROOT_GET, STUDY_ROOT_MOVE, Context

SAMPLES = ("CT_small.dcm", "MR_small_implicit.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm", "JPEG2000.dcm", "693_J2KR.dcm")


@pytest.fixture(scope="module")
def settings() -> Mapping[str, Mapping[str, object]]:
    """A destination of one test is another's in the next: no association is kept for it."""
    return {"retrieve": {"reuse_seconds": 0}}


@pytest.fixture(scope="module")
def samples(server: Pacslite, corpus_by_name: Mapping[str, CorpusFile]) -> Sequence[CorpusFile]:
    """Five studies, three of them compressed."""
    files = [corpus_by_name[name] for name in SAMPLES]
    answers = asyncio.run(send(server.port, files))
    assert [answer.status for answer in answers] == [0] * len(files)
    return files


def assert_same_pixels(received: bytes | Path, file: CorpusFile) -> None:
    got = dcmread(BytesIO(received) if isinstance(received, bytes) else received)
    assert got.SOPInstanceUID == file.sop_instance_uid
    arrays = []
    for data_set in (got, dcmread(file.path)):
        decoder = get_decoder(UID(data_set.file_meta.TransferSyntaxUID))
        arrays.append(decoder.as_array(data_set, raw=True)[0])
    assert np.array_equal(arrays[0], arrays[1]), file.name


def move_words(file: CorpusFile) -> list[str]:
    return ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={file.header().StudyInstanceUID}"]


@pytest.mark.parametrize("number", range(len(SAMPLES)), ids=SAMPLES)
async def test_to_storescp(
    server: Pacslite, dcmtk: Dcmtk, storescp: StoreScp, samples: Sequence[CorpusFile], number: int
) -> None:
    storescp.clear()
    file = samples[number]
    called = ("-aec", server.ae_title, "-aem", "STORESCP", "127.0.0.1", server.port)
    await dcmtk("movescu", "-S", *called, *move_words(file))
    (path,) = storescp.files()
    assert_same_pixels(path, file)


@pytest.mark.parametrize("number", range(len(SAMPLES)), ids=SAMPLES)
async def test_to_dcmqrscp(
    server: Pacslite, dcmtk: Dcmtk, qrscp: QrScp, samples: Sequence[CorpusFile], number: int
) -> None:
    file = samples[number]
    called = ("-aec", server.ae_title, "-aem", "QRSCP", "127.0.0.1", server.port)
    await dcmtk("movescu", "-S", *called, *move_words(file))
    arrived = [path for path in qrscp.files() if file.sop_instance_uid.encode() in path.read_bytes()]
    assert len(arrived) == 1
    assert_same_pixels(arrived[0], file)


@pytest.mark.parametrize("number", range(len(SAMPLES)), ids=SAMPLES)
async def test_to_orthanc_as_destination_and_as_requestor(
    server: Pacslite, dcmtk: Dcmtk, orthanc: Orthanc, samples: Sequence[CorpusFile], number: int
) -> None:
    file = samples[number]

    async def fetched() -> list[bytes]:
        names = await asyncio.to_thread(orthanc.rest, "/instances?expand")
        return [
            await asyncio.to_thread(orthanc.rest, f"/instances/{item['ID']}/file")
            for item in names
            if item["MainDicomTags"]["SOPInstanceUID"] == file.sop_instance_uid
        ]

    called = ("-aec", server.ae_title, "-aem", "ORTHANC", "127.0.0.1", server.port)
    await dcmtk("movescu", "-S", *called, *move_words(file))
    (received,) = await fetched()
    assert_same_pixels(received, file)

    (name,) = await asyncio.to_thread(
        orthanc.rest, "/tools/find", {"Level": "Instance", "Query": {"SOPInstanceUID": file.sop_instance_uid}}
    )
    await asyncio.to_thread(orthanc.delete, f"/instances/{name}")
    question = {"Level": "Study", "Query": {"StudyInstanceUID": str(file.header().StudyInstanceUID)}}
    created = await asyncio.to_thread(orthanc.rest, "/modalities/PACSLITE/query", question)
    await asyncio.to_thread(orthanc.rest, f"{created['Path']}/retrieve", {"TargetAet": orthanc.ae_title})
    (received,) = await fetched()
    assert_same_pixels(received, file)


@pytest.mark.parametrize("option", ["+x=", "+xi", "+xs", "+xv", "+xw", "+xd"])
@pytest.mark.parametrize("number", range(len(SAMPLES)), ids=SAMPLES)
async def test_by_getscu_whatever_it_prefers(
    server: Pacslite, dcmtk: Dcmtk, samples: Sequence[CorpusFile], tmp_path: Path, number: int, option: str
) -> None:
    """It proposes one context for a SOP class, of a compressed syntax and the uncompressed ones, whatever is stored."""
    file = samples[number]
    called = ("-aec", server.ae_title, "127.0.0.1", server.port)
    await dcmtk("getscu", "-S", option, "+B", "-od", tmp_path, *called, *move_words(file))
    (path,) = tmp_path.iterdir()
    assert_same_pixels(path, file)


@pytest.mark.parametrize("number", range(len(SAMPLES)), ids=SAMPLES)
async def test_as_stored_where_a_second_context_takes_the_rest(
    server: Pacslite, samples: Sequence[CorpusFile], number: int
) -> None:
    file = samples[number]
    compressed = ("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.90")
    syntaxes = [(syntax, EXPLICIT_LITTLE) for syntax in compressed] + [(EXPLICIT_LITTLE, IMPLICIT_LITTLE)]
    (received,), final = await fetch(
        server.port,
        identifier("STUDY", StudyInstanceUID=str(file.header().StudyInstanceUID)),
        [Context(2 * at + 3, file.sop_class_uid, some, True) for at, some in enumerate(syntaxes)],
    )
    assert final.status == 0
    assert received.transfer_syntax_uid == (file.transfer_syntax_uid if number >= 2 else EXPLICIT_LITTLE)


@pytest.mark.parametrize("as_stored", [True, False])
@pytest.mark.parametrize("number", range(len(SAMPLES)), ids=SAMPLES)
def test_to_pynetdicom_by_move_and_by_get(
    server: Pacslite, destinations: Mapping[str, int], samples: Sequence[CorpusFile], number: int, as_stored: bool
) -> None:
    file = samples[number]
    syntax = file.transfer_syntax_uid if as_stored else str(ExplicitVRLittleEndian)
    received: list[tuple[str, bytes]] = []

    def on_store(event: evt.Event) -> int:
        received.append((str(event.context.transfer_syntax), event.encoded_dataset()))
        return 0

    handlers: list[evt.EventHandlerType] = [(evt.EVT_C_STORE, on_store)]
    keys = Dataset()
    keys.QueryRetrieveLevel = "STUDY"
    keys.StudyInstanceUID = file.header().StudyInstanceUID
    ae = AE(ae_title="PYNETDICOM")
    ae.add_supported_context(file.sop_class_uid, syntax)
    ae.add_requested_context(STUDY_ROOT_MOVE)
    ae.add_requested_context(STUDY_ROOT_GET)
    ae.add_requested_context(file.sop_class_uid, syntax)
    scp = ae.start_server(("127.0.0.1", destinations["PYNETDICOM"]), block=False, evt_handlers=handlers)
    assert scp is not None
    try:
        association = ae.associate(
            "127.0.0.1",
            server.port,
            ae_title=server.ae_title,
            ext_neg=[build_role(file.sop_class_uid, scp_role=True)],
            evt_handlers=handlers,
        )
        assert association.is_established
        moved = [status.Status for status, _ in association.send_c_move(keys, "PYNETDICOM", STUDY_ROOT_MOVE)]
        got = [status.Status for status, _ in association.send_c_get(keys, STUDY_ROOT_GET)]
        assert (moved[-1], got[-1]) == (0, 0)
        association.release()
    finally:
        scp.shutdown()
    assert [one for one, _ in received] == [syntax, syntax]
    for _, data in received:
        assert_same_pixels(data, file)
