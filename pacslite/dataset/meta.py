"""File Meta Information, PS3.10 §7.1: the header of every file we keep, written last and proof of what follows it.

(0002,0102) Private Information holds the data set's length and digest, under our creator UID in (0002,0100): a file
names its own bytes, so a check needs no second source. It also says whether its instance was new when it came: what
was cut off before it was refused takes no other's place then. The header's size depends on the UIDs and the AE title
only: room for it can be left before the data set has arrived, and the header written when its digest is known.
"""

import os
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from pacslite.errors import PacsliteError

__all__ = [
    "IMPLEMENTATION_CLASS_UID",
    "IMPLEMENTATION_VERSION_NAME",
    "PRIVATE_CREATOR_UID",
    "FileMeta",
    "FileMetaError",
    "encode_file_meta",
    "file_meta_size",
    "private_information",
    "read_file_meta",
]

# PS3.5 §B.2: roots derived from UUIDs, which need no registration
IMPLEMENTATION_CLASS_UID = "2.25.183587572400535530933899097272672747291"
IMPLEMENTATION_VERSION_NAME = "PACSLITE_0.1"
PRIVATE_CREATOR_UID = "2.25.225055889314196305492347342065272859905"

_MAGIC = b"PLF1"  # the version is the last character: another layout gets another one
_MAGIC_OF_NEW = b"PLN1"  # the same layout
_PRIVATE = struct.Struct("<4sQ16s")
_SHORT = struct.Struct("<HH2sH")  # PS3.5 Table 7.1-2; file meta is always Explicit VR Little Endian
_GROUP_LENGTH = struct.Struct("<HH2sHI")
_LONG = struct.Struct("<HH2sHI")  # PS3.5 Table 7.1-1
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_PREAMBLE = bytes(128) + b"DICM"  # never the sender's: a preamble may be a program (PS3.10 §7.5)
_FIRST_READ = 2048
_LARGEST = 1 << 20  # others may put much into Private Information; more than this is no header


class FileMetaError(PacsliteError):
    """No PS3.10 file: the preamble or the File Meta Information is missing or broken."""


class FileMeta(NamedTuple):
    """What the header says; ``data_set_length`` and ``digest`` are None unless pacslite wrote the file."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    source_ae_title: str
    data_set_offset: int
    data_set_length: int | None = None
    digest: bytes | None = None
    is_new: bool = False  # when it came its instance was not there


def private_information(data_set_length: int, digest: bytes, *, is_new: bool = False) -> bytes:
    """Give the value of (0002,0102): 28 bytes. ``digest`` is XXH3-128 over the data set as it lies in the file."""
    return _PRIVATE.pack(_MAGIC_OF_NEW if is_new else _MAGIC, data_set_length, digest)


def encode_file_meta(
    *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae_title: str, private: bytes
) -> bytes:
    """Encode preamble, prefix and group 0002; the data set follows at once. ``private`` is (0002,0102)'s value."""
    before, after = _around_instance(sop_class_uid, transfer_syntax_uid, source_ae_title)
    instance = _element(0x0003, b"UI", sop_instance_uid, b"\0")
    if len(private) % 2:
        private += b"\0"
    length = len(before) + len(instance) + len(after) + _LONG.size + len(private)
    return b"".join(
        (
            _PREAMBLE,
            _GROUP_LENGTH.pack(2, 0, b"UL", 4, length),
            before,
            instance,
            after,
            _LONG.pack(2, 0x0102, b"OB", 0, len(private)),
            private,
        )
    )


def file_meta_size(
    *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae_title: str, private_size: int = 28
) -> int:
    """Give ``len(encode_file_meta(...))`` before the digest is known: where the data set begins."""
    values = (sop_class_uid, sop_instance_uid, transfer_syntax_uid, source_ae_title)
    return _FIXED_SIZE + sum(len(value) + len(value) % 2 for value in values) + private_size + private_size % 2


def read_file_meta(source: int | bytes | memoryview) -> FileMeta:
    """Read the header of an open file (a descriptor; its position is left alone) or of bytes.

    Raises:
        FileMetaError: No ``DICM`` at 128, or the group 0002 cannot be walked, or it lacks the Transfer Syntax UID.
    Source: PS3.10 §7.1; a missing or wrong (0002,0000) is tolerated, the group is walked element by element.
    """
    size = _FIRST_READ
    while True:
        head = os.pread(source, size, 0) if isinstance(source, int) else bytes(source[:size])
        at_end = len(head) < size
        meta = _parse(head, at_end)
        if meta is not None:
            return meta
        if size >= _LARGEST:
            raise FileMetaError(f"File Meta Information goes on beyond {_LARGEST} bytes")
        size *= 8


def _parse(head: bytes, at_end: bool) -> FileMeta | None:
    """Give the header, or None if ``head`` ends before it does and the file goes on."""
    if head[128:132] != b"DICM":
        raise FileMetaError("no DICM prefix at byte 128")
    values: dict[int, bytes] = {}
    offset = 132
    private: tuple[int, bytes, bool] | None = None
    for element, value, end in _walk(head):
        if end > len(head):
            if at_end:
                raise FileMetaError(f"(0002,{element:04X}) at byte {offset} leaves the file")
            return None
        values[element] = value
        offset = end
        if element == 0x0102 and _text(values.get(0x0100, b"")) == PRIVATE_CREATOR_UID:
            private = _unpack_private(value)
            if private is not None:
                break  # our headers end here, even if the sender's data set begins with a group 0002 of its own
    if private is None and not at_end and len(head) - offset < _LONG.size:
        return None
    if 0x0010 not in values:
        raise FileMetaError("no Transfer Syntax UID (0002,0010)")
    sop_class, sop_instance, source = (_text(values.get(element, b"")) for element in (0x0002, 0x0003, 0x0016))
    return FileMeta(sop_class, sop_instance, _text(values[0x0010]), source, offset, *(private or ()))


def _unpack_private(value: bytes) -> tuple[int, bytes, bool] | None:
    if len(value) < _PRIVATE.size or not value.startswith((_MAGIC, _MAGIC_OF_NEW)):
        return None
    magic, length, digest = _PRIVATE.unpack_from(value)
    return length, digest, magic == _MAGIC_OF_NEW


def _text(value: bytes) -> str:
    return value.strip(b"\0 ").decode("ascii", "replace")


def _walk(head: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield (element, value, end) of group 0002; the value is cut where ``end`` lies beyond ``head``."""
    at = 132
    while at + _LONG.size <= len(head):
        group, element, vr, length = _SHORT.unpack_from(head, at)
        if group != 2:
            return
        start = at + _SHORT.size
        if vr in _LONG_VRS:
            length = _LONG.unpack_from(head, at)[4]
            start = at + _LONG.size
        elif not (vr.isalpha() and vr.isupper()):
            raise FileMetaError(f"(0002,{element:04X}) at byte {at} has no VR")
        at = start + length
        yield element, head[start:at], at


@lru_cache(256)
def _around_instance(sop_class_uid: str, transfer_syntax_uid: str, source_ae_title: str) -> tuple[bytes, bytes]:
    """What stands before and after (0003): the same for all that one device sends."""
    before = _LONG.pack(2, 0x0001, b"OB", 0, 2) + b"\0\1" + _element(0x0002, b"UI", sop_class_uid, b"\0")
    after = (
        _element(0x0010, b"UI", transfer_syntax_uid, b"\0")
        + _IMPLEMENTATION
        + _element(0x0016, b"AE", source_ae_title, b" ")
        + _PRIVATE_CREATOR
    )
    return before, after


def _element(element: int, vr: bytes, text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        value += padding
    return _SHORT.pack(2, element, vr, len(value)) + value


_IMPLEMENTATION = _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\0") + _element(
    0x0013, b"SH", IMPLEMENTATION_VERSION_NAME, b" "
)
_PRIVATE_CREATOR = _element(0x0100, b"UI", PRIVATE_CREATOR_UID, b"\0")
_FIXED_SIZE = len(
    encode_file_meta(sop_class_uid="", sop_instance_uid="", transfer_syntax_uid="", source_ae_title="", private=b"")
)
