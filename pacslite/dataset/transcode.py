"""Re-encodes a data set in an uncompressed transfer syntax (PS3.5 §8.2, Annex A). Runs in a worker process.

Decompression adds no loss: pixels come out as the standard's decoder gives them, in the colours they are coded in; the
SOP Instance UID stays, since it is the same instance. Nothing is ever compressed.

pydicom does the work, and its import costs a third of a second: only the worker pays it.
"""

import resource
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING

from pacslite.dataset.element import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from pacslite.errors import PacsliteError

if TYPE_CHECKING:  # imported where it is used, in the worker
    from pydicom import Dataset

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

# Words of other VRs are swapped by pydicom as numbers; these it hands through as bytes
_SWAPPED_WORDS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
_ARRAY_TYPES = {2: "H", 4: "I", 8: "Q"}
# The decoder that keeps most: gdcm knows JPEG lossless, pylibjpeg high-throughput JPEG 2000
_PLUGINS = {
    "1.2.840.10008.1.2.4.50": ("pillow", "gdcm", "pylibjpeg"),
    "1.2.840.10008.1.2.4.51": ("pylibjpeg", "gdcm", "pillow"),
    "1.2.840.10008.1.2.4.80": ("pyjpegls", "gdcm", "pylibjpeg"),
    "1.2.840.10008.1.2.4.81": ("pyjpegls", "gdcm", "pylibjpeg"),
    "1.2.840.10008.1.2.4.90": ("pylibjpeg", "gdcm", "pillow"),
    "1.2.840.10008.1.2.4.91": ("pylibjpeg", "gdcm", "pillow"),
    "1.2.840.10008.1.2.5": ("pylibjpeg", "pydicom"),
}


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
        pixel_bytes: Most bytes of decoded pixels.

    Raises:
        CannotTranscode: It cannot be done; ``target`` is to be thrown away.
    """
    from pydicom import dcmread
    from pydicom.config import settings
    from pydicom.filebase import DicomFileLike
    from pydicom.filewriter import write_dataset

    settings.reading_validation_mode = 0  # what was accepted is passed on as it is
    settings.writing_validation_mode = 0
    try:
        dataset = dcmread(source, force=True)
        syntax = dataset.file_meta.TransferSyntaxUID
        if syntax.is_encapsulated:
            _decompress(dataset, str(syntax), pixel_bytes)
        elif syntax == EXPLICIT_VR_BIG_ENDIAN:
            _swap_words(dataset)
        with open(target, "r+b") as file:  # noqa: PTH123 (a descriptor under /proc, no path)
            output = DicomFileLike(file)
            output.is_implicit_VR = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
            output.is_little_endian = True
            return write_dataset(output, dataset)
    except CannotTranscode:
        raise
    except MemoryError as error:
        raise CannotTranscode("not enough memory to decompress it") from error
    except Exception as error:  # a codec may raise anything about a broken stream
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise CannotTranscode(f"cannot be decompressed: {reason}") from error


def _decompress(dataset: "Dataset", transfer_syntax_uid: str, pixel_bytes: int) -> None:
    """Decode the pixel data in place."""
    if "PixelData" not in dataset:
        return
    claimed = (
        int(dataset.get("Rows") or 0)
        * int(dataset.get("Columns") or 0)
        * int(dataset.get("NumberOfFrames") or 1)
        * int(dataset.get("SamplesPerPixel") or 1)
        * ((int(dataset.get("BitsAllocated") or 8) + 7) // 8)
    )
    if claimed > pixel_bytes:
        raise CannotTranscode(f"{claimed} bytes of pixels are more than {pixel_bytes}")
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    try:
        available = get_decoder(UID(transfer_syntax_uid)).available_plugins
    except NotImplementedError:
        available = ()
    if not available:
        raise CannotTranscode(f"no decoder for {transfer_syntax_uid} (pacslite[codecs] has the usual ones)")
    wanted = [plugin for plugin in _PLUGINS.get(transfer_syntax_uid, ()) if plugin in available]
    *others, last = [*wanted, *(plugin for plugin in available if plugin not in wanted)]
    for plugin in others:
        with suppress(RuntimeError):  # one decoder tolerates what another does not
            dataset.decompress(as_rgb=False, generate_instance_uid=False, decoding_plugin=plugin)
            return
    dataset.decompress(as_rgb=False, generate_instance_uid=False, decoding_plugin=last)


def _swap_words(dataset: "Dataset") -> None:
    """Give words that pydicom hands through as bytes the other byte order (PS3.5 §7.3)."""
    for element in dataset.iterall():
        size = _SWAPPED_WORDS.get(element.VR, 0)
        if size and isinstance(element.value, bytes):
            words = array(_ARRAY_TYPES[size])
            words.frombytes(element.value[: len(element.value) // size * size])
            words.byteswap()
            element.value = words.tobytes() + element.value[len(words) * size :]
