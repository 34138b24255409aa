"""Re-encodes a data set in an uncompressed transfer syntax (PS3.5 §8.2, Annex A). Runs in a worker process.

Decompression adds no loss: pixels come out as the standard's decoder gives them, in the colours they are coded in; the
SOP Instance UID stays, since it is the same instance. Nothing is ever compressed.

Only pixels are decoded. All else is written as it was stored, in other headers.
"""

import resource
from itertools import chain
from mmap import ACCESS_READ, mmap

from pacslite.dataset.decode import inflate
from pacslite.dataset.element import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    PIXEL_DATA,
)
from pacslite.dataset.meta import FileMetaError, read_file_meta
from pacslite.dataset.pixels import PixelError, decode_frames, read_image_pixel
from pacslite.dataset.reencode import write_data_set
from pacslite.dataset.structure import DataSet, Node, read_structure
from pacslite.errors import DimseError, PacsliteError

__all__ = ["SOURCES", "TARGETS", "CannotTranscode", "limit_worker", "transcode"]

# Compressed ones that pydicom has decoders for, given their libraries: no video, say
SOURCES = frozenset(
    {
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
        "1.2.840.10008.1.2.4.50",  # JPEG
        "1.2.840.10008.1.2.4.51",
        "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.80",  # JPEG-LS
        "1.2.840.10008.1.2.4.81",
        "1.2.840.10008.1.2.4.90",  # JPEG 2000
        "1.2.840.10008.1.2.4.91",
        "1.2.840.10008.1.2.4.201",  # high-throughput JPEG 2000
        "1.2.840.10008.1.2.4.202",
        "1.2.840.10008.1.2.4.203",
        "1.2.840.10008.1.2.5",  # RLE
    }
)
TARGETS = frozenset({EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN})

_NATIVE = TARGETS | {EXPLICIT_VR_BIG_ENDIAN}
# Extended Offset Table, its Lengths, Encapsulated Pixel Data Value Total Length (PS3.3 §C.7.6.3.1.8)
_OF_ENCAPSULATION = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00003})
_BUFFER = 1 << 20


class CannotTranscode(PacsliteError):
    """No decoder, a broken stream, or too many pixels; the text says which."""


def limit_worker(memory_bytes: int) -> None:
    """Bound the address space of this process: a header can claim any number of pixels."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def transcode(source: str, target: str, transfer_syntax_uid: str, pixel_bytes: int) -> int:
    """Write the data set of a PS3.10 file anew, without file meta; gives its length in bytes.

    Args:
        source: Path of the file.
        target: Path of a file that exists, to which the data set is written.
        transfer_syntax_uid: One of TARGETS.
        pixel_bytes: Most bytes of decoded pixels, or of a data set that is inflated.

    Raises:
        CannotTranscode: It cannot be done; ``target`` is to be thrown away.
    """
    try:
        with open(source, "rb") as file:  # noqa: PTH123 (a descriptor under /proc, no path)
            meta = read_file_meta(file.fileno())
            end = 0 if meta.data_set_length is None else meta.data_set_offset + meta.data_set_length
            with mmap(file.fileno(), end, access=ACCESS_READ) as stored:
                if meta.transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
                    inflated = inflate(stored[meta.data_set_offset :], pixel_bytes)
                    return _transcode(inflated, 0, target, EXPLICIT_VR_LITTLE_ENDIAN, transfer_syntax_uid, pixel_bytes)
                return _transcode(
                    stored, meta.data_set_offset, target, meta.transfer_syntax_uid, transfer_syntax_uid, pixel_bytes
                )
    except (DimseError, FileMetaError, PixelError) as error:
        raise CannotTranscode(str(error)) from error
    except MemoryError as error:
        raise CannotTranscode("not enough memory to decompress it") from error
    except (OSError, ValueError, RecursionError) as error:  # the file is none, or has gone
        raise CannotTranscode(f"cannot be read: {error}") from error


def _transcode(data: bytes | mmap, start: int, target: str, from_syntax: str, to_syntax: str, pixel_bytes: int) -> int:
    data_set = read_structure(data, start, from_syntax)
    _Decompression(data, from_syntax, pixel_bytes).open(data_set, is_nested=False)
    with open(target, "r+b", _BUFFER) as output:  # noqa: PTH123
        write_data_set(data_set, data, output, explicit=to_syntax != IMPLICIT_VR_LITTLE_ENDIAN)
        return output.tell()


class _Decompression:
    """Puts native pixel data in the place of encapsulated ones, throughout a data set."""

    def __init__(self, data: bytes | mmap, transfer_syntax_uid: str, pixel_bytes: int) -> None:
        self._data = data
        self._syntax = transfer_syntax_uid
        self._left = pixel_bytes

    def open(self, data_set: DataSet, *, is_nested: bool) -> None:
        """Replace the pixel data of ``data_set`` and of its items.

        A sequence (Icon Image Sequence, §A.4) whose pixel data cannot be decoded is left out; frames of the image
        itself are decoded as they are written.
        """
        for node in list(data_set):
            try:
                for item in node.items or ():
                    self.open(item.elements, is_nested=True)
            except PixelError:
                data_set.remove(node)
        for node in [node for node in data_set if node.tag == PIXEL_DATA]:
            if node.fragments is not None:
                self._decode(data_set, node, is_nested=is_nested)
            elif self._syntax not in _NATIVE and node.end > node.start and not is_nested:
                raise PixelError("its pixel data is not encapsulated")

    def _decode(self, data_set: DataSet, pixel_data: Node, *, is_nested: bool) -> None:
        if self._syntax in _NATIVE:
            raise PixelError("encapsulated pixel data in an uncompressed transfer syntax")
        image = read_image_pixel(data_set, self._data)
        if image.length > self._left:
            raise PixelError(f"{image.length} bytes of pixels are more than {self._left}")
        self._left -= image.length
        frames = decode_frames(pixel_data, self._data, image, self._syntax)
        first, colours = next(frames)
        pieces = chain([first], (frame for frame, _ in frames))
        pixel_data.fragments = None
        pixel_data.vr = "OB" if image.bits_allocated <= 8 else "OW"
        pixel_data.pieces = list(pieces) if is_nested else pieces
        pixel_data.length = image.length
        if colours != image.photometric_interpretation:
            _set(data_set, 0x00280004, "CS", colours.encode("ascii"))
        if image.samples_per_pixel > 1:
            _set(data_set, 0x00280006, "US", b"\0\0")  # Planar Configuration: colour-by-pixel
        data_set[:] = [node for node in data_set if node.tag not in _OF_ENCAPSULATION]


def _set(data_set: DataSet, tag: int, vr: str, value: bytes) -> None:
    """Give an element another value, where it is or in its place among the others."""
    node = next((node for node in data_set if node.tag == tag), None)
    if node is None:
        node = Node(tag, vr, 0, 0)
        data_set.append(node)
        data_set.sort(key=lambda node: node.tag)
    node.pieces, node.length = [value], len(value)
