"""What a compressed frame says of itself.

ITU-T T.81 Annex B (JPEG), T.87 Annex C (JPEG-LS), T.800 Annex A (JPEG 2000), PS3.5 §G.5 (RLE).
"""

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

__all__ = ["Shape", "begins_frame", "is_adobe_ycc", "read_shape"]

_JPEG = b"\xff\xd8"
_SIZ = b"\xff\x4f\xff\x51"  # the start of a JPEG 2000 codestream, with the segment that comes first
_STARTS = (_JPEG, _SIZ, b"\0\0\0\x0cjP  ")  # the last: a JP2 file
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_START_OF_SCAN = 0xDA
_FRAME_HEADER = Struct(">xHHB").unpack_from  # after the precision: lines, samples a line, components
_SIZE = Struct(">4x2x2x4I16xH").unpack_from  # extent and offset of the image, components


class Shape(NamedTuple):
    """Of an image."""

    rows: int
    columns: int
    samples_per_pixel: int


def begins_frame(head: bytes) -> bool:
    """Does a frame begin with these 16 bytes?"""
    if head.startswith(_STARTS):
        return True
    segments, first = int.from_bytes(head[:4], "little"), int.from_bytes(head[4:8], "little")
    return 1 <= segments <= 15 and first == 64  # the header of an RLE frame


def read_shape(frame: bytes) -> Shape | None:
    """Read the shape of the image; None if the stream does not say it, as in RLE, or not at its beginning."""
    if not frame.startswith(_JPEG):
        at = frame.find(_SIZ)
        if at < 0 or at + 42 > len(frame):
            return None
        width, height, left, top, components = _SIZE(frame, at)
        return Shape(height - top, width - left, components)
    for marker, content in _segments(frame):
        if marker in _START_OF_FRAME and len(content) >= 6:
            shape = Shape(*_FRAME_HEADER(content))
            return shape if shape.rows and shape.columns else None
    return None


def is_adobe_ycc(frame: bytes) -> bool:
    """Does an Adobe marker segment say that the components of a JPEG image are YCbCr?"""
    for marker, content in _segments(frame):
        if marker == 0xEE and content.startswith(b"Adobe"):  # APP14
            return content[11:12] == b"\x01"
    return False


def _segments(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of the segments before the image itself."""
    at = 2
    while at + 4 <= len(frame) and frame[at] == 0xFF and frame[at + 1] != _START_OF_SCAN:
        if frame[at + 1] == 0xFF:  # fill bytes may precede a marker
            at += 1
            continue
        length = int.from_bytes(frame[at + 2 : at + 4], "big")
        yield frame[at + 1], frame[at + 4 : at + 2 + length]
        at += 2 + length
