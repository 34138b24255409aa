"""The writer's connections to the index's file: one writes, one takes checkpoints, one a thread asks.

Writer, checkpointer and the log's descriptor are opened together, and given up together after a failure: what a failed
write or sync left in a cache is not to be built upon.
"""

import errno
import os
import sqlite3
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

from pacslite.archive.index.statements import Statements
from pacslite.archive.options import StorageOptions

__all__ = ["BUSY_SECONDS", "IndexConnections"]

BUSY_SECONDS = 30  # that a statement waits for other processes

# Of the writing connection only: a transaction of one statement keeps the counts too.
_COUNT_STORED = """
CREATE TEMP TRIGGER count_stored AFTER INSERT ON main.instance BEGIN
UPDATE series SET number_of_instances = number_of_instances + 1 WHERE id = new.series_fk;
UPDATE study SET number_of_instances = number_of_instances + 1
WHERE id = (SELECT study_fk FROM series WHERE id = new.series_fk);
UPDATE patient SET number_of_instances = number_of_instances + 1
WHERE id = (SELECT patient_fk FROM series JOIN study ON study.id = study_fk WHERE series.id = new.series_fk);
UPDATE totals SET instances = instances + 1, bytes = bytes + new.data_set_offset + new.data_set_length WHERE id = 1;
END
"""


class _Log:
    """A descriptor of our own for the write-ahead log, to sync it.

    No lock of SQLite's is on that file, so closing a descriptor of ours takes none away. A number that is closed may be
    another file's a moment later: nothing is synced through it, and it is closed once.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def sync(self) -> None:
        with self._lock:
            if self._fd < 0:
                raise OSError(errno.EBADF, "index log is closed")
            os.fdatasync(self._fd)

    def close(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)


class IndexConnections:
    """``writer`` is for who holds the writer's lock, ``checkpointer`` for who settles; a reader is its thread's own."""

    writer: sqlite3.Connection
    checkpointer: sqlite3.Connection
    log: _Log

    def __init__(self, path: Path, options: StorageOptions) -> None:
        self._path = path
        self._options = options
        self._table = threading.Lock()
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._opened = 0  # times; the connection of a reader is as old as its number
        self._open()

    def connect(self) -> sqlite3.Connection:
        """Another one; the caller closes it."""
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, cached_statements=128, timeout=BUSY_SECONDS
        )
        synchronous = "OFF" if self._options.durability == "none" else "NORMAL"
        try:
            for pragma in (
                "journal_mode=WAL",
                f"synchronous={synchronous}",
                "wal_autocheckpoint=0",
                "foreign_keys=OFF",  # the writer keeps them; a check a row would be a lookup a row
                f"cache_size=-{self._options.index_cache_bytes >> 10}",
                "temp_store=MEMORY",
            ):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    def reader(self) -> sqlite3.Connection:
        """The calling thread's: it does not wait for a commit."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None and self._local.opened == self._opened:
            return connection
        with self._table:
            if connection is not None:
                self._readers.remove(connection)
                connection.close()  # its own thread does it: it may be in use until now
                self._local.connection = None
            opened = self._opened
            connection = self.connect()
            self._local.connection, self._local.opened = connection, opened
            self._readers.append(connection)
        return connection

    def reopen(self) -> None:
        """Begin anew. Where that fails nothing is open but the readers, and it may be tried again."""
        self._close()
        self._opened += 1
        self._open()

    def roll_back(self) -> None:
        """End a transaction that failed."""
        with suppress(sqlite3.Error):  # after an I/O error SQLite has rolled back by itself
            if self.writer.in_transaction:
                self.writer.execute("ROLLBACK")

    def close_readers(self) -> None:
        """So that no older state is needed any more. No other thread may be in a call."""
        with self._table:
            for reader in self._readers:
                reader.close()
            self._readers.clear()

    def close(self) -> None:
        """Give everything back; twice does no harm."""
        self.close_readers()
        self._close()

    def _open(self) -> None:
        with ExitStack() as undo:
            writer = self.connect()
            undo.callback(writer.close)
            writer.execute(_COUNT_STORED)
            # writes, whatever was there: the log's file must exist to be synced
            writer.execute(Statements.insert_totals.text, (1, 0, 0, 0, 0, 0))
            writer.execute(Statements.add_to_totals.text, (0, 0, 0, 0, 0, 1))
            log = _Log(self._path.with_name(f"{self._path.name}-wal"))
            undo.callback(log.close)
            checkpointer = self.connect()
            undo.pop_all()
        self.writer, self.log, self.checkpointer = writer, log, checkpointer

    def _close(self) -> None:
        self.log.close()
        self.checkpointer.close()
        self.writer.close()
