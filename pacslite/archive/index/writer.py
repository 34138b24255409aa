"""The one writer of the index: group commits on a SQLite connection of its own.

A commit is not synced (WAL, synchronous=NORMAL): the synced file in ``incoming/`` is the journal of its row, and is
settled only after ``sync()``. Checkpoints happen when ``checkpoint()`` is called, never inside a commit. Rows may be
late (index/late.py) until somebody reads. Callable from any thread; one lock orders all.
"""

import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pacslite.archive.extra import ExtraKey
from pacslite.archive.index.checkpoints import Checkpoints
from pacslite.archive.index.connections import IndexConnections
from pacslite.archive.index.extra_values import (
    ExtraState,
    ExtraValues,
    configure_extra_keys,
    extra_states,
    forget_extra_values,
)
from pacslite.archive.index.failures import AlreadyThere, IndexFailure, IndexFull, PatientConflict
from pacslite.archive.index.instance_rows import (
    ROWS_AT_ONCE,
    Row,
    find_instance,
    insert_instances,
    instance_row,
    those_there,
)
from pacslite.archive.index.late import LateRows
from pacslite.archive.index.placing import Counts, Place, Places, add_sop_class
from pacslite.archive.index.removal import InstanceRow, remove_rows, sets_of
from pacslite.archive.index.replaced import note_replaced
from pacslite.archive.index.statements import Statements
from pacslite.archive.keys import Level
from pacslite.archive.options import StorageOptions
from pacslite.archive.record import Record
from pacslite.errors import DimseError

__all__ = ["AlreadyThere", "Entry", "IndexFailure", "IndexFull", "IndexWriter", "PatientConflict", "Totals"]

log = logging.getLogger("pacslite.archive")

_LARGEST_LATE = 16 << 10  # bytes of what a row keeps: those that are late are memory that no budget knows


class Totals(NamedTuple):
    """The whole archive; ``bytes`` of the files."""

    patients: int
    studies: int
    series: int
    instances: int
    bytes: int


@dataclass(slots=True)
class Entry:
    """A sealed instance on its way into the index."""

    record: Record
    replaces: bool = False  # the row with its SOP Instance UID
    relocates: bool = False  # the same, from another series or study
    unlink: tuple[str, ...] = ()  # files that its row makes obsolete, below the data directory
    is_kept: bool = False  # by an earlier process or index: what is refused today may have been acknowledged then
    replaced_bytes: int = 0  # of the file whose row it took; its commit says so


class IndexWriter:
    """Writes rows, keeps counts and sets, remembers the series it has seen."""

    def __init__(self, path: Path, options: StorageOptions) -> None:
        self.lock = threading.RLock()
        self.failed = ""  # why nothing can be written
        self.outlives_files = options.durability == "commit"  # after a power cut; without any sync nothing can be known
        self._options = options
        self._extra_values = ExtraValues()
        self._places = Places(options.patient_conflict, self._extra_values)
        self._late = LateRows()
        self._connections = IndexConnections(path, options)
        self._checkpoints = Checkpoints(self._connections, self.lock, options.checkpoint_bytes)
        self._extra_values.load(self._connections.writer)

    # opening

    def close(self) -> None:
        """Take the log into the index and close it. No other thread may be in a call."""
        with self.lock:
            self.catch_up()
            self._connections.close_readers()
            try:
                if not self.failed:
                    self._checkpoints.empty_log()
            except sqlite3.Error as error:  # the log stays: it is read at the next start
                log.warning("index log kept", extra={"error": str(error)})
            finally:
                self._connections.close()

    def fail(self, reason: str) -> None:
        """Write nothing more until ``reopen``: after a failed sync a later one may say that all is well."""
        with self.lock:
            if not self.failed:
                log.error("index failed", extra={"reason": reason})
            self.failed = self.failed or reason

    def reopen(self) -> None:
        """Begin anew after a failure; the caller indexes what is in ``incoming`` again, then calls ``cleanse``."""
        with self.lock:
            self._roll_back()
            self._connections.reopen()
            self._late.forget()
            self.failed = ""

    def cleanse(self) -> None:
        """Write the whole log into the index, sync that, and empty the log: nothing that failed is built upon."""
        with self.lock:
            self._checkpoints.empty_log()

    # storing

    def commit(self, entries: Sequence[Entry], *, late: bool = False) -> list[DimseError | None]:
        """Index a group in one transaction; what one of them does wrong is told to that one alone.

        Args:
            late: Rows of new instances may be written later: when somebody reads, or with ``catch_up``.
        """
        if len(entries) > 1 and any(entry.relocates for entry in entries):
            return [outcome for entry in entries for outcome in self.commit([entry])]
        with self.lock:
            try:
                if self.failed:
                    return [IndexFailure(f"index: {self.failed}")] * len(entries)
                if late and self._take_late(entries):
                    return [None] * len(entries)
                self._write_late()
                return self._commit(entries)
            except (IndexFull, IndexFailure) as error:  # of rows that are late, and come first
                return [error] * len(entries)
            except sqlite3.Error as error:
                self._roll_back()
                if _code(error) == sqlite3.SQLITE_FULL:
                    return [IndexFull("index: disk is full")] * len(entries)
                if _code(error) == sqlite3.SQLITE_IOERR:
                    self.fail(str(error))
                    return [IndexFailure(f"index: {error}")] * len(entries)
                if len(entries) == 1 and error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                    return [AlreadyThere("SOP Instance UID is stored already")]
                if len(entries) == 1:
                    log.error("index", extra={"error": str(error)})
                    return [IndexFailure(f"index: {error}")]
            except BaseException:
                self._roll_back()
                raise
        return [outcome for entry in entries for outcome in self.commit([entry])]

    def _commit(self, entries: Sequence[Entry]) -> list[DimseError | None]:
        if len(entries) <= ROWS_AT_ONCE and (plain := self._plain_rows(entries)) is not None:
            insert_instances(self._connections.writer, plain)
            self._checkpoints.count(len(plain))
            return [None] * len(plain)
        connection = self._connections.writer
        execute = connection.execute
        execute("BEGIN IMMEDIATE")
        counts = Counts()
        rows: list[Row] = []
        taken: list[Record] = []
        reclassified: set[int] = set()  # studies of which an instance has another SOP class now
        replaced: list[str] = []  # by what comes now, and is numbered so: who reads on from a row meets it
        outcomes: list[DimseError | None] = []
        for entry in entries:
            record = entry.record
            if entry.replaces and self.outlives_files:
                note_replaced(connection, record.sop_instance_uid, entry.unlink)
            if entry.relocates:
                self._remove_elsewhere(entry)
            try:
                place = self._places.known.get(record.series_key)
                if place is None:
                    place = self._places.find(connection, record, counts, is_kept=entry.is_kept)
            except DimseError as refusal:
                if entry.relocates:  # alone: the one that it was to replace stays
                    self._roll_back()
                    return [refusal]
                outcomes.append(refusal)
                continue
            outcomes.append(None)
            taken.append(record)
            add_sop_class(connection, place.study, record.sop_class_uid)
            row = instance_row(record, place)
            for name in entry.unlink:
                execute(Statements.insert_deleted_file.text, (name, record.sop_instance_uid))
            if entry.replaces:
                replaced.append(record.sop_instance_uid)
                if self._replace(entry, place, row, counts, reclassified):
                    continue
            rows.append(row)
        if rows:
            insert_instances(connection, rows)
        if replaced:
            connection.executemany(Statements.renumber_instance.text, [(uid,) for uid in replaced])
        if reclassified:
            self._mend_sets(reclassified)
        if self._extra_values.has_instances:
            self._extra_values.insert_instances(connection, taken)
        if any(counts):
            execute(Statements.add_to_totals.text, (*counts, 1))
        execute("COMMIT")
        self._checkpoints.count(len(taken))  # replaced ones as well: their files wait for it too
        return outcomes

    def _plain_rows(self, entries: Sequence[Entry]) -> list[Row] | None:
        """Rows of a group in which all is known but the instances themselves; None if there is more to do."""
        if self._extra_values.has_instances:
            return None
        known = self._places.known
        rows: list[Row] = []
        for entry in entries:
            record = entry.record
            place = known.get(record.series_key)
            if place is None or record.sop_class_uid not in place.study.sop_classes or entry.replaces or entry.unlink:
                return None
            rows.append(instance_row(record, place))
        return rows

    def _take_late(self, entries: Sequence[Entry]) -> bool:
        """Acknowledge a group before its rows are written, if nothing can be said against any of them."""
        plain = self._plain_rows(entries)
        if plain is None or any(len(entry.record.attributes) > _LARGEST_LATE for entry in entries):
            return False
        rows = {entry.record.sop_instance_uid: row for entry, row in zip(entries, plain, strict=True)}
        return not those_there(self._connections.writer, [*rows]) and self._late.take(rows)

    def _write_late(self) -> None:
        """With the lock held: write the rows that are late.

        Raises:
            IndexFull, IndexFailure: They stay late.
        """
        if not self._late:
            return
        if self.failed:
            raise IndexFailure(f"index: {self.failed}")
        try:
            self._checkpoints.count(self._late.write(self._connections.writer))
        except sqlite3.Error as error:
            self._roll_back()
            if _code(error) == sqlite3.SQLITE_FULL:
                raise IndexFull("index: disk is full") from error
            self.fail(str(error))
            raise IndexFailure(f"index: {error}") from error

    def catch_up(self, most: int = 0) -> None:
        """Write the rows that are late, if there are more than ``most``.

        Where that fails they stay late, and whoever wants to store next is told.
        """
        if len(self._late) > most:
            with self.lock, suppress(IndexFull, IndexFailure):
                self._write_late()

    def _replace(self, entry: Entry, place: Place, row: Row, counts: Counts, reclassified: set[int]) -> bool:
        """Put ``row`` in the place of the one with its UID; False if there is none (deleted meanwhile)."""
        record = entry.record
        connection = self._connections.writer
        known = find_instance(connection, record.sop_instance_uid)
        if known is None or known.series_id != place.series_id:
            return False
        (sop_class_uid,) = connection.execute(Statements.select_sop_class.text, (known.id,)).fetchone()
        if sop_class_uid != record.sop_class_uid:
            reclassified.add(known.study_id)
        connection.execute(Statements.update_instance.text, (*row, known.id))
        forget_extra_values(connection, {Level.IMAGE: [known.id]})
        entry.replaced_bytes = known.size
        counts.bytes += record.data_set_offset + record.data_set_length - known.size
        return True

    def _mend_sets(self, study_ids: Iterable[int]) -> None:
        """Take SOP classes away that no instance has any more, once all rows of the transaction are there."""
        for study_id in study_ids:
            sets = sets_of(self._connections.writer, study_id)
            self._connections.writer.execute(Statements.set_study_sets.text, (*sets, study_id))
        self._places.forget()  # with the sets as they were

    def _remove_elsewhere(self, entry: Entry) -> None:
        """Remove the row of an instance that comes back in another series. Alone in its transaction: places change."""
        known = find_instance(self._connections.writer, entry.record.sop_instance_uid)
        if known is not None:
            entry.replaced_bytes = known.size
            self._connections.writer.execute(
                Statements.insert_deleted_file.text, (f"instances/{known.path}", known.sop_instance_uid)
            )
            remove_rows(self._connections.writer, [known])
            self._places.forget()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write otherwise, alone; what is remembered of the rows is forgotten."""
        with self.lock:
            self._places.forget()
            with self._alone() as connection:
                yield connection
            self._checkpoints.count(1)

    # extra keys

    def set_extra_keys(self, wanted: Sequence[ExtraKey]) -> bool:
        """Make these the extra keys from now on; True if others were before."""
        with self.extending() as connection:
            differs = configure_extra_keys(connection, wanted)
            self._extra_values.load(connection)
        return differs

    def extra_states(self) -> list[ExtraState]:
        """The extra keys, and how far each is."""
        with self.lock:
            return extra_states(self._connections.writer)

    @contextmanager
    def extending(self) -> Iterator[sqlite3.Connection]:
        """Write extra values, alone; rows stay as they are."""
        with self.lock, self._alone() as connection:
            yield connection
            self._checkpoints.count(1)

    # asking

    def open_reader(self) -> None:
        """Open the calling thread's connection now, not with its first question."""
        self.look_up("")

    def look_up(self, sop_instance_uid: str) -> InstanceRow | None:
        """Find an instance by its UID, on a connection of the calling thread's own: it does not wait for a commit."""
        if sop_instance_uid in self._late:
            self.catch_up()
        return find_instance(self._connections.reader(), sop_instance_uid)

    def current(self, sop_instance_uid: str) -> InstanceRow | None:
        """Find an instance by its UID, whatever is being written; for rare questions from any thread."""
        with self.lock:
            self.catch_up()
            return find_instance(self._connections.writer, sop_instance_uid)

    def look_up_all(self, sop_instance_uids: Sequence[str]) -> dict[str, InstanceRow | None]:
        """The same for several: mostly none of them is there, and one question says so."""
        if any(uid in self._late for uid in sop_instance_uids):
            self.catch_up()
        found: dict[str, InstanceRow | None] = dict.fromkeys(sop_instance_uids)
        for uid in those_there(self._connections.reader(), sop_instance_uids):
            found[uid] = self.look_up(uid)
        return found

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for long reading."""
        self.catch_up()
        connection = self._connections.connect()
        try:
            yield connection
        finally:
            connection.close()

    def integrity(self, *, deep: bool) -> list[str]:
        """What SQLite finds wrong with the file; ``deep`` compares its indexes with its tables too."""
        with self.reading() as connection:
            rows = connection.execute(f"PRAGMA {'integrity_check' if deep else 'quick_check'}(20)").fetchall()
        return [text for (text,) in rows if text != "ok"]

    def notes(self) -> list[tuple[int, str, str]]:
        """Files whose rows are gone and that may still be there: number of the note, name, SOP Instance UID."""
        with self.lock:
            return self._connections.writer.execute(Statements.select_deleted_files.text).fetchall()

    def last_note(self) -> int:
        """Number of the newest note."""
        with self.lock:
            return int(self._connections.writer.execute(Statements.select_last_deleted_file.text).fetchone()[0] or 0)

    def drop_notes(self, last: int, stuck: Sequence[tuple[str, str]] = ()) -> None:
        """Their files are gone for good, but for those that are ``stuck``: they are noted anew."""
        with self.lock, self._alone() as connection:
            connection.execute(Statements.delete_deleted_files.text, (last,))
            connection.executemany(Statements.insert_deleted_file.text, stuck)

    def totals(self) -> Totals:
        """Give the archive's totals."""
        with self.lock:
            self.catch_up()
            return Totals(*self._connections.writer.execute(Statements.select_totals.text).fetchone())

    # durability

    def sync(self) -> None:
        """Return when all rows committed before the call survive a power cut.

        Our own fdatasync of the log: a checkpoint syncs it only if no reader holds it back.

        Raises:
            OSError, IndexFailure: The index has failed.
            IndexFull: There is no room for rows that are late.
        """
        with self.lock:
            self._write_late()
        try:
            self._connections.log.sync()
        except OSError as error:
            self.fail(str(error))
            raise

    def checkpoint(self) -> bool:
        """Take the log into the index, synced; commits go on meanwhile.

        Returns:
            All rows committed before the call are in the index's file. False: a reader still needs an older state.

        Raises:
            IndexFailure, sqlite3.Error: The index has failed.
            IndexFull: There is no room for rows that are late.
        """
        with self.lock:
            self._write_late()
        return self._checkpoints.take()

    # private

    @contextmanager
    def _alone(self) -> Iterator[sqlite3.Connection]:
        """A transaction, the lock being held."""
        if self.failed:
            raise IndexFailure(f"index: {self.failed}")
        self._write_late()
        self._connections.writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._connections.writer
            self._connections.writer.execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            if _code(error) == sqlite3.SQLITE_IOERR:
                self.fail(str(error))
            raise

    def _roll_back(self) -> None:
        self._places.forget()
        self._connections.roll_back()


def _code(error: BaseException) -> int:
    """SQLite's primary result code; 0 if it is no error of SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
