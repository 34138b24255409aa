"""A journal of small files: one file, allocated and written once, that is written over and over.

The fdatasync of a new file makes the file system commit its own journal (the inode, the name): 230 us for 4 KiB on the
machine of docs/performance.md. Blocks that exist already need no such commit: 70 us. So a small file is acknowledged
when its bytes stand here; the file itself is made some time later, straight in its place, and synced with hundreds of
others before its record is retired. After an unclean stop the records that were not retired are what they were before.

Layout, in blocks of 4096 bytes: two blocks that say, in turn, where the live records begin; then a ring of records. A
record is a header of 64 bytes and the file, padded to whole blocks, so that no block is read to be written. A position
counts the bytes ever written to the ring: it tells a live record from one of an earlier lap. The secret keeps bytes
that a peer sent from passing for a header.
"""

import logging
import os
import struct
import threading
import zlib
from collections.abc import Sequence
from contextlib import suppress
from time import time_ns
from typing import NamedTuple, Self

from pacslite.archive.instances.fileops import FileOperations

__all__ = ["JOURNAL", "Journal", "JournalEntry", "JournalRecord"]

log = logging.getLogger("pacslite.archive")

JOURNAL = "journal"
_TEMPORARY = f"{JOURNAL}.new"  # until it is whole
_BLOCK = 4096
_RING = 2 * _BLOCK  # offset of the ring
_PIECE = 256 * _BLOCK  # read at once
_ZEROS = bytes(_BLOCK)
_START = struct.Struct("<8s16sQQQQ")  # magic, secret, turn, bytes of the ring, position of the first live record, clean
_START_MAGIC = b"PLJRNL1\0"
_RECORD = struct.Struct("<8s16sQQQx")  # magic, secret, position, number, bytes of the file, and one that has no use
_RECORD_MAGIC = b"PLJREC1\0"
_CRC = struct.Struct("<I")
_HEADER = 64


class JournalEntry(NamedTuple):
    """A file to be made durable."""

    number: int
    size: int  # bytes
    content: Sequence[bytes | bytearray]


class JournalRecord(NamedTuple):
    """Where a file is in the journal. It may be torn: the file proves itself, the record does not."""

    position: int
    number: int
    size: int  # bytes of the file


class Journal:
    """Appends from any thread. A record is held until its file is written elsewhere, and live until that is synced."""

    def __init__(
        self, operations: FileOperations, directory: int, fd: int, secret: bytes, capacity: int, turn: int, live: int
    ) -> None:
        self._operations = operations
        self._directory = directory
        self._fd = fd
        self._secret = secret
        self.capacity = capacity
        self._turn = turn
        self._live = live  # position of the first record that is not retired
        self._head = live
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._held: set[int] = set()  # positions of records that are being written, or whose files are not
        self._clean = False  # its start says that it is empty
        self.broken = False  # a write failed: it takes no more records
        self.holds_refused = False  # records that were refused, or removed, may still be found in it after a stop

    # making and opening

    @staticmethod
    def usable(size: int) -> int:
        """How large a journal of ``size`` bytes is: whole blocks, and none if nothing is left for records."""
        return size // _BLOCK * _BLOCK if size >= _RING + 2 * _BLOCK else 0

    @classmethod
    def create(cls, operations: FileOperations, directory: int, size: int) -> Self:
        """Make a journal of ``size`` bytes, all of them written: blocks that were only allocated sync no faster.

        Raises:
            OSError: There is none.
        """
        capacity = size // _BLOCK * _BLOCK - _RING
        fd = operations.create(directory, _TEMPORARY)
        try:
            piece = bytes(_PIECE)
            for at in range(0, size, len(piece)):
                operations.append(fd, [piece[: size - at]])
            journal = cls(operations, directory, fd, os.urandom(16), capacity, 0, 0)
            journal._write_start(0, clean=True)
            operations.sync(fd)
            operations.rename(directory, _TEMPORARY, directory, JOURNAL)
            operations.sync_directory(directory)
        except BaseException:
            operations.close(fd)
            with suppress(OSError):
                operations.unlink(directory, _TEMPORARY)
            raise
        return journal

    @classmethod
    def open(cls, operations: FileOperations, directory: int) -> Self | None:
        """Open the journal that is there; None if there is none, or none that is whole: what there is is set aside."""
        with suppress(FileNotFoundError):  # who was making it was killed
            operations.unlink(directory, _TEMPORARY)
        try:
            fd = operations.open_to_write(directory, JOURNAL)
        except FileNotFoundError:
            return None
        starts = [start for at in (0, _BLOCK) if (start := _read_start(fd, at)) is not None]
        if not starts:
            operations.close(fd)
            name = f"{JOURNAL}.{time_ns()}.damaged"
            operations.rename(directory, JOURNAL, directory, name)
            log.error("journal has no start; pacslite check tells what was in it alone", extra={"set_aside": name})
            return None
        secret, turn, capacity, live, clean = max(starts, key=lambda start: start[1])
        journal = cls(operations, directory, fd, secret, capacity, turn, live)
        journal._clean = bool(clean)
        for record in journal.records():  # all of them held
            journal._held.add(record.position)
            journal._head = record.position + _padded(record.size)
        return journal

    def close(self) -> None:
        """Give the descriptor back; an empty journal is not searched when it is opened again."""
        if self.is_empty and not self.broken and not self._clean:
            with suppress(OSError):
                self._write_start(self._live, clean=True)
        self._operations.close(self._fd)

    def end(self) -> bool:
        """Take nothing more, if nothing in it is needed."""
        with self._lock:  # an append is before it, and counts, or after it
            if not self.is_empty:
                return False
            self.broken = True
            return True

    def remove(self) -> None:
        """Remove the file for good; nothing in it may be needed.

        Raises:
            OSError: It is there still, or may be after a stop: try again.
        """
        with suppress(FileNotFoundError):
            self._operations.unlink(self._directory, JOURNAL)
        self._operations.sync_directory(self._directory)
        with self._lock:  # the number may be another file's a moment later
            fd, self._fd = self._fd, -1
        self._operations.close(fd)

    # writing

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return _RING + self.capacity

    @property
    def is_empty(self) -> bool:
        """Nothing in it is needed."""
        return self._head == self._live

    @property
    def half_full(self) -> bool:
        """It is time to retire."""
        return self._head - self._live > self.capacity // 2

    def append(self, files: Sequence[JournalEntry], *, durably: bool = True) -> list[JournalRecord] | None:
        """Make files durable by one write, which returns when they are on the disk; or just write them.

        Returns:
            Their records, which are held; None if there is no room now, or the journal is broken.
        Raises:
            OSError: Nothing of them is to be trusted, and the journal takes nothing more.
        """
        total = sum(_padded(file.size) for file in files)
        records: list[JournalRecord] = []
        with self._lock:
            begin = self._room(total)
            if begin is None:
                return None
            position = begin
            for file in files:
                records.append(JournalRecord(position, file.number, file.size))
                position += _padded(file.size)
            if self._clean:
                self._write_start(self._live, clean=False)
            self._head = position
            self._held.update(record.position for record in records)
        buffers: list[bytes | bytearray] = []
        for record, file in zip(records, files, strict=True):
            buffers.append(self._record_header(record))
            buffers += file.content
            if padding := -(_HEADER + record.size) % _BLOCK:
                buffers.append(_ZEROS[:padding])
        try:
            self._write(buffers, _RING + begin % self.capacity, durably=durably)
        except OSError:
            for record in records:  # the disk may have them for all that, and their senders are told that they failed
                with suppress(OSError):
                    self._void(record)
            with self._lock:  # only now: what is held keeps the journal, and its descriptor
                self._held.difference_update(record.position for record in records)
            raise
        return records

    def sync(self) -> None:
        """Make durable what another process wrote.

        Raises:
            OSError: It is not.
        """
        self._operations.sync(self._fd)

    def release(self, record: JournalRecord) -> None:
        """Its file is written, or nobody wants it any more."""
        with self._lock:
            self._held.discard(record.position)

    def cancel(self, record: JournalRecord) -> None:
        """Take a record back, durably: its file was not acknowledged after all, or is removed.

        Raises:
            OSError: It may come back after a stop, until the journal is removed: it takes nothing more.
        """
        with self._lock:  # nobody takes the block for another record meanwhile
            self._held.discard(record.position)
            if record.position >= self._live and self._fd >= 0:
                self._void(record)

    # retiring

    def mark(self) -> int:
        """A position. When all files are synced after this call, the records before it may be retired."""
        with self._lock:
            return min(self._held, default=self._head)

    @property
    def at_rest(self) -> bool:
        """It is broken, and the file of each record is written."""
        with self._lock:
            return self.broken and not self._held

    def retire(self, mark: int) -> None:
        """Note durably that the records before ``mark`` are needed no more.

        Raises:
            OSError: They count as live after a stop, and the journal takes nothing more.
        """
        if mark == self._live:
            return
        self._write_start(mark, clean=False)
        with self._lock:
            self._live = mark

    # reading

    def records(self) -> list[JournalRecord]:
        """Scan for the live records, oldest first.

        Raises:
            OSError: Some of it cannot be read. (Mapped into memory, that would end the process.)
        """
        if self._clean:
            return []
        found: list[JournalRecord] = []
        for start in range(0, self.capacity, _PIECE):
            piece = self._operations.read_at(self._fd, min(_PIECE, self.capacity - start), _RING + start)
            for at in range(0, len(piece), _BLOCK):
                if piece.startswith(_RECORD_MAGIC, at):
                    record = self._parse(piece[at : at + _HEADER])
                    if record is not None and record.position % self.capacity == start + at:
                        found.append(record)
        return sorted(found)

    def read(self, record: JournalRecord) -> bytes:
        """Give a file's content.

        Raises:
            FileNotFoundError: The record was retired, and its bytes may be another's.
        """
        try:
            content = self._operations.read_at(self._fd, record.size, self.offset(record))
        except OSError:
            if record.position >= self._live:
                raise
            content = b""  # the journal may be gone, too
        if record.position < self._live:
            raise FileNotFoundError(f"record {record.position}")
        return content

    def copy(self, record: JournalRecord, to: int) -> None:
        """Write a file's content at the start of ``to``; the record must be held."""
        self._operations.copy(self._fd, self.offset(record), to, record.size)

    def offset(self, record: JournalRecord) -> int:
        """Of a file's content in the journal's file."""
        return _RING + record.position % self.capacity + _HEADER

    # private

    def _parse(self, header: bytes) -> JournalRecord | None:
        """Give the live record whose header this is."""
        _, secret, position, number, size = _RECORD.unpack_from(header)
        if not _is_sound(header, _RECORD.size) or secret != self._secret or position < self._live:
            return None
        if position % self.capacity + _HEADER + size > self.capacity:
            return None
        return JournalRecord(position, number, size)

    def _room(self, total: int) -> int | None:
        """Where ``total`` bytes in one piece go."""
        if self.broken or total > self.capacity:
            return None
        begin = self._head
        left = self.capacity - begin % self.capacity
        if total > left:  # a record does not go around the end
            begin += left
        return begin if begin + total - self._live <= self.capacity else None

    def _record_header(self, record: JournalRecord) -> bytes:
        return _sealed(_RECORD.pack(_RECORD_MAGIC, self._secret, *record)).ljust(_HEADER, b"\0")

    def _write_start(self, live: int, *, clean: bool) -> None:
        turn = self._turn + 1  # the other block: the last start survives a torn write, however often it is tried
        self._clean = clean
        start = _sealed(_START.pack(_START_MAGIC, self._secret, turn, self.capacity, live, clean))
        self._write([start], turn % 2 * _BLOCK)
        self._turn = turn

    def _void(self, record: JournalRecord) -> None:
        """Write over what makes it a record."""
        try:
            self._write([bytes(_HEADER)], _RING + record.position % self.capacity)
        except OSError:
            self.holds_refused = True
            raise

    def _write(self, buffers: Sequence[bytes | bytearray], offset: int, *, durably: bool = True) -> None:
        try:
            if durably:
                with self._syncing:  # of what it could not write, the system tells who waits for it first, nobody else
                    self._operations.write_durably(self._fd, buffers, offset)
            else:
                self._operations.write_pieces(self._fd, buffers, offset)
        except OSError:
            self.broken = True
            raise


def _padded(size: int) -> int:
    return (_HEADER + size + _BLOCK - 1) // _BLOCK * _BLOCK


def _sealed(data: bytes) -> bytes:
    return data + _CRC.pack(zlib.crc32(data))


def _is_sound(data: bytes, size: int) -> bool:
    return len(data) >= size + _CRC.size and _sealed(data[:size]) == data[: size + _CRC.size]


def _read_start(fd: int, at: int) -> tuple[bytes, int, int, int, int] | None:
    block = os.pread(fd, _START.size + _CRC.size, at)
    if not _is_sound(block, _START.size):
        return None
    magic, secret, turn, capacity, live, clean = _START.unpack_from(block)
    if magic != _START_MAGIC or os.fstat(fd).st_size < _RING + capacity:
        return None
    return secret, turn, capacity, live, clean
