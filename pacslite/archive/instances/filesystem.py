"""Instances as PS3.10 files in a local file system.

One object costs one create, one write, and one write to the journal (journal.py); a large one, and any while the
journal has no room, an fdatasync of its file instead. No rename stands between a peer and its answer: the file proves
itself by the length and digest in its header (dataset/meta.py), so a torn one is known at the next start, and on ext4,
xfs and btrfs the fdatasync of a new file makes its name durable too. Names are opened component by component below a
directory descriptor, without following symbolic links: what is planted in the tree is an error, not a way out.
"""

import errno
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count, groupby
from pathlib import Path
from time import time_ns

from pacslite.archive.instances.fileops import FileOperations
from pacslite.archive.instances.journal import Journal, JournalRecord
from pacslite.archive.instances.layout import SUFFIX, InstancePath
from pacslite.archive.instances.protocol import IncomingFile

__all__ = ["FilesystemStore"]

log = logging.getLogger("pacslite.archive")

_WRITEBACK_STEP = 1 << 20  # hand this much to the disk at a time while the object still arrives
_WRITEBACK_LAG = 16 << 20  # and let no more than this pile up: the last sync of a large object stays short
_JOURNALED = 256 << 10  # bytes of a file; a larger one gains less than the second writing of its bytes costs
_JOURNALS_FREE = 8  # a disk with less room than this many journals is not made smaller by one


class _IncomingFile:
    """A file in ``incoming/``. The header comes last if the object is streamed, first if it came complete."""

    __slots__ = (
        "_begun",
        "_directory",
        "_fd",
        "_journal",
        "_operations",
        "_waited",
        "content",
        "name",
        "record",
        "size",
    )

    def __init__(self, operations: FileOperations, directory: int, name: str, fd: int, journal: Journal | None) -> None:
        self._operations = operations
        self._directory = directory
        self._fd = fd
        self._journal = journal
        self.content: Sequence[bytes | bytearray] | None = None  # all of it, if it is for the journal
        self.record: int | None = None  # its position in the journal
        self._begun = 0  # writeback started up to here
        self._waited = 0  # and finished up to here
        self.name = name
        self.size = 0

    def leave_room(self, size: int) -> None:
        os.lseek(self._fd, size, os.SEEK_SET)  # a hole, until the header is written
        self.size = size

    def append(self, pieces: Sequence[bytes | bytearray]) -> None:
        self._operations.append(self._fd, pieces)
        added = sum(map(len, pieces))
        self.content = pieces if self._journal is not None and not self.size and added <= _JOURNALED else None
        self.size += added
        if self.size - self._begun >= _WRITEBACK_STEP:
            self._operations.start_writeback(self._fd, self._begun, self.size - self._begun)
            self._begun = self.size
            if self._begun - self._waited > _WRITEBACK_LAG:
                step = self._begun - self._waited - _WRITEBACK_LAG
                self._operations.await_writeback(self._fd, self._waited, step)
                self._waited += step

    def begin_writeback(self) -> None:
        """Wake the disk; the caller has something to compute before it syncs."""
        if self.content is None:
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
            if self.record is not None and self._journal is not None:
                self._journal.cancel(self.record)
            if self._fd >= 0:
                self._operations.truncate(self._fd, 0)  # if the name comes back after a power cut, it proves nothing
            self._operations.unlink(self._directory, self.name)
        except OSError:
            pass  # an unreadable or torn file is removed at the next start
        finally:
            self.close()


class FilesystemStore:
    """``incoming/`` and ``instances/`` below one data directory, and the journal of what comes in.

    Args:
        journal_bytes: Size of the journal that ``prepare`` makes; 0 for none. Whatever a stop left in a journal is
            back in ``incoming/`` when this returns.
    """

    def __init__(self, data_dir: Path, operations: FileOperations | None = None, *, journal_bytes: int = 0) -> None:
        self.operations = operations or FileOperations()
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._data = os.open(data_dir, flags)
        self._incoming = self._make_root("incoming")
        self._instances = self._make_root("instances")
        self.sync_names()
        # Numbers are not used again, whatever became of the files: a note of a removal must not fit a later file
        last = max(map(_number, self.incoming()), default=0)
        self._numbers = count(max(last + 1, time_ns() // 1000))
        self._lock = threading.Lock()  # makes directories against the removal of empty ones
        self._journal_bytes = journal_bytes
        self._syncing = threading.Lock()
        self._distrusted = False  # a sync failed: files in ``incoming`` may be on the disk only in part
        self._journal = self._open_journal()

    def close(self) -> None:
        """Give the descriptors back."""
        if self._journal is not None:
            self._journal.close()
        for fd in (self._incoming, self._instances, self._data):
            os.close(fd)

    # incoming

    def create(self, header_size: int) -> _IncomingFile:
        name = _name(next(self._numbers))
        fd = self.operations.create(self._incoming, name)
        file = _IncomingFile(self.operations, self._incoming, name, fd, self._journal)
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
        name = _name(next(self._numbers))
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

    def sync(self, files: Sequence[IncomingFile]) -> list[OSError | None]:
        outcomes: dict[str, OSError] = {}
        journal = self._journal
        small = [file for file in files if isinstance(file, _IncomingFile) and file.content is not None]
        records: list[int] | None = None
        if journal is not None and small:
            try:
                records = journal.append([(_number(f.name), f.size, f.content or ()) for f in small])
            except OSError as error:
                outcomes = dict.fromkeys((file.name for file in small), error)
        for written, record in zip(small, records or (), strict=False):
            written.record = record
        in_journal = {file.name for file in small} if records is not None else outcomes.keys()
        for file in files:
            if file.name not in in_journal:
                try:
                    file.sync()
                except OSError as error:
                    outcomes[file.name] = error
        for written in small:
            written.content = None
        return [outcomes.get(file.name) for file in files]

    def is_quick(self, size: int) -> bool:
        return self._journal is not None and size <= _JOURNALED

    @property
    def must_sync(self) -> bool:
        return self._journal is not None and not self._journal.is_empty

    @property
    def is_pressed(self) -> bool:
        return self._journal is not None and self._journal.half_full

    def sync_all(self) -> None:
        with self._syncing:
            journal = self._journal
            mark = journal.mark() if journal is not None else 0
            at_rest = journal is not None and journal.at_rest
            try:
                self.operations.sync_filesystem(self._data)
            except OSError:
                self._distrusted = True  # the kernel may forget what it could not write, and say well the next time
                raise
            if journal is None:
                return
            if self._distrusted:
                self._write_again(journal, mark)
                self._distrusted = False
            if at_rest:  # every file is synced
                self._journal = None
                journal.remove()
                log.warning("journal failed: from now on each file is synced by itself")
            else:
                journal.retire(mark)

    def prepare(self) -> None:
        with self._syncing:
            if self._journal is not None or not self._journal_bytes:
                return
            free = self.free_bytes()
            if free < _JOURNALS_FREE * self._journal_bytes:
                log.info("no journal", extra={"free_bytes": free})
                return
            self._journal = Journal.create(self.operations, self._data, self._journal_bytes)

    def free_bytes(self) -> int:
        return self.operations.free_bytes(self._data)

    # private

    def _open_journal(self) -> Journal | None:
        """Give back what the journal holds; then it holds nothing."""
        journal = Journal.open(self.operations, self._data)
        if journal is None:
            return None
        found = 0
        for record in journal.records():
            self._lay(record)
            found += 1
        if found:
            self.operations.sync_filesystem(self._data)
            log.info("journal read", extra={"files": found})
        if journal.size != self._journal_bytes:
            journal.remove()
            return None
        journal.retire(journal.mark())
        return journal

    def _write_again(self, journal: Journal, mark: int) -> None:
        """Write files once more from their records, in place: readers see the same bytes, what is gone stays gone."""
        for record in journal.records(before=mark):
            with suppress(FileNotFoundError):
                fd = self.operations.open_to_write(self._incoming, _name(record.number))
                try:
                    self.operations.write_at(fd, record.content, 0)
                    self.operations.sync(fd)
                finally:
                    self.operations.close(fd)

    def _lay(self, record: JournalRecord) -> None:
        """Make a file in ``incoming`` what its record says."""
        name = _name(record.number)
        if self._holds(name, record.content):
            return
        temporary = f"{name}.new"
        with suppress(FileNotFoundError):
            self.operations.unlink(self._incoming, temporary)
        fd = self.operations.create(self._incoming, temporary)
        try:
            self.operations.append(fd, [record.content])
            self.operations.sync(fd)
        finally:
            self.operations.close(fd)
        self.operations.rename(self._incoming, temporary, self._incoming, name)

    def _holds(self, name: str, content: bytes) -> bool:
        try:
            fd = self.open_incoming(name)
        except FileNotFoundError:
            return False
        try:
            return os.fstat(fd).st_size == len(content) and os.pread(fd, len(content), 0) == content
        finally:
            os.close(fd)

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


def _name(number: int) -> str:
    return f"{number:020d}{SUFFIX}"


def _number(name: str) -> int:
    return int(name.removesuffix(SUFFIX))


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
