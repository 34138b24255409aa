"""Moves acknowledged files from ``incoming/`` to their place, off the hot path and only when their rows are safe.

A row is committed without a sync; until the index is synced the file in ``incoming/`` is its journal. One thread syncs
the index, then renames what was committed before, in batches; it also keeps the index's log short.
"""

import errno
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pacslite.archive.index.failures import IndexFailure, IndexFull
from pacslite.archive.index.writer import IndexWriter
from pacslite.archive.instances.layout import InstancePath
from pacslite.archive.instances.protocol import InstanceStore
from pacslite.archive.notes import carry_out_notes
from pacslite.archive.options import StorageOptions
from pacslite.errors import DimseError

__all__ = ["Settler", "Unsettled"]

log = logging.getLogger("pacslite.archive")

_MANY = 16  # times settle_files in ``incoming``: then a synced log is enough
_BATCH = 32  # files moved while ``lock`` is held: a deletion waits for no more


class Unsettled(NamedTuple):
    """An instance whose file is still in ``incoming/``."""

    sop_instance_uid: str
    name: str
    path: InstancePath


class Settler:
    """Knows which instances are unsettled, and settles them.

    Lock order: the round's, ``lock`` (nothing is moved while it is held), the index's lock, the table's own.
    """

    def __init__(self, store: InstanceStore, index: IndexWriter, options: StorageOptions) -> None:
        self.lock = threading.RLock()
        self._store = store
        self._index = index
        self._options = options
        self._round = threading.Lock()  # who asks for one waits for the one that has begun: it took what was there
        self._table = threading.Lock()
        self._unsettled: dict[str, Unsettled] = {}
        self._arriving: dict[str, Unsettled] = {}  # their rows are being committed
        self._committed: list[Unsettled] = []
        self._stuck: deque[Unsettled] = deque()  # could not be moved; their rows are safe
        self._told = False  # that there are some
        self._held: list[Unsettled] = []  # settled, and the store wants them by their name once more to remove them
        self._notes = False  # there are some to carry out
        self._superseded: dict[str, list[str]] = {}  # by SOP Instance UID; as many as the index has notes, no more
        self._wanted = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    # what is unsettled

    def locate(self, sop_instance_uid: str) -> Unsettled | None:
        """Where an instance's file is, if it is not in its place."""
        return self._unsettled.get(sop_instance_uid)

    def all(self) -> list[Unsettled]:
        """Everything that is unsettled. With the index's lock held: everything of it is committed."""
        with self._table:
            return list(self._unsettled.values())

    def superseded(self, sop_instance_uid: str) -> list[str]:
        """Names in ``incoming`` that others took the place of, and that may still be there."""
        return self._superseded.get(sop_instance_uid, [])

    def arriving(self, sop_instance_uid: str) -> Unsettled | None:
        """The file whose row is just being committed, or refused. Look here first, then ``locate``."""
        return self._arriving.get(sop_instance_uid)

    def register(self, unsettled: Unsettled) -> Unsettled | None:
        """Before its row is committed, with the index's lock held: whoever sees the row finds the file.

        Returns:
            The unsettled file that this one takes the place of.
        """
        with self._table:
            self._arriving[unsettled.sop_instance_uid] = unsettled
            return self._unsettled.get(unsettled.sop_instance_uid)

    def withdraw(self, unsettled: Unsettled) -> None:
        """The row was not committed."""
        with self._table:
            del self._arriving[unsettled.sop_instance_uid]

    def committed(self, unsettled: Sequence[Unsettled]) -> None:
        """Their rows are committed, and the index's lock is still held: settle them some time."""
        with self._table:
            for one in unsettled:
                old = self._unsettled.get(one.sop_instance_uid)
                if old is not None and old.name != one.name:
                    self._superseded.setdefault(one.sop_instance_uid, []).append(old.name)
                self._unsettled[one.sop_instance_uid] = one
                del self._arriving[one.sop_instance_uid]
            self._committed += unsettled
            many = len(self._committed) >= self._options.settle_files and not self._store.must_sync
            if not many and not self._store.is_pressed:  # a journal takes a burst; its files wait for a calm second
                return
        self._wanted.set()

    def noted(self) -> None:
        """Files were noted for removal: some time."""
        self._notes = True

    def carry_out_notes(self) -> None:
        """Remove what is noted; with ``lock`` held."""
        carry_out_notes(self._store, self._index)
        with self._index.lock:  # what is committed has its note, or needs none any more
            noted = {name for _, name, _ in self._index.notes()}
            with self._table:
                left = {
                    uid: [name for name in names if f"incoming/{name}" in noted]
                    for uid, names in self._superseded.items()
                }
                self._superseded = {uid: names for uid, names in left.items() if names}

    def forget(self, unsettled: Unsettled) -> None:
        """It is deleted, or settled."""
        with self._table:
            if self._unsettled.get(unsettled.sop_instance_uid) is unsettled:
                del self._unsettled[unsettled.sop_instance_uid]

    # the thread

    def start(self, revive: Callable[[], None]) -> None:
        """Settle from now on; ``revive`` is called when the index has failed, until it works again."""
        self._thread = threading.Thread(target=self._run, args=(revive,), name="settle", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Settle what there is, and end. Blocks."""
        self._stopping = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()
        if not self._index.failed:
            try:
                self.settle(at_once=True)
            except (OSError, sqlite3.Error, DimseError) as error:  # ``incoming`` keeps it for the next start
                log.error("settle", extra={"error": str(error)})

    def settle(self, *, at_once: bool = False) -> None:
        """One round: sync the index, move files, keep the log short.

        Args:
            at_once: Also when a reader holds the index back: its log is synced instead.
        Raises:
            IndexFailure, OSError, sqlite3.Error: The index has failed. Nothing was moved; the files stay its journal.
        """
        with self._round:
            if self._index.failed:
                raise IndexFailure(f"index: {self._index.failed}")
            try:
                self._settle_what_is_committed(at_once=at_once)
            except Exception as error:
                self._note_failure(error)
                raise

    def _settle_what_is_committed(self, *, at_once: bool) -> None:
        with self._table:
            batch, self._committed = self._committed, []
        safe = False
        try:
            safe = self._make_rows_safe(batch, at_once=at_once)
        finally:
            if not safe:
                with self._table:
                    self._committed = batch + self._committed
        if not safe:
            return
        with self.lock:
            batch += [self._stuck.popleft() for _ in range(min(len(self._stuck), self._options.settle_files))]
        batch.sort(key=lambda unsettled: unsettled.path)  # a series' directory is opened once
        for start in range(0, len(batch), _BATCH):
            with self.lock:
                self._settle_some(batch[start : start + _BATCH])
        if self._store.must_sync:
            try:
                self._store.sync_all()
            except OSError as error:  # what was settled is still where it came from
                log.error("sync", extra={"error": str(error)})
        with self.lock:
            held, self._held = self._held, []
            for unsettled in held:
                self._settled(unsettled)
        self._told = bool(self._stuck)
        if self._notes:
            self._notes = False
            with self.lock:
                self.carry_out_notes()

    def _make_rows_safe(self, batch: Sequence[Unsettled], *, at_once: bool) -> bool:
        if batch and self._options.durability == "commit":
            self._store.sync_all()  # files were not synced when they were acknowledged: now, all at once
        if self._index.checkpoint():
            return True
        many = len(batch) >= _MANY * self._options.settle_files
        if not (at_once or many or self._store.is_pressed):
            return False  # a reader holds the index back; next time
        self._index.sync()
        return True

    def _settle_some(self, batch: Sequence[Unsettled]) -> None:
        current = [unsettled for unsettled in batch if self._unsettled.get(unsettled.sop_instance_uid) is unsettled]
        outcomes = self._store.settle([(unsettled.name, unsettled.path) for unsettled in current])
        for unsettled, error in zip(current, outcomes, strict=True):
            if error is None:
                self._settled(unsettled)
            else:  # it stays readable where it is, and is tried again
                if not self._told:  # one of them is named, not each in each round
                    self._told = True
                    extra = {"file": unsettled.name, "path": str(unsettled.path), "error": str(error)}
                    log.error("settle", extra=extra)
                self._stuck.append(unsettled)

    def _settled(self, unsettled: Unsettled) -> None:
        if self._store.holds(unsettled.name):
            self._held.append(unsettled)
        else:
            self.forget(unsettled)

    def _run(self, revive: Callable[[], None]) -> None:
        prepared = self._prepare()
        while not self._stopping:
            self._wanted.wait(self._options.settle_seconds)
            self._wanted.clear()
            with self._round:  # nobody settles with connections that are being replaced
                try:
                    if self._index.failed:
                        revive()
                    self._settle_what_is_committed(at_once=False)
                    prepared = prepared or self._prepare()
                except Exception as error:  # the thread goes on: nobody else opens a failed index again
                    self._note_failure(error)

    def _note_failure(self, error: Exception) -> None:
        """Before the round ends: the next one must not build on a sync that is repeated, and says well now."""
        if _is_full(error):
            log.warning("nothing is settled", extra={"error": str(error)})  # until there is room again
        else:
            self._index.fail(str(error) or type(error).__name__)

    def _prepare(self) -> bool:
        try:
            return self._store.prepare()
        except OSError as error:
            log.warning("no journal", extra={"error": str(error)})
            return True


def _is_full(error: Exception) -> bool:
    """No room is no failure of the disk: nothing was lost."""
    if isinstance(error, IndexFull):
        return True
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
