"""Compressed instances become uncompressed ones that show the same picture, by their own labels (PS3.3 §C.7.6.3)."""

import copy
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread, examples
from pydicom._uid_dict import UID_dictionary
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from pacslite.dataset.transcode import SOURCES, CannotTranscode, transcode
from pacslite.dimse.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.support.exchange import parse_data_set

SYNTAXES = [uid for uid, (_, kind, *_) in UID_dictionary.items() if kind == "Transfer Syntax"]
Transcode = Callable[..., Dataset]


@pytest.fixture
def transcoded(tmp_path: Path) -> Transcode:
    """What a data set is, written to a file and transcoded."""

    def run(data_set: Dataset, target: str = ExplicitVRLittleEndian, pixel_bytes: int = 1 << 28) -> Dataset:
        source, output = tmp_path / "stored.dcm", tmp_path / "output"
        data_set.save_as(source, enforce_file_format=True)
        output.write_bytes(b"")
        length = transcode(str(source), str(output), target, pixel_bytes)
        data = output.read_bytes()
        assert len(data) == length
        found = parse_data_set(target, data)
        found.file_meta = FileMetaDataset()
        found.file_meta.TransferSyntaxUID = UID(target)
        return found

    return run


@pytest.fixture
def rle() -> Dataset:
    """A 64 x 64 image of 16 bits."""
    return dcmread(str(get_testdata_file("MR_small_RLE.dcm")))


def one_frame(data_set: Dataset) -> bytes:
    return next(generate_frames(data_set.PixelData, number_of_frames=1))


def put_pixels(data_set: Dataset, frames: Sequence[bytes], *, table: bool = True) -> None:
    data_set.PixelData = encapsulate(list(frames), has_bot=table)
    data_set["PixelData"].VR = "OB"
    data_set["PixelData"].is_undefined_length = True


@pytest.mark.parametrize("uid", [uid for uid in SYNTAXES if UID(uid).is_encapsulated])
def test_sources_are_what_there_are_decoders_for(uid: str) -> None:
    assert EXPLICIT_VR_LITTLE_ENDIAN not in SOURCES
    if uid in SOURCES:
        assert get_decoder(UID(uid)).available_plugins
    else:
        with pytest.raises(NotImplementedError):
            get_decoder(UID(uid))


# Colours

COLOURS = [(200, 40, 90), (10, 220, 60), (30, 60, 240), (250, 250, 5)]


def jpeg(kind: str) -> bytes:
    """16 x 16 pixels in four colours, as a JPEG stream of YCbCr that says so in one way or another, or of RGB."""
    pixels = np.repeat(np.repeat(np.array(COLOURS, "u1").reshape(2, 2, 3), 8, axis=0), 8, axis=1)
    stream = BytesIO()
    options = {"keep_rgb": True} if kind == "RGB" else {}
    Image.fromarray(pixels).save(stream, "JPEG", quality=100, subsampling=0, **options)
    data = stream.getvalue()
    if kind in {"JFIF", "RGB"}:
        return data
    assert data[2:4] == b"\xff\xe0"  # APP0: JFIF
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\x01" if kind == "Adobe" else b""
    return data[:2] + adobe + data[4 + int.from_bytes(data[4:6], "big") :]


@pytest.mark.parametrize("target", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("kind", "label"),
    [
        ("bare", "YBR_FULL_422"),  # the usual one: native, it would mean two samples a pixel
        ("bare", "YBR_FULL"),
        ("JFIF", "YBR_FULL_422"),
        ("JFIF", "RGB"),
        ("Adobe", "YBR_FULL_422"),
        ("Adobe", "RGB"),
        ("RGB", "RGB"),
        ("RGB", "YBR_FULL_422"),
    ],
)
def test_colours_are_what_their_label_says(transcoded: Transcode, kind: str, label: str, target: str) -> None:
    data_set = copy.deepcopy(examples.rgb_color)
    data_set.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data_set.Rows = data_set.Columns = 16
    data_set.PhotometricInterpretation = label
    put_pixels(data_set, [jpeg(kind)])
    native = transcoded(data_set, target)
    assert native.PhotometricInterpretation == ("RGB" if kind == "RGB" else "YBR_FULL")  # no conversion
    assert native.PlanarConfiguration == 0
    assert len(native.PixelData) == 16 * 16 * 3
    shown = pixel_array(native)[[4, 4, 12, 12], [4, 12, 4, 12]]
    assert np.abs(shown.astype(int) - np.array(COLOURS)).max() <= 4


def test_a_label_that_native_pixels_cannot_have_is_refused(transcoded: Transcode, rle: Dataset) -> None:
    data_set = dcmread(str(get_testdata_file("SC_rgb_rle.dcm")))
    data_set.PhotometricInterpretation = "YBR_ICT"
    with pytest.raises(CannotTranscode, match="YBR_ICT is none of uncompressed pixels"):
        transcoded(data_set)


# Icons and tables


def with_icon(data_set: Dataset, frame: bytes) -> Dataset:
    icon = Dataset()
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        setattr(icon, keyword, data_set[keyword].value)
    icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, "MONOCHROME2"
    put_pixels(icon, [frame])
    data_set.IconImageSequence = [icon]
    return data_set


@pytest.mark.parametrize("target", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_an_icon_is_decoded_too(transcoded: Transcode, rle: Dataset, target: str) -> None:
    """PS3.5 §A.4: encapsulated, it cannot stand in a data set that is not."""
    native = transcoded(with_icon(rle, one_frame(rle)), target)
    (icon,) = native.IconImageSequence
    assert not icon["PixelData"].is_undefined_length
    assert np.array_equal(np.frombuffer(icon.PixelData, "<i2").reshape(64, 64), pixel_array(rle))
    assert np.array_equal(pixel_array(native), pixel_array(rle))


def test_an_icon_that_nobody_can_decode_is_left_out(transcoded: Transcode, rle: Dataset) -> None:
    native = transcoded(with_icon(rle, b"no stream of anything..."))
    assert "IconImageSequence" not in native
    assert np.array_equal(pixel_array(native), pixel_array(rle))


def test_offset_tables_go_with_what_they_point_into(transcoded: Transcode, rle: Dataset) -> None:
    extended = encapsulate_extended([one_frame(rle)])
    rle.PixelData, rle.ExtendedOffsetTable, rle.ExtendedOffsetTableLengths = extended
    rle["PixelData"].is_undefined_length = True
    rle.add_new(0x7FE00003, "UV", 1)  # Encapsulated Pixel Data Value Total Length
    native = transcoded(rle)
    assert [element.tag for element in native if element.tag.group == 0x7FE0] == [0x7FE00010]


# Frames


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("SC_rgb_dcmtk_+eb+cy+s4.dcm", {"SamplesPerPixel": 1}, "a stream of 100 x 100 x 3 samples where"),
        ("SC_rgb_dcmtk_+eb+cy+s4.dcm", {"Rows": 50, "Columns": 200}, "where 50 x 200 x 3 are claimed"),
        ("SC_rgb_dcmtk_+eb+cy+s4.dcm", {"BitsAllocated": 32}, "JPEG has no samples of 32 bits"),
        ("JPEG-LL.dcm", {"BitsAllocated": 32}, "JPEG has no samples of 32 bits"),
        ("SC_rgb_jls_lossy_line.dcm", {"SamplesPerPixel": 1}, "a stream of 100 x 100 x 3 samples where"),
        ("SC_rgb_jls_lossy_line.dcm", {"Rows": 108}, "where 108 x 100 x 3 are claimed"),
        ("US1_J2KI.dcm", {"SamplesPerPixel": 1}, "a stream of 480 x 640 x 3 samples where"),
        ("US1_J2KI.dcm", {"SamplesPerPixel": None}, "a stream of 480 x 640 x 3 samples where"),
        ("US1_J2KI.dcm", {"Rows": 640, "Columns": 480}, "where 640 x 480 x 3 are claimed"),
        ("MR_small_jp2klossless.dcm", {"SamplesPerPixel": 3}, "a stream of 64 x 64 x 1 samples where"),
    ],
)
def test_a_stream_of_another_shape_is_no_picture_of_this_one(
    transcoded: Transcode, name: str, changes: dict[str, int | None], said: str
) -> None:
    """Of the wrong pixels none is right, and some decoders end their process."""
    data_set = dcmread(str(get_testdata_file(name)))
    for keyword, value in changes.items():
        if value is None:
            del data_set[keyword]
        else:
            setattr(data_set, keyword, value)
    with pytest.raises(CannotTranscode, match=said):
        transcoded(data_set)


def test_a_decoder_that_panics_has_failed_like_others(transcoded: Transcode) -> None:
    """pylibjpeg's, in Rust, raises what is no Exception; pydicom's tolerates a stream of more rows."""
    data_set = dcmread(str(get_testdata_file("rtdose_rle.dcm")))
    pixels = pixel_array(data_set)
    data_set.Rows = 2
    assert np.array_equal(pixel_array(transcoded(data_set)), pixels[:, :2])
    data_set.Rows = 20  # as nobody does one of fewer
    with pytest.raises(CannotTranscode, match="cannot be decompressed"):
        transcoded(data_set)


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize(("claimed", "present"), [(3, 2), (2, 3), (1, 2), (None, 2), (2, 1)])
def test_fewer_or_more_frames_than_claimed_are_no_success(
    transcoded: Transcode, rle: Dataset, claimed: int | None, present: int, table: bool
) -> None:
    rle.NumberOfFrames = claimed
    put_pixels(rle, [one_frame(rle)] * present, table=table)
    with pytest.raises(CannotTranscode, match=rf"{present} frames where {claimed or 1} are claimed"):
        transcoded(rle)


@pytest.mark.parametrize("table", [True, False])
def test_frames_may_be_in_several_fragments(transcoded: Transcode, table: bool) -> None:
    data_set = dcmread(str(get_testdata_file("JPEG2000.dcm")))
    frame = one_frame(data_set)
    data_set.NumberOfFrames = 2
    data_set.PixelData = encapsulate([frame, frame], fragments_per_frame=3, has_bot=table)
    data_set["PixelData"].is_undefined_length = True
    native = transcoded(data_set)
    assert native.NumberOfFrames == 2
    first, second = pixel_array(native)
    assert np.array_equal(first, second)


def test_no_more_is_decoded_than_may_be(transcoded: Transcode, rle: Dataset) -> None:
    rle.NumberOfFrames = 5
    put_pixels(rle, [one_frame(rle)] * 5)
    with pytest.raises(CannotTranscode, match="40960 bytes of pixels are more than 40000"):
        transcoded(rle, pixel_bytes=40000)
    with pytest.raises(CannotTranscode, match="8192 bytes of pixels are more than 0"):  # the icon takes from the image
        transcoded(with_icon(dcmread(rle.filename), one_frame(rle)), pixel_bytes=8192)


def test_many_frames_need_no_more_memory_than_a_few(transcoded: Transcode, tmp_path: Path, rle: Dataset) -> None:
    rle.Rows = rle.Columns = 1024
    rle.PixelData = bytes(1024 * 1024 * 2)
    rle.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    rle.compress(RLELossless, generate_instance_uid=False, encoding_plugin="pylibjpeg")
    frame = one_frame(rle)
    source, output = tmp_path / "stored.dcm", tmp_path / "output"
    rle.NumberOfFrames = 100
    put_pixels(rle, [frame] * 100)
    rle.save_as(source)
    output.write_bytes(b"")
    tracemalloc.start()
    try:
        length = transcode(str(source), str(output), ExplicitVRLittleEndian, 1 << 28)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert length > 100 << 21
    assert peak < 64 << 20


# Bits


def test_bits_that_pixels_do_not_use_are_kept(transcoded: Transcode, rle: Dataset) -> None:
    """An overlay may lie there (PS3.5 §8.1.2)."""
    pixels = np.arange(64 * 64, dtype="<u2").tobytes()
    rle.BitsStored, rle.HighBit = 16, 15
    rle.PixelData = pixels
    rle.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    rle.compress(RLELossless, generate_instance_uid=False, encoding_plugin="pylibjpeg")
    rle.BitsStored, rle.HighBit = 8, 7
    assert transcoded(rle).PixelData == pixels


def test_samples_are_as_wide_as_the_header_says(transcoded: Transcode, rle: Dataset) -> None:
    """A JPEG 2000 stream of 8 bits is decoded to bytes, whatever is allocated."""
    pixels = np.arange(64 * 64).reshape(64, 64).astype("u1")
    rle.PixelRepresentation, rle.BitsAllocated, rle.BitsStored, rle.HighBit = 0, 8, 8, 7
    rle.PixelData = pixels.tobytes()
    rle.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    rle.compress(JPEG2000Lossless, generate_instance_uid=False, encoding_plugin="pylibjpeg")
    rle.BitsAllocated = 16
    assert transcoded(rle).PixelData == pixels.astype("<u2").tobytes()


def test_the_sign_of_lossless_jpeg_goes_through_all_bits(transcoded: Transcode, tmp_path: Path) -> None:
    """The stream has 12 bits without a sign; readers of native pixels rarely look at Bits Stored."""
    pixels = np.arange(-2048, 2048, dtype="<i2").reshape(64, 64)
    data_set = dcmread(str(get_testdata_file("MR_small.dcm")))
    data_set.BitsStored, data_set.HighBit, data_set.PixelData = 12, 11, (pixels & 0x0FFF).tobytes()
    data_set.save_as(tmp_path / "native.dcm")
    compress_lossless_jpeg(tmp_path / "native.dcm", tmp_path / "compressed.dcm")
    compressed = dcmread(tmp_path / "compressed.dcm")
    assert compressed.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    assert transcoded(compressed).PixelData == pixels.tobytes()


def compress_lossless_jpeg(source: Path, target: Path) -> None:
    gdcm: Any = import_module("gdcm")  # no types
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(target))
    assert writer.Write()


def test_pixels_of_one_bit_are_packed_across_frames(transcoded: Transcode, rle: Dataset) -> None:
    """PS3.5 §8.1.1: no padding between frames, the first pixel in the least significant bit."""
    generator = np.random.default_rng(1)
    frames = generator.integers(0, 2, (3, 35, 33), dtype="u1")
    rle.Rows, rle.Columns, rle.NumberOfFrames = 35, 33, 3
    rle.PixelRepresentation, rle.BitsAllocated, rle.BitsStored, rle.HighBit = 0, 1, 1, 0
    put_pixels(rle, [encode_j2k(frame) for frame in frames])
    rle.file_meta.TransferSyntaxUID = JPEG2000Lossless
    native = transcoded(rle)
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    assert native.PixelData == packed + bytes(len(packed) % 2)
    assert np.array_equal(pixel_array(native), frames)


def encode_j2k(frame: NDArray[np.uint8]) -> bytes:
    from openjpeg.utils import encode_array

    return bytes(encode_array(frame, bits_stored=1, photometric_interpretation=2))


# What else may be in a file


KOREAN = b"\x1b$)C\xb1\xe8"


@pytest.mark.parametrize("target", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00204000, b"LT", KOREAN + b"\r\n" + KOREAN),
        (0x00091001, b"FL", bytes(6)),
        (0x00091001, b"QQ", b"abcd"),
        (0x00081140, b"SQ", b"\0\0abcdefgh"),
    ],
)
def test_what_is_no_pixel_is_not_looked_at(tmp_path: Path, tag: int, vr: bytes, value: bytes, target: str) -> None:
    stored, output = tmp_path / "stored.dcm", tmp_path / "output"
    data = bytearray(Path(str(get_testdata_file("MR_small_RLE.dcm"))).read_bytes())
    header = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    header += struct.pack("<H", len(value)) if vr in {b"LT", b"FL"} else struct.pack("<HI", 0, len(value))
    at = data.index(b"\x28\0\x02\0US")
    stored.write_bytes(data[:at] + header + value + data[at:])
    output.write_bytes(b"")
    transcode(str(stored), str(output), target, 1 << 28)
    header = struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) if target == ImplicitVRLittleEndian else header
    assert header + value in output.read_bytes()


@pytest.mark.filterwarnings("ignore:Expected explicit VR:UserWarning")
def test_implicit_elements_in_a_file_of_a_compressed_syntax(tmp_path: Path) -> None:
    stored, output = Path(str(get_testdata_file("SC_rgb_jpeg.dcm"))), tmp_path / "output"
    output.write_bytes(b"")
    transcode(str(stored), str(output), ExplicitVRLittleEndian, 1 << 28)
    native = parse_data_set(ExplicitVRLittleEndian, output.read_bytes())
    assert native.ImageType == dcmread(stored).ImageType
    assert len(native.PixelData) == native.Rows * native.Columns * 3


def test_fragments_in_an_uncompressed_syntax_are_refused(transcoded: Transcode, tmp_path: Path, rle: Dataset) -> None:
    stored = tmp_path / "mislabelled.dcm"
    rle.save_as(stored)
    data = stored.read_bytes()
    label, other = RLELossless.encode() + b"\0", b"1.2.840.10008.1.2.1\0"
    assert data.count(label) == 1
    assert len(label) == len(other)
    stored.write_bytes(data.replace(label, other))
    with pytest.raises(CannotTranscode, match="encapsulated pixel data in an uncompressed transfer syntax"):
        transcode(str(stored), str(tmp_path / "output"), ImplicitVRLittleEndian, 1 << 28)


def test_what_is_no_file_is_said_so(tmp_path: Path) -> None:
    stored = tmp_path / "stored.dcm"
    for content, said in ((b"", "no DICM"), (b"x" * 200, "no DICM"), (bytes(128) + b"DICM", "Transfer Syntax")):
        stored.write_bytes(content)
        with pytest.raises(CannotTranscode, match=said):
            transcode(str(stored), str(stored), ExplicitVRLittleEndian, 1 << 28)
