"""A data set in another syntax has the same values, byte for byte, whatever they are (PS3.5 §7, Annex A)."""

import struct
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset, read_sequence

from pacslite.dataset.element import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    DataSetError,
)
from pacslite.dataset.reencode import write_data_set
from pacslite.dataset.structure import read_structure
from tests.support.corpus import corpus

NATIVE = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
TARGETS = NATIVE[:2]
WORDS = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}
LONG_VRS = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
PIXEL_DATA = 0x7FE00010
CUT = "rtplan_truncated.dcm"  # within a sequence, of which pydicom has what came before


def convert(data: bytes, source: str, target: str) -> bytes:
    output = BytesIO()
    write_data_set(read_structure(data, 0, source), data, output, explicit=target != IMPLICIT_VR_LITTLE_ENDIAN)
    return output.getvalue()


@dataclass(frozen=True)
class Node:
    """An element to encode: little endian bytes, or items of nodes."""

    tag: int
    vr: str
    value: bytes = b""
    items: "list[list[Node]]" = field(default_factory=list)
    is_undefined: bool = False
    items_undefined: bool = False


def swapped(vr: str, value: bytes) -> bytes:
    size = WORDS.get(vr, 1)
    return b"".join(value[at : at + size][::-1] for at in range(0, len(value), size))


def encode(nodes: list[Node], syntax: str) -> bytes:
    """By the tables of PS3.5 §7.1 and §7.5, without a look at the code under test."""
    order = ">" if syntax == EXPLICIT_VR_BIG_ENDIAN else "<"
    encoded = b""
    for node in nodes:
        tag = (node.tag >> 16, node.tag & 0xFFFF)
        value = swapped(node.vr, node.value) if order == ">" else node.value
        for item in node.items:
            content = encode(item, syntax)
            value += struct.pack(order + "HHI", 0xFFFE, 0xE000, 0xFFFFFFFF if node.items_undefined else len(content))
            value += content + (struct.pack(order + "HHI", 0xFFFE, 0xE00D, 0) if node.items_undefined else b"")
        length = 0xFFFFFFFF if node.is_undefined else len(value)
        if syntax == IMPLICIT_VR_LITTLE_ENDIAN:
            encoded += struct.pack("<HHI", *tag, length)
        elif node.vr in LONG_VRS:
            encoded += struct.pack(order + "HH2sHI", *tag, node.vr.encode(), 0, length)
        else:
            encoded += struct.pack(order + "HH2sH", *tag, node.vr.encode(), length)
        encoded += value + (struct.pack(order + "HHI", 0xFFFE, 0xE0DD, 0) if node.is_undefined else b"")
    return encoded


SIGNED_ON_DEMAND = [tag for tag, entry in DicomDictionary.items() if entry[0] == "US or SS"]
PUBLIC = [
    (tag, entry[0])
    for tag, entry in DicomDictionary.items()
    if len(entry[0]) == 2 and entry[0] != "SQ" and tag >> 16 > 8 and tag not in {0x00280100, 0x00280103, 0x54001004}
]
SEQUENCES = [tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ"]
BYTES = st.binary(max_size=24).map(lambda value: value[: len(value) // 8 * 8])


def in_order(nodes: list[Node]) -> list[Node]:
    return sorted({node.tag: node for node in nodes}.values(), key=lambda node: node.tag)


def leaves(signed: str) -> st.SearchStrategy[Node]:
    return (
        st.builds(lambda entry, value: Node(entry[0], entry[1], value), st.sampled_from(PUBLIC), BYTES)
        | st.builds(lambda tag, value: Node(tag, signed, value), st.sampled_from(SIGNED_ON_DEMAND), BYTES)
        | st.builds(
            lambda n, vr, value: Node(0x00091000 + n, vr, value), st.integers(0, 9), st.sampled_from(LO_US), BYTES
        )
    )


LO_US = ("LO", "US", "FD", "OW", "UN")


def sequences(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.builds(
        Node,
        tag=st.sampled_from(SEQUENCES),
        vr=st.just("SQ"),
        items=st.lists(st.lists(children, max_size=4).map(in_order), max_size=3),
        is_undefined=st.booleans(),
        items_undefined=st.booleans(),
    )


def data_sets(signed: str) -> st.SearchStrategy[list[Node]]:
    representation = Node(0x00280103, "US", b"\1\0" if signed == "SS" else b"\0\0")
    nodes = st.recursive(leaves(signed), sequences, max_leaves=12)
    return st.lists(nodes | sequences(nodes), max_size=10).map(lambda found: in_order([*found, representation]))


def without_private_vrs(nodes: list[Node]) -> list[Node]:
    """What implicit VR leaves of it: the VRs of private elements are lost."""
    return [
        replace(
            node,
            vr="UN" if node.tag & 0x10000 else node.vr,
            items=[without_private_vrs(item) for item in node.items],
        )
        for node in nodes
    ]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(("US", "SS")).flatmap(data_sets))
def test_any_data_set_changes_its_headers_only(nodes: list[Node]) -> None:
    for source in NATIVE:
        known = without_private_vrs(nodes) if source == IMPLICIT_VR_LITTLE_ENDIAN else nodes
        for target in TARGETS:
            assert convert(encode(nodes, source), source, target) == encode(known, target)
    there = convert(encode(nodes, EXPLICIT_VR_LITTLE_ENDIAN), EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    back = convert(there, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
    assert back == encode(without_private_vrs(nodes), EXPLICIT_VR_LITTLE_ENDIAN)


Path = tuple[int, ...]  # tags, and numbers of items


class Leaf(NamedTuple):
    """Where a value is, and its bytes in little endian, made even."""

    path: Path
    value: bytes


def values_by_pydicom(data_set: Dataset, is_big: bool, sequences: set[Path], path: Path = ()) -> Iterator[Leaf]:
    """pydicom finds the values; it decodes none but sequences. Private ones, in implicit VR, are those of before."""
    for tag in data_set.keys():  # noqa: SIM118 (not a dict: iterating decodes)
        raw = data_set.get_item(tag)
        if tag.element == 0 or tag == 0x00080001:
            continue
        vr = raw.VR
        if vr is None:
            vr = dictionary_VR(tag) if not tag.is_private and tag in DicomDictionary else "UN"
        items: Iterable[Dataset] | None = None
        if vr == "SQ":
            sequences.add((*path, tag))
            items = data_set[tag].value
        elif vr == "UN" and (*path, tag) in sequences:
            items = read_sequence(BytesIO(raw.value), True, True, len(raw.value), "ascii")
        if items is not None:
            for number, item in enumerate(items):
                yield from values_by_pydicom(item, is_big, sequences, (*path, tag, number))
        else:
            is_raw = isinstance(raw, RawDataElement)  # it needs Pixel Representation itself
            value = (raw.value if is_raw else str(raw.value or "").encode()) or b""
            if is_raw and is_big and len(value) % WORDS.get(vr, 1) == 0:
                value = swapped(vr, value)
            yield Leaf((*path, tag), value + bytes(len(value) % 2))


def test_every_real_data_set_keeps_its_values_as_pydicom_finds_them() -> None:
    files = [file for file in corpus() if file.transfer_syntax_uid in NATIVE and file.name != CUT]
    assert len(files) > 150
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in files:
            source = file.transfer_syntax_uid
            sequences: set[Path] = set()

            def read(data: bytes, syntax: str, private: set[Path] = sequences) -> list[Leaf]:
                is_big = syntax == EXPLICIT_VR_BIG_ENDIAN
                data_set = read_dataset(BytesIO(data), syntax == IMPLICIT_VR_LITTLE_ENDIAN, not is_big)
                return list(values_by_pydicom(data_set, is_big, private))

            original = read(file.data, source)
            for target in TARGETS:
                assert read(convert(file.data, source, target), target) == original, (file.name, target)
            explicit = convert(file.data, source, EXPLICIT_VR_LITTLE_ENDIAN)
            implicit = convert(explicit, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
            again = convert(implicit, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
            assert read(again, EXPLICIT_VR_LITTLE_ENDIAN) == original, file.name


KOREAN = b"\x1b$)C\xb1\xe8"


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00204000, "LT", KOREAN + b"\r\n" + KOREAN),  # a decoder forgets the second escape sequence
        (0x00081030, "LO", b"\x1b$B-!;3\x1b(B abc"),  # NEC row 13
        (0x00081030, "LO", b"\xcd\xf5\x20\x80"),  # no GBK
        (0x00081030, "LO", b"  two values \\ of text\0 "),
        (0x00200013, "IS", b"1.5 "),
        (0x00280106, "US", b"\x01\x00\x00"),  # no whole words
        (0x00091001, "FL", bytes(6)),
        (0x00091001, "QQ", b"abcd"),  # a VR to come
        (0x00081140, "SQ", b"abcdefgh"),  # no items
        (0x00283006, "OW", b"\x01\x00"),  # LUT Data without its descriptor
        (0x00081030, "LO", b"odd"),
        (0x00280010, "UN", b"\x02\x00"),  # a known one whose VR the sender did not know
    ],
)
def test_a_value_is_never_interpreted(tag: int, vr: str, value: bytes) -> None:
    long = vr in LONG_VRS or vr == "QQ"
    data = struct.pack("<HH2s" + ("HI" if long else "H"), tag >> 16, tag & 0xFFFF, vr.encode(), *[0] * long, len(value))
    even = value + (b" " if vr == "LO" else b"\0") * (len(value) % 2)
    implicit = convert(data + value, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    assert implicit == struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(even)) + even
    explicit = convert(data + value, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
    assert explicit[4:6] == vr.encode()
    assert explicit.endswith(even)
    back = convert(implicit, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
    assert back.endswith(even)


@pytest.mark.parametrize(
    ("tag", "size", "facts", "vr"),
    [
        (0x00280106, 2, {}, b"US"),
        (0x00280106, 2, {0x00280103: 1}, b"SS"),
        (0x00283006, 2, {0x00280103: 1}, b"OW"),  # LUT Data
        (0x60003000, 2, {0x00280100: 8}, b"OW"),
        (PIXEL_DATA, 2, {0x00280100: 8}, b"OB"),  # §A.2: of 8 bits either, of more OW
        (PIXEL_DATA, 2, {0x00280100: 16}, b"OW"),
        (0x54001010, 2, {0x54001004: 8}, b"OB"),  # Waveform Data: PS3.3 §C.10.9.1.4
        (0x54001010, 2, {0x54001004: 16, 0x00280100: 8}, b"OW"),
        (0x00080018, 2, {}, b"UI"),
        (0x00090010, 2, {}, b"LO"),  # a private creator
        (0x00091001, 2, {}, b"UN"),
        (0x00081140, 6, {}, b"UN"),  # a sequence without items
        (0x00081030, 0xFFFE, {}, b"LO"),
        (0x00081030, 0x10000, {}, b"UN"),  # §6.2.2 note 4
    ],
)
def test_implicit_elements_get_their_vrs_from_the_dictionary(
    tag: int, size: int, facts: dict[int, int], vr: bytes
) -> None:
    elements = {tag: bytes(range(1, 7))[:size] if size < 7 else b"x" * size}
    elements |= {tag: struct.pack("<H", number) for tag, number in facts.items()}
    data = b"".join(
        struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value for tag, value in sorted(elements.items())
    )
    explicit = convert(data, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
    at = explicit.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF))
    assert explicit[at + 4 : at + 6] == vr
    assert convert(explicit, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN) == data


def test_what_un_of_undefined_length_holds_stays_implicit_little_endian() -> None:
    """PS3.5 §6.2.2, in big endian too."""
    inner = struct.pack("<HHIHHI", 0xFFFE, 0xE000, 10, 0x0028, 0x0010, 2) + b"\1\0"
    content = inner + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    stored = struct.pack(">HH2sHI", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF) + content
    explicit = convert(stored, EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
    assert explicit == struct.pack("<HH2sHI", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF) + content
    implicit = convert(stored, EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    assert implicit == struct.pack("<HHI", 0x0009, 0x1001, 0xFFFFFFFF) + content


def test_what_un_of_undefined_length_holds_in_explicit_vr_becomes_implicit() -> None:
    """Some senders write it so, and all readers of what is stored take it so."""
    contents = (
        struct.pack("<HH2sHHH2sH", 0x0028, 0x0010, b"LO", 0, 0x0028, 0x0011, b"LO", 2) + b"AB",
        struct.pack("<HHIHHI", 0x0028, 0x0010, 0, 0x0028, 0x0011, 2) + b"AB",
    )
    items = [struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content for content in contents]
    head, end = struct.pack("<HH2sHI", 0x0029, 0x1010, b"UN", 0, 0xFFFFFFFF), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    explicit, implicit = (head + item + end for item in items)
    assert convert(explicit, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN) == implicit
    assert convert(implicit, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN) == implicit


FRAGMENTS = [struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value for value in (b"", b"abcd", b"efgh")]
DELIMITER = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
SIGNATURES = struct.pack("<HH2sHI", 0xFFFA, 0xFFFA, b"SQ", 0, 8) + FRAGMENTS[0]
PRIVATE = struct.pack("<HH2sH", 0x7FE1, 0x0010, b"LO", 2) + b"ME"
RUBBISH = (
    *(b"", b"\r\n", b"abc", bytes(4), bytes(512), b"\xff" * 20, b"\xff" * 300, b" " * 300, bytes(range(1, 101)) * 3),
    b"LOOKS LIKE AN ELEMENT",
    b"\xfe\xff",  # a delimiter that is cut
    b"\xfe\xff\x0d\xe0\0\0\0\0",  # a wrong one
)


@pytest.mark.parametrize("rubbish", RUBBISH, ids=range(len(RUBBISH)))
def test_what_is_no_element_behind_the_pixels_is_left_out(rubbish: bytes) -> None:
    """It is let in when it is stored; elements there are are kept."""
    native = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 4) + b"abcd"
    encapsulated = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + b"".join(FRAGMENTS)
    explicit = EXPLICIT_VR_LITTLE_ENDIAN
    for behind in (b"", PRIVATE, SIGNATURES):
        assert convert(native + behind + rubbish, explicit, explicit) == native + behind
        assert convert(encapsulated + DELIMITER + behind + rubbish, explicit, explicit) == (
            encapsulated + DELIMITER + behind
        )
    assert convert(encapsulated + rubbish, explicit, explicit) == encapsulated + DELIMITER
    implicit = convert(native, explicit, IMPLICIT_VR_LITTLE_ENDIAN)
    assert convert(implicit + rubbish, IMPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN) == implicit


def test_an_element_behind_the_pixels_may_be_cut() -> None:
    native = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 4) + b"abcd"
    head = struct.pack("<HH2sH", 0xFFFC, 0xFFFC, b"OB", 0)  # Data Set Trailing Padding
    stored = native + head + struct.pack("<I", 300) + bytes(100)
    expected = native + head + struct.pack("<I", 100) + bytes(100)
    assert convert(stored, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN) == expected


def test_fragments_behind_rubbish_are_missed() -> None:
    encapsulated = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + b"".join(FRAGMENTS)
    for rubbish in RUBBISH[1:-1]:
        with pytest.raises(DataSetError, match="between items at byte 44"):
            read_structure(encapsulated + rubbish + FRAGMENTS[1] + DELIMITER, 0, EXPLICIT_VR_LITTLE_ENDIAN)


CUT_ITEM = struct.pack("<HHIHH2sH", 0xFFFE, 0xE000, 12, 0x0008, 0x1150, b"UI", 8) + b"1.2"


@pytest.mark.parametrize("length", [len(CUT_ITEM), 200])
def test_a_sequence_that_is_cut_is_never_sent_in_another_form(length: int) -> None:
    """Items of explicit VR in a data set of implicit VR would be read as something else."""
    explicit = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, length) + CUT_ITEM
    length = len(CUT_ITEM)  # of what is there
    expected = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, length + 1) + CUT_ITEM + b"\0"
    assert convert(explicit, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN) == expected
    with pytest.raises(DataSetError, match=r"\(0008,1140\) is damaged"):
        convert(explicit, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


def test_large_words_are_swapped_to_the_last() -> None:
    value = bytes(range(256)) * 8192 + b"\1\2"
    stored = struct.pack(">HH2sHI", 0x7FE0, 0x0010, b"OW", 0, len(value)) + value
    explicit = convert(stored, EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
    assert explicit[12:] == swapped("OW", value)


def test_retired_lengths_are_left_out() -> None:
    """They would no longer be true (PS3.5 §7.2)."""
    nodes = [Node(0x00080000, "UL", bytes(4)), Node(0x00080001, "UL", bytes(4)), Node(0x00080060, "CS", b"CT")]
    data = encode(nodes, EXPLICIT_VR_LITTLE_ENDIAN)
    expected = encode(nodes[2:], IMPLICIT_VR_LITTLE_ENDIAN)
    assert convert(data, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN) == expected


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xfe\xff\x00\xe0\0\0\0\0", "(FFFE,E000) at byte 0"),
        (b"\x08\x00\x40\x11\xff\xff\xff\xff" + b"\x08\x00\x40\x11\0\0\0\0", "(0008,1140) between items at byte 8"),
        (b"\x08\x00\x40\x11\xff\xff\xff\xff", "sequence without its delimiter before byte 8"),
        (b"\x08\x00\x40\x11\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff", "item without its delimiter"),
        (b"\x08\x00\x60\x00\2\0", "data set ends inside the element at byte 0"),
        ((b"\x08\x00\x40\x11\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 5000, "more than 100 deep"),
    ],
)
def test_what_cannot_be_walked_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(DataSetError) as refused:
        read_structure(data, 0, IMPLICIT_VR_LITTLE_ENDIAN)
    assert said in str(refused.value)
