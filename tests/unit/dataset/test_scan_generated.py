"""The header scan over generated data sets: what was encoded is found, in every syntax, in whatever pieces it comes."""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.filereader import read_dataset

from pacslite.dataset.scan import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    DataSetError,
    HeaderScanner,
)

SYNTAXES = (
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)
SHORT = (b"AE", b"CS", b"DA", b"LO", b"PN", b"UI", b"US")
LONG = (b"OB", b"OW", b"UC", b"UN", b"UT")


@dataclass
class Node:
    """An element to encode: bytes, or items of nodes (SQ, UN); undefined lengths where the flags say so."""

    tag: int
    vr: bytes
    value: bytes = b""
    items: list[list["Node"]] = field(default_factory=list)
    is_undefined: bool = False
    items_undefined: bool = False


def encode(nodes: list[Node], syntax: str) -> bytes:
    """Encode by the tables of PS3.5 §7.1 and §7.5, without a look at the code under test."""
    order = ">" if syntax == EXPLICIT_VR_BIG_ENDIAN else "<"
    encoded = bytearray()
    for node in nodes:
        group, number = node.tag >> 16, node.tag & 0xFFFF
        value = node.value
        within = IMPLICIT_VR_LITTLE_ENDIAN if node.vr == b"UN" else syntax  # §6.2.2
        if node.items:
            value = b"".join(encode_item(item, node.items_undefined, within) for item in node.items)
        length = 0xFFFFFFFF if node.is_undefined else len(value)
        if syntax == IMPLICIT_VR_LITTLE_ENDIAN:
            encoded += struct.pack(order + "HHI", group, number, length)
        elif node.vr in SHORT:
            encoded += struct.pack(order + "HH2sH", group, number, node.vr, length)
        else:
            encoded += struct.pack(order + "HH2sHI", group, number, node.vr, 0, length)
        encoded += value
        if node.is_undefined:
            encoded += struct.pack(("<" if node.vr == b"UN" else order) + "HHI", 0xFFFE, 0xE0DD, 0)
    return bytes(encoded)


def encode_item(nodes: list[Node], is_undefined: bool, syntax: str) -> bytes:
    """Encode an item of a sequence."""
    order = ">" if syntax == EXPLICIT_VR_BIG_ENDIAN else "<"
    content = encode(nodes, syntax)
    if is_undefined:
        end = struct.pack(order + "HHI", 0xFFFE, 0xE00D, 0)
        return struct.pack(order + "HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + content + end
    return struct.pack(order + "HHI", 0xFFFE, 0xE000, len(content)) + content


TAGS = st.builds(
    lambda group, number: group << 16 | number,
    st.integers(0x0008, 0x7FDF).filter(lambda g: g != 0xFFFE),
    st.integers(1, 0xFFFF),
)
EVEN_BYTES = st.binary(max_size=40).map(lambda value: value + bytes(len(value) % 2))
LEAVES = st.builds(Node, tag=TAGS, vr=st.sampled_from(SHORT + LONG), value=EVEN_BYTES)


def sequences(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    """Give sequences of up to three items of ``children``."""
    items = st.lists(st.lists(children, max_size=4).map(in_order), max_size=3)
    return st.builds(
        Node,
        tag=TAGS,
        vr=st.sampled_from((b"SQ", b"UN")),
        items=items,
        is_undefined=st.booleans(),
        items_undefined=st.booleans(),
    )


def in_order(nodes: list[Node]) -> list[Node]:
    """Sort by tag, each once (PS3.5 §7.1)."""
    return sorted({node.tag: node for node in nodes}.values(), key=lambda node: node.tag)


NODES = st.recursive(LEAVES, sequences, max_leaves=12)
DATA_SETS = st.lists(NODES | sequences(NODES), max_size=10).map(in_order)
PIXELS = st.sampled_from((b"", b"native", b"encapsulated", b"group length"))


def pixel_data(kind: bytes, syntax: str) -> bytes:
    """Encode what ends a header."""
    nodes = {
        b"": [],
        b"native": [Node(0x7FE00010, b"OW", bytes(64))],
        b"encapsulated": [Node(0x7FE00010, b"OB", struct.pack("<HHI", 0xFFFE, 0xE000, 0), is_undefined=True)],
        b"group length": [Node(0x7FE00000, b"UL", bytes(4)), Node(0x7FE00010, b"OW", bytes(64))],
    }[kind]
    return encode(nodes, syntax)


def feed_in_pieces(data: bytes, syntax: str, cuts: list[int], keep_limit: int) -> tuple[HeaderScanner, str]:
    """Scan what lies between the cuts, one after the other."""
    scanner = HeaderScanner(syntax, keep_limit=keep_limit)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    try:
        for start, end in pairwise(edges):
            scanner.feed(memoryview(data)[start:end])
        scanner.finish()
    except DataSetError as error:
        return scanner, str(error)
    return scanner, ""


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DATA_SETS, st.sampled_from(SYNTAXES), PIXELS, st.lists(st.integers(0, 1 << 16), max_size=30))
def test_what_was_encoded_is_found(nodes: list[Node], syntax: str, pixels: bytes, cuts: list[int]) -> None:
    elements = {node.tag: encode([node], syntax) for node in nodes}
    data = b"".join(elements.values()) + pixel_data(pixels, syntax)
    is_deflated = syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    sent = zlib.compress(data, wbits=-15) if is_deflated else data
    scanner, refused = feed_in_pieces(sent, syntax, cuts, keep_limit=65536)
    assert refused == ""
    assert scanner.complete
    assert {tag: scanner.raw(tag) for tag in scanner.elements} == elements
    assert scanner.raw_many(elements) == b"".join(elements.values())
    for node in nodes:
        if syntax != IMPLICIT_VR_LITTLE_ENDIAN:
            assert scanner.elements[node.tag].vr == node.vr.decode()
        if node.vr != b"SQ" and not node.is_undefined:
            value = encode([node], IMPLICIT_VR_LITTLE_ENDIAN)[8:] if node.items else node.value
            assert scanner.get(node.tag) == value
            assert scanner.values((node.tag,)) == [value]
    if syntax == EXPLICIT_VR_BIG_ENDIAN and any(map(holds_unknown, nodes)):
        return  # pydicom reads what UN holds as big endian
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = read_dataset(
            io.BytesIO(data), syntax == IMPLICIT_VR_LITTLE_ENDIAN, syntax != EXPLICIT_VR_BIG_ENDIAN, stop_when=is_pixel
        )
    assert list(read.keys()) == list(scanner.elements)


def holds_unknown(node: Node) -> bool:
    """Is there an UN of undefined length?"""
    return (node.vr == b"UN" and node.is_undefined) or any(
        holds_unknown(inner) for item in node.items for inner in item
    )


def is_pixel(tag: int, _vr: str | None, _length: int) -> bool:
    """Stop pydicom where we stop."""
    return tag >= 0x7FE00000


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    DATA_SETS,
    st.sampled_from(SYNTAXES[:3]),
    st.integers(0, 1 << 16),
    st.lists(st.integers(0, 1 << 16), max_size=30),
    st.sampled_from((0, 16, 60, 65536)),
)
def test_pieces_make_no_difference_wherever_it_ends(
    nodes: list[Node], syntax: str, length: int, cuts: list[int], keep_limit: int
) -> None:
    data = encode(nodes, syntax)
    data = data[: length % (len(data) + 1)]
    at_once, refused = feed_in_pieces(data, syntax, [], keep_limit)
    in_pieces, refused_too = feed_in_pieces(data, syntax, cuts, keep_limit)
    assert refused == refused_too
    assert at_once.elements == in_pieces.elements
    assert at_once.held == in_pieces.held
    assert all(len(element.value) <= keep_limit for element in at_once.elements.values())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DATA_SETS, st.sampled_from(SYNTAXES[:3]), st.integers(0, 80))
def test_longer_values_are_passed_over(nodes: list[Node], syntax: str, keep_limit: int) -> None:
    everything, _ = feed_in_pieces(encode(nodes, syntax), syntax, [], 65536)
    scanner, refused = feed_in_pieces(encode(nodes, syntax), syntax, [], keep_limit)
    assert refused == ""
    kept = {tag: element for tag, element in everything.elements.items() if len(element.value) <= keep_limit}
    assert dict(scanner.elements) == kept
