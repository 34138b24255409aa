"""Instances as PS3.10 files in a local file system.

A small object costs one write to the journal, and its file is made when it is settled. A large one, and any while the
journal has no room, costs one create, one write and one fdatasync in ``incoming/``. No rename stands between a peer and
its answer: the file proves itself by the length and digest in its header (dataset/meta.py), so a torn one is known at
the next start, and on ext4, xfs and btrfs the fdatasync of a new file makes its name durable too.
"""

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count, groupby
from pathlib import Path
from stat import S_ISLNK
from time import time_ns

from pacslite.archive.instances.fileops import FileOperations
from pacslite.archive.instances.incoming_file import FilesystemIncoming
from pacslite.archive.instances.journal import Journal, JournalRecord
from pacslite.archive.instances.journaled import JOURNALED_BYTES, JournaledFiles
from pacslite.archive.instances.layout import InstancePath, incoming_name, incoming_number, is_incoming_name
from pacslite.archive.instances.protocol import IncomingFile
from pacslite.archive.instances.tree import InstanceTree, names_in
from pacslite.archive.options import Durability
from pacslite.archive.ownership import is_another_ones, make_directory

__all__ = ["FilesystemStore"]

log = logging.getLogger("pacslite.archive")

_PARTIAL = ".new"  # of a file that takes the name of another when it is whole
_LONGEST_NAME = 255  # bytes
_JOURNALS_FREE = 8  # a disk with less room than this many journals is not made smaller by one


class FilesystemStore:
    """``incoming/`` and ``instances/`` below one data directory, and the journal of what comes in.

    Args:
        journal_bytes: Size of the journal that ``prepare`` makes; 0: use none, None: use the one that is there. What a
            stop left in one counts as ``incoming``, whatever this says.
        durability: Short of ``full``, ``sync`` leaves files to the system; with ``none``, ``sync_all`` too.
    Raises:
        OSError: The disk refuses, or a directory is a mount of its own.
    """

    def __init__(
        self,
        data_dir: Path,
        operations: FileOperations | None = None,
        *,
        journal_bytes: int | None = None,
        durability: Durability = "full",
    ) -> None:
        self.operations = operations or FileOperations()
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._data = os.open(data_dir, flags)
        self.operations.gives = is_another_ones(self._data)
        self._incoming = self._make_root("incoming")
        self._instances = self._make_root("instances")
        self._tree = InstanceTree(self.operations, self._instances)
        self._refuse_mounts()
        self.sync_names()
        for name in names_in(self._incoming):
            if name.endswith(_PARTIAL):
                self.operations.unlink(self._incoming, name)
        journal = Journal.open(self.operations, self._data)
        self._journaled = JournaledFiles(self.operations, journal) if journal is not None else None
        self._journal_bytes = None if journal_bytes is None else Journal.usable(journal_bytes)
        self._durability = durability
        # Numbers are not used again, whatever became of the files: a note of a removal must not fit a later file
        last = max(map(incoming_number, self.incoming()), default=0)
        self._numbers = count(max(last + 1, time_ns() // 1000))
        self._syncing = threading.Lock()
        self._takes_more = self._journal_bytes != 0  # into the journal; not while a file of it cannot be placed
        self._distrusted = False  # a sync failed: files that are not retired may be on the disk only in part

    def close(self) -> None:
        """Give the descriptors back."""
        if self._journaled is not None:
            self._journaled.journal.close()
        self._close_roots()

    # incoming

    def create(self, header_size: int) -> FilesystemIncoming:
        journaled = self._journaled if self._takes_more else None
        file = FilesystemIncoming(self.operations, self._incoming, self._numbers, journaled)
        if header_size:
            file.leave_room(header_size)
        elif journaled is None:
            file.make()
        return file

    def open_incoming(self, name: str) -> int:
        journaled, number = self._journaled, incoming_number(name)
        if journaled is not None and journaled.holds(number):
            path = journaled.place_of(number)
            return journaled.open(number) if path is None else self.open_settled(path)
        return self.operations.open_file(self._incoming, name)

    def remove_incoming(self, name: str) -> None:
        journaled, number = self._journaled, incoming_number(name)
        if journaled is not None and journaled.holds(number):
            journaled.remove(number)
        else:
            with suppress(FileNotFoundError):
                self.operations.unlink(self._incoming, name)

    def incoming(self) -> list[str]:
        """Ours only: anything else is not touched."""
        names = {name for name in names_in(self._incoming) if is_incoming_name(name)}
        journaled = self._journaled
        if journaled is not None:
            names.update(map(incoming_name, journaled.pending()))
        return sorted(names)

    def sync_incoming(self, names: Sequence[str]) -> None:
        if self._journaled is not None:
            self._journaled.journal.sync()
        for name in names:  # of the whole file system others may have written much, and nobody is served meanwhile
            if not self.holds(name):
                fd = self.operations.open_file(self._incoming, name)
                try:
                    self.operations.sync(fd)
                finally:
                    os.close(fd)

    def holds(self, name: str) -> bool:
        journaled = self._journaled
        return journaled is not None and journaled.holds(incoming_number(name))

    # settled

    def settle(self, files: Sequence[tuple[str, InstancePath]]) -> list[OSError | None]:
        outcomes: list[OSError | None] = []
        with self._tree.lock:  # no directory is removed as empty before its first file comes
            for _, group in groupby(files, key=lambda file: file[1][:3]):
                outcomes += self._settle_series(list(group))
        self._takes_more = self._journal_bytes != 0 and not any(outcomes)
        return outcomes

    def _settle_series(self, files: list[tuple[str, InstancePath]]) -> list[OSError | None]:
        try:
            directory = self._tree.open_directory(files[0][1], make=True)
        except OSError as error:
            return [error] * len(files)
        outcomes: list[OSError | None] = []
        for name, path in files:
            try:
                self._settle_one(name, directory, path)
                outcomes.append(None)
            except OSError as error:
                outcomes.append(error)
        self.operations.close(directory)
        return outcomes

    def _settle_one(self, name: str, directory: int, path: InstancePath) -> None:
        journaled = self._journaled
        if journaled is None or not journaled.holds(incoming_number(name)):
            # A start would find what was refused, and take it for the newer one
            if journaled is not None and journaled.journal.holds_refused:
                raise OSError(errno.EBUSY, "waits until the journal that failed is removed")
            self.operations.rename(self._incoming, name, directory, path.name)
            if journaled is not None:
                journaled.vacate(path)
        elif journaled.place_of(incoming_number(name)) is None:
            try:
                self._make_file(journaled, incoming_number(name), path, directory, path.name)
            except FileExistsError:  # replaced: whoever reads the old one reads on
                finish = partial(self.operations.rename, self._incoming, name + _PARTIAL, directory, path.name)
                self._make_file(journaled, incoming_number(name), path, self._incoming, name + _PARTIAL, finish)

    def _make_file(
        self,
        journaled: JournaledFiles,
        number: int,
        path: InstancePath,
        directory: int,
        name: str,
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        fd = self.operations.create(directory, name)
        try:
            journaled.place(number, path, fd, finish)
        except OSError:
            self.operations.unlink(directory, name)
            raise
        finally:
            self.operations.close(fd)

    def open_settled(self, path: InstancePath) -> int:
        directory = self._tree.open_directory(path)
        try:
            return self.operations.open_file(directory, path.name)
        finally:
            os.close(directory)

    def remove_settled(self, path: InstancePath) -> None:
        try:
            directory = self._tree.open_directory(path)
        except FileNotFoundError:
            return
        try:
            with suppress(FileNotFoundError), self._leaving(path):
                self.operations.unlink(directory, path.name)
        finally:
            os.close(directory)
        self._tree.remove_empty(path)

    def set_aside(self, path: InstancePath) -> None:
        damaged = self._make_root("damaged")
        try:
            directory = self._tree.open_directory(path)
            try:
                with self._leaving(path):
                    self.operations.rename(directory, path.name, damaged, self._name_aside(path.name))
            finally:
                os.close(directory)
        finally:
            os.close(damaged)
        self._tree.remove_empty(path)

    def set_incoming_aside(self, name: str) -> str:
        damaged, aside = self._make_root("damaged"), self._name_aside(name)
        try:
            if self.holds(name):
                self._copy_durably(self.open_incoming(name), damaged, aside)
                self.remove_incoming(name)
            else:
                self.operations.rename(self._incoming, name, damaged, aside)
        finally:
            os.close(damaged)
        return f"damaged/{aside}"

    def _name_aside(self, name: str) -> str:
        """Of a file in ``damaged/``: its own behind a number, or as much of its end as there is room for."""
        number = f"{next(self._numbers)}-"
        return number + os.fsdecode(os.fsencode(name)[-(_LONGEST_NAME - len(number)) :])

    def _copy_durably(self, source: int, directory: int, name: str) -> None:
        try:
            fd = self.operations.create(directory, name)
            try:
                self.operations.copy(source, 0, fd, os.fstat(source).st_size)
                self.operations.sync(fd)
            finally:
                self.operations.close(fd)
            self.operations.sync_directory(directory)
        finally:
            os.close(source)

    def take_back(self, path: InstancePath) -> str:
        name = incoming_name(next(self._numbers))
        directory = self._tree.open_directory(path)
        try:
            with self._leaving(path):
                self.operations.rename(directory, path.name, self._incoming, name)
        finally:
            os.close(directory)
        return name

    def settled(self) -> Iterator[InstancePath]:
        return self._tree.paths()

    def misplaced(self) -> Iterator[str]:
        return self._tree.misplaced()

    def sync_names(self) -> None:
        for fd in (self._incoming, self._instances, self._data):
            self.operations.sync_directory(fd)

    def sync(self, files: Sequence[IncomingFile]) -> list[OSError | None]:
        outcomes: dict[str, OSError] = {}
        small = [file for file in files if isinstance(file, FilesystemIncoming) and file.content is not None]
        in_journal: set[str] = set()
        journaled = self._journaled
        if small and journaled is not None:
            try:
                durably = self._durability == "full"
                if journaled.append([file.entry() for file in small], durably=durably):
                    in_journal = {file.name for file in small}
            except OSError as error:
                outcomes = {file.name: error for file in small}
        for file in files:
            if file.name not in in_journal and file.name not in outcomes:
                try:
                    self._sync_one(file)
                except OSError as error:
                    outcomes[file.name] = error
        for each in small:
            each.content = None
        return [outcomes.get(file.name) for file in files]

    def _sync_one(self, file: IncomingFile) -> None:
        if self._durability == "full":
            file.sync()
        elif isinstance(file, FilesystemIncoming):
            file.make()

    def is_quick(self, size: int) -> bool:
        return self._journaled is not None and self._takes_more and size <= JOURNALED_BYTES

    @property
    def must_sync(self) -> bool:
        journaled = self._journaled
        return journaled is not None and not journaled.journal.is_empty

    @property
    def is_pressed(self) -> bool:
        journaled = self._journaled
        return journaled is not None and journaled.journal.half_full

    def sync_all(self) -> None:
        with self._syncing:
            journaled = self._journaled
            mark, at_rest = (journaled.journal.mark(), journaled.journal.at_rest) if journaled else (0, False)
            try:
                if self._durability != "none":
                    self.operations.sync_filesystem(self._data)
            except OSError:
                self._distrusted = True  # the kernel may forget what it could not write, and say well the next time
                raise
            if journaled is None:
                return
            if self._distrusted:
                self._write_again(journaled)
                self._distrusted = False
            if at_rest:  # every file is synced
                journaled.journal.remove()
                self._journaled = None
                log.warning("journal failed: from now on each file is synced by itself")
            else:
                journaled.retire(mark)

    def prepare(self) -> bool:
        if self._journal_bytes is None:
            return True
        with self._syncing:
            if self._journaled is not None:
                journal = self._journaled.journal
                if journal.size == self._journal_bytes:
                    return True
                if not journal.end():
                    return False
                self._journaled = None
                journal.remove()
            free = self.free_bytes()
            if free < _JOURNALS_FREE * self._journal_bytes:
                log.info("no journal", extra={"free_bytes": free})
            elif self._journal_bytes:
                journal = Journal.create(self.operations, self._data, self._journal_bytes)
                self._journaled = JournaledFiles(self.operations, journal)
        return True

    def free_bytes(self) -> int:
        return self.operations.free_bytes(self._data)

    # private

    @contextmanager
    def _leaving(self, path: InstancePath) -> Iterator[None]:
        """A file goes from ``path``, and nothing comes there meanwhile."""
        with self._tree.lock:
            yield
            if self._journaled is not None:
                self._journaled.vacate(path)

    def _write_again(self, journaled: JournaledFiles) -> None:
        """Write files once more from their records, in place: readers see the same bytes, what is gone stays gone."""
        for record, path in journaled.placed():
            fd = self._open_placed(journaled, record, path)
            if fd is not None:
                try:
                    self.operations.write_at(fd, journaled.journal.read(record), 0)
                    self.operations.sync(fd)
                finally:
                    self.operations.close(fd)

    def _open_placed(self, journaled: JournaledFiles, record: JournalRecord, path: InstancePath) -> int | None:
        """Open a placed file to write to it; None if it is gone, whatever came in its place."""
        with self._tree.lock, suppress(FileNotFoundError):
            if journaled.is_at(record.number, path):
                directory = self._tree.open_directory(path)
                try:
                    return self.operations.open_to_write(directory, path.name)
                finally:
                    os.close(directory)
        return None

    def _refuse_mounts(self) -> None:
        """Files are moved from one directory to the other, and one sync is for both."""
        for name, fd in (("incoming", self._incoming), ("instances", self._instances)):
            if not self.operations.is_same_mount(self._data, fd):
                self._close_roots()
                raise OSError(f"{name} is a mount of its own: no file can be moved there; mount the whole directory")

    def _close_roots(self) -> None:
        for fd in (self._incoming, self._instances, self._data):
            os.close(fd)

    def _make_root(self, name: str) -> int:
        with suppress(FileExistsError):
            make_directory(self._data, name)
        try:
            return self.operations.open_directory(self._data, name)
        except OSError as error:
            if S_ISLNK(os.stat(name, dir_fd=self._data, follow_symlinks=False).st_mode):
                raise OSError(error.errno, "a symbolic link: only the whole data directory may be one", name) from error
            raise
