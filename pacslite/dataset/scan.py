"""Scan the header of a data set as it arrives: the top-level elements up to the pixel data, as received (PS3.5 §7).

Whatever the pieces, the work is linear in the bytes: nothing recurses, a value that is not kept costs one addition, and
of a sequence of undefined length only elements of undefined length are entered. Their nesting needs no stack: what is
open is always an item in a sequence in an item ..., so its depth says all (§7.5).
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from pacslite.dataset.element import (
    BIG,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    LITTLE,
    UNDEFINED,
    Element,
    Elements,
    is_capitals,
    measure_header,
    split_charsets,
    value_of,
)
from pacslite.errors import DimseError

__all__ = [
    "DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN",
    "EXPLICIT_VR_BIG_ENDIAN",
    "EXPLICIT_VR_LITTLE_ENDIAN",
    "IMPLICIT_VR_LITTLE_ENDIAN",
    "DataSetError",
    "HeaderScanner",
    "scan_header",
]

_FIRST_BLOCK = 16384  # most headers fit: one copy out of the receive buffer, hardly any pixels with it
_BLOCK = 65536
_NO_VR: frozenset[int] = frozenset()
_ENTRY = 150  # bytes that a kept element costs beside its own


class DataSetError(DimseError):
    """Bytes that are no data set in their transfer syntax; the comment gives the offset (PS3.4 §B.2.3)."""

    status = 0xC000  # cannot understand


class HeaderScanner:
    """Collects the header of one data set from pieces of any size.

    Args:
        transfer_syntax_uid: As negotiated. Explicit where implicit VR was promised, and the reverse, is noticed.
        keep_limit: Longer values are passed over.
        header_limit: Memory for what is kept; beyond, DataSetError. A deflated data set is inflated so far at most;
            beyond, the scan is over with ``truncated`` set: a bomb costs no more than this.
        stop_group: The header ends before the first element of this group or a higher one.
        detect: Off where the transfer syntax is certain: elements that were scanned before.
    """

    __slots__ = (
        "_base",
        "_base_header",
        "_block",
        "_buffer",
        "_depth",
        "_dropping",
        "_form",
        "_fresh",
        "_header_limit",
        "_implicit_depth",
        "_inflated",
        "_inflater",
        "_keep_limit",
        "_kept",
        "_offset",
        "_position",
        "_raw",
        "_skip",
        "_stop_group",
        "big_endian",
        "complete",
        "explicit",
        "leading",
        "truncated",
    )

    def __init__(
        self,
        transfer_syntax_uid: str,
        *,
        keep_limit: int = 65536,
        header_limit: int = 16 << 20,
        stop_group: int = 0x7FE0,
        detect: bool = True,
    ) -> None:
        self.explicit = transfer_syntax_uid != IMPLICIT_VR_LITTLE_ENDIAN
        self.big_endian = transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN
        self.complete = False
        self.truncated = False
        self.leading = 0  # bytes of groups 0000 and 0002 at the start: no part of a data set (PS3.7 §6.3, PS3.10 §7.1)
        self._raw: dict[int, bytes] = {}
        self._form = BIG if self.big_endian else LITTLE
        self._keep_limit = keep_limit
        self._header_limit = header_limit
        self._stop_group = stop_group
        self._inflater = zlib.decompressobj(-15) if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN else None
        self._inflated = 0
        self._buffer: bytes | bytearray = b""
        self._block = _FIRST_BLOCK
        self._position = 0  # in the buffer; behind its end where an item of an open sequence has yet to arrive
        self._offset = 0  # of the buffer in the data set
        self._skip = 0  # bytes to come that nobody wants
        self._kept = 0
        self._fresh = (
            detect  # the next element is the first of the data set or an item: it shows implicit or explicit VR
        )
        self._depth = 0  # open sequences (odd) and items (even) of undefined length
        self._implicit_depth = 0  # the outermost item in implicit VR within explicit ones (PS3.5 §6.2.2)
        self._base = 0  # where the open top-level element of undefined length begins
        self._base_header = 8
        self._dropping = False  # it has grown beyond keep_limit

    # receiving

    def feed(self, data: memoryview | bytes) -> bool:
        """Take the next piece; True once the header is complete, then no further one is needed.

        Raises:
            DataSetError: What arrived is no data set; what was read before it stays readable.
        """
        if self.complete:
            return True
        if self._inflater is not None:
            return self._feed_deflated(self._inflater, data)
        return self._feed(data)

    def finish(self) -> None:
        """Note that the data set has ended.

        Raises:
            DataSetError: In the middle of an element.
        """
        if self.complete:
            return
        if self._inflater is not None and not self._inflater.eof:
            raise DataSetError(f"deflated data set ends after {self._inflated} bytes inflated")
        rest = self._buffer[self._position :]
        if self._depth or self._skip or len(rest) >= 8 or any(rest):  # a few zeros are somebody's padding
            at = self._base if self._depth and not self._dropping else self._position
            raise DataSetError(f"data set ends inside the element at byte {self._offset + at}")
        self.complete = True

    # reading

    @property
    def elements(self) -> Mapping[int, Element]:
        """The top-level elements by tag; of duplicates the last."""
        return Elements(self._raw, self.explicit)

    @property
    def charsets(self) -> tuple[str, ...]:
        """Values of Specific Character Set (0008,0005), unpadded; empty ones count (PS3.3 §C.12.1.1.2)."""
        value = self.get(0x00080005)
        return split_charsets(value) if value else ()

    def get(self, tag: int) -> bytes | None:
        """Give the value of an element, None if absent."""
        raw = self._raw.get(tag)
        return None if raw is None else value_of(raw, self.explicit)

    def values(self, tags: Sequence[int]) -> list[bytes | None]:
        """Give the values of many elements at once."""
        get = self._raw.get
        explicit = self.explicit
        return [None if (raw := get(tag)) is None else value_of(raw, explicit) for tag in tags]

    def raw(self, tag: int) -> bytes:
        """Give an element whole, header, value and delimiter as received; empty if absent."""
        return self._raw.get(tag, b"")

    def raw_many(self, tags: Iterable[int]) -> bytes:
        """Give many elements, one after the other: an encoded data set if ``tags`` ascend."""
        get = self._raw.get
        return b"".join([get(tag, b"") for tag in tags])

    # private: pieces and the buffer

    def _feed(self, data: memoryview | bytes) -> bool:
        at = 0
        size = len(data)
        while True:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                self._offset += step
                at += step
            if at >= size:
                return False
            piece = data[at : at + self._block]
            at += len(piece)
            self._block = _BLOCK
            if not self._buffer:
                self._buffer = bytes(piece)
            elif isinstance(self._buffer, bytes):
                self._buffer = bytearray(self._buffer + piece)
            else:
                self._buffer += piece
            if self._parse():
                return True

    def _feed_deflated(self, inflater: "zlib._Decompress", data: memoryview | bytes) -> bool:
        for at in range(0, len(data), _BLOCK):
            rest = bytes(data[at : at + _BLOCK])
            while not inflater.eof:
                wanted = min(_BLOCK, self._header_limit + 1 - self._inflated)
                try:
                    piece = inflater.decompress(rest, wanted)
                except zlib.error as error:
                    raise DataSetError(f"deflated data set: {error}") from None
                rest = inflater.unconsumed_tail
                self._inflated += len(piece)
                if self._feed(piece):
                    return True
                if self._inflated > self._header_limit:
                    self.complete = self.truncated = True
                    return True
                if len(piece) < wanted:  # all that the input gives; some output may wait even when all input is taken
                    break
        return False

    def _parse(self) -> bool:
        """Go on in the buffer, then drop from it what is done with."""
        buffer = self._buffer
        position = self._position
        while not self.complete:
            if self._depth:
                position = self._walk_open(buffer, position)
                if self._depth:
                    break
            if self._fresh:
                position = self._walk_start(buffer, position)
                if self._fresh:
                    break
            position = self._walk_top(cast("bytes", buffer), position)
            if not self._depth:
                break
        if self._kept + _ENTRY * len(self._raw) > self._header_limit:
            raise DataSetError(f"header beyond {self._header_limit} bytes before byte {self._offset + position}")
        if self.complete:
            self._buffer = b""
            return True
        size = len(buffer)
        if self._depth and not self._dropping and position - self._base - self._base_header > self._keep_limit:
            self._dropping = True
        cut = self._base if self._depth and not self._dropping else min(position, size)
        if position > size and cut == size:
            self._skip = position - size
            position = size
        self._position = position - cut
        self._base -= cut
        self._offset += cut
        if cut == size:
            self._buffer = b""
        elif cut:
            self._buffer = buffer[cut:]
        return False

    # private: the walk over elements; each takes a position and gives the one where bytes ran out

    def _walk_start(self, buffer: bytes | bytearray, position: int) -> int:
        """Pass over elements that belong to the command set or the file, then see which encoding this really is."""
        size = len(buffer)
        while position + 8 <= size:
            group, _, length = LITTLE.wide(buffer, position)
            capitals = is_capitals(buffer[position + 4 : position + 6])
            if group not in {0x0000, 0x0002}:
                self._fresh = False
                self.explicit = capitals
                break
            header = 8
            if capitals:  # in little endian, whatever follows
                header, length, _ = measure_header(LITTLE, buffer, position)
                if position + header > size:
                    break
            if length == UNDEFINED:
                raise DataSetError(f"undefined length in group {group:04X} at byte {self._offset + position}")
            position += header + length
            self.leading += header + length
        return position

    def _walk_top(self, buffer: bytes, position: int) -> int:
        """Collect top-level elements until one has undefined length, or stops the header, or is not all there."""
        form = self._form
        unpack = form.header
        short = form.short_vrs if self.explicit and self._keep_limit >= 0xFFFF else _NO_VR
        stop = self._stop_group
        size = len(buffer)
        limit = size - 8
        start = position
        found: dict[int, bytes] = {}
        while position <= limit:
            group, number, vr, length = unpack(buffer, position)
            if vr in short and group < stop:  # the hot path: 0.2 us an element
                end = position + 8 + length
                if end > size:
                    break
                found[group << 16 | number] = buffer[position:end]
                position = end
                continue
            if group >= stop:
                self.complete = True
                break
            header = 8
            if self.explicit:
                header, length, _ = measure_header(form, buffer, position)
                if position + header > size:
                    break
            else:
                length = form.wide(buffer, position)[2]
            if length == UNDEFINED:
                self._base = position
                self._base_header = header
                self._depth = 1
                self._dropping = False
                position += header
                start += header  # counted when it is kept
                break
            end = position + header + length
            if length > self._keep_limit:
                start += end - position
            elif end > size:
                break
            else:
                found[group << 16 | number] = buffer[position:end]
            position = end
        self._kept += position - start
        if isinstance(self._buffer, bytearray):  # slices of a bytearray are such themselves
            found = {tag: bytes(raw) for tag, raw in found.items()}
        self._raw.update(found)
        return position

    def _walk_open(self, buffer: bytes | bytearray, position: int) -> int:
        """Go on in an element of undefined length, to its end if it is there (PS3.5 §7.5, §A.4).

        Only what is itself of undefined length is entered. An item is implicit if its first element is (§6.2.2: so is
        UN of undefined length), and then all within it.
        """
        form = self._form
        header = form.header
        wide = form.wide
        short = form.short_vrs
        limit = len(buffer) - 8
        depth = self._depth
        explicit = self.explicit and not self._implicit_depth
        fresh = self._fresh
        while position <= limit and depth:
            if depth & 1 == 0 and explicit:
                group, _, vr, length = header(buffer, position)
                if vr in short:
                    fresh = False
                    position += 8 + length
                    continue
            group, number, length = wide(buffer, position)
            if group == 0xFFFE:
                position += 8
                if depth & 1 and number == 0xE000:
                    if length == UNDEFINED:
                        depth += 1
                        fresh = True
                    else:
                        position += length
                    continue
                if number == 0xE0DD:  # of a sequence; closes an item in it too, whose own delimiter is missing
                    depth = (depth - 1) & ~1
                elif number != 0xE00D:
                    raise DataSetError(f"(FFFE,{number:04X}) at byte {self._offset + position - 8}")
                elif depth & 1 == 0:
                    depth -= 1
                if depth < self._implicit_depth:
                    self._implicit_depth = 0
                    explicit = self.explicit
                continue
            if depth & 1:
                raise DataSetError(f"({group:04X},{number:04X}) between items at byte {self._offset + position}")
            size = 8
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
        self._fresh = fresh and depth > 0
        self._depth = depth
        if depth == 0 and not self._dropping:
            self._keep_open(buffer, position)
        return position

    def _keep_open(self, buffer: bytes | bytearray, position: int) -> None:
        base = self._base
        if position - base - self._base_header - 8 <= self._keep_limit:
            group, number, _ = self._form.wide(buffer, base)
            self._raw[group << 16 | number] = bytes(buffer[base:position])
            self._kept += position - base


def scan_header(
    data: memoryview | bytes, transfer_syntax_uid: str, *, keep_limit: int = 65536, header_limit: int = 16 << 20
) -> HeaderScanner:
    """Scan a data set that is there, or its first bytes: ``complete`` tells if the header was."""
    scanner = HeaderScanner(transfer_syntax_uid, keep_limit=keep_limit, header_limit=header_limit)
    scanner.feed(data)
    return scanner
