"""What is in a file that is to be imported: its UIDs, its transfer syntax, and where its data set begins.

Files with a File Meta Information (PS3.10 §7.1) are read by dataset/meta; pydicom decides the others: data sets without
a header, headers without UIDs. A file that pacslite has written has to be what its header says.
"""

import os
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import BinaryIO, NamedTuple

from pacslite.archive.instances.header import read_header
from pacslite.dataset.meta import FileMeta, FileMetaError, read_file_meta
from pacslite.errors import PacsliteError

__all__ = ["AlteredFile", "DicomFile", "NotAnInstance", "inspect", "inspect_data_set"]

_DIRECTORY = "1.2.840.10008.1.3.10"  # Media Storage Directory: the DICOMDIR of a medium


class NotAnInstance(PacsliteError):
    """The file is no composite instance: it is passed over."""


class AlteredFile(PacsliteError):
    """Pacslite wrote the file, and it is no longer what was written: bytes are missing, or are others."""


class DicomFile(NamedTuple):
    """An instance in a file; its data set goes from ``offset`` to ``end``.

    ``digest``: what XXH3-128 over the data set has to be, None where nobody knows.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    source_ae_title: str
    offset: int
    end: int
    digest: bytes | None = None


def inspect(path: Path) -> DicomFile:
    """Read the header of a file.

    Raises:
        NotAnInstance: No DICOM file, or a DICOMDIR.
        AlteredFile: Its header, or its size, is not what pacslite wrote.
        OSError: It cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # of a pipe: nobody may write to it
    try:
        status = os.fstat(fd)
        size = status.st_size
        if not S_ISREG(status.st_mode) and not S_ISDIR(status.st_mode):  # of a folder reading tells
            raise NotAnInstance("a pipe or device")
        try:
            meta = read_file_meta(fd)
        except FileMetaError:
            found = _ask_pydicom(path, size)
        else:
            _prove(fd, meta, size)
            uids = meta.sop_class_uid, meta.sop_instance_uid
            if not all(uids):
                asked = _ask_pydicom(path, size)
                uids = asked.sop_class_uid, asked.sop_instance_uid
            found = DicomFile(
                *uids, meta.transfer_syntax_uid, meta.source_ae_title, meta.data_set_offset, size, meta.digest
            )
    finally:
        os.close(fd)
    if found.sop_class_uid == _DIRECTORY:
        raise NotAnInstance("a DICOMDIR")
    return found


def inspect_data_set(path: Path, header: DicomFile) -> DicomFile:
    """The same with the UIDs of the data set, where those of the header are others.

    Raises:
        NotAnInstance: The data set has none.
    """
    asked = _ask_pydicom(path, header.end)
    return header._replace(sop_class_uid=asked.sop_class_uid, sop_instance_uid=asked.sop_instance_uid)


def _prove(fd: int, meta: FileMeta, size: int) -> None:
    if meta.digest is None or meta.data_set_length is None:  # of somebody else
        return
    try:
        read_header(fd)
    except FileMetaError as error:
        raise AlteredFile(f"damaged, or altered since pacslite wrote it: {error}") from error
    if meta.data_set_offset + meta.data_set_length != size:
        written = meta.data_set_offset + meta.data_set_length
        raise AlteredFile(f"damaged, or altered since pacslite wrote it: {size} bytes instead of {written}")


def _ask_pydicom(path: Path, size: int) -> DicomFile:
    """A file without a usable header: pydicom finds encoding and UIDs."""
    import pydicom
    from pydicom import uid

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        with path.open("rb") as file:
            dataset = pydicom.dcmread(file, force=True, stop_before_pixels=True)
            offset = _data_set_offset(file)
    except Exception as error:  # whatever it makes of a file that is none
        raise NotAnInstance(f"no DICOM file: {error}") from None
    sop_class_uid, sop_instance_uid = dataset.get("SOPClassUID", ""), dataset.get("SOPInstanceUID", "")
    if not sop_class_uid or not sop_instance_uid:
        raise NotAnInstance("no DICOM file: no SOP Class and SOP Instance UID")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:
        implicit, little = dataset.original_encoding
        syntax = uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
        if not little:
            syntax = uid.ExplicitVRBigEndian
    return DicomFile(str(sop_class_uid), str(sop_instance_uid), str(syntax), "", offset, size)


def _data_set_offset(file: BinaryIO) -> int:
    """Where the data set begins: behind the preamble and the group 0002, of what there is."""
    from pydicom.filereader import _read_file_meta_info, read_preamble

    file.seek(0)
    read_preamble(file, force=True)
    _read_file_meta_info(file)
    return int(file.tell())
