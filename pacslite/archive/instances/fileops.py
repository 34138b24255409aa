"""The system calls the file system store is made of, as one object, so that a test can let any of them fail."""

import ctypes
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pacslite.archive.ownership import FILE_MODE, give, make_directory

__all__ = ["FileOperations", "sync_folder"]

_Bytes = bytes | bytearray | memoryview

_LIBC = ctypes.CDLL(None, use_errno=True)
_SYNC_FILE_RANGE_WAIT_BEFORE = 1
_SYNC_FILE_RANGE_WRITE = 2
_SYNC_FILE_RANGE_WAIT_AFTER = 4
_sync_file_range = getattr(_LIBC, "sync_file_range", None)  # glibc and musl on Linux
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_LIBC.syncfs.argtypes = (ctypes.c_int,)
_IOV_MAX = 1024
# For more at once ext4 takes page cache in such large pieces that a virtual machine's host has to find the memory anew:
# 64 MiB objects came half as fast. One more system call costs 1 us
_WRITTEN_AT_ONCE = 128 << 10
# From one file system to another, or with an old kernel
_CANNOT_COPY = frozenset({errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP})
_NOWHERE = ".nowhere"  # no file of anybody
_DSYNC = getattr(os, "RWF_DSYNC", 0)  # Linux: the sync of this range only, in the same call


class FileOperations:
    """Real calls. Every method raises OSError as ``os`` does; descriptors and names are relative to directories."""

    gives = False  # new files to the owner of their directory: asked once, for it costs 5 us

    def create(self, directory: int, name: str) -> int:
        """Make a file that must be new, for writing; a planted symbolic link counts as there (PS: O_EXCL)."""
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(name, flags, FILE_MODE, dir_fd=directory)
        if self.gives:
            give(fd, directory)
        return fd

    def open_file(self, directory: int, name: str) -> int:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)

    def open_to_write(self, directory: int, name: str) -> int:
        return os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)

    def open_directory(self, directory: int, name: str) -> int:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)

    def make_directory(self, directory: int, name: str) -> None:
        make_directory(directory, name)

    def append(self, fd: int, pieces: Sequence[bytes | bytearray]) -> None:
        """Write all of ``pieces`` at the file's position."""
        for portion in _portions(pieces):
            group: Sequence[_Bytes] = portion
            left = sum(map(len, group))
            while (written := os.writev(fd, group)) < left:  # a short write: the disk is full next time, or a signal
                left -= written
                group = _after(group, written)

    def copy(self, fd: int, offset: int, to: int, size: int) -> None:
        """Write ``size`` bytes of ``fd`` from ``offset`` on at the position of ``to``; in the kernel where it can."""
        while size:
            try:
                copied = _copy_file_range(fd, to, size, offset)
            except OSError as error:
                if error.errno not in _CANNOT_COPY:
                    raise
                self.append(to, [self.read_at(fd, size, offset)])
                return
            if not copied:
                raise _shorter()
            offset += copied
            size -= copied

    def read_at(self, fd: int, size: int, offset: int) -> bytes:
        """Read all of a range. One call ends before a block that cannot be read, and only the next says so."""
        content = os.pread(fd, size, offset)
        while len(content) < size:
            more = os.pread(fd, size - len(content), offset + len(content))
            if not more:
                raise _shorter()
            content += more
        return content

    def write_at(self, fd: int, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while len(view) > (written := os.pwrite(fd, view, offset)):
            view, offset = view[written:], offset + written

    def write_pieces(self, fd: int, pieces: Sequence[bytes | bytearray], offset: int) -> None:
        """Write all of ``pieces`` at ``offset``."""
        _write_pieces(fd, pieces, offset, 0)

    def write_durably(self, fd: int, pieces: Sequence[bytes | bytearray], offset: int) -> None:
        """Write all of ``pieces`` at ``offset``, and return when they are on the disk."""
        _write_pieces(fd, pieces, offset, _DSYNC)
        if not _DSYNC:
            os.fdatasync(fd)

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        """Let the kernel begin to write a range, so that the sync at the end finds little to do. A hint only."""
        if _sync_file_range is not None:
            _sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)

    def await_writeback(self, fd: int, offset: int, length: int) -> None:
        """Wait until a range has left the page cache; errors are the closing sync's to report."""
        if _sync_file_range is not None:
            _sync_file_range(
                fd,
                offset,
                length,
                _SYNC_FILE_RANGE_WAIT_BEFORE | _SYNC_FILE_RANGE_WRITE | _SYNC_FILE_RANGE_WAIT_AFTER,
            )

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)

    def sync_directory(self, fd: int) -> None:
        os.fsync(fd)

    def sync_filesystem(self, fd: int) -> None:
        if _LIBC.syncfs(fd) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))

    def truncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def close(self, fd: int) -> None:
        os.close(fd)

    def rename(self, directory: int, name: str, to_directory: int, to_name: str) -> None:
        os.rename(name, to_name, src_dir_fd=directory, dst_dir_fd=to_directory)

    def unlink(self, directory: int, name: str) -> None:
        os.unlink(name, dir_fd=directory)

    def remove_directory(self, directory: int, name: str) -> None:
        os.rmdir(name, dir_fd=directory)

    def is_same_mount(self, directory: int, other: int) -> bool:
        """A file can be moved from one to the other, and ``sync_filesystem`` of one is for both."""
        if os.fstat(directory).st_dev != os.fstat(other).st_dev:
            return False
        try:  # Linux compares mounts before it looks for the name; two of one file system have the same device
            os.rename(_NOWHERE, _NOWHERE, src_dir_fd=directory, dst_dir_fd=other)
        except OSError as error:
            return error.errno != errno.EXDEV
        return True

    def free_bytes(self, fd: int) -> int:
        """What an unprivileged writer may still use."""
        found = os.fstatvfs(fd)
        return found.f_bavail * found.f_frsize


def _shorter() -> OSError:
    return OSError(errno.EIO, "file is shorter than it was")


def _write_pieces(fd: int, pieces: Sequence[_Bytes], offset: int, flags: int) -> None:
    while pieces:
        group, pieces = pieces[:_IOV_MAX], pieces[_IOV_MAX:]
        left = sum(map(len, group))
        while (written := os.pwritev(fd, group, offset, flags)) < left:
            offset += written
            left -= written
            group = _after(group, written)
        offset += written


def _copy_file_range(fd: int, to: int, size: int, offset: int) -> int:
    if not hasattr(os, "copy_file_range"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return os.copy_file_range(fd, to, size, offset)


def _portions(pieces: Sequence[_Bytes]) -> Iterator[list[_Bytes]]:
    """What ``pieces`` are together, in lists that one call writes."""
    portion: list[_Bytes] = []
    room = _WRITTEN_AT_ONCE
    for piece in pieces:
        rest = piece
        while len(rest) > room or len(portion) == _IOV_MAX:
            if room and len(portion) < _IOV_MAX:
                rest = memoryview(rest)
                portion.append(rest[:room])
                rest = rest[room:]
            yield portion
            portion, room = [], _WRITTEN_AT_ONCE
        portion.append(rest)
        room -= len(rest)
    if portion:
        yield portion


def _after(buffers: Sequence[_Bytes], written: int) -> list[_Bytes]:
    """The buffers that ``written`` bytes have not covered."""
    for index, buffer in enumerate(buffers):
        if written < len(buffer):
            return [memoryview(buffer)[written:], *buffers[index + 1 :]]
        written -= len(buffer)
    return []


def sync_folder(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
