"""One object on its way into the file system: a file in ``incoming/``, or what the journal takes if it is small."""

import logging
import os
from collections.abc import Iterator, Sequence

from pacslite.archive.instances.fileops import FileOperations
from pacslite.archive.instances.journal import JournalEntry
from pacslite.archive.instances.journaled import JOURNALED_BYTES, JournaledFiles
from pacslite.archive.instances.layout import incoming_name, incoming_number

__all__ = ["FilesystemIncoming"]

log = logging.getLogger("pacslite.archive")

_WRITEBACK_STEP = 1 << 20  # hand this much to the disk at a time while the object still arrives
_WRITEBACK_LAG = 16 << 20  # and let no more than this pile up: the last sync of a large object stays short


class FilesystemIncoming:
    """A file in ``incoming/``. The header comes last if the object is streamed, first if it came complete.

    A small one that came complete is ``content``, and no file, until the journal has it or has no room for it.
    """

    __slots__ = (
        "_begun", "_directory", "_fd", "_journaled", "_numbers", "_operations", "_renamed", "_synced", "_waited",
        "content", "name", "size",
    )  # fmt: skip

    def __init__(
        self, operations: FileOperations, directory: int, numbers: Iterator[int], journaled: JournaledFiles | None
    ) -> None:
        self._operations = operations
        self._directory = directory
        self._fd = -1
        self._journaled = journaled
        self._numbers = numbers
        self._renamed = False
        self._synced = False  # it may prove itself after a power cut
        self._begun = 0  # writeback started up to here
        self._waited = 0  # and finished up to here
        self.content: Sequence[bytes | bytearray] | None = None
        self.name = incoming_name(next(numbers))
        self.size = 0

    def leave_room(self, size: int) -> None:
        """Begin the file with a hole, until the header is written."""
        self.make()
        os.lseek(self._fd, size, os.SEEK_SET)
        self.size = size

    def append(self, pieces: Sequence[bytes | bytearray]) -> None:
        added = sum(map(len, pieces))
        if self._journaled is not None and not self.size and added <= JOURNALED_BYTES:
            self.content = pieces
            self.size = added
            return
        self.make()
        self._operations.append(self._fd, pieces)
        self.size += added
        if self.size - self._begun >= _WRITEBACK_STEP:
            self._operations.start_writeback(self._fd, self._begun, self.size - self._begun)
            self._begun = self.size
            if self._begun - self._waited > _WRITEBACK_LAG:
                step = self._begun - self._waited - _WRITEBACK_LAG
                self._operations.await_writeback(self._fd, self._waited, step)
                self._waited += step

    def make(self) -> None:
        """Be a file, if it is none yet."""
        if self._fd < 0:
            self._fd = self._operations.create(self._directory, self.name)
        if self.content is not None:
            content, self.content = self.content, None
            self._operations.append(self._fd, content)

    def entry(self) -> JournalEntry:
        """Say to the journal what it is."""
        return JournalEntry(incoming_number(self.name), self.size, self.content or ())

    def begin_writeback(self) -> None:
        """Wake the disk; the caller has something to compute before it syncs."""
        if self._fd >= 0:
            self._operations.start_writeback(self._fd, self._begun, 0)
            self._begun = self.size

    def come_last(self) -> None:
        name = incoming_name(next(self._numbers))
        self._operations.rename(self._directory, self.name, self._directory, name)
        self.name, self._renamed = name, True

    def write_header(self, header: bytes) -> None:
        self._operations.write_at(self._fd, header, 0)

    def sync(self) -> None:
        self.make()
        self._operations.sync(self._fd)
        self._synced = True
        if self._renamed:  # of a name that is new the sync of its file may know nothing
            self._operations.sync_directory(self._directory)

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._operations.close(fd)

    def discard(self) -> None:
        self.content = None
        try:
            if self._journaled is not None:
                self._journaled.remove(incoming_number(self.name))
            if self._fd >= 0:
                self._operations.truncate(self._fd, 0)  # if the name comes back after a power cut, it proves nothing
                if self._synced:
                    self._operations.sync(self._fd)
                self._operations.unlink(self._directory, self.name)
        except OSError as error:  # a torn file is removed at the next start
            log.error("discard", extra={"file": self.name, "error": str(error)})
        finally:
            self.close()
