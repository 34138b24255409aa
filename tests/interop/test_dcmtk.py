"""DCMTK's tools against the server: every option of transfer syntax, PDU sizes, levels, destinations."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRBigEndian

from tests.support.corpus import CorpusFile, read_file
from tests.support.exchange import (
    encapsulated_file,
    fetch,
    identifier,
    parse_data_set,
    query,
    send,
    send_instances,
    storage_contexts,
)
from tests.support.instances import UID_ROOT, Instance, make_instance
from tests.support.peers import Dcmtk, Orthanc, QrScp, StoreScp
from tests.support.processes import Pacslite
from tests.support.wire import CT_IMAGE, Context

VIDEO = "1.2.840.10008.5.1.4.1.1.77.1.4.1"
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")

# option of storescu, and a sample file, or the transfer syntax of one that is made up
OPTIONS = [
    ("-x=", "CT_small.dcm"),
    ("-xe", "CT_small.dcm"),
    ("-xb", "MR_small.dcm"),
    ("-xb", "MR_small_bigendian.dcm"),
    ("-xi", "MR_small_implicit.dcm"),
    ("-xi", "CT_small.dcm"),
    ("-xs", "JPEG-LL.dcm"),
    ("-xy", "color3d_jpeg_baseline.dcm"),
    ("-xx", "JPEG-lossy.dcm"),
    ("-xv", "MR_small_jp2klossless.dcm"),
    ("-xw", "JPEG2000.dcm"),
    ("-xt", "MR_small_jpeg_ls_lossless.dcm"),
    ("-xu", "1.2.840.10008.1.2.4.81"),
    ("-xm", "1.2.840.10008.1.2.4.100"),
    ("-xh", "1.2.840.10008.1.2.4.101"),
    ("-xn", "1.2.840.10008.1.2.4.102"),
    ("-xl", "1.2.840.10008.1.2.4.103"),
    ("-x2", "1.2.840.10008.1.2.4.104"),
    ("-x3", "1.2.840.10008.1.2.4.105"),
    ("-xo", "1.2.840.10008.1.2.4.106"),
    ("-x4", "1.2.840.10008.1.2.4.107"),
    ("-x5", "1.2.840.10008.1.2.4.108"),
    ("-xr", "MR_small_RLE.dcm"),
    ("-xd", "image_dfl.dcm"),
    ("-xd", "CT_small.dcm"),
]


@pytest.fixture(scope="module")
def settings() -> Mapping[str, Mapping[str, object]]:
    """Each test sees what it sent last."""
    return {"storage": {"duplicates": "replace"}}


@pytest.fixture(scope="module")
def study(server: Pacslite) -> Sequence[Instance]:
    """Two series of three slices."""
    instances = [make_instance(n, seed=4, series=series, size=20_000) for series in (0, 1) for n in (1, 2, 3)]
    asyncio.run(send_instances(server.port, instances))
    return instances


async def test_echoscu(server: Pacslite, dcmtk: Dcmtk) -> None:
    await dcmtk("echoscu", "-aec", server.ae_title, "127.0.0.1", server.port)
    await dcmtk("echoscu", "-aec", server.ae_title, "--repeat", 20, "-pts", 38, "127.0.0.1", server.port)
    await dcmtk("echoscu", "-aec", server.ae_title, "--abort", "127.0.0.1", server.port)


@pytest.mark.parametrize(("option", "source"), OPTIONS)
@pytest.mark.parametrize("contexts", [("-R",), ("-R", "+C")], ids=["apart", "combined"])
async def test_storescu_with_every_transfer_syntax(
    server: Pacslite,
    dcmtk: Dcmtk,
    corpus_by_name: Mapping[str, CorpusFile],
    tmp_path: Path,
    option: str,
    source: str,
    contexts: Sequence[str],
) -> None:
    """What comes back has the elements of the file, whichever syntax DCMTK and the server agreed on."""
    if source in corpus_by_name:
        file = corpus_by_name[source]
    else:
        uid = f"{UID_ROOT}.9.{source.rpartition('.')[2]}"
        file = encapsulated_file(tmp_path / "made.dcm", source, VIDEO, uid)
    await dcmtk("storescu", *contexts, option, "-aec", server.ae_title, "127.0.0.1", server.port, file.path)
    await _assert_stored(server, file)


async def test_storescu_proposing_all_it_knows(server: Pacslite, dcmtk: Dcmtk, ct_slice: Path) -> None:
    """128 presentation contexts."""
    await dcmtk("storescu", "-aec", server.ae_title, "127.0.0.1", server.port, ct_slice)
    await dcmtk("storescu", "+C", "-aec", server.ae_title, "127.0.0.1", server.port, ct_slice)


@pytest.mark.parametrize("size", [4096, 16384, 65536, 131072])
async def test_pdu_sizes(
    server: Pacslite, dcmtk: Dcmtk, corpus_by_name: Mapping[str, CorpusFile], tmp_path: Path, size: int
) -> None:
    """Both ways, with an object of several hundred PDUs."""
    file = corpus_by_name["color3d_jpeg_baseline.dcm"]
    peer = ("-aec", server.ae_title, "127.0.0.1", server.port)
    await dcmtk("storescu", "-R", "-xy", "-pdu", size, "--max-send-pdu", size, *peer, file.path)
    await _assert_stored(server, file)
    ct = corpus_by_name["CT_small.dcm"]
    assert [answer.status for answer in await send(server.port, [ct])] == [0]
    study = f"StudyInstanceUID={ct.header().StudyInstanceUID}"
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", study)
    await dcmtk("getscu", "-S", "+B", "-pdu", size, "-od", tmp_path, *peer, *keys)
    (path,) = tmp_path.iterdir()
    received = read_file(path)
    assert received is not None
    assert received.data == ct.data


@pytest.mark.parametrize("maximum_length", [0, 4096, 10_000, 1 << 20])
async def test_receiver_with_and_without_limit(
    server: Pacslite, study: Sequence[Instance], maximum_length: int
) -> None:
    """0 is no limit (PS3.8 D.1); the requestor here fails when a PDU is longer than it said."""
    key = identifier("STUDY", StudyInstanceUID=study[0].study_uid)
    received, final = await fetch(
        server.port, key, [Context(3, CT_IMAGE, scp_role=True)], maximum_length=maximum_length
    )
    assert final.status == 0
    assert {item.sop_instance_uid: item.data for item in received} == {
        item.sop_instance_uid: item.data for item in study
    }


@pytest.mark.parametrize("syntax", ["-x=", "-xe", "-xb", "-xi", "-xd"])
@pytest.mark.parametrize(
    ("model", "level", "keys", "expected"),
    [
        ("-P", "PATIENT", ("PatientID=P4-0", "PatientName"), 1),
        ("-P", "STUDY", ("PatientID=P4-0", "StudyInstanceUID", "StudyDate", "AccessionNumber"), 1),
        ("-P", "SERIES", ("PatientID=P4-0", f"StudyInstanceUID={UID_ROOT}.4.0", "SeriesInstanceUID", "Modality"), 2),
        (
            "-P",
            "IMAGE",
            (
                "PatientID=P4-0",
                f"StudyInstanceUID={UID_ROOT}.4.0",
                f"SeriesInstanceUID={UID_ROOT}.4.0.0",
                "SOPInstanceUID",
            ),
            3,
        ),
        ("-O", "PATIENT", ("PatientID=P4-0", "PatientName"), 1),
        ("-O", "STUDY", ("PatientID=P4-0", "StudyInstanceUID", "StudyDate"), 1),
        ("-S", "STUDY", ("PatientID=P4-0", "StudyInstanceUID", "ModalitiesInStudy"), 1),
        ("-S", "STUDY", ("PatientName=load^number4*", "StudyInstanceUID"), 1),
        ("-S", "STUDY", (f"StudyInstanceUID={UID_ROOT}.4.0", "StudyDate=20240101-20240131"), 1),
        ("-S", "STUDY", (f"StudyInstanceUID={UID_ROOT}.4.0", "StudyDate=20240201-"), 0),
        ("-S", "SERIES", (f"StudyInstanceUID={UID_ROOT}.4.0", "SeriesInstanceUID", "SeriesNumber=2"), 1),
        (
            "-S",
            "IMAGE",
            (f"StudyInstanceUID={UID_ROOT}.4.0", f"SeriesInstanceUID={UID_ROOT}.4.0.1", "SOPInstanceUID"),
            3,
        ),
    ],
)
async def test_findscu_at_every_level(
    server: Pacslite,
    dcmtk: Dcmtk,
    study: Sequence[Instance],
    tmp_path: Path,
    syntax: str,
    model: str,
    level: str,
    keys: Sequence[str],
    expected: int,
) -> None:
    words = [word for key in (f"QueryRetrieveLevel={level}", *keys) for word in ("-k", key)]
    options = (model, syntax, "-X", "-od", tmp_path, "-aec", server.ae_title)
    await dcmtk("findscu", *options, "127.0.0.1", server.port, *words)
    answers = [dcmread(path, force=True) for path in sorted(tmp_path.glob("rsp*.dcm"))]
    assert len(answers) == expected
    for answer in answers:
        assert answer.QueryRetrieveLevel == level
        assert answer.RetrieveAETitle == server.ae_title
        for key in keys:
            assert key.partition("=")[0] in answer
        if "ModalitiesInStudy" in answer:
            assert answer.ModalitiesInStudy == "CT"


def _move_keys(level: str, study: Sequence[Instance]) -> tuple[list[str], list[str]]:
    """Keys of a retrieve at this level and the SOP Instance UIDs that it means."""
    first = study[0]
    keys = [f"QueryRetrieveLevel={level}"]
    if level == "PATIENT":
        return [*keys, f"PatientID={first.patient_id}"], [item.sop_instance_uid for item in study]
    keys.append(f"StudyInstanceUID={first.study_uid}")
    if level == "STUDY":
        return keys, [item.sop_instance_uid for item in study]
    keys.append(f"SeriesInstanceUID={first.series_uid}")
    series = [item.sop_instance_uid for item in study if item.series_uid == first.series_uid]
    if level == "SERIES":
        return keys, series
    return [*keys, "SOPInstanceUID=" + "\\".join(series[:2])], series[:2]


LEVELS = [("-P", "PATIENT"), ("-S", "STUDY"), ("-S", "SERIES"), ("-S", "IMAGE")]


@pytest.mark.parametrize(("model", "level"), LEVELS)
async def test_movescu_to_storescp(
    server: Pacslite, dcmtk: Dcmtk, study: Sequence[Instance], storescp: StoreScp, model: str, level: str
) -> None:
    storescp.clear()
    keys, expected = _move_keys(level, study)
    words = [word for key in keys if not (model == "-S" and "PatientID" in key) for word in ("-k", key)]
    await dcmtk("movescu", model, "-aec", server.ae_title, "-aem", "STORESCP", "127.0.0.1", server.port, *words)
    received = {file.sop_instance_uid: file.data for path in storescp.files() if (file := read_file(path))}
    assert received == {item.sop_instance_uid: item.data for item in study if item.sop_instance_uid in expected}


@pytest.mark.parametrize(("model", "level"), LEVELS)
async def test_getscu(
    server: Pacslite, dcmtk: Dcmtk, study: Sequence[Instance], tmp_path: Path, model: str, level: str
) -> None:
    keys, expected = _move_keys(level, study)
    words = [word for key in keys for word in ("-k", key)]
    await dcmtk("getscu", model, "+B", "-od", tmp_path, "-aec", server.ae_title, "127.0.0.1", server.port, *words)
    received = {file.sop_instance_uid: file.data for path in tmp_path.iterdir() if (file := read_file(path))}
    assert received == {item.sop_instance_uid: item.data for item in study if item.sop_instance_uid in expected}


async def test_movescu_to_dcmqrscp(server: Pacslite, dcmtk: Dcmtk, study: Sequence[Instance], qrscp: QrScp) -> None:
    words = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study[0].study_uid}")
    await dcmtk("movescu", "-S", "-aec", server.ae_title, "-aem", "QRSCP", "127.0.0.1", server.port, *words)
    assert len(qrscp.files()) == len(study)


async def test_movescu_to_orthanc(server: Pacslite, dcmtk: Dcmtk, study: Sequence[Instance], orthanc: Orthanc) -> None:
    words = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study[0].study_uid}")
    await dcmtk("movescu", "-S", "-aec", server.ae_title, "-aem", "ORTHANC", "127.0.0.1", server.port, *words)
    arrived = await asyncio.to_thread(orthanc.instances)
    assert sorted(arrived) == sorted(item.sop_instance_uid for item in study)


async def test_dcmqrscp_moves_to_us(
    server: Pacslite, dcmtk: Dcmtk, qrscp: QrScp, corpus_by_name: Mapping[str, CorpusFile]
) -> None:
    """The other way round: a foreign archive sends us what we ask it for."""
    file = corpus_by_name["MR_small.dcm"]
    await dcmtk("storescu", "-R", "-aec", "QRSCP", "127.0.0.1", qrscp.port, file.path)
    words = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={file.header().StudyInstanceUID}")
    await dcmtk(
        "movescu", "-S", "-aet", "PACSLITE", "-aec", "QRSCP", "-aem", "PACSLITE", "127.0.0.1", qrscp.port, *words
    )
    await _assert_stored(server, file)


async def test_findscu_cancels(server: Pacslite, dcmtk: Dcmtk, study: Sequence[Instance]) -> None:
    words = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID")
    await dcmtk("findscu", "-S", "--cancel", 1, "-aec", server.ae_title, "127.0.0.1", server.port, *words)
    assert await query(server.port, identifier("STUDY", StudyInstanceUID=study[0].study_uid))


async def _assert_stored(server: Pacslite, file: CorpusFile) -> None:
    header = file.header()
    keys = {keyword: str(header[keyword].value) for keyword in ("StudyInstanceUID", "SeriesInstanceUID")}
    syntaxes = dict.fromkeys((file.transfer_syntax_uid, *UNCOMPRESSED))
    offered = [replace(file, transfer_syntax_uid=uid) for uid in syntaxes]
    (received,), final = await fetch(
        server.port,
        identifier("IMAGE", SOPInstanceUID=file.sop_instance_uid, **keys),
        storage_contexts(offered, scp_role=True, first=3),
    )
    assert final.status == 0
    theirs, ours = parse_data_set(received.transfer_syntax_uid, received.data), dcmread(file.path, force=True)
    same_order = ExplicitVRBigEndian not in (received.transfer_syntax_uid, file.transfer_syntax_uid) or (
        received.transfer_syntax_uid == file.transfer_syntax_uid
    )
    for element in ours:
        if element.tag.is_private or element.tag.element == 0 or element.tag == 0xFFFCFFFC:
            continue  # DCMTK drops group lengths, which are retired, and trailing padding
        assert element.tag in theirs
        if element.VR not in ("OW", "SQ") or (same_order and element.VR != "SQ"):
            assert _plain(theirs, int(element.tag)) == _plain(ours, int(element.tag)), element


def _plain(data_set: Dataset, tag: int) -> object:
    value = data_set[tag].value
    return value.rstrip(b"\0") if isinstance(value, bytes) else value
