"""What is taken from a header: the columns of each level, and what is kept beside them."""

import random
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacslite.archive.kept import decode_kept, encode_kept
from pacslite.archive.keys import KEYS, Key, Level
from pacslite.archive.record import Record, columns_of, make_record
from pacslite.dataset.scan import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    DataSetError,
    HeaderScanner,
    scan_header,
)
from tests.support.wire import CT_IMAGE, encode_elements

CLASS = CT_IMAGE.encode() + b"\0" * (len(CT_IMAGE) % 2)
BASIC = [
    (0x00080016, "UI", CLASS),
    (0x00080018, "UI", b"1.2.3.4\0"),
    (0x0020000D, "UI", b"1.2\0"),
    (0x0020000E, "UI", b"1.2.3\0"),
]
Elements = list[tuple[int, str, bytes]]


def _encode(elements: Elements, syntax: str) -> bytes:
    if syntax in {EXPLICIT_VR_LITTLE_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN}:
        data = encode_elements(sorted(elements))
        if syntax == EXPLICIT_VR_LITTLE_ENDIAN:
            return data
        deflate = zlib.compressobj(wbits=-15)
        return deflate.compress(data) + deflate.flush()
    out = bytearray()
    for tag, vr, value in sorted(elements):
        if syntax == IMPLICIT_VR_LITTLE_ENDIAN:
            out += struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value
        else:
            swapped = value[::-1] if vr == "US" else value
            out += struct.pack(">HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + swapped
    return bytes(out)


def _record(elements: Elements, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> Record:
    scan = scan_header(_encode(BASIC + elements, syntax), syntax)
    return make_record(
        scan,
        sop_class_uid=CT_IMAGE,
        sop_instance_uid="1.2.3.4",
        transfer_syntax_uid=syntax,
        source_ae_title="SENDER",
    )


def _columns(record: Record, level: Level) -> dict[str, object]:
    upper = record.upper()
    values = (upper.patient, upper.study, upper.series, record.image)[level]
    return dict(zip(columns_of(level), values, strict=True))


@pytest.mark.parametrize(
    "syntax",
    [
        EXPLICIT_VR_LITTLE_ENDIAN,
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    ],
)
def test_every_encoding_gives_the_same_columns(syntax: str) -> None:
    record = _record(
        [
            (0x00100010, "PN", b"Doe^Jane"),
            (0x00100020, "LO", b"ID 7"),
            (0x00200013, "IS", b"12"),
            (0x00280010, "US", b"\x00\x02"),
            (0x00280011, "US", b"\x01\x00"),
            (0x00080023, "DA", b"20240131"),
        ],
        syntax,
    )
    image = _columns(record, Level.IMAGE)
    assert (image["rows_"], image["columns_"], image["instance_number_key"]) == (512, 1, 12)
    assert (image["content_date_key"], image["image_type"]) == ("20240131", None)
    patient = _columns(record, Level.PATIENT)
    assert (patient["patient_name"], patient["patient_id"]) == ("Doe^Jane", "ID 7")
    assert record.upper().identity == "ID 7\\"


@pytest.mark.parametrize(
    ("charset", "raw", "name"),
    [
        (b"ISO_IR 100", "Müller".encode("latin-1"), "Müller"),
        (b"ISO_IR 192", "山田^太郎".encode(), "山田^太郎"),
        (b"GB18030 ", "王^小东".encode("gb18030"), "王^小东"),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
    ],
)
def test_text_is_decoded(charset: bytes, raw: bytes, name: str) -> None:
    even = (charset + b" " * (len(charset) % 2), raw + b" " * (len(raw) % 2))
    record = _record([(0x00080005, "CS", even[0]), (0x00100010, "PN", even[1])])
    assert _columns(record, Level.PATIENT)["patient_name"] == name


MULTIPLE = [key for key in KEYS if key.multiple]


@pytest.mark.parametrize("key", MULTIPLE, ids=[key.keyword for key in MULTIPLE])
def test_each_of_several_values_is_without_its_padding(key: Key) -> None:
    """PS3.5 §6.2: spaces at the ends of a value are no part of it, wherever the value stands."""
    record = _record([(key.tag, key.vr, b" A B \\C \\ D\\\\E F  ")])
    columns = _columns(record, key.level)
    assert columns[key.column] == "A B\\C\\D\\\\E F"
    assert columns[key.match] == (columns[key.column] if key.match == key.column else "a b\\c\\d\\\\e f")


def test_a_backslash_of_one_value_keeps_the_spaces_around_it() -> None:
    columns = _columns(_record([(0x00104000, "LT", b" a \\ b  ")]), Level.PATIENT)
    assert columns["patient_comments"] == " a \\ b"


def test_patient_without_an_id_is_one_of_the_study() -> None:
    """Patient ID is Type 2: two unnamed patients are not one."""
    assert _record([]).upper().identity == "1.2"
    assert _record([(0x00100020, "LO", b"A "), (0x00100021, "LO", b"B ")]).upper().identity == "A\\B"


@given(st.lists(st.tuples(st.sampled_from([k for k in KEYS if k.kind != "U"]), st.binary(max_size=40)), max_size=8))
def test_any_bytes_are_survived(values: list[tuple[object, bytes]]) -> None:
    elements = {key.tag: (key.tag, key.vr, value + b" " * (len(value) % 2)) for key, value in values}  # type: ignore[attr-defined]
    elements.pop(0x00080016, None)
    record = _record(list(elements.values()))
    for level in Level:
        assert len(_columns(record, level)) == len(columns_of(level))


@pytest.mark.parametrize(
    ("tag", "left_out", "is_refused"),
    [
        (0x00091001, (), True),
        (0x0020000C, (), True),
        (0x00203000, (), False),  # of this series, whatever else
        (0x00203000, (0x0020000D, 0x0020000E), True),
        (0x00281201, (), False),
        (0x00281201, (0x0020000D, 0x0020000E), False),  # of no study (PS3.3 §A.43, say), and that is sure
    ],
)
def test_place_is_not_guessed_where_the_scan_did_not_come(
    tag: int, left_out: tuple[int, ...], is_refused: bool
) -> None:
    elements: Elements = [element for element in BASIC if element[0] not in left_out]
    scan = HeaderScanner(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, inflate_limit=1 << 17)
    scan.feed(_encode([*elements, (tag, "OB", bytes(1 << 18))], DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN))
    assert scan.truncated

    def record() -> Record:
        return make_record(
            scan,
            sop_class_uid=CT_IMAGE,
            sop_instance_uid="1.2.3.4",
            transfer_syntax_uid=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
            source_ae_title="SENDER",
        )

    if is_refused:
        with pytest.raises(DataSetError, match="before the UIDs") as refusal:
            record()
        assert refusal.value.status == 0xC000
    else:
        study = record().series_key.study_instance_uid
        assert study.startswith("2.25.") if left_out else study == "1.2"


def _kept(elements: Elements, level: Level, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> bytes:
    return encode_kept(scan_header(_encode(BASIC + elements, syntax), syntax), level)


SLICE = (0x00181151, "IS", b"120 ")  # X-Ray Tube Current: of the image
ID_TYPE = (0x00100022, "CS", b"TEXT")  # Type of Patient ID: of the patient
MODEL = (0x00081090, "LO", b"Model")


@pytest.mark.parametrize("syntax", [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN])
def test_elements_are_kept_as_received_at_their_level(syntax: str) -> None:
    elements: Elements = [SLICE, ID_TYPE, (0x00080005, "CS", b"ISO_IR 100")]
    for level, element in ((Level.IMAGE, SLICE), (Level.PATIENT, ID_TYPE)):
        kept = decode_kept(_kept(elements, level, syntax))
        assert kept.elements == _encode([element], syntax)
        assert (kept.transfer_syntax_uid, kept.charsets) == (syntax, ("ISO_IR 100",))


def test_columns_and_private_elements_are_not_kept() -> None:
    kept = decode_kept(_kept([SLICE, (0x00200013, "IS", b"12"), (0x00191010, "LO", b"mine")], Level.IMAGE))
    assert kept.elements == encode_elements([SLICE])


@pytest.mark.parametrize("syntax", [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN])
def test_long_elements_are_kept_and_take_little_room(syntax: str) -> None:
    """Lookup tables, functional groups, overlays: whatever a query may ask for, up to what the scanner keeps."""
    lookup_table = (0x00281201, "OW", bytes(range(256)) * 256)
    too_long = (0x00281202, "OW", bytes(65_538))
    overlay = (0x60003000, "OW", bytes(32_768))
    value = _kept([SLICE, lookup_table, too_long, overlay], Level.IMAGE, syntax)
    assert decode_kept(value).elements == _encode([SLICE, lookup_table, overlay], syntax)
    assert len(value) < 10_000


def test_what_is_kept_is_bounded() -> None:
    """Of a header made to fill the index the shortest elements are kept, those that a query asks for."""
    noise = random.Random(7).randbytes(65_000)
    many = [(0x00182000 + 2 * n, "UN", noise) for n in range(40)]
    kept = decode_kept(_kept([SLICE, *many, (0x00201041, "DS", b"1.5 ")], Level.IMAGE))
    assert len(kept.elements) <= 1 << 20
    assert kept.elements == encode_elements([SLICE, *many[:16], (0x00201041, "DS", b"1.5 ")])
