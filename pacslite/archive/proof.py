"""Whether a file is the one that a row stands for, and what it holds."""

import os

import xxhash

from pacslite.archive.index.removal import InstanceRow
from pacslite.archive.instances.header import read_header
from pacslite.archive.record import Record, make_record
from pacslite.dataset.meta import FileMeta, FileMetaError, read_file_meta
from pacslite.dataset.scan import HeaderScanner
from pacslite.errors import DimseError

__all__ = ["digest_of", "is_file_of", "is_whole", "read_record"]

_PIECE = 1 << 20


def is_file_of(fd: int, row: InstanceRow) -> bool:
    """Go by the header, if it has a digest: what follows it may be torn.

    Raises:
        FileMetaError: It is no instance, or its header is torn.
    """
    meta = read_file_meta(fd)
    if meta.digest is None or meta.data_set_length is None:  # not written by us, but put here and reindexed
        return is_whole(fd, row)
    read_header(fd)
    return (meta.digest, meta.data_set_offset + meta.data_set_length) == (row.digest, row.size)


def is_whole(fd: int, row: InstanceRow) -> bool:
    """Read all of it.

    Raises:
        FileMetaError: It is no instance, or its header is torn.
    """
    if os.fstat(fd).st_size != row.size:
        return False
    meta = read_file_meta(fd)
    if meta.digest is not None:
        read_header(fd)
    return meta.sop_instance_uid == row.sop_instance_uid and digest_of(fd, meta.data_set_offset) == row.digest


def digest_of(fd: int, offset: int) -> bytes:
    """Of a file from ``offset`` to its end."""
    digest = xxhash.xxh3_128()
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    while piece := os.pread(fd, _PIECE, offset):
        digest.update(piece)
        offset += len(piece)
    return digest.digest()


def read_record(fd: int, meta: FileMeta, *, verify: bool) -> Record:
    """Scan a file of ours.

    Args:
        verify: Read all of it and compare the digest; else only as far as the header goes.
    Raises:
        FileMetaError: It is torn.
        DimseError: It is no data set, or not the one its header announces.
    """
    if meta.data_set_length is None or meta.digest is None:
        raise FileMetaError("length and digest are unknown")
    problem: DimseError | None = None  # told when the file has proved itself
    scan = HeaderScanner(meta.transfer_syntax_uid)
    digest = xxhash.xxh3_128()
    at, end = meta.data_set_offset, meta.data_set_offset + meta.data_set_length
    while at < end and (verify or not scan.complete):
        piece = os.pread(fd, min(_PIECE, end - at), at)
        if not piece:
            raise FileMetaError(f"file ends at byte {at} of {end}")
        if problem is None and not scan.complete:
            try:
                scan.feed(memoryview(piece))
            except DimseError as error:
                if not verify:
                    raise
                problem = error
        if verify:
            digest.update(piece)
        at += len(piece)
    if verify and digest.digest() != meta.digest:
        raise FileMetaError("digest differs")
    if problem is not None:
        raise problem
    if not scan.complete:
        scan.finish()
    record = make_record(
        scan,
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        source_ae_title=meta.source_ae_title,
    )
    record.data_set_offset = meta.data_set_offset
    record.data_set_length = meta.data_set_length
    record.digest = meta.digest
    return record
