"""Header elements kept beside the columns, so that a query returns them without opening a file.

A kept value is: one byte, the encoding (0 implicit VR little endian, 1 explicit little endian, 2 explicit big endian;
80H added where the elements are deflated); one byte, the length of Specific Character Set as received, and that text;
then the elements, raw, ascending.

All public attributes of a header are kept, but for values over 64 KiB, which the scanner passes over: no VR with a
16-bit length reaches that, so they are bulk data in sequences and binary VRs (contours, lookup tables, documents).
"""

import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from pacslite.archive.keys import KEY_OF_TAG, Level, level_of
from pacslite.archive.modules import PATIENT_MODULES, SERIES_MODULES, STUDY_MODULES
from pacslite.dataset.element import PIXEL_REPRESENTATION
from pacslite.dataset.scan import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    HeaderScanner,
)

__all__ = ["Kept", "decode_kept", "encode_kept"]

_SYNTAXES = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
_TAGS: dict[Level, tuple[int, ...]] = {
    level: tuple(sorted(set(modules) - KEY_OF_TAG.keys()))
    for level, modules in (
        (Level.PATIENT, PATIENT_MODULES),
        (Level.STUDY, STUDY_MODULES),
        (Level.SERIES, [*SERIES_MODULES, PIXEL_REPRESENTATION]),  # what is of either sign is read by it
    )
}
# Of a level of an instance: a thousand times what a slice has; only who wants to fill the index meets it
_LIMIT = 1 << 20
_PLAIN_LIMIT = 8192  # more is functional groups, overlays or a report, and shrinks to a tenth; a slice has 500 bytes
_MOST_REMEMBERED = 512  # tags of a header
_DEFLATED = 0x80
_CHARSET = 0x00080005


class Kept(NamedTuple):
    """``elements`` are encoded in ``transfer_syntax_uid``, their text in ``charsets``."""

    transfer_syntax_uid: str
    charsets: tuple[str, ...]
    elements: bytes


def encode_kept(scan: HeaderScanner, level: Level) -> bytes:
    """Collect what belongs to ``level`` and stands in no column."""
    elements = scan.raw_many(_image_tags(scan) if level is Level.IMAGE else _TAGS[level])
    if len(elements) > _LIMIT:
        elements = _within_limit(scan, _image_tags(scan) if level is Level.IMAGE else _TAGS[level])
    charset = (scan.get(_CHARSET) or b"")[:255]
    code = (2 if scan.big_endian else 1) if scan.explicit else 0
    if len(elements) > _PLAIN_LIMIT:
        code |= _DEFLATED
        elements = zlib.compress(elements, 1)
    return bytes((code, len(charset))) + charset + elements


def decode_kept(value: bytes) -> Kept:
    """Take a kept value apart."""
    start = 2 + value[1]
    charset = value[2:start].decode("ascii", "replace")
    charsets = tuple(part.strip(" \0") for part in charset.split("\\")) if charset else ()
    elements = value[start:]
    if value[0] & _DEFLATED:
        elements = zlib.decompress(elements)
    return Kept(_SYNTAXES[value[0] & ~_DEFLATED], charsets, elements)


_UPPER = frozenset(PATIENT_MODULES) | frozenset(STUDY_MODULES) | frozenset(SERIES_MODULES)
_NOT_KEPT = _UPPER | frozenset(KEY_OF_TAG) | {_CHARSET}


def _image_tags(scan: HeaderScanner) -> Sequence[int]:
    tags = scan.tags
    return _kept_of(tags) if len(tags) <= _MOST_REMEMBERED else _kept_of.__wrapped__(tags)


@lru_cache(256)
def _kept_of(tags: tuple[int, ...]) -> tuple[int, ...]:
    """Those of a header that belong to its image; a device sends thousands of headers with the same tags."""
    return tuple(sorted(tag for tag in tags if not tag & 0x10000 and tag not in _NOT_KEPT))  # odd groups are private


def _within_limit(scan: HeaderScanner, tags: Iterable[int]) -> bytes:
    """The shortest elements, as many as may be kept."""
    kept: list[int] = []
    left = _LIMIT
    for size, tag in sorted((len(scan.raw(tag)), tag) for tag in tags):
        left -= size
        if left < 0:
            break
        kept.append(tag)
    return scan.raw_many(sorted(kept))


if any(level_of(tag) is Level.IMAGE for tag in _UPPER):
    raise AssertionError("keys.py moves a module attribute to another level: kept.py would lose it")
