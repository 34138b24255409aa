"""How items and sub-items are built of fields, PS3.8 §9.3.1: the encoding that all of them share.

An item is type (1), reserved (1), length (2), value. Sub-items also hold fields with a length of their own before them.
"""

from collections.abc import Iterator
from struct import Struct

from pacslite.errors import PacsliteError

__all__ = [
    "PDUError",
    "decode_text",
    "encode_counted",
    "encode_item",
    "encode_text",
    "split_items",
    "take_counted",
]

_ITEM = Struct("!BxH")  # Item-type, reserved, Item-length
_LENGTH = Struct("!H")


class PDUError(PacsliteError):
    """Bytes that are no valid PDU: Evt19. ``reason`` is for the provider's A-ABORT (PS3.8 Table 9-26)."""

    def __init__(self, pdu: str, field: str, problem: str, *, reason: int = 6) -> None:
        super().__init__(f"{pdu}, {field}: {problem}")
        self.reason = reason


def encode_item(item_type: int, *parts: bytes) -> bytes:
    """Put header and parts together, in one copy."""
    length = sum(map(len, parts))
    if length > 0xFFFF:
        raise PDUError("A-ASSOCIATE", f"item {item_type:02X}H", f"{length} bytes do not fit an Item-length of 2 bytes")
    return b"".join((_ITEM.pack(item_type, length), *parts))


def split_items(value: memoryview, pdu: str, where: str) -> Iterator[tuple[int, memoryview]]:
    """Yield (Item-type, value) of consecutive items; values are views. ``where`` names the enclosing item."""
    at = 0
    while at < len(value):
        if len(value) - at < _ITEM.size:
            raise PDUError(pdu, where, f"{len(value) - at} bytes left at byte {at}, no item header")
        item_type, length = _ITEM.unpack_from(value, at)
        end = at + _ITEM.size + length
        if end > len(value):
            raise PDUError(pdu, where, f"item {item_type:02X}H of {length} bytes at byte {at} leaves it")
        yield item_type, value[at + _ITEM.size : end]
        at = end


def encode_text(text: str, field: str) -> bytes:
    """UIDs and names are ISO 646; peers' own Latin-1 goes back as it came. No padding in PDUs (PS3.8 Annex F)."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise PDUError("A-ASSOCIATE", field, f"{text!r} is not ISO 646") from error


def decode_text(value: memoryview) -> str:
    return str(value, "latin-1").strip(" \0")


def encode_counted(value: bytes) -> bytes:
    """A field with its length before it, as sub-items hold them."""
    if len(value) > 0xFFFF:
        raise PDUError("A-ASSOCIATE", "sub-item field", f"{len(value)} bytes do not fit a length of 2 bytes")
    return _LENGTH.pack(len(value)) + value


def take_counted(value: memoryview, at: int, pdu: str, field: str) -> tuple[memoryview, int]:
    """Read a counted field at ``at``: its view and where the next one begins."""
    start = at + _LENGTH.size
    if start > len(value):
        raise PDUError(pdu, field, f"its length is missing at byte {at}")
    (length,) = _LENGTH.unpack_from(value, at)
    if start + length > len(value):
        raise PDUError(pdu, field, f"{length} bytes announced, {len(value) - start} there")
    return value[start : start + length], start + length
