"""The header of our files: File Meta Information that proves the file, itself included.

(0002,0102) holds length and digest of the data set (dataset/meta.py) and, last of all, a CRC-32 of the header before.
Without that a torn or rotten header could give a sound data set another transfer syntax.
"""

import os
import zlib

from pacslite.dataset.meta import (
    FileMeta,
    FileMetaError,
    encode_file_meta,
    file_meta_size,
    private_information,
    read_file_meta,
)

__all__ = ["encode_header", "header_size", "is_header_of", "read_header"]

_CRC_BYTES = 4
_PRIVATE_BYTES = len(private_information(0, bytes(16))) + _CRC_BYTES


def encode_header(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    source_ae_title: str,
    data_set_length: int,
    digest: bytes,
    is_new: bool,
) -> bytes:
    """Encode the header of a file whose data set has this length and digest, and whose instance is new or is not."""
    header = encode_file_meta(
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        source_ae_title=source_ae_title,
        private=private_information(data_set_length, digest, is_new=is_new) + bytes(_CRC_BYTES),
    )[:-_CRC_BYTES]
    return header + zlib.crc32(header).to_bytes(_CRC_BYTES, "little")


def header_size(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae_title: str) -> int:
    """Bytes before the data set, known before its digest is."""
    return file_meta_size(
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        source_ae_title=source_ae_title,
        private_size=_PRIVATE_BYTES,
    )


def is_header_of(head: bytes, digest: bytes) -> bool:
    """Say whether ``head`` is, to its last byte, the header of a data set with this digest.

    The same data set from another sender has another header: its digest may stand within ``head`` too, elsewhere.
    """
    return head[-_CRC_BYTES - len(digest) : -_CRC_BYTES] == digest


def read_header(fd: int) -> FileMeta:
    """Read the header of a file of ours.

    Raises:
        FileMetaError: It is none, it is of somebody else, or it is torn.
    """
    meta = read_file_meta(fd)
    if meta.digest is None or meta.data_set_length is None:
        raise FileMetaError("no digest in the File Meta Information")
    header = os.pread(fd, meta.data_set_offset, 0)
    if zlib.crc32(header[:-_CRC_BYTES]).to_bytes(_CRC_BYTES, "little") != header[-_CRC_BYTES:]:
        raise FileMetaError("File Meta Information differs from its checksum")
    return meta
