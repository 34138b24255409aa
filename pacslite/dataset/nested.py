"""The walk through an element of undefined length, PS3.5 §7.5 and §A.4, in constant memory.

Only what is itself of undefined length is entered, so what is open is always an item in a sequence in an item ...: its
depth says all, nothing recurses and there is no stack.
"""

from pacslite.dataset.element import (
    ITEM,
    ITEM_END,
    LITTLE,
    SEQUENCE_END,
    UNDEFINED,
    DataSetError,
    Form,
    measure_header,
    shows_vr,
)

__all__ = ["OpenElement"]


class OpenElement:
    """An element of undefined length whose header begins at ``base``; walk it until ``is_open`` ends.

    What UN holds is little endian and implicit, whatever is around (§6.2.2); elsewhere, items are implicit if their
    first element is, and then all within them. Tolerated: items of UN in explicit VR, an item's delimiter where none is
    due, and the sequence's delimiter where the item's is missing.

    Args:
        is_unknown: It is UN itself.
        little: How to look at what UN holds.
    """

    __slots__ = (
        "_depth",
        "_explicit",
        "_form",
        "_fresh",
        "_implicit_depth",
        "_is_explicit_here",
        "_little",
        "_unknown_depth",
        "base",
        "header_size",
        "is_dropped",
    )

    def __init__(
        self,
        form: Form,
        base: int,
        header_size: int,
        *,
        explicit: bool,
        is_unknown: bool = False,
        little: Form = LITTLE,
    ) -> None:
        self.base = base
        self.header_size = header_size
        self.is_dropped = False  # too long to keep: ``base`` means nothing any more
        self._form = form
        self._little = little
        self._explicit = explicit
        self._depth = 1  # odd in a sequence, even in an item
        self._unknown_depth = int(is_unknown)  # of the outermost UN; 0, none is open
        self._is_explicit_here = explicit and not is_unknown  # but for implicit items
        self._implicit_depth = 0  # of the outermost item in implicit VR within explicit ones
        self._fresh = False  # the next element is the first of its item

    @property
    def is_open(self) -> bool:
        """Has its last delimiter yet to come?"""
        return self._depth > 0

    def walk(self, buffer: bytes | bytearray, position: int, offset: int) -> int:
        """Go on from ``position``; give the one behind the element, or where bytes ran out (behind the buffer, maybe).

        Raises:
            DataSetError: What stands there can not; ``offset`` of the buffer is for its comment.
        """
        unknown_depth = self._unknown_depth
        form = self._little if unknown_depth else self._form
        header, wide, length_at, short, long, unknown, item = form
        limit = len(buffer) - 8
        depth = self._depth
        fresh = self._fresh
        explicit_here = self._is_explicit_here
        explicit = explicit_here and not self._implicit_depth
        while position <= limit and depth:
            if depth & 1:
                if buffer[position : position + 8] == item:
                    depth += 1
                    fresh = True
                    position += 8
                    continue
            elif explicit:  # nothing implicit is open: leaving an item ends none
                group, number, vr, length = header(buffer, position)
                if vr in short:  # 0.1 us an element
                    fresh = False
                    position += 8 + length
                    continue
                if group == 0xFFFE and number == ITEM_END:
                    depth -= 1
                    position += 8
                    if depth == unknown_depth:
                        explicit = explicit_here = False
                    continue
                if vr in long and position + 4 <= limit:
                    fresh = False
                    length = length_at(buffer, position + 8)[0]
                    position += 12
                    if length != UNDEFINED:
                        position += length
                        continue
                    depth += 1
                    if vr == unknown and not unknown_depth:
                        unknown_depth = depth
                        explicit = explicit_here = False
                        form = self._little
                        header, wide, length_at, short, long, unknown, item = form
                    continue
            group, number, length = wide(buffer, position)
            if group == 0xFFFE:
                position += 8
                if number == ITEM and depth & 1:
                    if length == UNDEFINED:
                        depth += 1
                        fresh = True
                    else:
                        position += length
                    continue
                if number == SEQUENCE_END:
                    depth = (depth - 1) & ~1
                elif number != ITEM_END:
                    raise DataSetError(f"(FFFE,{number:04X}) at byte {offset + position - 8}")
                elif not depth & 1:
                    depth -= 1
                if depth < self._implicit_depth:
                    self._implicit_depth = 0
                    explicit = explicit_here
                if depth == unknown_depth:
                    explicit = explicit_here = False
                elif depth < unknown_depth:
                    unknown_depth = 0
                    explicit = explicit_here = self._explicit
                    form = self._form
                    header, wide, length_at, short, long, unknown, item = form
                continue
            if depth & 1:
                raise DataSetError(f"({group:04X},{number:04X}) between items at byte {offset + position}")
            size = 8
            if fresh and depth == unknown_depth + 1:
                if position + 8 > limit:  # what stands behind may matter; there is a delimiter at least
                    break
                if shows_vr(buffer, position, limit + 8):
                    explicit = explicit_here = True
            if explicit:
                size, length, is_implicit = measure_header(form, buffer, position)
                if position + size > limit + 8:
                    break
                if is_implicit and fresh:
                    self._implicit_depth = depth
                    explicit = False
            fresh = False
            position += size
            if length == UNDEFINED:
                depth += 1
            else:
                position += length
        self._depth = depth
        self._fresh = fresh
        self._unknown_depth = unknown_depth
        self._is_explicit_here = explicit_here
        return position
