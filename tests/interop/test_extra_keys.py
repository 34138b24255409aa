"""Keys by configuration, asked for by DCMTK: with values from the start, and given to what was stored before."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from tests.support.corpus import CorpusFile
from tests.support.exchange import send, send_instances
from tests.support.instances import Instance, make_instance
from tests.support.peers import Dcmtk
from tests.support.processes import Pacslite, ServerFactory
from tests.support.storing import rows
from tests.support.wire import encode_elements

FILES = ("CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm")
KEYS = ["Manufacturer", "KVP", "EchoTime@SERIES", "SamplesPerPixel", "(0043,xx27,GEMS_PARM_01):SH@STUDY"]


@pytest.fixture(scope="module")
def settings() -> Mapping[str, Mapping[str, object]]:
    return {"query": {"extra_keys": KEYS}}


@pytest.fixture(scope="module", autouse=True)
def stored(server: Pacslite, corpus_by_name: Mapping[str, CorpusFile]) -> None:
    answers = asyncio.run(send(server.port, [corpus_by_name[name] for name in FILES]))
    assert {answer.status for answer in answers} == {0}


async def findscu(dcmtk: Dcmtk, server: Pacslite, to: Path, level: str, *keys: str) -> Sequence[Dataset]:
    words = [word for key in (f"QueryRetrieveLevel={level}", *keys) for word in ("-k", key)]
    for path in to.glob("rsp*.dcm"):
        path.unlink()
    options = ("-v", "-S", "-X", "-od", to, "-aec", server.ae_title)
    done = await dcmtk("findscu", *options, "127.0.0.1", server.port, *words)
    assert "0xff01" not in (done.output).lower()
    return [dcmread(path, force=True) for path in sorted(to.glob("rsp*.dcm"))]


@pytest.mark.parametrize(
    ("level", "keys", "expected"),
    [
        ("STUDY", ["0043,0010=GEMS_PARM_01", "0043,1027=/1.0*", "StudyInstanceUID"], {"CT_small.dcm"}),
        ("STUDY", ["0043,0010=GEMS_PARM_01", "0043,1027=/2.0*", "StudyInstanceUID"], set()),
        ("SERIES", ["StudyInstanceUID={MR}", "Manufacturer=TOSH*", "SeriesInstanceUID"], {"MR_small.dcm"}),
        ("SERIES", ["StudyInstanceUID={MR}", "Manufacturer=GE*", "SeriesInstanceUID"], set()),
        ("SERIES", ["StudyInstanceUID={MR}", "EchoTime=240", "SeriesInstanceUID"], {"MR_small.dcm"}),
        ("SERIES", ["StudyInstanceUID={MR}", "EchoTime=241", "SeriesInstanceUID"], set()),
        ("IMAGE", ["{CT_SERIES}", "KVP=120.0", "SOPInstanceUID"], {"CT_small.dcm"}),
        ("IMAGE", ["{CT_SERIES}", "KVP=100", "SOPInstanceUID"], set()),
        ("IMAGE", ["{CT_SERIES}", "SamplesPerPixel=1", "SOPInstanceUID"], {"CT_small.dcm"}),
        ("IMAGE", ["{CT_SERIES}", "SamplesPerPixel=3", "SOPInstanceUID"], set()),
    ],
)
async def test_findscu_finds_by_them(
    server: Pacslite,
    dcmtk: Dcmtk,
    tmp_path: Path,
    corpus_by_name: Mapping[str, CorpusFile],
    level: str,
    keys: Sequence[str],
    expected: set[str],
) -> None:
    ct, mr = corpus_by_name["CT_small.dcm"].header(), corpus_by_name["MR_small.dcm"].header()
    words: list[str] = []
    for key in keys:
        if key == "{CT_SERIES}":
            words += [f"StudyInstanceUID={ct.StudyInstanceUID}", f"SeriesInstanceUID={ct.SeriesInstanceUID}"]
        else:
            words.append(key.replace("{MR}", str(mr.StudyInstanceUID)))
    answers = await findscu(dcmtk, server, tmp_path, level, *words)
    unique = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}[level]
    found = {str(answer[unique].value) for answer in answers}
    assert found == {str(corpus_by_name[name].header()[unique].value) for name in expected}
    for answer in answers:
        for key in keys:
            keyword, _, asked = key.partition("=")
            if asked and "," not in keyword and "UID" not in keyword:
                assert str(answer[keyword].value)
            elif keyword == "0043,1027":
                assert answer.private_block(0x0043, "GEMS_PARM_01")[0x27].value == "/1.0:1"


def made_by(number: int) -> Instance:
    """A slice of one of a hundred studies, with attributes that are no keys by themselves."""
    instance = make_instance(number, seed=8, study=number % 100, size=200)
    more = encode_elements(
        [(0x00080022, "DA", b"%d" % (20240101 + number % 7)), (0x00080070, "LO", b"Maker %02d" % (number % 100))]
    )
    return replace(instance, data=instance.data.replace(_NEXT_ELEMENT, more + _NEXT_ELEMENT, 1))


_NEXT_ELEMENT = b"\x08\x00\x30\x00TM"


async def test_key_for_what_was_stored_before_and_a_kill(
    new_server: ServerFactory, dcmtk: Dcmtk, tmp_path: Path
) -> None:
    """Killed again and again while it reads, in the end it has found everything."""
    plain = new_server()
    async with plain.running():
        await send_instances(plain.port, [made_by(number) for number in range(1000)])
    keyed = new_server(plain.data_dir, query={"extra_keys": ["AcquisitionDate", "(0008,0070)@STUDY"]})
    for _ in range(4):
        keyed.start()
        keyed.kill()
    async with keyed.running():
        await send_instances(keyed.port, [made_by(1000)])
        async with asyncio.timeout(60):
            while rows(keyed.data_dir, "SELECT count(*) FROM extra_key WHERE state = 'complete'") != [(2,)]:
                await asyncio.sleep(0.05)
        told = await keyed.tool("stats", "--data-dir", keyed.data_dir)
        assert "extra key AcquisitionDate@IMAGE: complete" in told
        assert "extra key Manufacturer@STUDY: complete" in told
        (answer,) = await findscu(dcmtk, keyed, tmp_path, "STUDY", "Manufacturer=Maker 07", "StudyInstanceUID")
        assert answer.StudyInstanceUID == made_by(7).study_uid
        first = made_by(0)  # 0, 100, 200, to 1000
        unique = (f"StudyInstanceUID={first.study_uid}", f"SeriesInstanceUID={first.series_uid}", "SOPInstanceUID")
        found = await findscu(dcmtk, keyed, tmp_path, "IMAGE", *unique, "AcquisitionDate=20240106-")
        expected = {made_by(n).sop_instance_uid for n in range(0, 1001, 100) if n % 7 >= 5}
        assert {str(answer.SOPInstanceUID) for answer in found} == expected
    await keyed.tool("check", "--deep", "--data-dir", keyed.data_dir)


@pytest.mark.parametrize(
    ("entry", "said"),
    [("Manufakturer", "no such attribute"), ("PatientID", "a key of the index already"), ("PixelData", "can ask for")],
)
def test_server_does_not_start_with_what_is_no_key(tmp_path: Path, entry: str, said: str) -> None:
    file = tmp_path / "pacslite.toml"
    file.write_text(f'[query]\nextra_keys = ["KVP", "{entry}"]\n')
    words = [sys.executable, "-m", "pacslite", "serve", "--config", str(file), "--data-dir", str(tmp_path / "data")]
    done = subprocess.run([*words, "--port", "0"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert f"{file}:2: query.extra_keys" in done.stderr
    assert entry in done.stderr
    assert said in done.stderr
