"""What a receiver does not take as it is stored is decompressed on the way (PS3.5 §8.2), and only that."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from pacslite.dataset.meta import encode_file_meta
from tests.support.corpus import CorpusFile, corpus, read_file
from tests.support.exchange import fetch, identifier, parse_data_set, send
from tests.support.peers import Dcmtk
from tests.support.processes import Pacslite
from tests.support.wire import Context, Received

COMPOSITE_INSTANCE_ROOT_GET = "1.2.840.10008.5.1.4.1.2.4.3"
LOSSLESS = {
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.5",
}
# Streams that no decoder of pydicom's, ours or another, reads to the end
UNDECODABLE = {
    "JPEG-lossy.dcm": "12-bit extended JPEG, which only the GPL decoder reads",
    "JPGExtended.dcm": "12-bit extended JPEG, which only the GPL decoder reads",
    "JPEG2000-embedded-sequence-delimiter.dcm": "its stream is cut: no decoder gets beyond the header",
}


@pytest.fixture(scope="module")
def settings() -> Mapping[str, Mapping[str, object]]:
    """Many files of the corpus are one image in several syntaxes: the last that came is the one to send."""
    return {"storage": {"duplicates": "replace"}}


def compressed(files: Iterable[CorpusFile]) -> Iterator[CorpusFile]:
    for file in files:
        if UID(file.transfer_syntax_uid).is_encapsulated and "PixelData" in dcmread(file.path, force=True):
            yield file


def as_file(data_set: Dataset, transfer_syntax_uid: str) -> Dataset:
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    return data_set


def pixels(data_set: Dataset, plugin: str = "") -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    decoder = get_decoder(data_set.file_meta.TransferSyntaxUID)
    array, _ = decoder.as_array(data_set, raw=True, decoding_plugin=plugin)
    return array


def write_file(path: Path, instance: Received) -> Path:
    """What was received, byte for byte."""
    meta = encode_file_meta(
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=instance.sop_instance_uid,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        source_ae_title="TEST",
        private=b"",
    )
    path.write_bytes(meta + instance.data)
    return path


async def get_as(port: int, file: CorpusFile, syntax: str) -> tuple[list[Received], int, str]:
    """By the composite instance root (PS3.4 §Y.4), since some files of the corpus have no Study Instance UID."""
    received, final = await fetch(
        port,
        identifier("IMAGE", SOPInstanceUID=file.sop_instance_uid),
        [Context(3, file.sop_class_uid, (syntax,), True)],
        model=COMPOSITE_INSTANCE_ROOT_GET,
    )
    return received, final.status, final.comment


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # files of the corpus are odd, and pydicom says so
async def test_every_decodable_image_reaches_a_receiver_of_implicit_vr_only(
    server: Pacslite,
) -> None:
    """Pixel-identical where the compression is lossless, judged by another decoder than the server's first."""
    files = list(compressed(corpus()))
    outcomes: Counter[str] = Counter()
    for file in files:
        (answer,) = await send(server.port, [file])
        assert answer.status == 0
        received, status, comment = await get_as(server.port, file, ImplicitVRLittleEndian)
        if file.name in UNDECODABLE:
            assert (status, received) == (0xA702, []), file.name
            assert comment, file.name
            outcomes["failed"] += 1
            continue
        assert status == 0, (file.name, comment)
        (instance,) = received
        assert instance.transfer_syntax_uid == ImplicitVRLittleEndian
        data_set = as_file(parse_data_set(ImplicitVRLittleEndian, instance.data), ImplicitVRLittleEndian)
        assert data_set.SOPInstanceUID == file.sop_instance_uid
        if file.transfer_syntax_uid in LOSSLESS:
            original = dcmread(file.path, force=True)
            plugins = get_decoder(UID(file.transfer_syntax_uid)).available_plugins
            assert np.array_equal(pixels(data_set), pixels(original, plugins[0])), file.name
            outcomes["lossless"] += 1
        else:
            outcomes["lossy"] += 1
    assert outcomes["lossless"] >= 10
    assert outcomes["lossy"] >= 5


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("CT_small.dcm", ImplicitVRLittleEndian),
        ("MR_small_implicit.dcm", ExplicitVRLittleEndian),
        ("MR_small_bigendian.dcm", ExplicitVRLittleEndian),
        ("MR_small_bigendian.dcm", ImplicitVRLittleEndian),
        ("image_dfl.dcm", ImplicitVRLittleEndian),
    ],
)
async def test_uncompressed_syntaxes_change_into_each_other(
    server: Pacslite, corpus_by_name: Mapping[str, CorpusFile], name: str, syntax: str
) -> None:
    file = corpus_by_name[name]
    await send(server.port, [file])
    ((instance,), status, _) = await get_as(server.port, file, syntax)
    assert status == 0
    data_set = as_file(parse_data_set(syntax, instance.data), syntax)
    original = dcmread(file.path, force=True)
    assert np.array_equal(pixels(data_set), pixels(original))
    assert [element.tag for element in data_set] == [element.tag for element in original if element.tag.element]
    for element in original:
        if element.VR not in {"OW", "OB", "SQ", "UN"} and element.tag.element and element.tag in data_set:
            assert data_set[element.tag].value == element.value


@pytest.mark.parametrize(
    "name",
    [
        "examples_ybr_color.dcm",  # YBR_FULL_422 in JPEG baseline, as most colour images are
        "SC_rgb_dcmtk_+eb+cy+s2.dcm",  # subsampled
        "SC_rgb_dcmtk_+eb+cr.dcm",  # RGB
        "SC_rgb_jpeg_gdcm.dcm",  # JPEG lossless
        "SC_rgb_rle.dcm",
    ],
)
async def test_dcmtk_shows_the_picture_that_was_stored(
    server: Pacslite, dcmtk: Dcmtk, corpus_by_name: Mapping[str, CorpusFile], tmp_path: Path, name: str
) -> None:
    file = corpus_by_name[name]
    await send(server.port, [file])
    ((instance,), status, _) = await get_as(server.port, file, ExplicitVRLittleEndian)
    assert status == 0
    shown = []
    decoder = "dcm2pnm" if file.transfer_syntax_uid == RLELossless else "dcmj2pnm"
    for tool, path in ((decoder, file.path), ("dcm2pnm", write_file(tmp_path / "sent.dcm", instance))):
        await dcmtk(tool, "+op", "+F", "1", path, tmp_path / "shown.ppm")
        with Image.open(tmp_path / "shown.ppm") as picture:
            shown.append(np.asarray(picture).astype(int))
    assert np.abs(shown[0] - shown[1]).mean() < 3  # DCMTK resamples colours in its own way


async def test_dcmtk_receives_an_image_with_a_compressed_icon(
    server: Pacslite, dcmtk: Dcmtk, corpus_by_name: Mapping[str, CorpusFile], tmp_path: Path
) -> None:
    """Left encapsulated in an uncompressed data set, DCMTK refuses it with A700."""
    data_set = dcmread(corpus_by_name["MR_small_RLE.dcm"].path)
    icon = Dataset()
    for element in data_set.group_dataset(0x0028):
        icon.add(element)
    icon.add(data_set["PixelData"])
    data_set.IconImageSequence = [icon]
    data_set.save_as(tmp_path / "icon.dcm")
    file = read_file(tmp_path / "icon.dcm")
    assert file is not None
    await send(server.port, [file])
    ((instance,), status, _) = await get_as(server.port, file, ImplicitVRLittleEndian)
    assert status == 0
    dumped = await dcmtk("dcmdump", "+P", "7fe0,0010", write_file(tmp_path / "sent.dcm", instance))
    assert dumped.output.count("# 8192, 1 PixelData") == 2
    sent = as_file(parse_data_set(ImplicitVRLittleEndian, instance.data), ImplicitVRLittleEndian)
    assert np.array_equal(pixels(sent), pixels(dcmread(file.path)))
