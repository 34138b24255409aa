"""Moves acknowledged files from ``incoming/`` to their place, off the hot path and only when their rows are safe.

A row is committed without a sync; until the index is synced the file in ``incoming/`` is its journal. One thread syncs
the index, then renames what was committed before, in batches; it also keeps the index's log short.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from pacslite.archive.index.writer import IndexWriter
from pacslite.archive.instances.layout import InstancePath
from pacslite.archive.instances.protocol import InstanceStore
from pacslite.archive.options import StorageOptions

__all__ = ["Settler", "Unsettled"]

log = logging.getLogger("pacslite.archive")

_BATCH = 32  # files renamed while holding the lock


class Unsettled(NamedTuple):
    """An instance whose file is still in ``incoming/``."""

    name: str
    path: InstancePath


class Settler:
    """Knows which instances are unsettled, and settles them. ``lock`` keeps a file where it is while it is held."""

    def __init__(self, store: InstanceStore, index: IndexWriter, options: StorageOptions) -> None:
        self.lock = threading.RLock()
        self._store = store
        self._index = index
        self._options = options
        self._unsettled: dict[str, Unsettled] = {}
        self._committed: list[tuple[str, Unsettled]] = []
        self._wanted = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.on_index_failure: Callable[[], None] | None = None

    # what is unsettled

    def locate(self, sop_instance_uid: str) -> Unsettled | None:
        """Where an instance's file is, if it is not in its place."""
        return self._unsettled.get(sop_instance_uid)

    def register(self, sop_instance_uid: str, unsettled: Unsettled) -> Unsettled | None:
        """Before its row is committed: whoever sees the row finds the file. Gives the file it takes the place of."""
        with self.lock:
            old = self._unsettled.get(sop_instance_uid)
            self._unsettled[sop_instance_uid] = unsettled
            return old

    def withdraw(self, sop_instance_uid: str, old: Unsettled | None) -> None:
        """The row was not committed."""
        with self.lock:
            if old is None:
                self._unsettled.pop(sop_instance_uid, None)
            else:
                self._unsettled[sop_instance_uid] = old

    def committed(self, settled: list[tuple[str, Unsettled]]) -> None:
        """Their rows are committed: settle them some time."""
        with self.lock:
            self._committed += settled
            if len(self._committed) >= self._options.settle_files:
                self._wanted.set()

    def forget(self, sop_instance_uid: str) -> None:
        """The instance is deleted."""
        with self.lock:
            self._unsettled.pop(sop_instance_uid, None)

    @property
    def count(self) -> int:
        """Instances that are unsettled."""
        return len(self._unsettled)

    # the thread

    def start(self) -> None:
        """Settle from now on."""
        self._thread = threading.Thread(target=self._run, name="settle", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Settle what there is, and end. Blocks."""
        self._stopping = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()
        self.settle()

    def settle(self) -> None:
        """One round: sync the index, rename, keep the log short."""
        with self.lock:
            batch, self._committed = self._committed, []
        try:
            if batch and self._options.durability != "none":
                if self._options.durability == "commit":
                    self._store.sync_all()
                self._index.sync()
        except OSError as error:
            log.error("index sync failed", extra={"error": str(error)})
            with self.lock:
                self._committed = batch + self._committed
            raise
        for start in range(0, len(batch), _BATCH):
            with self.lock:
                for uid, unsettled in batch[start : start + _BATCH]:
                    self._settle_one(uid, unsettled)
        self._index.checkpoint()

    def _settle_one(self, uid: str, unsettled: Unsettled) -> None:
        if self._unsettled.get(uid) != unsettled:
            return  # deleted or replaced meanwhile
        try:
            self._store.settle(unsettled.name, unsettled.path)
        except OSError as error:
            log.error("settle", extra={"file": unsettled.name, "path": str(unsettled.path), "error": str(error)})
            return  # it stays readable where it is, and the next start tries again
        del self._unsettled[uid]

    def _run(self) -> None:
        while not self._stopping:
            self._wanted.wait(self._options.settle_seconds)
            self._wanted.clear()
            try:
                self.settle()
            except (OSError, sqlite3.Error) as error:
                log.error("settle", extra={"error": str(error)})
                time.sleep(0.1)
