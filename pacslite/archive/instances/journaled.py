"""Small files between the journal and their place: which are in the journal only, and which are not synced yet."""

import os
import tempfile
import threading
from collections.abc import Callable, Sequence

from pacslite.archive.instances.fileops import FileOperations
from pacslite.archive.instances.journal import Journal, JournalEntry, JournalRecord
from pacslite.archive.instances.layout import InstancePath

__all__ = ["JOURNALED_BYTES", "JournaledFiles"]

JOURNALED_BYTES = 256 << 10  # of a file; a larger one gains less than the second writing of its bytes costs


class JournaledFiles:
    """Files by their number. One is *pending* until it is placed, and *placed* until its record is retired."""

    def __init__(self, operations: FileOperations, journal: Journal) -> None:
        self.journal = journal
        self._operations = operations
        self._lock = threading.Lock()
        self._pending = {record.number: record for record in journal.records()}
        self._placed: dict[int, tuple[JournalRecord, InstancePath]] = {}
        self._at: dict[InstancePath, int] = {}  # which of the placed is at a path, if one is

    def append(self, files: Sequence[JournalEntry], *, durably: bool) -> bool:
        """Make files durable, or just write them. False if there is no room for them.

        Raises:
            OSError: They are not to be trusted.
        """
        records = self.journal.append(files, durably=durably)
        with self._lock:
            for record in records or ():
                self._pending[record.number] = record
        return records is not None

    def pending(self) -> list[int]:
        """Numbers of the files that are nowhere else."""
        with self._lock:
            return sorted(self._pending)

    def holds(self, number: int) -> bool:
        """Its record is not retired: until then it is read, placed and removed here."""
        return number in self._pending or number in self._placed

    def place_of(self, number: int) -> InstancePath | None:
        """Where a file was placed."""
        placed = self._placed.get(number)
        return placed[1] if placed else None

    def open(self, number: int) -> int:
        """Open a copy of a pending file in memory: its record may be overwritten while it is read.

        Raises:
            FileNotFoundError: It is not pending, any more at least.
        """
        record = self._pending.get(number)
        if record is None:
            raise FileNotFoundError(f"file {number}")
        content = self.journal.read(record)
        fd = _memory_file()
        try:
            self._operations.append(fd, [content])
        except OSError:
            os.close(fd)
            raise
        return fd

    def place(self, number: int, path: InstancePath, fd: int, finish: Callable[[], None]) -> None:
        """Write a pending file to ``fd``, then ``finish``: then it is at ``path``, and needs its record until synced.

        Raises:
            OSError: It stays pending.
        """
        record = self._pending[number]
        self.journal.copy(record, fd)
        finish()
        with self._lock:
            self._placed[number] = (record, path)
            self._at[path] = number
            self._pending.pop(number, None)
        self.journal.release(record)

    def remove(self, number: int) -> None:
        """Forget a file, durably; placed or not.

        Raises:
            OSError: It may come back after a stop.
        """
        placed = self._placed.get(number)
        record = placed[0] if placed else self._pending.get(number)
        if record is not None:
            self.journal.cancel(record)
            with self._lock:
                self._pending.pop(number, None)
                self._placed.pop(number, None)

    def retire(self, mark: int) -> None:
        """All files whose records are before ``mark`` are synced."""
        self.journal.retire(mark)
        with self._lock:
            self._placed = {number: placed for number, placed in self._placed.items() if placed[0].position >= mark}
            self._at = {path: number for path, number in self._at.items() if number in self._placed}

    def vacate(self, path: InstancePath) -> None:
        """What was placed at ``path`` is gone from there."""
        with self._lock:
            self._at.pop(path, None)

    def is_at(self, number: int, path: InstancePath) -> bool:
        """It was placed at ``path``, and is there still."""
        return self._at.get(path) == number

    def placed(self) -> list[tuple[JournalRecord, InstancePath]]:
        """Records that are not retired, and where their files are now."""
        with self._lock:
            return [each for number, each in self._placed.items() if self._at.get(each[1]) == number]


def _memory_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("instance", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
