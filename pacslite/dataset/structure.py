"""A stored data set as a tree of places: where its elements, items and fragments lie (PS3.5 §7.1, §7.5, §A.4).

Only headers are read, so it costs the same whatever the values hold, and what they hold goes on untouched.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from mmap import mmap

from pacslite.dataset.dictionary import vr_of
from pacslite.dataset.element import (
    BIG,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    ITEM,
    ITEM_END,
    LITTLE,
    LONG_VRS,
    PIXEL_DATA,
    PIXELS,
    SEQUENCE_END,
    SHORT_VRS,
    UNDEFINED,
    DataSetError,
    Form,
    is_capitals,
    measure_header,
    pass_leading,
    shows_vr,
)

__all__ = ["DataSet", "Node", "read_structure"]

_DEEPEST = 100  # each level costs two frames of the interpreter's stack


@dataclass(slots=True, eq=False)
class Node:
    """An element. Its value is what lies from ``start`` to ``end``, unless it has items, fragments or ``pieces``."""

    tag: int
    vr: str  # "" if the element is encoded in implicit VR
    start: int
    end: int
    is_big: bool = False
    is_undefined: bool = False  # its length
    is_damaged: bool = False  # a sequence of items, but not to its end
    items: "list[Item] | None" = None  # of a sequence
    fragments: list[tuple[int, int]] | None = None  # start and end of each; the first is the Basic Offset Table
    pieces: Iterable[bytes] | None = None  # another value, ``length`` bytes of little endian
    length: int = 0


DataSet = list[Node]


@dataclass(slots=True, eq=False)
class Item:
    """An item of a sequence."""

    elements: DataSet
    is_undefined: bool  # its length
    length: int = 0  # of its elements, when they have been measured


class _TooDeep(DataSetError):
    """Not the fault of one sequence: nothing is to be done about it."""


def read_structure(data: bytes | mmap, start: int, transfer_syntax_uid: str) -> DataSet:
    """Find all elements of a data set that begins at ``start`` and ends with ``data``.

    Groups 0000 and 0002 at its beginning are passed over. Explicit VR where implicit was promised, and the reverse, is
    noticed. A sequence of defined length whose value is not made of items is a value like others. A last value that is
    cut has the bytes there are; behind the pixel data, what is no element is left out.

    Args:
        transfer_syntax_uid: Of its encoding; not deflated.
    Raises:
        DataSetError: It has what cannot stand there, or nests too deep.
    """
    form = BIG if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else LITTLE
    began, at = pass_leading(form, data, start)
    _check_end(began, at, len(data))
    explicit = transfer_syntax_uid != IMPLICIT_VR_LITTLE_ENDIAN
    if at + 8 <= len(data):
        explicit = is_capitals(data[at + 4 : at + 6])
    return _Reader(data).data_set(form, at, len(data), explicit=explicit, depth=0, is_undefined=False)[0]


class _Reader:
    __slots__ = ("_data",)

    def __init__(self, data: bytes | mmap) -> None:
        self._data = data

    def data_set(
        self, form: Form, at: int, end: int, *, explicit: bool, depth: int, is_undefined: bool
    ) -> tuple[DataSet, int]:
        """Read elements up to ``end``, or to the item's delimiter if ``is_undefined``; give the position behind."""
        data = self._data
        found: DataSet = []
        has_pixels = False  # what is behind them, and no element, is let in when it is stored
        while at + 8 <= end:
            group, number, _ = form.wide(data, at)
            if group == 0xFFFE:
                if number == ITEM_END and is_undefined:
                    return found, at + 8
                if number == SEQUENCE_END and is_undefined:  # the item's delimiter is missing
                    return found, at
                if has_pixels and number == ITEM:
                    break
                if number == ITEM or depth:
                    raise DataSetError(f"(FFFE,{number:04X}) at byte {at}")
                at += 8  # a delimiter of nothing
                continue
            try:
                node, behind = self._element(form, at, end, explicit=explicit, depth=depth, has_pixels=has_pixels)
            except _TooDeep:
                raise
            except DataSetError:
                if has_pixels:
                    break
                raise
            if has_pixels and ((explicit and not node.vr) or not node.tag >> 16):
                break
            found.append(node)
            at = behind
            has_pixels = has_pixels or (not depth and node.tag in PIXELS)
        if is_undefined:
            raise DataSetError(f"item without its delimiter before byte {end}")
        if not has_pixels and any(data[at:end]):  # a few zeros are somebody's padding
            raise DataSetError(f"data set ends inside the element at byte {at}")
        return found, end

    def _element(
        self, form: Form, at: int, end: int, *, explicit: bool, depth: int, has_pixels: bool
    ) -> tuple[Node, int]:
        """Read an element; give the position behind it."""
        data = self._data
        group, number, length = form.wide(data, at)
        header = 8
        vr = ""
        if explicit:
            header, length, is_implicit = measure_header(form, data, at)
            if not is_implicit:
                vr = data[at + 4 : at + 6].decode("ascii")
        start = at + header
        _check_end(at, start, end)
        node = Node(group << 16 | number, vr, start, start + length, form is BIG)
        may_be_cut = not depth and (not has_pixels or vr in SHORT_VRS or vr in LONG_VRS)
        return node, self._value(form, node, length, end, depth, may_be_cut=may_be_cut)

    def _value(self, form: Form, node: Node, length: int, end: int, depth: int, *, may_be_cut: bool) -> int:
        """Look into a value if it is a sequence or in fragments; give the position behind it."""
        start = node.start
        explicit = node.vr not in {"", "UN"}
        is_unknown = node.vr == "UN"
        if is_unknown:  # §6.2.2: little endian and implicit within, whatever is around
            form = LITTLE
            node.is_big = False
        if length == UNDEFINED:
            node.is_undefined = True
            if node.tag == PIXEL_DATA or node.vr not in {"", "SQ", "UN"}:
                is_last = node.tag == PIXEL_DATA and not depth
                node.fragments, node.end = self._fragments(form, start, end, is_last=is_last)
            else:
                node.items, node.end = self._items(
                    form, start, end, explicit=explicit, is_unknown=is_unknown, depth=depth + 1, is_open=True
                )
            return node.end
        if node.end > end:
            if not may_be_cut:
                _check_end(start, node.end, end)
            node.end = end
        if node.vr == "SQ" or (not node.vr and vr_of(node.tag) == "SQ"):
            try:
                node.items, _ = self._items(form, start, node.end, explicit=explicit, depth=depth + 1, is_open=False)
            except _TooDeep:
                raise
            except DataSetError:  # else whoever wrote this knows what it is
                node.is_damaged = self._data[start : start + 4] == form.item[:4]
        return node.end

    def _items(
        self,
        form: Form,
        at: int,
        end: int,
        *,
        explicit: bool,
        is_unknown: bool = False,
        depth: int,
        is_open: bool,
    ) -> tuple[list[Item], int]:
        if depth > _DEEPEST:
            raise _TooDeep(f"sequences nested more than {_DEEPEST} deep")
        data = self._data
        items: list[Item] = []
        while at < end:
            number, length, at = self._item_header(form, at, end)
            if number == ITEM_END:
                continue  # where none is due
            if number == SEQUENCE_END:
                if is_open:
                    return items, at
                raise DataSetError(f"(FFFE,{number:04X}) at byte {at - 8}")
            is_undefined = length == UNDEFINED
            item_end = end if is_undefined else at + length
            _check_end(at, item_end, end)
            # in explicit VR an item may be implicit, and in UN the reverse: its first element shows it
            if is_unknown:
                shown = at + 8 <= item_end and shows_vr(data, at, item_end)
            else:
                shown = explicit and (at + 8 > item_end or is_capitals(data[at + 4 : at + 6]))
            elements, at = self.data_set(form, at, item_end, explicit=shown, depth=depth, is_undefined=is_undefined)
            items.append(Item(elements, is_undefined))
        if is_open:
            raise DataSetError(f"sequence without its delimiter before byte {end}")
        return items, at

    def _fragments(self, form: Form, at: int, end: int, *, is_last: bool) -> tuple[list[tuple[int, int]], int]:
        """Read fragments to the delimiter; if ``is_last`` to what is none, if none comes behind it."""
        data = self._data
        item = form.item[:4]
        fragments: list[tuple[int, int]] = []
        while at < end:  # some files end without the delimiter
            if is_last and data[at : at + 4] != item and data.find(item, at, end) < 0:
                return fragments, at  # the delimiter, or what stands in its place
            number, length, at = self._item_header(form, at, end)
            if number == SEQUENCE_END:
                break
            if number != ITEM:
                raise DataSetError(f"(FFFE,{number:04X}) at byte {at - 8}")
            _check_end(at, at + length, end)
            fragments.append((at, at + length))
            at += length
        return fragments, at

    def _item_header(self, form: Form, at: int, end: int) -> tuple[int, int, int]:
        """Element number, length, and the position behind."""
        _check_end(at, at + 8, end)
        group, number, length = form.wide(self._data, at)
        if group != 0xFFFE or number not in {ITEM, ITEM_END, SEQUENCE_END}:
            raise DataSetError(f"({group:04X},{number:04X}) between items at byte {at}")
        return number, length, at + 8


def _check_end(at: int, value_end: int, end: int) -> None:
    if value_end > end:
        raise DataSetError(f"what begins at byte {at} ends {value_end - end} bytes too late")
