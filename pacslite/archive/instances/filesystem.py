"""Instances as PS3.10 files in a local file system.

One object costs one create, one write and one fdatasync. No rename stands between a peer and its answer: the file
proves itself by the length and digest in its header (dataset/meta.py), so a torn one is known at the next start, and on
ext4, xfs and btrfs the fdatasync of a new file makes its name durable too. Names are opened component by component
below a directory descriptor, without following symbolic links: what is planted in the tree is an error, not a way out.
"""

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count, groupby
from pathlib import Path
from time import time_ns

from pacslite.archive.instances.fileops import FileOperations
from pacslite.archive.instances.layout import SUFFIX, InstancePath

__all__ = ["FilesystemStore"]

_WRITEBACK_STEP = 1 << 20  # hand this much to the disk at a time while the object still arrives
_WRITEBACK_LAG = 16 << 20  # and let no more than this pile up: the last sync of a large object stays short


class _IncomingFile:
    """A file in ``incoming/``. The header comes last if the object is streamed, first if it came complete."""

    __slots__ = ("_begun", "_directory", "_fd", "_operations", "_waited", "name", "size")

    def __init__(self, operations: FileOperations, directory: int, name: str, fd: int) -> None:
        self._operations = operations
        self._directory = directory
        self._fd = fd
        self._begun = 0  # writeback started up to here
        self._waited = 0  # and finished up to here
        self.name = name
        self.size = 0

    def leave_room(self, size: int) -> None:
        os.lseek(self._fd, size, os.SEEK_SET)  # a hole, until the header is written
        self.size = size

    def append(self, pieces: Sequence[bytes | bytearray]) -> None:
        self._operations.append(self._fd, pieces)
        self.size += sum(map(len, pieces))
        if self.size - self._begun >= _WRITEBACK_STEP:
            self._operations.start_writeback(self._fd, self._begun, self.size - self._begun)
            self._begun = self.size
            if self._begun - self._waited > _WRITEBACK_LAG:
                step = self._begun - self._waited - _WRITEBACK_LAG
                self._operations.await_writeback(self._fd, self._waited, step)
                self._waited += step

    def begin_writeback(self) -> None:
        """Wake the disk; the caller has something to compute before it syncs."""
        self._operations.start_writeback(self._fd, self._begun, 0)
        self._begun = self.size

    def write_header(self, header: bytes) -> None:
        self._operations.write_at(self._fd, header, 0)

    def sync(self) -> None:
        self._operations.sync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._operations.close(fd)

    def discard(self) -> None:
        try:
            if self._fd >= 0:
                self._operations.truncate(self._fd, 0)  # if the name comes back after a power cut, it proves nothing
            self._operations.unlink(self._directory, self.name)
        except OSError:
            pass  # an unreadable or torn file is removed at the next start
        finally:
            self.close()


class FilesystemStore:
    """``incoming/`` and ``instances/`` below one data directory."""

    def __init__(self, data_dir: Path, operations: FileOperations | None = None) -> None:
        self.operations = operations or FileOperations()
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._data = os.open(data_dir, flags)
        self._incoming = self._make_root("incoming")
        self._instances = self._make_root("instances")
        self.sync_names()
        # Numbers are not used again, whatever became of the files: a note of a removal must not fit a later file
        last = max((int(name.removesuffix(SUFFIX)) for name in self.incoming()), default=0)
        self._numbers = count(max(last + 1, time_ns() // 1000))
        self._lock = threading.Lock()  # makes directories against the removal of empty ones

    def close(self) -> None:
        """Give the directory descriptors back."""
        for fd in (self._incoming, self._instances, self._data):
            os.close(fd)

    # incoming

    def create(self, header_size: int) -> _IncomingFile:
        name = f"{next(self._numbers):020d}{SUFFIX}"
        file = _IncomingFile(self.operations, self._incoming, name, self.operations.create(self._incoming, name))
        if header_size:
            file.leave_room(header_size)
        return file

    def open_incoming(self, name: str) -> int:
        return self.operations.open_file(self._incoming, name)

    def remove_incoming(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self.operations.unlink(self._incoming, name)

    def incoming(self) -> list[str]:
        """Ours only: digits and the suffix. Anything else is not touched."""
        names = _names(self._incoming)
        return sorted(name for name in names if name.endswith(SUFFIX) and name[: -len(SUFFIX)].isdecimal())

    # settled

    def settle(self, files: Sequence[tuple[str, InstancePath]]) -> list[OSError | None]:
        outcomes: list[OSError | None] = []
        with self._lock:  # no directory is removed as empty before its first file comes
            for _, group in groupby(files, key=lambda file: file[1][:3]):
                outcomes += self._settle_series(list(group))
        return outcomes

    def _settle_series(self, files: list[tuple[str, InstancePath]]) -> list[OSError | None]:
        try:
            directory = self._open_directory(files[0][1], make=True)
        except OSError as error:
            return [error] * len(files)
        outcomes: list[OSError | None] = []
        for name, path in files:
            try:
                self.operations.rename(self._incoming, name, directory, path.name)
                outcomes.append(None)
            except OSError as error:
                outcomes.append(error)
        self.operations.close(directory)
        return outcomes

    def open_settled(self, path: InstancePath) -> int:
        directory = self._open_directory(path)
        try:
            return self.operations.open_file(directory, path.name)
        finally:
            os.close(directory)

    def remove_settled(self, path: InstancePath) -> None:
        try:
            directory = self._open_directory(path)
        except FileNotFoundError:
            return
        try:
            self.operations.unlink(directory, path.name)
        except FileNotFoundError:
            pass
        finally:
            os.close(directory)
        self._remove_empty(path)

    def set_aside(self, path: InstancePath) -> None:
        damaged = self._make_root("damaged")
        try:
            directory = self._open_directory(path)
            try:
                self.operations.rename(directory, path.name, damaged, f"{next(self._numbers)}-{path.name}")
            finally:
                os.close(directory)
        finally:
            os.close(damaged)
        self._remove_empty(path)

    def take_back(self, path: InstancePath) -> str:
        name = f"{next(self._numbers):020d}{SUFFIX}"
        directory = self._open_directory(path)
        try:
            self.operations.rename(directory, path.name, self._incoming, name)
        finally:
            os.close(directory)
        return name

    def settled(self) -> Iterator[InstancePath]:
        for prefix in _listed(self._instances, None):
            for study in _listed(self._instances, prefix):
                for series in _listed(self._instances, f"{prefix}/{study}"):
                    for name in _listed(self._instances, f"{prefix}/{study}/{series}"):
                        yield InstancePath(prefix, study, series, name)

    def sync_names(self) -> None:
        for fd in (self._incoming, self._instances, self._data):
            self.operations.sync_directory(fd)

    def sync_all(self) -> None:
        self.operations.sync_filesystem(self._data)

    def free_bytes(self) -> int:
        return self.operations.free_bytes(self._data)

    # private

    def _make_root(self, name: str) -> int:
        with suppress(FileExistsError):
            os.mkdir(name, 0o750, dir_fd=self._data)
        return self.operations.open_directory(self._data, name)

    def _open_directory(self, path: InstancePath, *, make: bool = False) -> int:
        """Open the series directory, one component after the other, following no link."""
        directory = self._instances
        for name in path[:3]:
            try:
                try:
                    below = self.operations.open_directory(directory, name)
                except FileNotFoundError:
                    if not make:
                        raise
                    self.operations.make_directory(directory, name)
                    below = self.operations.open_directory(directory, name)
            finally:
                if directory != self._instances:
                    os.close(directory)
            directory = below
        return directory

    def _remove_empty(self, path: InstancePath) -> None:
        with self._lock:
            for depth in (2, 1, 0):
                try:
                    directory = self._instances
                    for name in path[:depth]:
                        below = self.operations.open_directory(directory, name)
                        if directory != self._instances:
                            os.close(directory)
                        directory = below
                    try:
                        self.operations.remove_directory(directory, path[depth])
                    finally:
                        if directory != self._instances:
                            os.close(directory)
                except OSError:
                    return  # not empty, or gone: both are well


def _names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]


def _listed(root: int, below: str | None) -> list[str]:
    """Names in a directory below ``root``, sorted; links are not entered."""
    try:
        fd = os.open(below or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    except (NotADirectoryError, FileNotFoundError, PermissionError):
        return []
    except OSError as error:
        if error.errno == errno.ELOOP:
            return []
        raise
    try:
        return sorted(_names(fd))
    finally:
        os.close(fd)
