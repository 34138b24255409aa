"""Checkpoints: the index's log is taken into the index off the hot path, and kept short."""

import logging
import threading

from pacslite.archive.index.connections import IndexConnections
from pacslite.archive.index.statements import Statements

__all__ = ["Checkpoints"]

log = logging.getLogger("pacslite.archive")

_PAGE = 4096


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
        frames, taken = 0, -1
        try:
            _, frames, taken = self._connections.checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            with self._lock:
                if frames != taken:  # nor if it failed: the next one must not think that there is nothing to do
                    self._rows += rows
                elif not self._rows or frames * _PAGE > self._log_bytes:
                    self._restart_log()
        return bool(frames == taken)

    def empty_log(self) -> None:
        """Take the whole log into the index, sync that, and empty the log; with the lock held."""
        busy, _, _ = self._connections.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            log.warning("index log kept", extra={"reason": "readers"})

    def _restart_log(self) -> None:
        """Let the log begin anew. Whoever writes first then syncs its header: here, and not in a commit."""
        _, frames, taken = self._connections.checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if frames == taken:
            self._connections.checkpointer.execute(Statements.add_to_totals.text, (0, 0, 0, 0, 0, 1))
