"""Identifiers: what is decoded, what is refused, what is encoded; pydicom reads and writes the other side."""

import io
import random
import struct
import warnings
import zlib
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from pacslite.dataset.decode import swap_bytes
from pacslite.dataset.encode import (
    Attribute,
    Identifier,
    IdentifierEncoder,
    IdentifierError,
    convert_elements,
    decode_identifier,
)
from pacslite.dataset.scan import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

SYNTAXES = (
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)
LEVEL = bytes.fromhex("08005200") + b"CS\x06\x00STUDY "
ITEM = bytes.fromhex("FEFF00E0FFFFFFFF")
ITEM_END = bytes.fromhex("FEFF0DE000000000")
SEQUENCE_END = bytes.fromhex("FEFFDDE000000000")
CODES = 0x00081032  # Procedure Code Sequence
CODE_VALUE = bytes.fromhex("08000001") + b"SH\x02\x0042"


def sequence(vr: bytes, content: bytes, *, is_undefined: bool) -> bytes:
    """Encode Procedure Code Sequence."""
    header = struct.pack("<HH2sHI", 0x0008, 0x1032, vr, 0, 0xFFFFFFFF if is_undefined else len(content))
    return header + content + (SEQUENCE_END if is_undefined else b"")


def defined_item(content: bytes) -> bytes:
    """Encode an item of defined length."""
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


IMPLICIT_CODE = bytes.fromhex("08000001 02000000") + b"42"


@pytest.mark.parametrize("vr", [b"SQ", b"UN"])
@pytest.mark.parametrize("is_undefined", [True, False])
@pytest.mark.parametrize("item", [ITEM + CODE_VALUE + ITEM_END, defined_item(CODE_VALUE)])
def test_a_sequence_is_decoded(vr: bytes, is_undefined: bool, item: bytes) -> None:
    if vr == b"UN":  # PS3.5 §6.2.2: implicit within
        item = ITEM + IMPLICIT_CODE + ITEM_END if item.startswith(ITEM) else defined_item(IMPLICIT_CODE)
    data = LEVEL + sequence(vr, item + item, is_undefined=is_undefined)
    code = Identifier({0x00080100: Attribute("SH", b"42")})
    assert decode_identifier(data, EXPLICIT_VR_LITTLE_ENDIAN) == {
        0x00080052: Attribute("CS", b"STUDY "),
        CODES: Attribute("SQ", [code, code]),
    }


@pytest.mark.parametrize(
    ("data", "syntax"),
    [
        (LEVEL, EXPLICIT_VR_LITTLE_ENDIAN),
        (bytes.fromhex("08005200 06000000") + b"STUDY ", IMPLICIT_VR_LITTLE_ENDIAN),
        (bytes.fromhex("00080052") + b"CS\x00\x06STUDY ", EXPLICIT_VR_BIG_ENDIAN),
        (zlib.compress(LEVEL, wbits=-15), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
        # the other encoding than promised
        (bytes.fromhex("08005200 06000000") + b"STUDY ", EXPLICIT_VR_LITTLE_ENDIAN),
        (LEVEL, IMPLICIT_VR_LITTLE_ENDIAN),
        (bytes.fromhex("02001000") + b"UI\0\0" + LEVEL, IMPLICIT_VR_LITTLE_ENDIAN),
        # group lengths (PS3.4 §C.4.1.1.3), a command set or a file's header sent along, padding
        (bytes.fromhex("08000000") + b"UL\x04\x00\x0e\0\0\0" + LEVEL, EXPLICIT_VR_LITTLE_ENDIAN),
        (bytes.fromhex("02001000") + b"UI\x02\x001\0" + LEVEL, EXPLICIT_VR_LITTLE_ENDIAN),
        (bytes.fromhex("00000000 04000000 00000000") + LEVEL, EXPLICIT_VR_LITTLE_ENDIAN),
        (LEVEL + bytes.fromhex("02001000") + b"UI\x02\x001\0", EXPLICIT_VR_LITTLE_ENDIAN),
        (LEVEL + bytes(6), EXPLICIT_VR_LITTLE_ENDIAN),
    ],
)
def test_the_level_is_decoded(data: bytes, syntax: str) -> None:
    assert decode_identifier(data, syntax) == {0x00080052: Attribute("CS", b"STUDY ")}


PADDING = bytes.fromhex("28002001 02000000 00FC")  # Pixel Padding Value, US or SS
SIGNED = bytes.fromhex("28000301 02000000 0100")  # Pixel Representation


@pytest.mark.parametrize(
    ("outer", "inner", "elsewhere", "vrs"),
    [
        (b"", b"", False, ("US", "US")),
        (b"", b"", True, ("SS", "SS")),
        (SIGNED, b"", False, ("SS", "SS")),
        (b"", SIGNED, False, ("US", "SS")),  # of an icon, say
        (SIGNED.replace(b"\1\0", b"\0\0"), SIGNED, True, ("US", "SS")),
    ],
)
def test_pixel_representation_says_which_sign(
    outer: bytes, inner: bytes, elsewhere: bool, vrs: tuple[str, str]
) -> None:
    icon = struct.pack("<HHI", 0x0088, 0x0200, len(inner) + 18) + defined_item(inner + PADDING)
    behind = bytes.fromhex("09000110 02000000 00FC")
    data = outer + icon + PADDING + behind
    found = decode_identifier(data, IMPLICIT_VR_LITTLE_ENDIAN, signed=elsewhere)
    assert isinstance(found[0x00880200].value, list)
    assert (found[0x00280120].vr, found[0x00880200].value[0][0x00280120].vr) == vrs
    assert found[0x00091001].vr == "UN"


def test_a_length_that_looks_like_a_vr_is_a_length() -> None:
    """What begins with a list of some hundred UIDs, as a retrieve of images in implicit VR without a character set."""
    capitals = range(0x41, 0x5B)
    for length in [low | high << 8 for high in capitals for low in capitals if not low & 1]:
        for uids in (b"\\".join([b"1.2.840.113619.1"] * 2000)[:length], b"1" * length):
            data = struct.pack("<HHI", 0x0008, 0x0018, length) + uids + bytes.fromhex("08005200 06000000") + b"IMAGE "
            decoded = decode_identifier(data, IMPLICIT_VR_LITTLE_ENDIAN)
            assert decoded == {0x00080018: Attribute("UI", uids), 0x00080052: Attribute("CS", b"IMAGE ")}


@pytest.mark.parametrize("syntax", SYNTAXES[:3])
def test_nothing_is_an_empty_identifier(syntax: str) -> None:
    assert decode_identifier(b"", syntax) == {}


@pytest.mark.parametrize(
    ("data", "status", "comment"),
    [
        (LEVEL + LEVEL, 0xA900, "(0008,0052) occurs twice"),
        (LEVEL[:-1], 0xC000, "what begins at byte 8 ends 1 bytes too late"),
        (LEVEL + LEVEL[:7], 0xC000, "identifier ends inside the element at byte 14"),
        (LEVEL + SEQUENCE_END, 0xC000, "(FFFE,E0DD) at byte 14"),
        (sequence(b"SQ", CODE_VALUE, is_undefined=False), 0xC000, "(0008,0100) between items at byte 12"),
        (sequence(b"SQ", SEQUENCE_END, is_undefined=False), 0xC000, "(FFFE,E0DD) between items at byte 12"),
        (sequence(b"SQ", ITEM + CODE_VALUE, is_undefined=False), 0xC000, "item without its delimiter before byte 30"),
        (
            sequence(b"SQ", ITEM + ITEM_END, is_undefined=True)[:-8],
            0xC000,
            "sequence without its delimiter before byte 28",
        ),
        (bytes.fromhex("08001200") + b"OB\0\0" + b"\xff" * 4, 0xC000, "undefined length of VR OB before byte 12"),
        (b"GET / HTTP/1.1\r\n\r\n", 0xC000, "what begins at byte 8 ends 1414012965 bytes too late"),
    ],
)
def test_what_is_no_identifier_is_refused(data: bytes, status: int, comment: str) -> None:
    with pytest.raises(IdentifierError) as refusal:
        decode_identifier(data, EXPLICIT_VR_LITTLE_ENDIAN)
    assert (refusal.value.status, str(refusal.value)) == (status, comment)
    assert len(comment) <= 64


def test_depth_has_its_limit() -> None:
    for depth, fits in ((16, True), (17, False)):
        data = b""
        for _ in range(depth):
            data = sequence(b"SQ", defined_item(data), is_undefined=False)
        if fits:
            decode_identifier(data, EXPLICIT_VR_LITTLE_ENDIAN)
            continue
        with pytest.raises(IdentifierError) as refusal:
            decode_identifier(data, EXPLICIT_VR_LITTLE_ENDIAN)
        assert refusal.value.status == 0xA900


@pytest.mark.parametrize(
    ("charset", "charsets"),
    [(b"ISO_IR 100", ("ISO_IR 100",)), (b"\\ISO 2022 IR 87", ("", "ISO 2022 IR 87")), (b"", ())],
)
def test_character_sets_are_told(charset: bytes, charsets: tuple[str, ...]) -> None:
    encoded = IdentifierEncoder(EXPLICIT_VR_LITTLE_ENDIAN).element(0x00080005, "CS", charset)
    assert decode_identifier(encoded, EXPLICIT_VR_LITTLE_ENDIAN).charsets == charsets
    assert decode_identifier(b"", EXPLICIT_VR_LITTLE_ENDIAN).charsets == ()


@pytest.mark.parametrize(
    ("syntax", "tag", "vr", "value", "encoded"),
    [
        (IMPLICIT_VR_LITTLE_ENDIAN, 0x00080060, "CS", b"CT", "08006000 02000000 4354"),
        (EXPLICIT_VR_LITTLE_ENDIAN, 0x00080060, "CS", b"CT", "08006000 4353 0200 4354"),
        (EXPLICIT_VR_BIG_ENDIAN, 0x00080060, "CS", b"CT", "00080060 4353 0002 4354"),
        (EXPLICIT_VR_LITTLE_ENDIAN, 0x00081120, "UT", b"CT", "08002011 5554 0000 02000000 4354"),
        # §6.2: padding to even length
        (EXPLICIT_VR_LITTLE_ENDIAN, 0x00100020, "LO", b"ID1", "10002000 4C4F 0400 49443120"),
        (EXPLICIT_VR_LITTLE_ENDIAN, 0x0020000D, "UI", b"1.2", "20000D00 5549 0400 312E3200"),
        (EXPLICIT_VR_LITTLE_ENDIAN, 0x00420011, "OB", b"%", "42001100 4F42 0000 02000000 2500"),
        # §7.3: values are given in little endian
        (EXPLICIT_VR_LITTLE_ENDIAN, 0x00280010, "US", b"\x00\x02", "28001000 5553 0200 0002"),
        (EXPLICIT_VR_BIG_ENDIAN, 0x00280010, "US", b"\x00\x02", "00280010 5553 0002 0200"),
        (EXPLICIT_VR_BIG_ENDIAN, 0x00280009, "AT", b"\x18\x00\x63\x10", "00280009 4154 0004 00181063"),
    ],
)
def test_an_element_is_encoded(syntax: str, tag: int, vr: str, value: bytes, encoded: str) -> None:
    assert IdentifierEncoder(syntax).element(tag, vr, value) == bytes.fromhex(encoded)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_long_list_of_uids_is_encoded(syntax: str) -> None:
    """PS3.5 §6.2.2: a value too long for a 16-bit length becomes UN; Failed SOP Instance UID List is such."""
    uids = b"\\".join(b"1.2.3.%d" % number for number in range(10_000))
    assert len(uids) > 65534
    encoder = IdentifierEncoder(syntax)
    encoded = encoder.data_set(encoder.element(0x00080058, "UI", uids))
    assert len(encoded) % 2 == 0
    attribute = decode_identifier(encoded, syntax)[0x00080058]
    assert isinstance(attribute.value, bytes)
    assert attribute.value.rstrip(b"\0") == uids
    if syntax != DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        element = read_with_pydicom(encoded, syntax)[0x00080058]
        is_known = syntax == IMPLICIT_VR_LITTLE_ENDIAN  # pydicom leaves UN as it is
        assert len(element.value if is_known else element.value.split(b"\\")) == 10_000


def read_with_pydicom(data: bytes, syntax: str) -> Dataset:
    """Read a data set that is not deflated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = read_dataset(io.BytesIO(data), syntax == IMPLICIT_VR_LITTLE_ENDIAN, syntax != EXPLICIT_VR_BIG_ENDIAN)
        read.decode()
    return read


ROW = [
    (0x00080020, "DA"),
    (0x0020000D, "UI"),
    (0x00100010, "PN"),
    (0x00280010, "US"),
    (0x00321070, "LO"),
    (0x00400555, "SQ"),
]
VALUES = st.lists(
    st.none() | st.binary(max_size=12).map(lambda value: value * 30) | st.binary(max_size=9), min_size=6, max_size=6
)


@settings(deadline=None)
@given(st.sampled_from(SYNTAXES), st.lists(VALUES, max_size=4))
def test_a_row_is_its_elements(syntax: str, rows: list[list[bytes | None]]) -> None:
    encoder = IdentifierEncoder(syntax)
    prepared = encoder.prepare(ROW)
    for values in rows * 2:  # the second time all headers are known
        elements = [encoder.element(tag, vr, value or b"") for (tag, vr), value in zip(ROW, values, strict=True)]
        assert prepared.encode(values) == b"".join(elements)


def test_values_that_read_alike_both_ways_decide_nothing_for_others() -> None:
    """Rows of 257 are the same bytes in both byte orders (PS3.5 §7.3)."""
    prepared = IdentifierEncoder(EXPLICIT_VR_BIG_ENDIAN).prepare([(0x00280010, "US"), (0x00186020, "SL")])
    for rows, offset in ((257, 0), (512, -7), (0x0101, 0x01010101), (513, 1)):
        encoded = prepared.encode([struct.pack("<H", rows), struct.pack("<i", offset)])
        assert (encoded[8:10], encoded[18:]) == (struct.pack(">H", rows), struct.pack(">i", offset))


def test_a_row_has_a_value_for_each_column() -> None:
    with pytest.raises(ValueError, match="zip"):
        IdentifierEncoder(EXPLICIT_VR_LITTLE_ENDIAN).prepare(ROW).encode([b"20240101"])


# public elements of many VRs, with values that pydicom can make and compare
LEAVES = st.sampled_from(
    [
        (0x00080020, "DA", "20240131"),
        (0x00080030, "TM", "101502.25"),
        (0x00080054, "AE", "PACSLITE"),
        (0x00080061, "CS", ["CT", "MR"]),
        (0x00081030, "LO", "Thorax"),
        (0x00100010, "PN", "Doe^John"),
        (0x00101010, "AS", "042Y"),
        (0x00101020, "DS", "1.75"),
        (0x00104000, "LT", "two\r\nlines"),
        (0x0018106A, "CS", ""),
        (0x00189074, "DT", "20240131101502"),
        (0x0020000D, "UI", "1.2.3"),
        (0x00200013, "IS", "7"),
        (0x00280009, "AT", [0x00181063]),
        (0x00280010, "US", 512),
        (0x00081163, "FD", [1.5, 2.5]),
        (0x00082130, "DS", "1"),
        (0x00186020, "SL", -7),
        (0x00189073, "FD", 0.125),
        (0x00181302, "IS", "3"),
        (0x00082228, "SQ", None),
        (0x0040A161, "FD", 3.0),
        (0x00221007, "SQ", None),
        (0x00281101, "US", [1, 2, 3]),
        (0x00340001, "SQ", None),
        (0x00480102, "DS", "0.5"),
        (0x00081190, "UR", "http://pacs"),
        (0x00080119, "UC", "long"),
        (0x00420011, "OB", b"%PDF"),
    ]
)
TREES = st.recursive(
    st.lists(LEAVES, max_size=8).map(lambda leaves: [leaf for leaf in leaves if leaf[1] != "SQ"]),
    lambda children: st.tuples(
        st.lists(LEAVES, max_size=5), st.lists(children, max_size=2), st.sampled_from([CODES, 0x0040A730])
    ).map(lambda parts: [*[leaf for leaf in parts[0] if leaf[1] != "SQ"], (parts[2], "SQ", parts[1])]),
    max_leaves=6,
)


def dataset_of(tree: list[tuple[int, str, object]]) -> Dataset:
    """Make pydicom's object of a tree."""
    dataset = Dataset()
    for tag, vr, value in tree:
        if vr == "SQ":
            assert isinstance(value, list)
            dataset.add_new(tag, vr, [dataset_of(item) for item in value])
        else:
            dataset.add_new(tag, vr, value)
    return dataset


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TREES, st.sampled_from(SYNTAXES[:3]), st.sampled_from(SYNTAXES))
def test_identifiers_go_through_all_syntaxes(tree: list[tuple[int, str, object]], syntax: str, other: str) -> None:
    dataset = dataset_of(tree)
    stream = DicomBytesIO()
    stream.is_little_endian = syntax != EXPLICIT_VR_BIG_ENDIAN
    stream.is_implicit_VR = syntax == IMPLICIT_VR_LITTLE_ENDIAN
    write_dataset(stream, dataset)
    data = stream.getvalue()
    identifier = decode_identifier(data, syntax)
    assert list(identifier) == sorted(int(element.tag) for element in dataset)
    encoder = IdentifierEncoder(other)
    encoded = encoder.identifier(identifier)
    assert decode_identifier(encoder.data_set(encoded), other) == identifier
    plain = EXPLICIT_VR_LITTLE_ENDIAN if other == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN else other
    assert read_with_pydicom(encoded, plain) == dataset
    converted = convert_elements(data, syntax, other)
    assert read_with_pydicom(converted, plain) == dataset


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120), st.sampled_from(SYNTAXES), st.sampled_from(SYNTAXES))
def test_noise_raises_nothing_else(data: bytes, syntax: str, other: str) -> None:
    convert_elements(data, syntax, other)
    try:
        identifier = decode_identifier(data, syntax)
    except IdentifierError:
        return
    IdentifierEncoder(other).identifier(identifier)


def test_damaged_identifiers_raise_nothing_else() -> None:
    rng = random.Random(3)
    item = ITEM + CODE_VALUE + sequence(b"SQ", defined_item(CODE_VALUE), is_undefined=True) + ITEM_END
    whole = decode_identifier(LEVEL + sequence(b"SQ", item, is_undefined=True), EXPLICIT_VR_LITTLE_ENDIAN)
    for syntax in SYNTAXES:
        encoder = IdentifierEncoder(syntax)
        encoded = encoder.data_set(encoder.identifier(whole))
        for _ in range(1000):
            data = bytearray(encoded)
            for _ in range(rng.randint(1, 3)):
                at = rng.randrange(len(data))
                data[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
            with suppress(IdentifierError):
                encoder.identifier(decode_identifier(bytes(data), syntax))
            convert_elements(bytes(data), syntax, EXPLICIT_VR_BIG_ENDIAN)


def test_what_cannot_be_converted_is_left_out() -> None:
    broken = sequence(b"SQ", CODE_VALUE, is_undefined=False)
    converted = convert_elements(LEVEL + broken, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    assert converted == bytes.fromhex("08005200 06000000") + b"STUDY "


def test_a_senders_switch_of_encoding_is_converted() -> None:
    stored = bytes.fromhex("08005200 06000000") + b"STUDY " + bytes.fromhex("10002000") + b"LO\x02\x00ID"
    assert convert_elements(stored, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN) == (
        bytes.fromhex("00080052") + b"CS\x00\x06STUDY " + bytes.fromhex("00100020") + b"LO\x00\x02ID"
    )


def test_the_same_syntax_changes_nothing() -> None:
    assert convert_elements(LEVEL, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.90") is LEVEL


@pytest.mark.parametrize(("vr", "value"), [("US", b"\1"), ("FD", bytes(7)), ("LO", b"AB"), ("UN", b"AB")])
def test_what_has_no_byte_order_is_not_swapped(vr: str, value: bytes) -> None:
    assert swap_bytes(vr, value) == value
