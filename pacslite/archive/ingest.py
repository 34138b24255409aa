"""From a complete object to an acknowledged instance: one hop to a disk thread, one sync, one wake-up of the loop.

An object that is small arrives in memory; when it is complete a disk thread writes, scans and syncs it. A large one is
handed on in pieces while it arrives. Whichever thread then gets the lead commits the rows of all that are ready and
wakes the loop once. Nobody waits for company: a lone sender commits at once, groups form under load.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from pacslite.archive.disk import DiskThreads
from pacslite.archive.incoming import Incoming
from pacslite.archive.index.removal import InstanceRow
from pacslite.archive.index.writer import Entry, IndexWriter
from pacslite.archive.instances.layout import InstancePath, instance_path
from pacslite.archive.instances.protocol import IncomingFile, InstanceStore
from pacslite.archive.options import StorageOptions
from pacslite.archive.outcome import DuplicateInstance, StorageFailed, Stored, refusal_of
from pacslite.archive.record import Record, make_record
from pacslite.archive.settle import Settler, Unsettled
from pacslite.archive.space import SpaceGuard
from pacslite.budget import Budget
from pacslite.errors import DimseError

__all__ = ["Ingest"]

log = logging.getLogger("pacslite.archive")

_Result = tuple[Incoming, Stored | DimseError]


class _Sealed(NamedTuple):
    """A file that is complete and synced; its row comes next."""

    incoming: Incoming
    file: IncomingFile
    entry: Entry


class Ingest:
    """Takes objects in. Its public methods are for the loop's thread."""

    def __init__(
        self,
        *,
        store: InstanceStore,
        index: IndexWriter,
        settler: Settler,
        space: SpaceGuard,
        budget: Budget,
        options: StorageOptions,
        on_stored: Sequence[Callable[[Stored], None]],
    ) -> None:
        self._store = store
        self._index = index
        self._settler = settler
        self._space = space
        self._budget = budget
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._sealers = DiskThreads("seal", options.disk_threads, index.open_reader)
        self._streams = DiskThreads("stream", options.stream_threads)
        # SOP Instance UIDs being sealed, each with those who send the same and wait for the outcome
        self._in_flight: dict[str, deque[Incoming]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._lock = threading.Lock()
        self._ready: list[_Sealed] = []
        self._leading = False
        self._on_stored = on_stored

    # on the loop: receiving

    def took(self, incoming: Incoming, size: int) -> None:
        """An object has grown: hand it on if it is large, stop its peer if the disk does not keep up."""
        budget = self._budget
        budget.used += size
        pending = incoming.pending
        if pending < self._options.pressed_piece_bytes:
            return
        pressed = budget.used > budget.limit
        if not incoming.flushing:
            if pending >= self._options.piece_bytes or pressed:
                self._flush(incoming)
        elif (
            (pressed or pending >= self._options.unflushed_bytes) and not incoming.paused and incoming.flow is not None
        ):
            incoming.paused = True
            incoming.flow.pause_reading()

    def complete(self, incoming: Incoming) -> None:
        """All bytes are there."""
        if not incoming.flushing:
            self._claim(incoming)

    def drop(self, incoming: Incoming) -> None:
        """The peer has gone."""
        if not incoming.flushing:
            self._discard(incoming)

    async def stop(self) -> None:
        """Wait for what is being stored, then end the threads."""
        await self._idle.wait()
        await self._loop.run_in_executor(None, self._streams.stop)
        await self._loop.run_in_executor(None, self._sealers.stop)

    def _flush(self, incoming: Incoming) -> None:
        incoming.flushing = incoming.pending
        incoming.pending = 0
        self._space.take(incoming.flushing)
        self._streams.submit(self._write_pieces, incoming, incoming.take_pieces())

    def _flushed(self, incoming: Incoming, error: DimseError | None) -> None:
        self._budget.give(incoming.flushing)
        incoming.flushing = 0
        if error is not None and incoming.error is None:
            self._fail(incoming, error)
        if incoming.ended:
            self._resume(incoming)
            if incoming.waiter is None:
                self._discard(incoming)
            else:
                self._claim(incoming)
            return
        pending = incoming.pending
        threshold = self._options.pressed_piece_bytes if self._budget.pressed else self._options.piece_bytes
        if pending >= threshold:
            self._flush(incoming)
            if pending < self._options.unflushed_bytes and not self._budget.pressed:
                self._resume(incoming)
        else:
            self._resume(incoming)

    def _resume(self, incoming: Incoming) -> None:
        if incoming.paused and incoming.flow is not None:
            incoming.paused = False
            incoming.flow.resume_reading()

    def _fail(self, incoming: Incoming, error: DimseError) -> None:
        """Keep nothing more of an object that cannot be stored; its bytes go on arriving."""
        incoming.error = error
        incoming.take_pieces()
        self._budget.give(incoming.pending)
        incoming.pending = 0

    def _discard(self, incoming: Incoming) -> None:
        incoming.take_pieces()
        self._budget.give(incoming.pending)
        incoming.pending = 0
        if incoming.file is not None:
            self._sealers.submit(incoming.file.discard)
            incoming.file = None

    # on the loop: one at a time for a SOP Instance UID

    def _claim(self, incoming: Incoming) -> None:
        """Seal now, or after those who came first with the same UID: what they leave decides what this one is."""
        waiting = self._in_flight.get(incoming.sop_instance_uid)
        if waiting is None:
            self._in_flight[incoming.sop_instance_uid] = deque()
            self._idle.clear()
            self._submit(incoming)
        else:
            waiting.append(incoming)

    def _submit(self, incoming: Incoming) -> None:
        self._space.take(incoming.pending)
        self._sealers.submit(self._seal, incoming, incoming.take_pieces())

    def _finish(self, results: list[_Result]) -> None:
        """A group is done: tell each, and let the next with the same UID go on."""
        for incoming, result in results:
            self._budget.give(incoming.pending)
            incoming.pending = 0
            waiting = self._in_flight[incoming.sop_instance_uid]
            while waiting:
                successor = waiting.popleft()
                if successor.waiter is not None and successor.waiter.cancelled():
                    self._discard(successor)
                    continue
                self._submit(successor)
                break
            else:
                del self._in_flight[incoming.sop_instance_uid]
            waiter = incoming.waiter
            if isinstance(result, Stored):
                if result.outcome == "stored":
                    self._space.stored_bytes += result.size
                self._tell(result)
                if waiter is not None and not waiter.done():
                    waiter.set_result(result)
            elif waiter is not None and not waiter.done():
                waiter.set_exception(result)
        if not self._in_flight:
            self._idle.set()

    def _tell(self, stored: Stored) -> None:
        for hook in self._on_stored:
            try:
                hook(stored)
            except Exception:  # of a stranger: the instance is stored, and its sender must hear of it
                log.exception("on_stored")

    # in a disk thread

    def _write_pieces(self, incoming: Incoming, pieces: list[bytes | bytearray]) -> None:
        error: DimseError | None = None
        try:
            if incoming.file is None:
                pieces = incoming.strip_file_meta(pieces)
                incoming.file = self._store.create(incoming.header_size)
            incoming.file.append(pieces)
            incoming.digest_pieces(pieces)
            incoming.scan_pieces(pieces)
        except Exception as problem:  # whatever it is, the loop must hear of it
            error = self._told(problem)
        self._call(self._flushed, incoming, error)

    def _seal(self, incoming: Incoming, pieces: list[bytes | bytearray]) -> None:
        """Make the file durable, then lead the commit or leave the row to the thread that leads."""
        try:
            sealed = self._make_durable(incoming, pieces)
        except Exception as problem:
            if incoming.file is not None:
                incoming.file.discard()
            self._call(self._finish, [(incoming, self._told(problem))])
            return
        if isinstance(sealed, Stored):
            self._call(self._finish, [(incoming, sealed)])
            return
        with self._lock:
            self._ready.append(sealed)
            if self._leading:
                return
            self._leading = True
        while group := self._take():
            self._call(self._finish, self._commit(group))

    def _take(self) -> list[_Sealed]:
        with self._lock:  # leading ends under the lock that followers test it with: no row is left behind
            group, self._ready = self._ready, []
            self._leading = bool(group)
            return group

    def _make_durable(self, incoming: Incoming, pieces: list[bytes | bytearray]) -> _Sealed | Stored:
        if incoming.error is not None:
            raise incoming.error
        if incoming.file is None:
            pieces = incoming.strip_file_meta(pieces)
        known = self._index.look_up(incoming.sop_instance_uid)
        relocates = False
        if known is not None:
            kept, relocates = self._keep(known, incoming, pieces)
            if kept is not None:
                if incoming.file is not None:
                    incoming.file.discard()
                return kept
        digest = incoming.digest_pieces(pieces).digest()
        if incoming.file is None:
            file = incoming.file = self._store.create(0)
            file.append([incoming.header(digest), *pieces])
        else:
            file = incoming.file
            file.append(pieces)
            file.write_header(incoming.header(digest))
        if self._options.durability == "full":
            file.begin_writeback()
        record = self._record(incoming, pieces)
        record.data_set_offset = file.size - incoming.stored_length
        record.data_set_length = incoming.stored_length
        record.digest = digest
        if self._options.durability == "full":
            file.sync()
        return _Sealed(incoming, file, Entry(record, replaces=known is not None, relocates=relocates))

    def _record(self, incoming: Incoming, pieces: list[bytes | bytearray]) -> Record:
        scan = incoming.scan_pieces(pieces)
        if not scan.complete:
            scan.finish()
        return make_record(
            scan,
            sop_class_uid=incoming.sop_class_uid,
            sop_instance_uid=incoming.sop_instance_uid,
            transfer_syntax_uid=incoming.transfer_syntax_uid,
            source_ae_title=incoming.source_ae_title,
        )

    def _keep(
        self, known: InstanceRow, incoming: Incoming, pieces: list[bytes | bytearray]
    ) -> tuple[Stored | None, bool]:
        """Decide about an instance that is there already: None to replace it; is that in another series?"""
        if self._options.duplicates == "reject":
            raise DuplicateInstance("SOP Instance UID is stored already")
        record = self._record(incoming, pieces)
        key = record.series_key
        if (key.study_instance_uid, key.series_instance_uid) != (known.study_instance_uid, known.series_instance_uid):
            log.warning("SOP Instance UID in another series", extra={"instance": incoming.sop_instance_uid})
            if self._options.uid_conflict == "reject":
                raise DuplicateInstance("SOP Instance UID is stored in another series")
            if self._options.uid_conflict == "replace":
                return None, True
        elif self._options.duplicates == "replace":
            return None, False
        return _stored("duplicate", incoming, record), False

    def _commit(self, group: list[_Sealed]) -> list[_Result]:
        """Index a group; catches everything, for a leader that dies would leave the others waiting."""
        files = [Unsettled(s.entry.record.sop_instance_uid, s.file.name, _place(s.entry.record)) for s in group]
        with self._index.lock:  # a deletion sees a file of this group with its row, or neither
            replaced = [self._settler.register(file) for file in files]
            for sealed, old in zip(group, replaced, strict=True):
                sealed.entry.unlink = () if old is None else (f"incoming/{old.name}",)
            try:
                outcomes = self._index.commit([sealed.entry for sealed in group])
            except Exception as problem:
                outcomes = [self._told(problem)] * len(group)
            for file, old, outcome in zip(files, replaced, outcomes, strict=True):
                if outcome is not None:
                    self._settler.withdraw(file, old)
        if any(sealed.entry.unlink or sealed.entry.relocates for sealed in group):
            self._settler.noted()
        self._settler.committed([file for file, outcome in zip(files, outcomes, strict=True) if outcome is None])
        return [self._conclude(sealed, outcome) for sealed, outcome in zip(group, outcomes, strict=True)]

    def _conclude(self, sealed: _Sealed, error: DimseError | None) -> _Result:
        if error is not None:
            sealed.file.discard()
            return sealed.incoming, error
        try:
            sealed.file.close()
        except OSError as problem:  # it is synced and stored nevertheless
            log.error("close", extra={"error": str(problem)})
        return sealed.incoming, _stored(
            "replaced" if sealed.entry.replaces else "stored", sealed.incoming, sealed.entry.record
        )

    def _told(self, problem: Exception) -> DimseError:
        if isinstance(problem, DimseError):
            return problem
        if isinstance(problem, OSError):
            log.error("storing failed", extra={"error": str(problem)})
            return refusal_of(problem)
        log.error("storing failed", exc_info=problem)
        return StorageFailed("internal error, see the log")

    def _call(self, callback: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed: nobody waits
            log.warning("storing ended after the event loop")


def _place(record: Record) -> InstancePath:
    key = record.series_key
    return instance_path(key.study_instance_uid, key.series_instance_uid, record.sop_instance_uid)


def _stored(outcome: Literal["stored", "duplicate", "replaced"], incoming: Incoming, record: Record) -> Stored:
    key = record.series_key
    return Stored(
        outcome=outcome,
        sop_class_uid=incoming.sop_class_uid,
        sop_instance_uid=incoming.sop_instance_uid,
        study_instance_uid=key.study_instance_uid,
        series_instance_uid=key.series_instance_uid,
        transfer_syntax_uid=incoming.transfer_syntax_uid,
        source_ae_title=incoming.source_ae_title,
        size=incoming.stored_length,
    )
