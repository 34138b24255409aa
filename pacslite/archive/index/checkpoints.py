"""Checkpoints: the index's log is taken into the index off the hot path, and kept short."""

import logging
import sqlite3
import threading
from typing import NamedTuple

from pacslite.archive.index.connections import BUSY_SECONDS, IndexConnections
from pacslite.archive.index.statements import Statements

__all__ = ["Checkpoints"]

log = logging.getLogger("pacslite.archive")

_PAGE = 4096
_BUSY_MILLISECONDS = 1000


class _State(NamedTuple):
    """What SQLite says of a checkpoint."""

    is_busy: bool  # another process takes one: nothing else is known
    frames: int  # in the log
    taken: int  # of them into the index

    @property
    def is_complete(self) -> bool:
        return not self.is_busy and self.frames == self.taken


_NOTHING_TAKEN = _State(True, -1, -1)


class Checkpoints:
    """Counts what is committed and not taken into the index yet.

    Args:
        lock: The writer's.
        log_bytes: Above it the log begins anew, although commits go on.
    """

    def __init__(self, connections: IndexConnections, lock: threading.RLock, log_bytes: int) -> None:
        self._connections = connections
        self._lock = lock
        self._log_bytes = log_bytes
        self._rows = 0  # since the last checkpoint

    def count(self, rows: int) -> None:
        """So many are committed; with the lock held."""
        self._rows += rows

    def take(self) -> bool:
        """Take the log into the index, synced; commits go on meanwhile.

        Returns:
            All rows committed before the call are in the index's file. False: a reader still needs an older state.

        Raises:
            sqlite3.Error: They are not.
        """
        with self._lock:
            rows, self._rows = self._rows, 0
        if not rows:
            return True
        state = _NOTHING_TAKEN
        try:
            state = _take(self._connections.checkpointer)
        finally:
            with self._lock:
                if not state.is_complete:  # nor if it failed: the next one must not think that there is nothing to do
                    self._rows += rows
                elif not self._rows or state.frames * _PAGE > self._log_bytes:
                    self._restart_log()
        return state.is_complete

    def empty_log(self) -> None:
        """Take the whole log into the index, sync that, and empty the log; with the lock held."""
        writer = self._connections.writer
        writer.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")  # somebody's backup does not hold up a start
        try:
            busy, _, _ = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            writer.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        if busy:
            self._rows += 1  # what another process left there is not safe until a checkpoint says so
            log.warning("index log kept", extra={"reason": "readers"})

    def _restart_log(self) -> None:
        """Let the log begin anew. Whoever writes first then syncs its header: here, and not in a commit."""
        checkpointer = self._connections.checkpointer
        if not _take(checkpointer).is_complete:
            return
        try:
            checkpointer.execute(Statements.add_to_totals.text, (0, 0, 0, 0, 0, 1))
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # else another process is at it: another time
                raise


def _take(connection: sqlite3.Connection) -> _State:
    return _State(*connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone())
