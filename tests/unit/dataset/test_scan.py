"""The header scan, rule by rule: byte vectors from the tables of PS3.5 §7 and from what senders get wrong."""

import struct
import zlib

import pytest

from pacslite.dataset.decode import Attribute, Identifier, decode_identifier
from pacslite.dataset.element import SHORT_VRS, Element
from pacslite.dataset.scan import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    DataSetError,
    HeaderScanner,
    scan_header,
)

ITEM = bytes.fromhex("FEFF00E0FFFFFFFF")
ITEM_END = bytes.fromhex("FEFF0DE000000000")
SEQUENCE_END = bytes.fromhex("FEFFDDE000000000")
SEQUENCE_MARKS = ((0xE000, 0xFFFFFFFF), (0xE00D, 0), (0xE0DD, 0))
PIXELS = bytes.fromhex("E07F10004F570000FFFFFF7F")
MODALITY = bytes.fromhex("08006000") + b"CS\x02\x00CT"
PATIENT_ID = bytes.fromhex("10002000") + b"LO\x04\x00ID12"
LARGE_KEY = 0x00082112  # Source Image Sequence


def whole(data: bytes, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN, stop_group: int = 0x7FE0) -> HeaderScanner:
    """Scan data that must be a data set."""
    scanner = HeaderScanner(syntax, stop_group=stop_group)
    scanner.feed(data)
    scanner.finish()
    assert scanner.complete
    return scanner


@pytest.mark.parametrize(
    ("data", "syntax", "element"),
    [
        # Table 7.1-2, 7.1-1: explicit, 16-bit and 32-bit length
        ("08006000 4353 0200 4354", EXPLICIT_VR_LITTLE_ENDIAN, Element("CS", b"CT")),
        ("08006000 5554 0000 02000000 4354", EXPLICIT_VR_LITTLE_ENDIAN, Element("UT", b"CT")),
        ("08006000 5554 0100 02000000 4354", EXPLICIT_VR_LITTLE_ENDIAN, Element("UT", b"CT")),  # reserved: not tested
        # Table 7.1-3: implicit; the VR is the dictionary's
        ("08006000 02000000 4354", IMPLICIT_VR_LITTLE_ENDIAN, Element("CS", b"CT")),
        # §7.3: big endian
        ("00080060 4353 0002 4354", EXPLICIT_VR_BIG_ENDIAN, Element("CS", b"CT")),
        ("00080060 5554 0000 00000002 4354", EXPLICIT_VR_BIG_ENDIAN, Element("UT", b"CT")),
        # §7.1.2: VRs to come have a 32-bit length; one with a length where zeros belong has 16 bits
        ("08006000 5A5A 0000 02000000 4354", EXPLICIT_VR_LITTLE_ENDIAN, Element("ZZ", b"CT")),
        ("08006000 5A5A 0200 4354", EXPLICIT_VR_LITTLE_ENDIAN, Element("ZZ", b"CT")),
        # the other encoding than promised
        ("08006000 02000000 4354", EXPLICIT_VR_LITTLE_ENDIAN, Element("CS", b"CT")),
        ("08006000 4353 0200 4354", IMPLICIT_VR_LITTLE_ENDIAN, Element("CS", b"CT")),
        # odd length, as sent
        ("08006000 4353 0300 435431", EXPLICIT_VR_LITTLE_ENDIAN, Element("CS", b"CT1")),
        # zeros behind the last element, fewer than make an element
        ("08006000 4353 0200 4354 000000", EXPLICIT_VR_LITTLE_ENDIAN, Element("CS", b"CT")),
    ],
)
def test_an_element_is_read(data: str, syntax: str, element: Element) -> None:
    assert whole(bytes.fromhex(data), syntax).elements[0x00080060] == element


@pytest.mark.parametrize(
    ("tag", "vr"),
    [(0x00090010, "LO"), (0x00091001, "UN"), (0x00280106, "US"), (0x60003000, "OW"), (0x00100000, "UL")],
)
def test_implicit_vr_is_the_dictionarys(tag: int, vr: str) -> None:
    data = struct.pack("<HHI", tag >> 16, tag & 0xFFFF, 0)
    assert whole(data, IMPLICIT_VR_LITTLE_ENDIAN).elements[tag].vr == vr


SEQUENCE = bytes.fromhex("08001221") + b"SQ\0\0" + b"\xff" * 4


@pytest.mark.parametrize(
    "content",
    [
        b"",  # no item at all
        ITEM + ITEM_END,
        ITEM + MODALITY + ITEM_END + ITEM + ITEM_END,
        ITEM + SEQUENCE + ITEM + MODALITY + ITEM_END + SEQUENCE_END + ITEM_END,  # nested
        bytes.fromhex("FEFF00E0") + struct.pack("<I", len(MODALITY)) + MODALITY,  # item of defined length
        bytes.fromhex("FEFF00E0") + struct.pack("<I", 8) + SEQUENCE_END,  # which is not looked into
        ITEM + bytes.fromhex("08001200") + b"OB\0\0" + struct.pack("<I", 8) + SEQUENCE_END + ITEM_END,  # nor is a value
        ITEM + bytes.fromhex("08006000 02000000") + b"CT" + ITEM_END,  # implicit within explicit
        # §6.2.2: UN of undefined length holds implicit VR, here with a length that looks like the VR "AE"
        bytes.fromhex("FEFF00E0FFFFFFFF 08000500 00000000 08006000 41450000") + bytes(0x4541) + ITEM_END,
        ITEM
        + bytes.fromhex("08001200")
        + b"OB\0\0"
        + b"\xff" * 4
        + ITEM[:4]
        + bytes(4)
        + SEQUENCE_END
        + ITEM_END,  # §A.4
        ITEM + MODALITY,  # the item's delimiter is missing
        ITEM_END + ITEM + ITEM_END + ITEM_END,  # one too many
    ],
    ids=range(12),
)
def test_a_sequence_of_undefined_length_ends_where_it_ends(content: bytes) -> None:
    for vr in (b"SQ", b"UN"):
        sequence = SEQUENCE.replace(b"SQ", vr, 1) + content + SEQUENCE_END
        scanner = whole(MODALITY + sequence + PATIENT_ID + PIXELS)
        assert scanner.raw(LARGE_KEY) == sequence
        assert scanner.elements[LARGE_KEY] == Element(vr.decode(), content)
        assert scanner.get(0x00100020) == b"ID12"


def unknown(content: bytes, order: str = "<") -> bytes:
    """UN of undefined length with an item of undefined length."""
    return struct.pack(order + "HH2sHI", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF) + (
        ITEM + content + ITEM_END + SEQUENCE_END
    )


@pytest.mark.parametrize("size", [0, 2, 0x4242, 0x4144, 0x4F4C, 0x4E50, 0x4D54, 0x10000])  # as VRs BB, DA, LO, PN, TM
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_nested", [False, True])
def test_what_unknown_holds_is_implicit_and_little_endian(size: int, order: str, is_nested: bool) -> None:
    """§6.2.2, whatever the length of its first element looks like, and whatever is around."""
    syntax = EXPLICIT_VR_LITTLE_ENDIAN if order == "<" else EXPLICIT_VR_BIG_ENDIAN
    inner = struct.pack("<HHI", 0x0009, 0x1001, 0xFFFFFFFF) + ITEM + ITEM_END + SEQUENCE_END
    content = struct.pack("<HHI", 0x0008, 0x0100, size) + bytes(size) + struct.pack("<HHI", 0x0008, 0x0102, 2) + b"AB"
    element = unknown(content + inner, order)
    tag = 0x00091001
    if is_nested:
        before, after = (struct.pack(order + "HH2sH", group, 0x0100, b"SH", 2) + b"42" for group in (0x0008, 0x000A))
        marks = [struct.pack(order + "HHI", 0xFFFE, number, length) for number, length in SEQUENCE_MARKS]
        element = (
            struct.pack(order + "HH2sHI", 0x0008, 0x2112, b"SQ", 0, 0xFFFFFFFF)
            + (marks[0] + before + element + after + marks[1]) * 2
            + marks[2]
        )
        tag = LARGE_KEY
    behind = struct.pack(order + "HH2sH", 0x0010, 0x0020, b"LO", 4) + b"ID12"
    for piece in (1 << 17, 999):
        scanner = HeaderScanner(syntax)
        data = element + behind
        for at in range(0, len(data), piece):
            scanner.feed(data[at : at + piece])
        scanner.finish()
        assert scanner.get(0x00100020) == b"ID12"
        assert scanner.raw(tag) == (element if len(element) < 1 << 16 else b"")
    (items,) = (attribute.value for attribute in decode_identifier(element, syntax).values())
    for item in items:
        assert isinstance(item, Identifier)
        (within,) = item[0x00091001].value if is_nested else (item,)
        assert isinstance(within, Identifier)
        assert within[0x00080100] == Attribute("SH", bytes(size))
        assert within[0x00080102] == Attribute("SH", b"AB")


def test_what_unknown_holds_may_be_explicit_where_that_is_certain() -> None:
    """Some senders write it so; items differ, and what is implicit by rule may follow."""
    implicit = bytes.fromhex("08000001 02000000") + b"42"
    empty = bytes.fromhex("08000001") + b"SH\0\0"  # as a length it would be odd
    for explicit in (MODALITY, empty, SEQUENCE + ITEM + MODALITY + implicit + ITEM_END + SEQUENCE_END + MODALITY):
        items = ITEM + explicit + ITEM_END + ITEM + implicit + ITEM_END + ITEM + explicit + ITEM_END
        element = unknown(explicit + ITEM_END + items + ITEM + implicit)
        assert whole(element + PATIENT_ID).raw(0x00091001) == element
        (attribute,) = decode_identifier(element, EXPLICIT_VR_LITTLE_ENDIAN).values()
        assert isinstance(attribute.value, list)
        first, second, third, fourth, fifth = attribute.value
        assert first == second == fourth
        assert third == fifth == {0x00080100: Attribute("SH", b"42")}


EMPTY_LO = bytes.fromhex("08000001") + b"LO\0\0"  # in implicit VR, a value of 4F4CH bytes


@pytest.mark.parametrize("vr", sorted(vr for vr in SHORT_VRS if ord(vr[0]) % 2 == 0))
@pytest.mark.parametrize(
    ("behind", "is_explicit"),
    [
        (b"", True),  # the item's end
        (SEQUENCE_END, True),  # nor the item's delimiter
        (bytes.fromhex("08000101") + b"SH\2\0" + b"42", True),
        (bytes.fromhex("09000100") + b"LO\0\0" + bytes.fromhex("0A000100") + b"UN\0\0" + bytes(4), True),
        (bytes.fromhex("08000001") + b"SH\2\0" + b"42", False),  # the same element once more
        (bytes.fromhex("07000101") + b"SH\2\0" + b"42", False),  # elements ascend
        (bytes.fromhex("08000101") + b"QQ\2\0" + b"42", False),
        (bytes.fromhex("08000101 02000000") + b"42", False),
    ],
)
def test_what_unknown_holds_may_begin_with_an_empty_value(vr: str, behind: bytes, is_explicit: bool) -> None:
    """Its VR reads as a length, too: what follows decides, in whatever pieces it comes, and alike where it is known."""
    header = EMPTY_LO.replace(b"LO", vr.encode())
    content = header + behind
    if not is_explicit:
        content += bytes(int.from_bytes(vr.encode(), "little") - len(behind))
    element = unknown(content)
    if behind == SEQUENCE_END:
        element = element[: -len(ITEM_END + SEQUENCE_END)]  # it has one
    data = MODALITY + element + PATIENT_ID
    for piece in (1, 7, 1 << 17):
        scanner = HeaderScanner(EXPLICIT_VR_LITTLE_ENDIAN)
        for at in range(0, len(data), piece):
            scanner.feed(data[at : at + piece])
        scanner.finish()
        assert scanner.raw(0x00091001) == element
        assert scanner.get(0x00100020) == b"ID12"
    if behind == SEQUENCE_END:
        return  # an identifier has its delimiters
    (attribute,) = decode_identifier(element, EXPLICIT_VR_LITTLE_ENDIAN).values()
    defined = element[:12] + ITEM[:4] + struct.pack("<I", len(content)) + content + SEQUENCE_END
    assert decode_identifier(defined, EXPLICIT_VR_LITTLE_ENDIAN)[0x00091001] == attribute
    assert isinstance(attribute.value, list)
    (item,) = attribute.value
    assert len(item[0x00080100].value) == (0 if is_explicit else len(content) - 8)


def test_a_sequence_in_implicit_vr_ends_where_it_ends() -> None:
    inner = bytes.fromhex("08001221 FFFFFFFF") + ITEM + ITEM_END + SEQUENCE_END
    outer = bytes.fromhex("08001221 FFFFFFFF") + ITEM + inner + ITEM_END + SEQUENCE_END
    scanner = whole(outer + bytes.fromhex("10002000 04000000") + b"ID12", IMPLICIT_VR_LITTLE_ENDIAN)
    assert scanner.elements[LARGE_KEY] == Element("SQ", ITEM + inner + ITEM_END)
    assert scanner.get(0x00100020) == b"ID12"


@pytest.mark.parametrize(
    ("leading", "syntax", "data"),
    [
        # PS3.10 §7.1: a file's header sent along, explicit little endian before whatever follows
        (bytes.fromhex("02000000") + b"UL\x04\x00\x0c\x00\x00\x00", EXPLICIT_VR_LITTLE_ENDIAN, MODALITY),
        (bytes.fromhex("02000100") + b"OB\0\0\x02\0\0\0\0\1", EXPLICIT_VR_LITTLE_ENDIAN, MODALITY),
        (
            bytes.fromhex("02000100") + b"OB\0\0\x02\0\0\0\0\1",
            EXPLICIT_VR_BIG_ENDIAN,
            bytes.fromhex("00080060435300024354"),
        ),
        (
            bytes.fromhex("02000100") + b"OB\0\0\x02\0\0\0\0\1",
            IMPLICIT_VR_LITTLE_ENDIAN,
            bytes.fromhex("08006000020000004354"),
        ),
        (bytes.fromhex("02001000 02000000") + b"1\0", IMPLICIT_VR_LITTLE_ENDIAN, bytes.fromhex("08006000020000004354")),
        # PS3.7 §6.3: the command set
        (bytes.fromhex("00000000 04000000 00000000"), EXPLICIT_VR_LITTLE_ENDIAN, MODALITY),
    ],
)
def test_what_is_no_part_of_a_data_set_is_left_out(leading: bytes, syntax: str, data: bytes) -> None:
    for piece in (len(leading) + len(data), 1, 11):
        scanner = HeaderScanner(syntax)
        for at in range(0, len(leading) + len(data), piece):
            scanner.feed((leading + data)[at : at + piece])
        scanner.finish()
        assert scanner.leading == len(leading)
        assert list(scanner.elements) == [0x00080060]
        assert scanner.get(0x00080060) == b"CT"
        assert scanner.explicit is (syntax != IMPLICIT_VR_LITTLE_ENDIAN)


@pytest.mark.parametrize(
    "end",
    [
        PIXELS,
        bytes.fromhex("E07F0800") + b"OF\0\0" + bytes(4),
        bytes.fromhex("E07F0000") + b"UL\x04\x00",  # its group length
        bytes.fromhex("FCFFFCFF") + b"OB\0\0" + bytes(4),  # Data Set Trailing Padding
        ITEM_END,  # and what is nothing
    ],
)
def test_the_header_ends_before_pixel_data(end: bytes) -> None:
    scanner = HeaderScanner(EXPLICIT_VR_LITTLE_ENDIAN)
    assert not scanner.feed(MODALITY)
    assert scanner.feed(end[:8])
    assert scanner.feed(b"whatever")
    scanner.finish()
    assert list(scanner.elements) == [0x00080060]


def test_the_header_ends_before_the_group_asked_for() -> None:
    assert list(whole(MODALITY + PATIENT_ID + PIXELS, stop_group=0x0010).elements) == [0x00080060]


@pytest.mark.parametrize(
    ("data", "syntax", "comment"),
    [
        (MODALITY + PATIENT_ID[:-1], EXPLICIT_VR_LITTLE_ENDIAN, "data set ends inside the element at byte 10"),
        (MODALITY + PATIENT_ID[:7], EXPLICIT_VR_LITTLE_ENDIAN, "data set ends inside the element at byte 10"),
        (MODALITY + SEQUENCE + ITEM, EXPLICIT_VR_LITTLE_ENDIAN, "data set ends inside the element at byte 10"),
        (SEQUENCE + ITEM + ITEM, EXPLICIT_VR_LITTLE_ENDIAN, "(FFFE,E000) at byte 20"),
        (SEQUENCE + MODALITY, EXPLICIT_VR_LITTLE_ENDIAN, "(0008,0060) between items at byte 12"),
        (SEQUENCE + bytes.fromhex("FEFF000000000000"), EXPLICIT_VR_LITTLE_ENDIAN, "(FFFE,0000) at byte 12"),
        (
            bytes.fromhex("02000100") + b"OB\0\0" + b"\xff" * 4,
            EXPLICIT_VR_LITTLE_ENDIAN,
            "undefined length in group 0002 at byte 0",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n",
            EXPLICIT_VR_LITTLE_ENDIAN,
            "data set ends inside the element at byte 0",
        ),
        (
            b"\x07\x00",
            DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
            "deflated data set: Error -3 while decompressing data: invalid block type",
        ),
        (
            zlib.compress(MODALITY, wbits=-15)[:5],
            DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
            "deflated data set ends after 4 bytes inflated",
        ),
        (b"", DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "deflated data set ends after 0 bytes inflated"),
    ],
)
def test_what_is_no_data_set_is_refused(data: bytes, syntax: str, comment: str) -> None:
    scanner = HeaderScanner(syntax)
    with pytest.raises(DataSetError) as refusal:  # noqa: PT012
        scanner.feed(data)
        scanner.finish()
    assert str(refusal.value) == comment
    assert refusal.value.status == 0xC000
    assert len(comment) <= 64 or syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN  # (0000,0902) is cut there


def test_what_was_read_before_an_error_stays() -> None:
    scanner = HeaderScanner(EXPLICIT_VR_LITTLE_ENDIAN)
    with pytest.raises(DataSetError):
        scanner.feed(MODALITY + SEQUENCE + MODALITY)
    assert scanner.get(0x00080060) == b"CT"


def test_of_duplicates_the_last_counts_and_order_does_not() -> None:
    scanner = whole(PATIENT_ID + MODALITY + PATIENT_ID.replace(b"ID12", b"ID34"))
    assert scanner.get(0x00100020) == b"ID34"
    assert scanner.get(0x00080060) == b"CT"


def test_values_come_by_the_dozen() -> None:
    sequence = SEQUENCE + ITEM + ITEM_END + SEQUENCE_END
    scanner = whole(MODALITY + sequence + PATIENT_ID)
    assert scanner.values((0x00100020, 0x00100010, 0x00080060, LARGE_KEY)) == [b"ID12", None, b"CT", ITEM + ITEM_END]
    assert scanner.raw_many((0x00080060, 0x00100010, LARGE_KEY)) == MODALITY + sequence
    assert scanner.raw(0x00100010) == b""
    assert 0x00100020 in scanner.elements
    assert len(scanner.elements) == 3
    with pytest.raises(KeyError):
        scanner.elements[0x00100010]


@pytest.mark.parametrize(
    ("value", "charsets"),
    [
        (b"ISO_IR 100", ("ISO_IR 100",)),
        (b"\\ISO 2022 IR 87 ", ("", "ISO 2022 IR 87")),
        (b"ISO 2022 IR 13\\ISO 2022 IR 87", ("ISO 2022 IR 13", "ISO 2022 IR 87")),
        (b"", ()),
        (b"  ", ()),
        (b"\xff\xfe", ("\ufffd\ufffd",)),
    ],
)
def test_character_sets_are_told(value: bytes, charsets: tuple[str, ...]) -> None:
    data = bytes.fromhex("08000500") + b"CS" + struct.pack("<H", len(value)) + value
    assert whole(data).charsets == charsets


def test_what_was_scanned_before_keeps_its_syntax() -> None:
    implicit = bytes.fromhex("08006000 02000000") + b"CT"  # a sender's switch, first among the elements kept
    assert scan_header(implicit + PATIENT_ID, EXPLICIT_VR_LITTLE_ENDIAN).get(0x00100020) is None
    scanner = scan_header(implicit + PATIENT_ID, EXPLICIT_VR_LITTLE_ENDIAN, detect=False)
    assert scanner.elements == {0x00080060: Element("CS", b"CT"), 0x00100020: Element("LO", b"ID12")}


def test_deflated_data_sets_may_be_followed_by_padding() -> None:
    for padding in (b"\0", bytes(200_000)):
        data = zlib.compress(MODALITY, wbits=-15) + padding
        assert whole(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN).get(0x00080060) == b"CT"
