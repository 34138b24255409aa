"""Names in the character sets of PS3.5 Annexes H to K, each stored in several: found from each other, shown to peers.

The bytes with escape sequences are typed from the annexes; Python's codecs make the others. None is made by the server.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE

from tests.support.exchange import query, send_data_sets
from tests.support.peers import Dcmtk
from tests.support.processes import Pacslite
from tests.support.wire import CT_IMAGE, STUDY_ROOT_FIND, encode_elements

ROOT = "1.2.826.0.1.3680043.8.498.79"
UTF_8 = "ISO_IR 192"


def _by_codec(name: str, **codecs: str) -> dict[str, bytes]:
    return {term: name.encode(codec) for term, codec in codecs.items()}


# Name, and its bytes by Specific Character Set
NAMES: Mapping[str, Mapping[str, bytes]] = {
    "Yamada^Tarou=山田^太郎=やまだ^たろう": {  # H.3.1
        "\\ISO 2022 IR 87": b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        UTF_8: "Yamada^Tarou=山田^太郎=やまだ^たろう".encode(),
        "GB18030": "Yamada^Tarou=山田^太郎=やまだ^たろう".encode("gb18030"),
    },
    "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう": {  # H.3.2
        "ISO 2022 IR 13\\ISO 2022 IR 87": b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J"
        b"=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        UTF_8: "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう".encode(),
    },
    "Hong^Gildong=洪^吉洞=홍^길동": {  # I.2
        "\\ISO 2022 IR 149": b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7"
        b"=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        UTF_8: "Hong^Gildong=洪^吉洞=홍^길동".encode(),
        "GB18030": "Hong^Gildong=洪^吉洞=홍^길동".encode("gb18030"),
    },
    "Wang^XiaoDong=王^小東": {  # J.1
        UTF_8: b"Wang^XiaoDong=\xe7\x8e\x8b^\xe5\xb0\x8f\xe6\x9d\xb1",
        "GB18030": "Wang^XiaoDong=王^小東".encode("gb18030"),
        "GBK": "Wang^XiaoDong=王^小東".encode("gbk"),
    },
    "Wang^XiaoDong=王^小东": {  # J.2, J.4
        "GB18030": b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab",
        "GBK": b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab",
        UTF_8: "Wang^XiaoDong=王^小东".encode(),
    },
    "Zhang^XiaoDong=张^小东": {  # K.2
        "\\ISO 2022 IR 58": b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab",
        "GBK": "Zhang^XiaoDong=张^小东".encode("gbk"),
        UTF_8: "Zhang^XiaoDong=张^小东".encode(),
    },
    "Buc^Jérôme": {
        "\\ISO 2022 IR 100": b"Buc^\x1b-AJ\xe9r\xf4me",
        **_by_codec("Buc^Jérôme", **{"ISO_IR 100": "latin-1", UTF_8: "utf-8", "ISO_IR 148": "iso8859-9"}),
    },
    "Διονυσιος": {
        "\\ISO 2022 IR 126": b"\x1b-F\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2",
        **_by_codec("Διονυσιος", **{"ISO_IR 126": "iso8859-7", UTF_8: "utf-8", "GB18030": "gb18030"}),
    },
    "Люксембург": _by_codec("Люксембург", **{"ISO_IR 144": "iso8859-5", UTF_8: "utf-8", "GB18030": "gb18030"}),
    "قباني^لنزار": _by_codec("قباني^لنزار", **{"ISO_IR 127": "iso8859-6", UTF_8: "utf-8"}),
    "שרון^דבורה": _by_codec("שרון^דבורה", **{"ISO_IR 138": "iso8859-8", UTF_8: "utf-8"}),
    "นามสกุล^ชื่อ": _by_codec("นามสกุล^ชื่อ", **{"ISO_IR 166": "tis-620", UTF_8: "utf-8"}),
}
CASES = [pytest.param(name, term, id=f"{name}-{term}") for name, terms in NAMES.items() for term in terms]


def _even(raw: bytes, padding: bytes = b" ") -> bytes:
    return raw + padding * (len(raw) % 2)


def _keys(name: str, term: str) -> bytes:
    """An identifier with the bytes of the name as they are."""
    return encode_elements(
        [
            (0x00080005, "CS", _even(term.encode())),
            (0x00080052, "CS", b"STUDY "),
            (0x00100010, "PN", _even(NAMES[name][term])),
            (0x0020000D, "UI", b""),
        ]
    )


def _instance(patient_id: str, term: str, name: bytes, study: str) -> bytes:
    return encode_elements(
        [
            (0x00080005, "CS", _even(term.encode())),
            (0x00080016, "UI", _even(CT_IMAGE.encode(), b"\0")),
            (0x00080018, "UI", _even(f"{study}.1.1".encode(), b"\0")),
            (0x00100010, "PN", _even(name)),
            (0x00100020, "LO", _even(patient_id.encode())),
            (0x0020000D, "UI", _even(study.encode(), b"\0")),
            (0x0020000E, "UI", _even(f"{study}.1".encode(), b"\0")),
        ]
    )


def _studies(name: str) -> list[str]:
    number = list(NAMES).index(name)
    return [f"{ROOT}.{number}.{at}" for at in range(len(NAMES[name]))]


@pytest.fixture(scope="module", autouse=True)
def _stored(server: Pacslite) -> None:
    """Each name once in each of its sets; each is a patient of its own, or the first would be all."""
    instances = []
    for number, terms in enumerate(NAMES.values()):
        for at, (term, raw) in enumerate(terms.items()):
            study = f"{ROOT}.{number}.{at}"
            instances.append((CT_IMAGE, f"{study}.1.1", _instance(study[-9:], term, raw, study)))
    asyncio.run(send_data_sets(server.port, instances))


@pytest.mark.parametrize(("name", "term"), CASES)
async def test_found_by_the_bytes_of_any_set(server: Pacslite, name: str, term: str) -> None:
    """Whatever set it was stored in; and pydicom reads what is answered, in the set that was asked for."""
    answers = await query(server.port, _keys(name, term))
    assert sorted(str(answer.StudyInstanceUID) for answer in answers) == _studies(name)
    for answer in answers:
        assert str(answer.PatientName).replace("\x1b$)A", "") == name  # pydicom leaves that sequence where it was
        charset = answer.SpecificCharacterSet
        assert (charset if isinstance(charset, str) else "\\".join(charset)) == term


@pytest.mark.parametrize(("name", "term"), CASES)
def test_pynetdicom_finds_and_reads_it(server: Pacslite, name: str, term: str) -> None:
    keys = Dataset()
    keys.SpecificCharacterSet = term.split("\\")
    keys.QueryRetrieveLevel = "STUDY"
    keys.PatientName = name
    keys.StudyInstanceUID = ""
    ae = AE(ae_title="PYNETDICOM")
    ae.add_requested_context(STUDY_ROOT_FIND)
    association = ae.associate("127.0.0.1", server.port, ae_title=server.ae_title)
    answers = list(association.send_c_find(keys, STUDY_ROOT_FIND))
    association.release()
    assert [status.Status for status, _ in answers] == [0xFF00] * len(NAMES[name]) + [0]
    found = [answer for _, answer in answers if answer is not None]
    for answer in found:
        answer.decode()
    assert {str(answer.PatientName).replace("\x1b$)A", "") for answer in found} == {name}
    assert sorted(str(answer.StudyInstanceUID) for answer in found) == _studies(name)


@pytest.mark.parametrize(("name", "term"), CASES)
async def test_findscu_finds_it_and_dcmdump_reads_it(
    server: Pacslite, dcmtk: Dcmtk, tmp_path: Path, name: str, term: str
) -> None:
    """DCMTK converts what is answered from the set that it is said to be in."""
    (tmp_path / "keys.dcm").write_bytes(_keys(name, term))
    peer = ("-aec", server.ae_title, "127.0.0.1", server.port)
    await dcmtk("findscu", "-S", "-X", "-od", tmp_path, *peer, tmp_path / "keys.dcm")
    answers = sorted(tmp_path.glob("rsp*.dcm"))
    assert len(answers) == len(NAMES[name])
    for answer in answers:
        if "ISO 2022 IR 87" in term:  # not in the C library's conversions, which Debian's DCMTK uses
            assert NAMES[name][term] in answer.read_bytes()
        else:
            shown = await dcmtk("dcmdump", "+U8", "+P", "PatientName", answer)
            assert f"[{name}]" in shown, shown.output
