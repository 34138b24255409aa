"""Scan the header of a data set as it arrives: the top-level elements up to the pixel data, as received (PS3.5 §7).

Whatever the pieces, the work is linear in the bytes and memory is bounded: a value that is not kept costs one addition,
a header that fits in the first piece one copy.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from pacslite.dataset.element import (
    BIG,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    LITTLE,
    SHORT_VR_BYTES,
    UNDEFINED,
    DataSetError,
    Element,
    Elements,
    is_capitals,
    measure_header,
    split_charsets,
    value_of,
)
from pacslite.dataset.inflate import Inflater
from pacslite.dataset.layout import Layout, Run
from pacslite.dataset.nested import OpenElement

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
_LONG = 1024  # bytes of an element that is given up before others: it is hardly a key of a query


class HeaderScanner:
    """Collects the header of one data set from pieces of any size.

    Args:
        transfer_syntax_uid: As negotiated. Explicit where implicit VR was promised, and the reverse, is noticed.
        keep_limit: Longer values are passed over.
        header_limit: Memory for what is kept. Of a header beyond it no long private elements are kept; if that is not
            enough no other private ones and no long ones at all; and beyond, DataSetError.
        inflate_limit: A deflated data set is inflated so far at most; then the scan is over, with ``truncated`` set: a
            bomb costs no more than this.
        stop_group: The header ends before the first element of this group or a higher one.
        detect: Off where the transfer syntax is certain: elements that were scanned before.
        layout: What is known of headers like this one, all of them with the same ``stop_group``.
    """

    __slots__ = (
        "_began",
        "_block",
        "_buffer",
        "_crowded",
        "_form",
        "_fresh",
        "_group",
        "_header_limit",
        "_in_runs",
        "_inflater",
        "_keep_limit",
        "_kept",
        "_layout",
        "_offset",
        "_open",
        "_position",
        "_raw",
        "_skip",
        "_stop_group",
        "big_endian",
        "complete",
        "end",
        "explicit",
        "leading",
        "rest",
        "truncated",
    )

    def __init__(
        self,
        transfer_syntax_uid: str,
        *,
        keep_limit: int = 65536,
        header_limit: int = 16 << 20,
        inflate_limit: int = 64 << 20,
        stop_group: int = 0x7FE0,
        detect: bool = True,
        layout: Layout | None = None,
    ) -> None:
        assert layout is None or keep_limit >= _FIRST_BLOCK, "runs hold no value that is passed over"
        self.explicit = transfer_syntax_uid != IMPLICIT_VR_LITTLE_ENDIAN
        self.big_endian = transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN
        self.complete = False
        self.truncated = False
        self.leading = 0  # bytes of groups 0000 and 0002 at the start: no part of a data set (PS3.7 §6.3, PS3.10 §7.1)
        self.end = 0  # where the element begins that the header ended before
        self.rest = b""  # its first bytes, 8 to 12; empty if there is none
        self._raw: dict[int, bytes] = {}
        self._form = BIG if self.big_endian else LITTLE
        self._keep_limit = keep_limit
        self._header_limit = header_limit
        self._stop_group = stop_group
        is_deflated = transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
        self._inflater = Inflater(inflate_limit) if is_deflated else None
        self._buffer: bytes | bytearray = b""
        self._block = _FIRST_BLOCK
        self._position = 0  # in the buffer; behind its end where something in the open element has yet to arrive
        self._offset = 0  # of the buffer in the data set
        self._began = 0  # in the data set: the element that is open or passed over
        self._skip = 0  # bytes to come that nobody wants
        self._group = 0  # of the last element that was open or passed over
        self._kept = 0
        self._crowded = 0  # how often it was too much; then less is kept
        self._fresh = detect  # the next element is the first: it shows implicit or explicit VR
        self._open: OpenElement | None = None
        self._layout = layout  # until the first block is walked
        self._in_runs = 0  # elements that were found by it

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
        if self._inflater is not None and not self._inflater.has_ended:
            raise DataSetError(f"deflated data set ends after {self._inflater.inflated} bytes inflated")
        rest = self._buffer[self._position :]
        if self._open or self._skip or len(rest) >= 8 or any(rest):  # a few zeros are somebody's padding
            at = self._began if self._open or self._skip else self._offset + self._position
            raise DataSetError(f"data set ends inside the element at byte {at}")
        self.complete = True

    # reading

    @property
    def elements(self) -> Mapping[int, Element]:
        """The top-level elements by tag; of duplicates the last."""
        return Elements(self._raw, self.explicit)

    @property
    def tags(self) -> tuple[int, ...]:
        """Of the top-level elements, in the order of their first appearance."""
        return tuple(self._raw)

    @property
    def charsets(self) -> tuple[str, ...]:
        """Values of Specific Character Set (0008,0005), unpadded; empty ones count (PS3.3 §C.12.1.1.2)."""
        value = self.get(0x00080005)
        return split_charsets(value) if value else ()

    @property
    def held(self) -> int:
        """Bytes of memory it holds, about."""
        return self._kept + _ENTRY * len(self._raw) + len(self._buffer)

    @property
    def group(self) -> int:
        """The highest group it came to, if elements ascend."""
        return max(self._group, max(self._raw, default=0) >> 16)

    def get(self, tag: int) -> bytes | None:
        """Give the value of an element, None if absent."""
        raw = self._raw.get(tag)
        return None if raw is None else value_of(raw, self.explicit)

    def values(self, tags: Sequence[int]) -> list[bytes | None]:
        """Give the values of many elements at once."""
        get = self._raw.get
        if self.explicit:
            short = SHORT_VR_BYTES
            return [
                None if (raw := get(tag)) is None else raw[8:] if raw[4:6] in short else value_of(raw, True)
                for tag in tags
            ]
        return [None if (raw := get(tag)) is None else value_of(raw, False) for tag in tags]

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

    def _feed_deflated(self, inflater: Inflater, data: memoryview | bytes) -> bool:
        if any(map(self._feed, inflater.inflate(data))):
            return True
        self.complete = self.truncated = inflater.is_beyond
        return self.complete

    def _parse(self) -> bool:
        """Go on in the buffer, then drop from it what is done with."""
        buffer = self._buffer
        position = self._position
        layout, self._layout = self._layout, None
        runs: dict[bytes, Run] | None = None
        while not self.complete:
            if self._open is not None:
                position = self._open.walk(buffer, position, self._offset)
                if self._open.is_open:
                    break
                self._keep(self._open, buffer, position)
                self._open = None
            if self._fresh:
                position = self._walk_start(buffer, position)
                if self._fresh:
                    break
            if layout is not None and runs is None:
                runs = layout.runs(explicit=self.explicit)
            position = self._walk_top(cast("bytes", buffer), position, runs)
            if self._open is None:
                break
        if layout is not None:
            alone = len(self._raw) - self._in_runs
            layout.walked(bytes(buffer), self.leading, position, explicit=self.explicit, alone=alone)
        while self._kept + _ENTRY * len(self._raw) > self._header_limit:
            self._crowded += 1
            if self._crowded > 2:
                raise DataSetError(f"header beyond {self._header_limit} bytes before byte {self._offset + position}")
            self._raw = self._worth_keeping(self._raw)
            self._kept = sum(map(len, self._raw.values()))
        if self.complete:
            self.end = self._offset + position
            self.rest = bytes(buffer[position : position + 12])
            self._buffer = b""
            return True
        self._drop(position)
        return False

    def _drop(self, position: int) -> None:
        """Keep of the buffer what is not done with; what goes on behind it is passed over as it comes."""
        size = len(self._buffer)
        cut = min(position, size)
        if self._open is not None and not self._open.is_dropped:
            if position - self._open.base - self._open.header_size > self._keep_limit:
                self._open.is_dropped = True
            else:
                cut = self._open.base
                self._open.base = 0
        if position > size == cut:
            self._skip = position - size
            position = size
        self._position = position - cut
        self._offset += cut
        if cut == size:
            self._buffer = b""
        elif cut:
            self._buffer = self._buffer[cut:]

    def _keep(self, element: OpenElement, buffer: bytes | bytearray, position: int) -> None:
        """Keep an element of undefined length that has ended."""
        base = element.base
        if not element.is_dropped and position - base - element.header_size - 8 <= self._keep_limit:
            group, number, _ = self._form.wide(buffer, base)
            found = {group << 16 | number: bytes(buffer[base:position])}
            if not self._crowded or self._worth_keeping(found):
                self._raw |= found
                self._kept += position - base

    def _worth_keeping(self, found: dict[int, bytes]) -> dict[int, bytes]:
        """Of a crowded header; what is kept in the end does not depend on the pieces it came in."""
        if self._crowded == 1:
            return {tag: raw for tag, raw in found.items() if len(raw) <= _LONG or not tag & 0x10000}
        return {tag: raw for tag, raw in found.items() if len(raw) <= _LONG and not tag & 0x10000}

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
            if capitals:  # group 0002 is little endian whatever follows
                header, length, _ = measure_header(LITTLE if group else self._form, buffer, position)
                if position + header > size:
                    break
            if length == UNDEFINED:
                raise DataSetError(f"undefined length in group {group:04X} at byte {self._offset + position}")
            self._began = self._offset + position
            position += header + length
            self.leading += header + length
        return position

    def _walk_top(self, buffer: bytes, position: int, runs: dict[bytes, Run] | None) -> int:
        """Collect top-level elements until one has undefined length, or stops the header, or is not all there.

        Those of a run may have undefined length: all of such an element is there. Each run is taken out of ``runs`` and
        tried once: who repeats its first header gains nothing by it.
        """
        form = self._form
        unpack = form.header
        short = form.short_vrs if self.explicit and self._keep_limit >= 0xFFFF else _NO_VR
        stop = self._stop_group
        size = len(buffer)
        limit = size - 8
        start = position
        found: dict[int, bytes] = {}
        while position <= limit:
            if runs and (run := runs.pop(buffer[position : position + 8], None)) is not None:
                end = position + run.size
                if end <= size and int.from_bytes(buffer[position:end], "little") & run.mask == run.headers:
                    found.update(zip(run.tags, run.split(buffer, position), strict=True))
                    self._in_runs += len(run.tags)
                    position = end
                    continue
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
            if self.explicit and vr in form.long_vrs and position + 12 <= size:
                header, length = 12, form.length(buffer, position + 8)[0]
            elif self.explicit:
                header, length, _ = measure_header(form, buffer, position)
                if position + header > size:
                    break
            else:
                length = form.wide(buffer, position)[2]
            if length == UNDEFINED:
                self._began = self._offset + position
                self._group = group
                unknown = self.explicit and vr == form.unknown
                self._open = OpenElement(form, position, header, explicit=self.explicit, is_unknown=unknown)
                position += header
                start += header  # counted when it is kept
                break
            end = position + header + length
            if length > self._keep_limit:
                self._began = self._offset + position
                self._group = group
                start += end - position
            elif end > size:
                break
            else:
                found[group << 16 | number] = buffer[position:end]
            position = end
        if isinstance(self._buffer, bytearray):  # slices of a bytearray are such themselves
            found = {tag: bytes(raw) for tag, raw in found.items()}
        if self._crowded:
            found = self._worth_keeping(found)
            self._kept += sum(map(len, found.values()))
        else:
            self._kept += position - start
        self._raw.update(found)
        return position


def scan_header(data: memoryview | bytes, transfer_syntax_uid: str, *, detect: bool = True) -> HeaderScanner:
    """Scan a data set that is there, or its first bytes: ``complete`` tells if the header's end was."""
    scanner = HeaderScanner(transfer_syntax_uid, detect=detect)
    scanner.feed(data)
    return scanner
