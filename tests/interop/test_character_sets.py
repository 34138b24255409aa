"""pydicom's character set samples are stored and found by their names, in whatever set the query is written."""

import asyncio
from pathlib import Path

import pytest
from pydicom.valuerep import PersonName

from tests.support.corpus import CorpusFile, corpus
from tests.support.exchange import identifier, query, send
from tests.support.peers import Dcmtk
from tests.support.processes import Pacslite
from tests.support.wire import encode_elements

SAMPLES = [file for file in corpus() if file.path.parent.name == "charset_files"]


def _name(file: CorpusFile) -> PersonName:
    name = file.header().PatientName
    assert isinstance(name, PersonName)
    return name


def _keys(file: CorpusFile, name: str) -> bytes:
    """A query in UTF-8 that tells this sample's study from the others."""
    uid = str(file.header().StudyInstanceUID)
    return identifier("STUDY", SpecificCharacterSet="ISO_IR 192", PatientName=name, StudyInstanceUID=uid)


@pytest.fixture(scope="module", autouse=True)
def _stored(server: Pacslite) -> None:
    answers = asyncio.run(send(server.port, SAMPLES))
    assert [answer.status for answer in answers] == [0] * len(SAMPLES)


def test_samples_are_there() -> None:
    assert len(SAMPLES) >= 15


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.name)
async def test_found_by_name_in_utf8(server: Pacslite, file: CorpusFile) -> None:
    (match,) = await query(server.port, _keys(file, str(_name(file))))
    assert str(match.PatientName) == str(_name(file))


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.name)
async def test_found_by_name_in_its_own_set(server: Pacslite, file: CorpusFile) -> None:
    """The bytes of the name as they stand in the file, with its Specific Character Set."""
    header = file.header()
    charset = header.get("SpecificCharacterSet", "")
    text = charset if isinstance(charset, str) else "\\".join(charset)
    raw = _name(file).original_string
    elements = [
        (0x00080005, "CS", text.encode() + b" " * (len(text) % 2)),
        (0x00080052, "CS", b"STUDY "),
        (0x00100010, "PN", raw + b" " * (len(raw) % 2)),
        (0x0020000D, "UI", b""),
    ]
    found = await query(server.port, encode_elements(elements))
    assert str(header.StudyInstanceUID) in [str(match.StudyInstanceUID) for match in found]
    assert str(_name(file)) in [str(match.PatientName) for match in found]


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.name)
async def test_found_by_the_start_of_any_component_group(server: Pacslite, file: CorpusFile) -> None:
    for group in str(_name(file)).split("="):
        (match,) = await query(server.port, _keys(file, group[:2] + "*"))
        assert str(match.PatientName) == str(_name(file)), group


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("chrFren.dcm", "buc^jerome"),  # case and accents are folded, PS3.4 C.2.2.2.1 leaves it to us for PN
        ("chrGerm.dcm", "AENEAS*"),
        ("chrGerm.dcm", "aneas^rudiger"),
        ("chrGreek.dcm", "διονυσιος"),
        ("chrH32.dcm", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        ("chrH32.dcm", "ヤマダ^タロウ"),  # full width finds half width
        ("chrRuss.dcm", "люк*"),
    ],
)
async def test_folded_names_match(server: Pacslite, name: str, key: str) -> None:
    (file,) = (sample for sample in SAMPLES if sample.name == name)
    if key == "AENEAS*":
        assert await query(server.port, _keys(file, key)) == []  # Ä is A with a mark, not AE
        return
    (match,) = await query(server.port, _keys(file, key))
    assert str(match.PatientName) == str(_name(file))


async def test_other_names_do_not_match(server: Pacslite) -> None:
    for file in SAMPLES:
        assert await query(server.port, _keys(file, "Nobody*")) == []


async def test_findscu_gets_the_name_in_utf8(server: Pacslite, dcmtk: Dcmtk, tmp_path: Path) -> None:
    keys = ("SpecificCharacterSet=ISO_IR 192", "QueryRetrieveLevel=STUDY", "PatientName=山田*", "StudyInstanceUID")
    words = [word for key in keys for word in ("-k", key)]
    await dcmtk("findscu", "-S", "-X", "-od", tmp_path, "-aec", server.ae_title, "127.0.0.1", server.port, *words)
    answers = [path.read_bytes() for path in tmp_path.glob("rsp*.dcm")]
    assert answers
    assert all("山田^太郎=やまだ^たろう".encode() in answer for answer in answers)
