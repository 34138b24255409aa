"""How a data element is encoded, in each byte order, with and without its VR (PS3.5 §7.1)."""

import struct
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from mmap import mmap
from typing import Literal, NamedTuple

from pacslite.dataset.dictionary import sign_varies, vr_of
from pacslite.errors import DimseError

__all__ = [
    "BIG",
    "DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN",
    "EXPLICIT_VR_BIG_ENDIAN",
    "EXPLICIT_VR_LITTLE_ENDIAN",
    "IMPLICIT_VR_LITTLE_ENDIAN",
    "ITEM",
    "ITEM_END",
    "LITTLE",
    "LONG_VRS",
    "PIXELS",
    "PIXEL_DATA",
    "PIXEL_REPRESENTATION",
    "SEQUENCE_END",
    "SHORT_VRS",
    "SHORT_VR_BYTES",
    "UNDEFINED",
    "DataSetError",
    "Element",
    "Elements",
    "Form",
    "is_capitals",
    "is_signed",
    "measure_header",
    "pass_leading",
    "shows_vr",
    "split_charsets",
    "value_of",
]

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

# §7.1.2: a 16-bit length for these, two reserved bytes and a 32-bit length for all others, those to come included
SHORT_VRS = frozenset(
    {"AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO"}
    | {"LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US"}
)
LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
UNDEFINED = 0xFFFFFFFF
PIXEL_REPRESENTATION = 0x00280103
PIXEL_DATA = 0x7FE00010
PIXELS = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})  # PS3.3 §C.7.6.3, §C.7.6.24: one of them, and the last
ITEM, ITEM_END, SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD  # of group FFFE


class DataSetError(DimseError):
    """Bytes that are no data set in their transfer syntax; the comment gives the offset (PS3.4 §B.2.3)."""

    status = 0xC000  # cannot understand


class Element(NamedTuple):
    """A top-level element. ``value`` is as received: padded, in the sender's byte order; a sequence with its items."""

    vr: str
    value: bytes


class Elements(Mapping[int, Element]):
    """The elements found, made when looked at."""

    __slots__ = ("_explicit", "_raw")

    def __init__(self, raw: dict[int, bytes], explicit: bool) -> None:
        self._raw = raw
        self._explicit = explicit

    def __getitem__(self, tag: int) -> Element:
        raw = self._raw[tag]
        vr = raw[4:6]
        if self._explicit and is_capitals(vr):
            return Element(vr.decode("ascii"), value_of(raw, True))
        vr_known = vr_of(tag) or "UN"
        if vr_known == "US" and sign_varies(tag) and PIXEL_REPRESENTATION in self._raw:
            vr_known = "SS" if is_signed(value_of(self._raw[PIXEL_REPRESENTATION], self._explicit)) else "US"
        return Element(vr_known, value_of(raw, False))

    def __iter__(self) -> Iterator[int]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def __contains__(self, tag: object) -> bool:
        return tag in self._raw


class Form(NamedTuple):
    """How elements look in a byte order."""

    header: Callable[[bytes | bytearray | mmap, int], tuple[int, int, int, int]]  # group, element, VR, 16-bit length
    wide: Callable[[bytes | bytearray | mmap, int], tuple[int, int, int]]  # group, element, 32-bit length
    length: Callable[[bytes | bytearray | mmap, int], tuple[int]]
    short_vrs: frozenset[int]  # as ``header`` gives them
    long_vrs: frozenset[int]
    unknown: int  # VR UN
    item: bytes  # that begins one of undefined length


def _form(order: Literal["little", "big"]) -> Form:
    sign = "<" if order == "little" else ">"
    return Form(
        struct.Struct(sign + "HHHH").unpack_from,
        struct.Struct(sign + "HHI").unpack_from,
        struct.Struct(sign + "I").unpack_from,
        frozenset(int.from_bytes(vr.encode(), order) for vr in SHORT_VRS),
        frozenset(int.from_bytes(vr.encode(), order) for vr in LONG_VRS),
        int.from_bytes(b"UN", order),
        struct.pack(sign + "HHI", 0xFFFE, 0xE000, UNDEFINED),
    )


def measure_header(form: Form, buffer: bytes | bytearray | mmap, position: int) -> tuple[int, int, bool]:
    """Give header size, value length, and whether it is implicit, of an element where VRs are due.

    The length of a 12-byte header that is not all there is 0.
    """
    vr = bytes(buffer[position + 4 : position + 6])
    if vr not in SHORT_VR_BYTES:
        if not is_capitals(vr):  # some senders switch to implicit VR, mostly within sequences
            return 8, form.wide(buffer, position)[2], True
        if vr in _LONG_VR_BYTES or buffer[position + 6 : position + 8] == b"\0\0":
            return 12, form.length(buffer, position + 8)[0] if position + 12 <= len(buffer) else 0, False
    return 8, form.header(buffer, position)[3], False  # an unknown VR without reserved zeros too


def value_of(raw: bytes, explicit: bool) -> bytes:
    """Give the value within an encoded element."""
    vr = raw[4:6]
    if explicit and vr in SHORT_VR_BYTES:
        return raw[8:]
    header = 8
    if explicit and is_capitals(vr) and (vr in _LONG_VR_BYTES or raw[6:8] == b"\0\0"):
        header = 12
    elif explicit and is_capitals(vr):
        return raw[8:]
    if raw[header - 4 : header] == b"\xff\xff\xff\xff":
        return raw[header:-8]
    return raw[header:]


def split_charsets(value: bytes) -> tuple[str, ...]:
    """Give the values of Specific Character Set (0008,0005), unpadded; none if it is empty."""
    return _split_charsets(value[:1024])  # nothing sensible is longer, and what is cached must be small


@lru_cache(maxsize=256)
def _split_charsets(value: bytes) -> tuple[str, ...]:
    text = value.decode("ascii", "replace").rstrip(" \0")
    return tuple(part.strip(" \0") for part in text.split("\\")) if text else ()


def is_capitals(vr: bytes | bytearray) -> bool:
    """Is this a VR, of today or to come (PS3.5 §6.2)? As lengths these would be 16 KiB and more."""
    return 0x41 <= vr[0] <= 0x5A and 0x41 <= vr[1] <= 0x5A


def pass_leading(form: Form, data: bytes | mmap, at: int) -> tuple[int, int]:
    """Pass over elements of the command set and of a file's header, which some devices send before a data set.

    Returns:
        Where the last of them begins, and the position behind it, which may be behind ``data``.
    """
    began = at
    while at + 8 <= len(data):
        group, _, length = LITTLE.wide(data, at)
        if group not in {0x0000, 0x0002}:
            break
        header = 8
        if is_capitals(data[at + 4 : at + 6]):
            header, length, _ = measure_header(LITTLE if group else form, data, at)
        began, at = at, at + header + length
    return began, at


def shows_vr(buffer: bytes | bytearray | mmap, position: int, end: int) -> bool:
    """Has the first element a VR where by rule it has none: in an item of UN (§6.2.2), or as promised implicit VR?

    Taken for one are those of today only. What may as well be a length, even and below 64 KiB, is the VR of an empty
    value if the item goes on right behind it: there it ends, or another element with a VR begins.

    Args:
        end: Of the item or data set, or of the bytes there are: at least 16, if it has no length.
    """
    head = bytes(buffer[position : position + 8])
    if not _has_known_vr(head):
        return False
    if head[4] & 1 or head[6:] != b"\0\0":
        return True
    if position + 16 > end:
        return position + 8 == end
    behind = bytes(buffer[position + 8 : position + 16])
    group, number, _ = LITTLE.wide(behind, 0)
    if group == 0xFFFE:
        return number in {0xE00D, 0xE0DD}  # the item's delimiter, or where that is missing the sequence's
    return (group, number) > LITTLE.wide(head, 0)[:2] and _has_known_vr(behind)


def _has_known_vr(head: bytes) -> bool:
    vr = head[4:6]
    return vr in SHORT_VR_BYTES or vr in _LONG_VR_BYTES


def is_signed(pixel_representation: bytes) -> bool:
    """Is what may be US or SS the latter (PS3.5 §A.1)? Takes the value of (0028,0103) in either byte order."""
    return any(pixel_representation)


LITTLE = _form("little")
BIG = _form("big")
SHORT_VR_BYTES = frozenset(vr.encode() for vr in SHORT_VRS)
_LONG_VR_BYTES = frozenset(vr.encode() for vr in LONG_VRS)
