"""Header elements kept beside the columns, so that a query returns them without opening a file.

A kept value is: one byte, the encoding (0 implicit VR little endian, 1 explicit little endian, 2 explicit big endian);
one byte, the length of Specific Character Set as received, and that text; then the elements, raw, ascending.
"""

from collections.abc import Collection
from typing import NamedTuple

from pacslite.archive.keys import KEY_OF_TAG, Level, level_of
from pacslite.archive.modules import PATIENT_MODULES, SERIES_MODULES, STUDY_MODULES
from pacslite.dataset.scan import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    HeaderScanner,
)

__all__ = ["Kept", "decode_kept", "encode_kept"]

_SYNTAXES = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
_TAGS: dict[Level, tuple[int, ...]] = {
    Level.PATIENT: tuple(sorted(PATIENT_MODULES)),
    Level.STUDY: tuple(sorted(STUDY_MODULES)),
    Level.SERIES: tuple(sorted(SERIES_MODULES)),
}
_VALUE_LIMIT = 2048  # of an element at IMAGE level; larger ones are tables and overlays, which no query asks for
_TOTAL_LIMIT = 16384
_UPPER_TOTAL_LIMIT = 65536  # a patient, study or series has one
_CHARSET = 0x00080005


class Kept(NamedTuple):
    """``elements`` are encoded in ``transfer_syntax_uid``, their text in ``charsets``."""

    transfer_syntax_uid: str
    charsets: tuple[str, ...]
    elements: bytes


def encode_kept(scan: HeaderScanner, level: Level) -> bytes:
    """Collect what belongs to ``level`` and stands in no column."""
    if level is Level.IMAGE:
        raws = _image_elements(scan, scan.elements.keys())
        limit = _TOTAL_LIMIT
    else:
        raws = [raw for tag in _TAGS[level] if tag not in KEY_OF_TAG and (raw := scan.raw(tag))]
        limit = _UPPER_TOTAL_LIMIT
    elements = b"".join(raws)
    if len(elements) > limit:
        elements = _within(raws, limit)
    charset = (scan.get(_CHARSET) or b"")[:255]
    code = (2 if scan.big_endian else 1) if scan.explicit else 0
    return bytes((code, len(charset))) + charset + elements


def decode_kept(value: bytes) -> Kept:
    """Take a kept value apart."""
    start = 2 + value[1]
    charset = value[2:start].decode("ascii", "replace")
    charsets = tuple(part.strip(" \0") for part in charset.split("\\")) if charset else ()
    return Kept(_SYNTAXES[value[0]], charsets, value[start:])


_UPPER = frozenset(PATIENT_MODULES) | frozenset(STUDY_MODULES) | frozenset(SERIES_MODULES)
_NOT_KEPT = _UPPER | frozenset(KEY_OF_TAG) | {_CHARSET}


def _image_elements(scan: HeaderScanner, tags: Collection[int]) -> list[bytes]:
    raw = scan.raw
    wanted = [tag for tag in tags if not tag & 0x10000 and tag not in _NOT_KEPT]  # odd groups are private
    wanted.sort()
    return [element for tag in wanted if len(element := raw(tag)) <= _VALUE_LIMIT]


def _within(raws: list[bytes], limit: int) -> bytes:
    kept: list[bytes] = []
    for raw in raws:
        limit -= len(raw)
        if limit < 0:
            break
        kept.append(raw)
    return b"".join(kept)


if any(level_of(tag) is Level.IMAGE for tag in _UPPER):
    raise AssertionError("keys.py moves a module attribute to another level: kept.py would lose it")
