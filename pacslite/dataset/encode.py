"""Encode identifiers of answers and requests, in the transfer syntax of their context (PS3.5 §7, §10).

Values are given in little endian, as ``decode_identifier`` gives them; padding to even length is ours.
"""

import zlib
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from struct import Struct

from pacslite.dataset.decode import (
    WORD_SIZES,
    Attribute,
    Identifier,
    IdentifierError,
    IdentifierUndecodable,
    decode_identifier,
    swap_bytes,
)
from pacslite.dataset.element import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    SHORT_VRS,
)
from pacslite.dataset.scan import DataSetError, HeaderScanner

__all__ = [
    "Attribute",
    "Identifier",
    "IdentifierEncoder",
    "IdentifierError",
    "IdentifierUndecodable",
    "RowEncoder",
    "convert_elements",
    "decode_identifier",
]

_NUL_PADDED = frozenset({"UI", "OB", "OD", "OF", "OL", "OV", "OW", "UN", "SQ"})  # PS3.5 §6.2; all others by a space
_LONGEST_READY = 256  # headers of values up to this length are kept
_CONVERTED_DEPTH = 64  # elements of what was stored may nest deeper than what is asked


class IdentifierEncoder:
    """Encodes elements in one transfer syntax; their ascending order is the caller's.

    A value beyond 65534 bytes of a VR with a 16-bit length becomes UN (PS3.5 §6.2.2 note 4), little endian.
    """

    __slots__ = ("_explicit", "_header", "_is_big", "_is_deflated", "_long_header", "_wide")

    def __init__(self, transfer_syntax_uid: str) -> None:
        self._is_big = transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN
        self._is_deflated = transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
        self._explicit = transfer_syntax_uid != IMPLICIT_VR_LITTLE_ENDIAN
        order = ">" if self._is_big else "<"
        self._wide = Struct(order + "HHI").pack
        self._header = Struct(order + "HH2sH").pack
        self._long_header = Struct(order + "HH2sHI").pack

    @property
    def swapped_vrs(self) -> Collection[str]:
        """VRs whose values are not encoded as they are given, but in big endian (PS3.5 §7.3)."""
        return WORD_SIZES.keys() if self._is_big else ()

    def element(self, tag: int, vr: str, value: bytes) -> bytes:
        """Encode one element; ``value`` of a sequence is its items, encoded."""
        size = len(value)
        if size & 1:
            value += b"\0" if vr in _NUL_PADDED else b" "
            size += 1
        if not self._explicit:
            return self._wide(tag >> 16, tag & 0xFFFF, size) + value
        if vr in SHORT_VRS:
            if size <= 0xFFFE:
                if self._is_big:
                    value = swap_bytes(vr, value)
                return self._header(tag >> 16, tag & 0xFFFF, vr.encode("ascii"), size) + value
            vr = "UN"
        if self._is_big:
            value = swap_bytes(vr, value)
        return self._long_header(tag >> 16, tag & 0xFFFF, vr.encode("ascii"), 0, size) + value

    def sequence(self, tag: int, items: Iterable[bytes]) -> bytes:
        """Encode a sequence of defined length of items of defined length; each item is its elements, encoded."""
        wide = self._wide
        return self.element(tag, "SQ", b"".join([wide(0xFFFE, 0xE000, len(item)) + item for item in items]))

    def identifier(self, identifier: Identifier) -> bytes:
        """Encode all attributes of a decoded identifier, ascending."""
        return b"".join([self._attribute(tag, identifier[tag]) for tag in sorted(identifier)])

    def data_set(self, elements: bytes) -> bytes:
        """Give encoded elements as they go into a message: deflated where the syntax is (PS3.5 §A.5)."""
        if not self._is_deflated:
            return elements
        deflater = zlib.compressobj(wbits=-15)
        deflated = deflater.compress(elements) + deflater.flush()
        return deflated + bytes(len(deflated) & 1)

    def prepare(self, columns: Sequence[tuple[int, str]]) -> "RowEncoder":
        """Get ready to encode many rows of values of the same (tag, VR), ascending."""
        return RowEncoder(self, columns)

    def _attribute(self, tag: int, attribute: Attribute) -> bytes:
        if isinstance(attribute.value, bytes):
            return self.element(tag, attribute.vr, attribute.value)
        return self.sequence(tag, [self.identifier(item) for item in attribute.value])


class RowEncoder:
    """Encodes rows of one shape, what C-FIND answers (PS3.4 §C.4.1); headers are made once a length."""

    __slots__ = ("_columns", "_element", "_swapped")

    def __init__(self, encoder: IdentifierEncoder, columns: Sequence[tuple[int, str]]) -> None:
        self._element = encoder.element
        self._swapped = encoder.swapped_vrs
        self._columns = [
            (tag, vr, b"\0" if vr in _NUL_PADDED else b" ", {0: encoder.element(tag, vr, b"")}) for tag, vr in columns
        ]

    def encode(self, values: Sequence[bytes | None]) -> bytes:
        """Encode a row; None is an empty value (type 2)."""
        parts: list[bytes] = []
        append = parts.append
        for (tag, vr, padding, headers), value in zip(self._columns, values, strict=True):
            if not value:
                append(headers[0])
                continue
            size = len(value)
            header = headers.get(size)
            if header is None:
                encoded = self._element(tag, vr, value)
                if size <= _LONGEST_READY and vr not in self._swapped:
                    headers[size] = encoded[: -(size + (size & 1))]
                append(encoded)
                continue
            append(header)
            append(value)
            if size & 1:
                append(padding)
        return b"".join(parts)


def convert_elements(elements: bytes, from_syntax: str, to_syntax: str) -> bytes:
    """Encode stored elements in another transfer syntax, in their order; what cannot be decoded is left out.

    ``elements`` are as ``HeaderScanner.raw`` gives them, which may be in either VR encoding where a sender switched.
    Sequences get defined lengths. An unchanged syntax changes nothing: what was received goes out.
    """
    if _base_syntax(from_syntax) == _base_syntax(to_syntax):
        return elements
    scanner = HeaderScanner(_base_syntax(from_syntax), keep_limit=len(elements), header_limit=1 << 40, detect=False)
    with suppress(DataSetError):  # what stands before the error was found
        scanner.feed(elements)
    encoder = IdentifierEncoder(to_syntax)
    parts: list[bytes] = []
    for tag in scanner.elements:
        try:
            decoded = decode_identifier(
                scanner.raw(tag), _base_syntax(from_syntax), max_depth=_CONVERTED_DEPTH, detect=False
            )
        except IdentifierError:
            continue
        parts.append(encoder.identifier(decoded))
    return b"".join(parts)


def _base_syntax(transfer_syntax_uid: str) -> str:
    """Encapsulated and deflated data sets are Explicit VR Little Endian (PS3.5 §A.4, §A.5)."""
    if transfer_syntax_uid in {IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN}:
        return transfer_syntax_uid
    return EXPLICIT_VR_LITTLE_ENDIAN
