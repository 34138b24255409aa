"""Whether a file is the one that a row stands for, and what it holds."""

import os

import xxhash

from pacslite.archive.index.removal import InstanceRow
from pacslite.archive.instances.header import read_header
from pacslite.dataset.meta import read_file_meta

__all__ = ["digest_of", "is_file_of", "is_whole"]

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
