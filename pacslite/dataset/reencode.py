"""Writes a stored data set in another uncompressed transfer syntax (PS3.5 §7.1, Annex A): headers only are made anew.

The bytes of a value are its bytes, whether it is what its VR promises or not: words change their order where the stored
ones are big endian, nothing else.
"""

from collections.abc import Iterator
from mmap import mmap
from struct import Struct
from typing import BinaryIO, NamedTuple

from pacslite.dataset.decode import swap_bytes
from pacslite.dataset.dictionary import vr_choice_of, vr_of
from pacslite.dataset.element import PIXEL_DATA, SHORT_VRS, UNDEFINED, DataSetError
from pacslite.dataset.structure import DataSet, Item, Node

__all__ = ["write_data_set"]

_WIDE = Struct("<HHI").pack
_SHORT = Struct("<HH2sH").pack
_LONG = Struct("<HH2sHI").pack
_ITEM_END = _WIDE(0xFFFE, 0xE00D, 0)
_SEQUENCE_END = _WIDE(0xFFFE, 0xE0DD, 0)
_PADDED_BY_SPACE = frozenset(  # PS3.5 §6.2; all others by NUL
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT"}
)
_LENGTH_TO_END = 0x00080001  # retired, and no longer true; as group lengths are (§7.2)
_PIECE = 1 << 20  # bytes; whole words of any size


class _Facts(NamedTuple):
    """What the VRs of other elements depend on; an item has it from the data set around unless it has its own."""

    pixel_representation: int = 0  # (0028,0103)
    bits_allocated: int = 16  # (0028,0100)
    waveform_bits_allocated: int = 16  # (5400,1004)

    def of(self, data_set: DataSet, data: bytes | mmap) -> "_Facts":
        facts = self
        for node in data_set:
            name = _FACTS.get(node.tag)
            if name is not None and node.end - node.start >= 2:
                value = data[node.start : node.start + 2]
                facts = facts._replace(**{name: int.from_bytes(value, "big" if node.is_big else "little")})
        return facts


_FACTS = {0x00280103: "pixel_representation", 0x00280100: "bits_allocated", 0x54001004: "waveform_bits_allocated"}


def write_data_set(data_set: DataSet, data: bytes | mmap, output: BinaryIO, *, explicit: bool) -> None:
    """Write it in little endian, in its order; group lengths are left out.

    VRs of implicit elements are the dictionary's, UN where it has none. A value too long for a VR with a 16-bit length
    becomes UN (§6.2.2 note 4). Sequences and items have defined lengths where they had, values even ones.

    Args:
        data: In which the places of ``data_set`` lie.
        explicit: With VRs.
    Raises:
        DataSetError: A length would be beyond 32 bits.
    """
    encoder = _Encoder(data)
    encoder.measure(data_set, _Facts(), explicit=explicit)
    for piece in encoder.pieces(data_set, explicit=explicit):
        output.write(piece)


class _Encoder:
    """``measure`` settles VRs and lengths, ``pieces`` gives the bytes."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes | mmap) -> None:
        self._data = data

    def measure(self, data_set: DataSet, facts: _Facts, *, explicit: bool) -> int:
        """Give the length of the elements, encoded; that of each value is in its ``length`` thereafter."""
        data_set[:] = [node for node in data_set if node.tag & 0xFFFF and node.tag != _LENGTH_TO_END]
        facts = facts.of(data_set, self._data)
        size = 0
        for node in data_set:
            if node.is_damaged and node.vr and (node.is_big or not explicit):
                raise DataSetError(f"{_name(node)} is damaged: its items cannot be given another form")
            if not node.vr:
                node.vr = _vr_in_context(node, facts)
            is_vr_written = explicit and node.vr != "UN"  # within UN, too, VRs are implicit (§6.2.2)
            if node.items is not None:
                node.length = sum(self._measure_item(item, facts, explicit=is_vr_written) for item in node.items)
                size += 8 * node.is_undefined
            elif node.fragments is not None:
                node.length = sum(8 + end - start for start, end in node.fragments)
                size += 8
            elif node.pieces is None:
                node.length = node.end - node.start
            if node.length >= UNDEFINED - 1:
                raise DataSetError(f"{_name(node)} would have {node.length} bytes")
            size += (12 if explicit and _has_long_header(node) else 8) + node.length + (node.length & 1)
        return size

    def _measure_item(self, item: Item, facts: _Facts, *, explicit: bool) -> int:
        item.length = self.measure(item.elements, facts, explicit=explicit)
        return 8 + item.length + 8 * item.is_undefined

    def pieces(self, data_set: DataSet, *, explicit: bool) -> Iterator[bytes]:
        for node in data_set:
            yield _header(node, explicit=explicit)
            if node.items is not None:
                for item in node.items:
                    yield _WIDE(0xFFFE, 0xE000, UNDEFINED if item.is_undefined else item.length)
                    yield from self.pieces(item.elements, explicit=explicit and node.vr != "UN")
                    if item.is_undefined:
                        yield _ITEM_END
                if node.is_undefined:
                    yield _SEQUENCE_END
            elif node.fragments is not None:
                for start, end in node.fragments:
                    yield _WIDE(0xFFFE, 0xE000, end - start)
                    yield from self._value(start, end)
                yield _SEQUENCE_END
            elif node.pieces is not None:
                yield from node.pieces
            else:
                yield from self._value(node.start, node.end, node.vr if node.is_big else None)
            if node.length & 1 and node.fragments is None:
                yield b" " if node.vr in _PADDED_BY_SPACE else b"\0"

    def _value(self, start: int, end: int, swapped_vr: str | None = None) -> Iterator[bytes]:
        for at in range(start, end, _PIECE):
            piece = self._data[at : min(at + _PIECE, end)]
            if swapped_vr is not None:
                whole = len(piece) & ~7  # what is no word at the end keeps no others from being swapped
                piece = swap_bytes(swapped_vr, piece[:whole]) + swap_bytes(swapped_vr, piece[whole:])
            yield piece


def _name(node: Node) -> str:
    return f"({node.tag >> 16:04X},{node.tag & 0xFFFF:04X})"


def _header(node: Node, *, explicit: bool) -> bytes:
    group, number = node.tag >> 16, node.tag & 0xFFFF
    length = node.length + (node.length & 1)
    if node.fragments is not None or (node.items is not None and node.is_undefined):
        length = UNDEFINED
    if not explicit:
        return _WIDE(group, number, length)
    if not _has_long_header(node):
        return _SHORT(group, number, node.vr.encode("ascii"), length)
    vr = "UN" if node.vr in SHORT_VRS else node.vr
    return _LONG(group, number, vr.encode("ascii"), 0, length)


def _has_long_header(node: Node) -> bool:
    return node.vr not in SHORT_VRS or node.length > 0xFFFE or node.fragments is not None or node.items is not None


def _vr_in_context(node: Node, facts: _Facts) -> str:
    """The VR of an element that is encoded without."""
    if node.items is not None:
        return "SQ"
    vr = vr_of(node.tag) or "UN"
    choice = vr_choice_of(node.tag)
    if choice == ("US", "SS"):
        return "SS" if facts.pixel_representation == 1 else "US"
    if choice == ("OB", "OW"):  # 8 bits may be either; OB is what most write
        bits = facts.bits_allocated if node.tag == PIXEL_DATA else facts.waveform_bits_allocated
        return "OB" if bits <= 8 else "OW"
    return "UN" if vr == "SQ" else vr  # a sequence without items
