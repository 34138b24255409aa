"""Decodes the compressed pixel data of a data set, frame by frame (PS3.5 §8.2, §A.4; PS3.3 §C.7.6.3).

Pixels come out as the standard's decoder gives them, in the colours they are coded in. pydicom has the decoders; its
import costs a third of a second, so it is imported where it is used: in a worker process.
"""

import warnings
from array import array
from collections.abc import Iterator
from mmap import mmap
from typing import TYPE_CHECKING, Any, NamedTuple

from pacslite.dataset.codestream import Shape, begins_frame, is_adobe_ycc, read_shape
from pacslite.dataset.structure import DataSet, Node
from pacslite.errors import PacsliteError

if TYPE_CHECKING:  # imported where it is used, in the worker
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ImagePixel", "PixelError", "decode_frames", "read_image_pixel"]

JPEG_BASELINE, JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"

# First the decoder that keeps most, last gdcm: what it does not expect ends the process. It alone knows lossless JPEG
_PLUGINS = {
    JPEG_BASELINE: ("pillow", "pylibjpeg", "gdcm"),
    JPEG_EXTENDED: ("pylibjpeg", "pillow", "gdcm"),
    "1.2.840.10008.1.2.4.80": ("pyjpegls", "pylibjpeg", "gdcm"),
    "1.2.840.10008.1.2.4.81": ("pyjpegls", "pylibjpeg", "gdcm"),
    "1.2.840.10008.1.2.4.90": ("pylibjpeg", "pillow", "gdcm"),
    "1.2.840.10008.1.2.4.91": ("pylibjpeg", "pillow", "gdcm"),
    RLE_LOSSLESS: ("pylibjpeg", "pydicom"),
}
_JPEG = frozenset({JPEG_BASELINE, JPEG_EXTENDED, "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
# PS3.3 §C.7.6.3.1.2: of encapsulated pixel data only, or retired with samples that are not what a decoder gives
_NEVER_NATIVE = frozenset({"YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420", "YBR_PARTIAL_422"})


class PixelError(PacsliteError):
    """No decoder, a broken stream, or not the frames it claims; the text says which."""


class ImagePixel(NamedTuple):
    """Attributes of the Image Pixel module, PS3.3 §C.7.6.3."""

    rows: int
    columns: int
    number_of_frames: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    photometric_interpretation: str
    planar_configuration: int

    @property
    def length(self) -> int:
        """Bytes of the native pixel data, without padding."""
        samples = self.rows * self.columns * self.samples_per_pixel * self.number_of_frames
        return (samples * self.bits_allocated + 7) // 8


def read_image_pixel(data_set: DataSet, data: bytes | mmap) -> ImagePixel:
    """Read the attributes.

    Raises:
        PixelError: One that is needed is missing, or is no number.
    """
    nodes = {node.tag: node for node in data_set}

    def text(tag: int) -> str:
        node = nodes.get(tag)
        value = b"" if node is None else data[node.start : min(node.end, node.start + 64)]
        return value.decode("ascii", "replace").strip(" \0")

    def number(tag: int, default: int | None = None) -> int:
        node = nodes.get(tag)
        if node is not None and node.end - node.start >= 2:
            return int.from_bytes(data[node.start : node.start + 2], "big" if node.is_big else "little")
        if default is None:
            raise PixelError(f"no value of ({tag >> 16:04X},{tag & 0xFFFF:04X})")
        return default

    try:
        frames = int(text(0x00280008) or 1)
    except ValueError:
        raise PixelError("Number of Frames (0028,0008) is no number") from None
    return ImagePixel(
        rows=number(0x00280010),
        columns=number(0x00280011),
        number_of_frames=max(frames, 1),
        samples_per_pixel=number(0x00280002, 1),
        bits_allocated=number(0x00280100),
        bits_stored=number(0x00280101),
        pixel_representation=number(0x00280103),
        photometric_interpretation=text(0x00280004),
        planar_configuration=number(0x00280006, 0),
    )


def decode_frames(
    pixel_data: Node, data: bytes | mmap, image: ImagePixel, transfer_syntax_uid: str
) -> Iterator[tuple[bytes, str]]:
    """Decode the frames one after the other.

    Args:
        pixel_data: With its fragments, in ``data``.
        image: As the stream claims to be. What comes out has these rows, columns, bits and samples, colour-by-pixel.
    Yields:
        The frame's bytes, little endian, and its Photometric Interpretation: that of native pixel data, the same for
        all. Frames of one bit a pixel follow each other without padding (PS3.5 §8.1.1): a byte comes when it is full.
    Raises:
        PixelError: Also if there are fewer or more frames than claimed.
    """
    decoder = _FrameDecoder(transfer_syntax_uid, image)
    fragments = pixel_data.fragments or []
    photometric_interpretation = ""
    packer = _BitPacker() if image.bits_allocated == 1 else None
    for frame in _split_frames(fragments, data, image.number_of_frames):
        pixels, colours = decoder.decode(b"".join([data[start:end] for start, end in frame]))
        if colours != (photometric_interpretation or colours):
            raise PixelError(f"one frame is {photometric_interpretation}, another {colours}")
        photometric_interpretation = colours
        yield packer.pack(pixels) if packer else pixels.tobytes(), colours
    if packer:
        yield packer.end(), photometric_interpretation


def _split_frames(fragments: list[tuple[int, int]], data: bytes | mmap, count: int) -> list[list[tuple[int, int]]]:
    """Give the fragments of each frame (PS3.5 §A.4): by the Basic Offset Table, or by how a frame's stream begins."""
    table, body = fragments[:1], [(start, end) for start, end in fragments[1:] if end > start]
    begins = [index for index, (start, _) in enumerate(body) if begins_frame(data[start : start + 16])]
    if len(body) == count:
        return [[fragment] for fragment in body]
    if len(begins) <= count <= len(body):
        if count == 1:
            return [body]
        by_place = {start - body[0][0]: index for index, (start, _) in enumerate(body)}
        offsets = array("I", data[table[0][0] : table[0][0] + (table[0][1] - table[0][0]) // 4 * 4])
        listed = [by_place.get(offset, -1) for offset in offsets]
        if len(listed) == count and listed[0] == 0 and listed == sorted(set(listed)):
            begins = listed
        if len(begins) == count and begins[0] == 0:
            return [body[begin:end] for begin, end in zip(begins, [*begins[1:], len(body)], strict=True)]
    raise PixelError(f"{len(begins) or len(body)} frames where {count} are claimed")


class _FrameDecoder:
    """Tries the decoders of one transfer syntax in turn: one tolerates what another does not."""

    def __init__(self, transfer_syntax_uid: str, image: ImagePixel) -> None:
        from pydicom.pixels.decoders.base import get_decoder
        from pydicom.uid import UID

        try:
            self._decoder = get_decoder(UID(transfer_syntax_uid))
            available = self._decoder.available_plugins
        except NotImplementedError:
            available = ()
        if not available:
            raise PixelError(f"no decoder for {transfer_syntax_uid} (pacslite[codecs] has the usual ones)")
        if transfer_syntax_uid in _JPEG and image.bits_allocated > 16:
            raise PixelError(f"JPEG has no samples of {image.bits_allocated} bits")
        wanted = [plugin for plugin in _PLUGINS.get(transfer_syntax_uid, ()) if plugin in available]
        self._plugins = [*wanted, *(plugin for plugin in available if plugin not in wanted)]
        self._syntax = transfer_syntax_uid
        self._image = image
        self._is_jpeg_in_colour = image.samples_per_pixel == 3 and transfer_syntax_uid in {JPEG_BASELINE, JPEG_EXTENDED}
        self._is_adobe_ycc = False

    def decode(self, frame: bytes) -> "tuple[NDArray[np.generic], str]":
        """Give the pixels, and in which colours they are."""
        shape, claimed = read_shape(frame), Shape(self._image.rows, self._image.columns, self._image.samples_per_pixel)
        if shape is not None and shape != claimed:  # some decoders would give another picture, and gdcm end the process
            raise PixelError(f"a stream of {_name(shape)} samples where {_name(claimed)} are claimed")
        reason = ""
        self._is_adobe_ycc = self._is_jpeg_in_colour and is_adobe_ycc(frame)
        last = "pillow" if self._is_adobe_ycc else ""  # converts such frames to RGB, whatever it is asked
        for plugin in sorted(self._plugins, key=lambda plugin: plugin == last):
            try:
                pixels, colours = self._decode_with(plugin, frame)
            except (MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as error:  # anything about a broken stream; a panic in Rust is no Exception
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
                continue
            self._plugins.sort(key=lambda other: other != plugin)  # the next frame begins with it
            return pixels, self._native(colours)
        raise PixelError(f"cannot be decompressed: {reason}")

    def _decode_with(self, plugin: str, frame: bytes) -> "tuple[NDArray[np.generic], str]":
        from pydicom.encaps import encapsulate

        image = self._image
        options: dict[str, Any] = image._asdict() | {"number_of_frames": 1, "pixel_keyword": "PixelData"}
        # What a stream without a sign leaves unused is given the sign; in RLE an overlay may be there (PS3.5 §8.1.2)
        options["correct_unused_bits"] = image.pixel_representation == 1 and self._syntax != RLE_LOSSLESS
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the stream says otherwise than the header: it is heeded
            pixels, described = self._decoder.as_array(
                encapsulate([frame], has_bot=False),
                index=0,
                raw=True,
                decoding_plugin=plugin,
                **options,
            )
        colours = str(described["photometric_interpretation"])
        if self._is_adobe_ycc:
            colours = "RGB" if plugin == "pillow" else "YBR_FULL"
        return pixels, colours

    def _native(self, colours: str) -> str:
        """What native pixel data with a sample of each kind a pixel is called."""
        if self._image.samples_per_pixel == 1:
            return colours
        if colours in _NEVER_NATIVE:
            raise PixelError(f"{colours} is none of uncompressed pixels")
        return "YBR_FULL" if colours == "YBR_FULL_422" else colours


def _name(shape: Shape) -> str:
    return f"{shape.rows} x {shape.columns} x {shape.samples_per_pixel}"


class _BitPacker:
    """Packs pixels of one bit, the first into the least significant bit (PS3.5 §8.1.1); frames begin anywhere."""

    def __init__(self) -> None:
        self._rest: list[int] = []

    def pack(self, pixels: "NDArray[Any]") -> bytes:
        import numpy as np

        bits = np.concatenate([np.array(self._rest, "u1"), pixels.ravel().astype("u1")])
        whole = len(bits) // 8 * 8
        self._rest = bits[whole:].tolist()
        return np.packbits(bits[:whole], bitorder="little").tobytes()

    def end(self) -> bytes:
        return bytes([sum(bit << place for place, bit in enumerate(self._rest))]) if self._rest else b""
