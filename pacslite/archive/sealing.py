"""The disk threads' half of storing: an object becomes a synced file, then a row.

A thread takes one object, or several small ones that wait, writes them all, scans their headers while the disk works,
and syncs them: the first sync commits the file system's journal for all, the others find little to do. Whichever thread
then gets the lead commits the rows of all that are ready and wakes the loop once. Nobody waits for company: a lone
object is a group.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from pacslite.archive.incoming import Complete, Incoming, Pieces, Posted
from pacslite.archive.index.failures import AlreadyThere
from pacslite.archive.index.removal import InstanceRow
from pacslite.archive.index.writer import Entry, IndexWriter
from pacslite.archive.instances.protocol import IncomingFile, InstanceStore
from pacslite.archive.options import StorageOptions
from pacslite.archive.outcome import DuplicateInstance, StorageFailed, Stored, refusal_of
from pacslite.archive.record import Record, make_record
from pacslite.archive.settle import Settler, Unsettled
from pacslite.dataset.layout import Layouts
from pacslite.errors import DimseError

__all__ = ["Result", "Sealer"]

log = logging.getLogger("pacslite.archive")

_DOUBTED = 64  # groups of which each object is looked up, after one that had an instance that was there already
_MOST_LATE = 32  # rows that are written after their answers, once nobody waits for one
_WORTH_WAKING = 256 << 10  # bytes; for less of one object alone, waking the disk early costs more than it hides


class Result(NamedTuple):
    """What became of an object."""

    incoming: Incoming
    outcome: Stored | DimseError


class _Written(NamedTuple):
    """A file that is complete; synced, its row comes next."""

    complete: Complete
    file: IncomingFile
    entry: Entry

    @property
    def incoming(self) -> Incoming:
        return self.complete.incoming


class Sealer:
    """Its public methods run in disk threads; ``finish`` is called on the loop, with a group of results."""

    def __init__(
        self,
        store: InstanceStore,
        index: IndexWriter,
        settler: Settler,
        options: StorageOptions,
        finish: Callable[[list[Result]], None],
    ) -> None:
        self._store = store
        self._index = index
        self._settler = settler
        self._options = options
        self._finish = finish
        self._syncs = options.durability == "full"
        self._late = options.durability == "none"  # rows may follow their answers
        self._layouts = Layouts()
        self._loop = asyncio.get_running_loop()
        self._posting = threading.Lock()
        self._lock = threading.Lock()
        self._ready: list[_Written] = []
        self._leading = False
        self._doubted = 0  # groups to come that are looked up

    # streaming

    def post(self, incoming: Incoming, item: Posted) -> bool:
        """On the loop: hand the next piece, or the end, of a streamed object on. True: ``stream`` is to be started."""
        with self._posting:
            incoming.posted.append(item)
            start = not incoming.streaming
            incoming.streaming = True
            return start

    def stream(self, incoming: Incoming, flushed: Callable[[Incoming, int], None]) -> None:
        """Take what was posted of one object, in order, until there is no more; ``flushed`` hears on the loop."""
        while True:
            with self._posting:  # ends under the lock that posting tests it with: nothing is left behind
                if not incoming.posted:
                    incoming.streaming = False
                    return
                item = incoming.posted.popleft()
            if item is None:
                _discard(incoming)
            elif isinstance(item, Complete):
                self.seal([item])
            else:
                size = sum(map(len, item))
                self._write_pieces(incoming, item)
                del item
                self._call(flushed, incoming, size)

    def _write_pieces(self, incoming: Incoming, pieces: Pieces) -> None:
        """Write behind the room for the header; an error is told when all has arrived."""
        if incoming.error is not None:
            return
        try:
            if incoming.file is None:
                pieces = incoming.strip_file_meta(pieces)
                incoming.file = self._store.create(incoming.header_size)
            incoming.file.append(pieces)
            incoming.digest_pieces(pieces)
            if incoming.scan_pieces(pieces, self._layouts).complete and incoming.record is None:
                incoming.record = self._record(incoming, [])
            incoming.pass_pieces(pieces)
        except Exception as problem:
            incoming.error = _told(problem)

    # sealing

    def seal(self, group: Sequence[Complete]) -> None:
        """Make files durable, then lead the commit or leave the rows to the thread that leads."""
        done: list[Result] = []
        written: list[_Written] = []
        known = self._new(group) or self._look_up(group, done)
        for complete in group:
            if complete.incoming.sop_instance_uid in known:
                row = known[complete.incoming.sop_instance_uid]
                self._attempt(complete, row, written, done, in_company=len(group) > 1)
        synced = self._sync(written, done)
        if done:
            self._call(self._finish, done)
        if synced:
            self._lead(synced)

    def _new(self, group: Sequence[Complete]) -> dict[str, InstanceRow | None]:
        """Take all of a group for new, if little is lost where one is not: the index says so, and it is taken back.

        A start knows those that were not taken back any more: their headers call them new. This saves a question, for
        which the interpreter lock would be given up three times.
        """
        if self._doubted:
            self._doubted -= 1
            return {}
        for complete in group:
            if complete.incoming.streamed or not (self._late or self._store.is_quick(complete.incoming.length)):
                return {}
        return {complete.incoming.sop_instance_uid: None for complete in group}

    def _look_up(self, group: Sequence[Complete], done: list[Result]) -> dict[str, InstanceRow | None]:
        try:
            return self._index.look_up_all([complete.incoming.sop_instance_uid for complete in group])
        except Exception as problem:
            error = _told(problem)
            for incoming, _ in group:
                _discard(incoming)
                done.append(Result(incoming, error))
            return {}

    def _attempt(
        self,
        complete: Complete,
        known: InstanceRow | None,
        written: list[_Written],
        done: list[Result],
        *,
        in_company: bool,
    ) -> None:
        try:
            outcome = self._write(complete, known, in_company=in_company)
        except Exception as problem:  # whatever it is, the waiter must hear of it
            _discard(complete.incoming)
            done.append(Result(complete.incoming, _told(problem)))
            return
        if isinstance(outcome, _Written):
            written.append(outcome)
        else:
            _discard(complete.incoming)
            done.append(Result(complete.incoming, outcome))

    def _write(self, complete: Complete, known: InstanceRow | None, *, in_company: bool) -> _Written | Stored:
        """Write the rest and the header, scan, and say what the row is; or that there is nothing to store."""
        incoming, pieces = complete
        if incoming.error is not None:
            raise incoming.error
        if incoming.file is None:
            pieces = incoming.strip_file_meta(pieces)
        relocates = False
        if known is not None:
            kept, relocates = self._keep(known, incoming, pieces)
            if kept is not None:
                return kept
        digest = incoming.digest_pieces(pieces).digest()
        header = incoming.header(digest, is_new=known is None)
        if incoming.file is None:
            file = incoming.file = self._store.create(0)
            file.append([header, *pieces])
        else:
            file = incoming.file
            file.append(pieces)
            if known is not None:  # which may have begun later, and ended before
                file.come_last()
            file.write_header(header)
        if self._syncs and (in_company or file.size >= _WORTH_WAKING):
            file.begin_writeback()
        record = self._record(incoming, pieces)
        incoming.pass_pieces(pieces)
        incoming.check_end()
        record.data_set_offset = file.size - incoming.stored_length
        record.data_set_length = incoming.stored_length
        record.digest = digest
        return _Written(complete, file, Entry(record, replaces=known is not None, relocates=relocates))

    def _record(self, incoming: Incoming, pieces: Pieces) -> Record:
        if incoming.record is not None:
            return incoming.record
        scan = incoming.scan_pieces(pieces, self._layouts)
        if not scan.complete:
            scan.finish()
        return make_record(
            scan,
            sop_class_uid=incoming.sop_class_uid,
            sop_instance_uid=incoming.sop_instance_uid,
            transfer_syntax_uid=incoming.transfer_syntax_uid,
            source_ae_title=incoming.source_ae_title,
        )

    def _keep(self, known: InstanceRow, incoming: Incoming, pieces: Pieces) -> tuple[Stored | None, bool]:
        """Decide about an instance that is there already: None to replace it; is that in another series?"""
        record = self._record(incoming, pieces)
        key = record.series_key
        if (key.study_instance_uid, key.series_instance_uid) != (known.study_instance_uid, known.series_instance_uid):
            log.warning("SOP Instance UID in another series", extra={"instance": incoming.sop_instance_uid})
            if "reject" in {self._options.uid_conflict, self._options.duplicates}:
                raise DuplicateInstance("SOP Instance UID is stored in another series")
            if self._options.uid_conflict == "replace":
                return None, True
        elif self._options.duplicates == "reject":
            raise DuplicateInstance("SOP Instance UID is stored already")
        elif self._options.duplicates == "replace":
            return None, False
        return _stored("duplicate", incoming, record, 0), False

    def _sync(self, written: list[_Written], done: list[Result]) -> list[_Written]:
        synced: list[_Written] = []
        for each, error in zip(written, self._store.sync([each.file for each in written]), strict=True):
            if error is None:
                synced.append(each)
            else:  # the file is not to be trusted any more: no second attempt
                each.file.discard()
                done.append(Result(each.incoming, _told(error)))
        return synced

    # committing

    def _lead(self, synced: list[_Written]) -> None:
        with self._lock:
            self._ready += synced
            if self._leading:
                return
            self._leading = True
        again: list[Complete] = []
        while group := self._take():  # rows that arrive while we commit are the next group
            if results := self._commit(group, again):
                self._call(self._finish, results)
        if again:
            self._doubted = _DOUBTED
            for incoming, _ in again:
                incoming.begin_again()
            self.seal(again)
        if self._late:
            self._index.catch_up(_MOST_LATE)

    def _take(self) -> list[_Written]:
        with self._lock:  # leading ends under the lock that followers test it with: no row is left behind
            group, self._ready = self._ready, []
            self._leading = bool(group)
            return group

    def _commit(self, group: list[_Written], again: list[Complete]) -> list[Result]:
        """Index a group; catches everything, for a leader that dies would leave the others waiting.

        Args:
            again: Takes those that are no new instances: what becomes of them is decided by what is there.
        """
        late = self._late and not any(written.incoming.streamed for written in group)  # there a calm moment follows
        files = [Unsettled(w.entry.record.sop_instance_uid, w.file.name, w.entry.record.path) for w in group]
        with self._index.lock:  # a deletion sees a file of this group with its row, or neither
            replaced = [self._settler.register(file) for file in files]
            for written, old in zip(group, replaced, strict=True):
                if old is not None:
                    written.entry.unlink = (f"incoming/{old.name}",)
            try:
                errors = self._index.commit([written.entry for written in group], late=late)
            except Exception as problem:
                errors = [_told(problem)] * len(group)
            for file, error in zip(files, errors, strict=True):
                if error is not None:
                    self._settler.withdraw(file)
            self._settler.committed([file for file, error in zip(files, errors, strict=True) if error is None])
        if any(written.entry.unlink or written.entry.replaces for written in group):
            self._settler.noted()
        results: list[Result] = []
        for written, error in zip(group, errors, strict=True):
            if isinstance(error, AlreadyThere) and not written.entry.replaces and not written.incoming.again:
                _discard(written.incoming)
                again.append(written.complete)
            else:
                results.append(_conclude(written, error))
        return results

    def _call(self, callback: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed: nobody waits
            log.warning("storing ended after the event loop")


def _discard(incoming: Incoming) -> None:
    if incoming.file is not None:
        incoming.file.discard()
        incoming.file = None


def _conclude(written: _Written, error: DimseError | None) -> Result:
    if error is not None:
        written.file.discard()
        return Result(written.incoming, error)
    try:
        written.file.close()
    except OSError as problem:  # it is synced and stored nevertheless
        log.error("close", extra={"error": str(problem)})
    replaced_bytes = written.entry.replaced_bytes  # 0: what was to be replaced has been deleted meanwhile
    outcome: Literal["stored", "replaced"] = "replaced" if replaced_bytes else "stored"
    growth = written.file.size - replaced_bytes
    return Result(written.incoming, _stored(outcome, written.incoming, written.entry.record, growth))


def _told(problem: Exception) -> DimseError:
    """Any error in DIMSE's terms; what a peer cannot be told goes to the log."""
    if isinstance(problem, DimseError):
        return problem
    if isinstance(problem, OSError):
        log.error("storing failed", extra={"error": str(problem)})
        return refusal_of(problem)
    log.error("storing failed", exc_info=problem)
    return StorageFailed("internal error, see the log")


def _stored(
    outcome: Literal["stored", "duplicate", "replaced"], incoming: Incoming, record: Record, growth: int
) -> Stored:
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
        growth=growth,
    )
