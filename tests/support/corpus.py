"""Real DICOM files: all in pydicom-data and in pydicom's own test files that name their SOP Class and Instance."""

import importlib.util
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset
from pydicom.filereader import dcmread, read_preamble
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

__all__ = ["CorpusFile", "corpus", "generations", "read_file"]

_META_GROUP = b"\x02\x00"


@dataclass(frozen=True)
class CorpusFile:
    """A file's identity and the bytes of its data set as they lie in it."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytes

    @property
    def name(self) -> str:
        return self.path.name

    def header(self) -> FileDataset:
        """pydicom's view of it, without pixel data."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dcmread(self.path, stop_before_pixels=True, force=True)


def _directories() -> list[Path]:
    spec = importlib.util.find_spec("data_store")
    if spec is None or spec.origin is None:
        pytest.fail("pydicom-data is missing: pip install pydicom-data", pytrace=False)
    pydicom = importlib.util.find_spec("pydicom")
    assert pydicom is not None
    assert pydicom.origin is not None
    bundled = Path(pydicom.origin).parent / "data"
    return [bundled / "test_files", bundled / "charset_files", Path(spec.origin).parent / "data"]


def read_file(path: Path) -> CorpusFile | None:
    """None for what is not DICOM or has no SOP Class and Instance to store it under."""
    raw = path.read_bytes()
    if len(raw) < 16 or path.suffix in (".py", ".zip", ".tar", ".txt", ".json", ".xml", ".gz"):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = dcmread(BytesIO(raw), force=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
            sop_class, sop_instance = str(header.SOPClassUID), str(header.SOPInstanceUID)
        except Exception:  # not DICOM, or nothing to store it under
            return None
    if not sop_class or not sop_instance:
        return None
    source = BytesIO(raw)
    read_preamble(source, force=True)
    start = source.tell()
    if raw[start : start + 2] == _META_GROUP:
        start = _end_of_meta(raw, start)
    syntax = header.file_meta.get("TransferSyntaxUID") if hasattr(header, "file_meta") else None
    if syntax is None:
        implicit, little = header.original_encoding
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    data = raw[start:]
    if syntax == DeflatedExplicitVRLittleEndian:
        data += b"\0" * (len(data) % 2)  # PS3.5 §A.5: padded to even length where it is sent
    return CorpusFile(path, sop_class, sop_instance, str(syntax), data)


def _end_of_meta(raw: bytes, at: int) -> int:
    """Group 0002 is explicit VR little endian (PS3.10 §7.1); its group length is not to be trusted."""
    while raw[at : at + 2] == _META_GROUP:
        if raw[at + 4 : at + 6] in (b"OB", b"UN", b"UT"):
            at += 12 + int.from_bytes(raw[at + 8 : at + 12], "little")
        else:
            at += 8 + int.from_bytes(raw[at + 6 : at + 8], "little")
    return at


@cache
def corpus() -> tuple[CorpusFile, ...]:
    """All files, by path; identical ones once."""
    found: dict[tuple[str, bytes], CorpusFile] = {}
    for directory in _directories():
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                file = read_file(path)
                if file is not None:
                    found.setdefault((file.sop_instance_uid, file.data), file)
    return tuple(found.values())


@cache
def generations() -> tuple[tuple[CorpusFile, ...], ...]:
    """The corpus split so that no SOP Instance UID occurs twice in one part (many files are variants of one image)."""
    seen: Counter[str] = Counter()
    parts: dict[int, list[CorpusFile]] = {}
    for file in corpus():
        parts.setdefault(seen[file.sop_instance_uid], []).append(file)
        seen[file.sop_instance_uid] += 1
    return tuple(tuple(part) for part in parts.values())
