"""The objects that are sent: real headers of pydicom's test files with pixel data of the size wanted.

A sample is encoded once, with placeholders of fixed length for what differs from one instance to the next; the load
generator overwrites those bytes and nothing else.
"""

import copy
import functools
import io
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom import dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset

from benchmarks.wire import EXPLICIT_LITTLE

__all__ = ["SAMPLES", "Sample", "identity", "new_run", "sample"]

MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.7.3"  # Multi-frame Grayscale Word Secondary Capture
_MIB = 1 << 20
_FAMILIES = ("ADAMS", "BERGER", "CHEN", "DUBOIS", "EVANS", "FISCHER", "GARCIA", "HUBER", "IVANOV", "JENSEN")
_GIVEN = ("ANNA", "BERND", "CLARA", "DAVID", "EMMA", "FELIX", "GRETA", "HUGO", "IDA", "JONAS")


@dataclass(frozen=True, slots=True)
class Sample:
    """An encoded data set (Explicit VR Little Endian) and where in it each field of an identity stands."""

    name: str
    sop_class_uid: str
    data: bytes
    fields: Mapping[str, int]
    transfer_syntax: str = EXPLICIT_LITTLE


def new_run() -> str:
    """A UID root of fixed length under 2.25 (PS3.5 B.2) that no other run has."""
    return f"2.25.{10**19 + secrets.randbelow(9 * 10**19)}"


def identity(run: str, study: int, series: int, instance: int, *, day: int = 0) -> dict[str, str]:
    """The fields of one instance, each of the same length for any numbers."""
    name = f"{_FAMILIES[study % 10]}^{_GIVEN[study // 10 % 10]}^"
    return {
        "StudyInstanceUID": f"{run}.1{study:07d}",
        "SeriesInstanceUID": f"{run}.2{study:07d}.1{series:05d}",
        "SOPInstanceUID": f"{run}.3{study:07d}.1{series:05d}.1{instance:07d}",
        "PatientName": f"{name}{study:0{24 - len(name)}d}",
        "PatientID": f"PID{study:07d}",
        "AccessionNumber": f"ACC{study:07d}",
        "StudyDate": f"20{day // 336 % 100:02d}{day // 28 % 12 + 1:02d}{day % 28 + 1:02d}",
        "InstanceNumber": f"{instance + 1:06d}",
    }


def _prepare(file: str, run: str) -> Dataset:
    dataset = dcmread(str(get_testdata_file(file)))
    dataset.file_meta = FileMetaDataset()
    dataset.pop("DataSetTrailingPadding", None)
    for keyword, value in identity(run, 0, 0, 0).items():
        setattr(dataset, keyword, value)
    return dataset


def _image(file: str, run: str, side: int, frames: int = 1) -> Dataset:
    dataset = _prepare(file, run)
    dataset.Rows = dataset.Columns = side
    if frames > 1:
        dataset.SOPClassUID = MULTI_FRAME
        dataset.NumberOfFrames = frames
    noise = secrets.token_bytes(min(2 * side * side * frames, _MIB))  # no file system may compress it
    dataset.PixelData = noise * (2 * side * side * frames // len(noise))
    return dataset


def _report(run: str, size: int) -> Dataset:
    dataset = _prepare("reportsi.dcm", run)
    line = copy.deepcopy(next(item for item in dataset.ContentSequence if item.ValueType == "TEXT"))
    while len(_encode(dataset)) + len(_encode(line)) + 8 < size:
        dataset.ContentSequence.append(copy.deepcopy(line))
    return dataset


def _encode(dataset: Dataset) -> bytes:
    out = io.BytesIO()
    plain = Dataset(dataset)
    dcmwrite(out, plain, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return out.getvalue()


_MAKERS = {
    "CT": lambda run: _image("CT_small.dcm", run, 512),
    "MR": lambda run: _image("MR_small.dcm", run, 256),
    "SR": lambda run: _report(run, 4096),
    "64 MiB": lambda run: _image("CT_small.dcm", run, 512, 128),
    "200 MB": lambda run: _image("CT_small.dcm", run, 512, 382),
    "1 GB": lambda run: _image("CT_small.dcm", run, 512, 1908),
}
SAMPLES = tuple(_MAKERS)


@functools.lru_cache(maxsize=4)
def sample(name: str) -> Sample:
    run = new_run()
    dataset = _MAKERS[name](run)
    data = _encode(dataset)
    fields = {}
    for keyword, value in identity(run, 0, 0, 0).items():
        tag, vr = dataset[keyword].tag, dataset[keyword].VR
        head = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + vr.encode()
        raw = value.encode()
        header = head + (len(raw) + len(raw) % 2).to_bytes(2, "little")
        fields[keyword] = data.index(header + raw) + len(header)
    return Sample(name, str(dataset.SOPClassUID), data, fields)
