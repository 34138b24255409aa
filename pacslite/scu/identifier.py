"""Identifiers as a client writes and reads them: keywords and text, no tags and bytes."""

import struct
from collections.abc import Mapping
from typing import TypeAlias

from pacslite.dataset.charset import decode_text, encode_text
from pacslite.dataset.dictionary import keyword_of, tag_of, vr_of
from pacslite.dataset.encode import Identifier, IdentifierEncoder, decode_identifier
from pacslite.errors import PacsliteError

__all__ = ["Answer", "Keys", "UnknownKey", "decode_answer", "encode_keys"]

Keys: TypeAlias = Mapping[str, str]  # keyword, or tag as GGGG,EEEE, to the value to match; empty: return it
Answer: TypeAlias = dict[str, "str | list[Answer]"]  # keyword (or tag) to value; several are joined by a backslash

_SPECIFIC_CHARACTER_SET, _QUERY_RETRIEVE_LEVEL = 0x00080005, 0x00080052
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}


class UnknownKey(PacsliteError):
    """A key or value that cannot be written into an identifier."""


def encode_keys(keys: Keys, level: str, transfer_syntax_uid: str) -> bytes:
    """Encode the identifier of a request.

    Raises:
        UnknownKey: A key that the dictionary does not know, or a value that its VR cannot hold.
    """
    values: dict[int, str] = {}
    for key, value in keys.items():
        tag = tag_of(key)
        if tag is None:
            raise UnknownKey(f"{key!r} is no keyword and no tag")
        values[tag] = value
    values[_QUERY_RETRIEVE_LEVEL] = level.upper()
    charsets: tuple[str, ...] = ()
    if not all(value.isascii() for value in values.values()):
        charsets = ("ISO_IR 192",)
        values[_SPECIFIC_CHARACTER_SET] = charsets[0]
    encoder = IdentifierEncoder(transfer_syntax_uid)
    return encoder.data_set(
        b"".join(
            encoder.element(tag, vr_of(tag) or "UN", _encode(tag, values[tag], charsets)) for tag in sorted(values)
        )
    )


def decode_answer(data: bytes, transfer_syntax_uid: str) -> Answer:
    """Read an identifier that came in a response."""
    return _answer(decode_identifier(data, transfer_syntax_uid), ())


def _encode(tag: int, value: str, charsets: tuple[str, ...]) -> bytes:
    vr = vr_of(tag) or "UN"
    if not value:
        return b""
    if vr == "SQ":
        raise UnknownKey(f"{keyword_of(tag)}: a sequence takes no value")
    if vr in _NUMBERS or vr == "AT":
        try:
            return b"".join(_encode_part(vr, part) for part in value.split("\\"))
        except (ValueError, OverflowError, struct.error):
            raise UnknownKey(f"{keyword_of(tag)}: {value!r} is no value of VR {vr}") from None
    encoded = encode_text(value, vr, charsets)
    if encoded is None:
        raise UnknownKey(f"{keyword_of(tag)}: {value!r} cannot be written")
    return encoded


def _encode_part(vr: str, text: str) -> bytes:
    if vr == "AT":
        tag = tag_of(text)
        if tag is None:
            raise ValueError(text)
        return struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    return struct.pack("<" + _NUMBERS[vr], float(text) if vr in {"FL", "FD"} else int(text))


def _answer(identifier: Identifier, inherited: tuple[str, ...]) -> Answer:
    charsets = identifier.charsets or inherited
    answer: Answer = {}
    for tag, attribute in identifier.items():
        name = keyword_of(tag) or f"{tag >> 16:04X},{tag & 0xFFFF:04X}"
        if isinstance(attribute.value, list):
            answer[name] = [_answer(item, charsets) for item in attribute.value]
        elif attribute.vr in _NUMBERS:
            size = struct.calcsize(_NUMBERS[attribute.vr])
            count = len(attribute.value) // size
            numbers = struct.unpack_from(f"<{count}{_NUMBERS[attribute.vr]}", attribute.value)
            answer[name] = "\\".join(str(number) for number in numbers)
        elif attribute.vr == "AT":
            whole = len(attribute.value) & ~3
            tags = struct.iter_unpack("<HH", attribute.value[:whole])
            answer[name] = "\\".join(f"{group:04X},{element:04X}" for group, element in tags)
        else:
            answer[name] = _unpadded(decode_text(attribute.value, attribute.vr, charsets), attribute.vr)
    return answer


def _unpadded(text: str, vr: str) -> str:
    """PS3.5 §6.2: leading spaces belong to the value of LT, ST and UT, which have one only."""
    if vr in {"LT", "ST", "UT"}:
        return text.rstrip(" \0")
    return "\\".join(part.strip(" \0") for part in text.split("\\"))
