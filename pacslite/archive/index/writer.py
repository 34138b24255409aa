"""The one writer of the index: group commits on a SQLite connection of its own.

A commit is not synced (WAL, synchronous=NORMAL): the synced file in ``incoming/`` is the journal of its row, and is
settled only after ``sync()``. Checkpoints happen when ``checkpoint()`` is called, never inside a commit. Callable from
any thread; one lock orders all.
"""

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pacslite.archive.index.removal import InstanceRow, join_values, remove_rows
from pacslite.archive.index.statements import Statement, Statements
from pacslite.archive.keys import Level
from pacslite.archive.options import StorageOptions
from pacslite.archive.record import Record, SeriesKey, columns_of
from pacslite.errors import DimseError

__all__ = [
    "Entry",
    "IndexFailure",
    "IndexFull",
    "IndexWriter",
    "InstanceRow",
    "PatientConflict",
    "Totals",
    "join_values",
]

log = logging.getLogger("pacslite.archive")

_PAGE = 4096
_ROWS_AT_ONCE = 64
# Of the writer's connection only: a transaction of one statement keeps the counts too.
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
_KNOWN_SERIES = 4096  # places remembered: 4 associations send from 4 series, 1,000 from 1,000


class IndexFailure(DimseError):
    """The index did not take the row."""


class IndexFull(DimseError):
    """No room for the row: refused, PS3.4 §B.2.3."""

    status = 0xA700


class PatientConflict(DimseError):
    """The study belongs to another patient, and [storage] patient_conflict says reject."""

    status = 0xC001  # cannot understand: PS3.4 §B.2.3 leaves Cxxx to us


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


@dataclass(slots=True)
class _Study:
    id: int
    patient_id: int
    modalities: set[str]
    sop_classes: set[str]


class _Place(NamedTuple):
    series_id: int
    study: _Study


@dataclass(slots=True)
class _Counts:
    """What a transaction adds to the totals, beside the instances: those the trigger counts."""

    patients: int = 0
    studies: int = 0
    series: int = 0
    instances: int = 0
    bytes: int = 0

    def __iter__(self) -> Iterator[int]:
        return iter((self.patients, self.studies, self.series, self.instances, self.bytes))


_Row = tuple[object, ...]


class IndexWriter:
    """Writes rows, keeps counts and sets, remembers the series it has seen."""

    def __init__(self, path: Path, options: StorageOptions) -> None:
        self.lock = threading.RLock()
        self._path = path
        self._options = options
        self._places: dict[SeriesKey, _Place] = {}
        self._studies: dict[int, _Study] = {}
        self.failed = ""  # why nothing can be written
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._opened = 0  # times; the connection of a reader is as old as its number
        self._uncheckpointed = 0  # rows since the last checkpoint
        self._connection = self._open()
        self._wal = self._open_wal()
        self._checkpointer = self._connect()

    # opening

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, cached_statements=128, timeout=30
        )
        synchronous = "OFF" if self._options.durability == "none" else "NORMAL"
        for pragma in (
            "journal_mode=WAL",
            f"synchronous={synchronous}",
            "wal_autocheckpoint=0",
            "foreign_keys=OFF",  # the writer keeps them; a check a row would be a lookup a row
            f"cache_size=-{self._options.index_cache_bytes >> 10}",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _connect_to_write(self) -> sqlite3.Connection:
        connection = self._connect()
        connection.execute(_COUNT_STORED)
        return connection

    def _open(self) -> sqlite3.Connection:
        connection = self._connect_to_write()
        # writes, whatever was there: the log's file must exist to be synced
        connection.execute(Statements.insert_totals.text, (1, 0, 0, 0, 0, 0))
        connection.execute(Statements.add_to_totals.text, (0, 0, 0, 0, 0, 1))
        return connection

    def _open_wal(self) -> int:
        # No lock of SQLite's is on this file, so closing a descriptor of ours takes none away.
        return os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Take the log into the index and close it. No other thread may be in a call."""
        with self.lock:
            for reader in self._readers:
                reader.close()
            self._checkpointer.close()
            try:
                if not self.failed:
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error as error:  # the log stays: it is read at the next start
                log.warning("index log kept", extra={"error": str(error)})
            finally:
                os.close(self._wal)
                self._connection.close()

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
            os.close(self._wal)
            self._checkpointer.close()
            self._connection.close()
            self._opened += 1
            self._connection = self._open()
            self._wal = self._open_wal()
            self._checkpointer = self._connect()
            self.failed = ""

    def cleanse(self) -> None:
        """Write the whole log into the index, sync that, and empty the log: nothing that failed is built upon."""
        with self.lock:
            busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                log.warning("index log kept", extra={"reason": "readers"})

    # storing

    def commit(self, entries: Sequence[Entry]) -> list[DimseError | None]:
        """Index a group in one transaction; what one of them does wrong is told to that one alone."""
        if len(entries) > 1 and any(entry.relocates for entry in entries):
            return [outcome for entry in entries for outcome in self.commit([entry])]
        with self.lock:
            try:
                if self.failed:
                    return [IndexFailure(f"index: {self.failed}")] * len(entries)
                return self._commit(entries)
            except sqlite3.Error as error:
                self._roll_back()
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code == sqlite3.SQLITE_FULL:
                    return [IndexFull("index: disk is full")] * len(entries)
                if code == sqlite3.SQLITE_IOERR:
                    self.fail(str(error))
                    return [IndexFailure(f"index: {error}")] * len(entries)
                if len(entries) == 1:
                    log.error("index", extra={"error": str(error)})
                    return [IndexFailure(f"index: {error}")]
            except BaseException:
                self._roll_back()
                raise
        return [outcome for entry in entries for outcome in self.commit([entry])]

    def _commit(self, entries: Sequence[Entry]) -> list[DimseError | None]:
        if (plain := self._plain_rows(entries)) is not None:
            self._insert_instances(plain)
            self._uncheckpointed += len(plain)
            return [None] * len(plain)
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        counts = _Counts()
        rows: list[_Row] = []
        outcomes: list[DimseError | None] = []
        for entry in entries:
            record = entry.record
            if entry.relocates:
                self._remove_elsewhere(record.sop_instance_uid)
            try:
                place = self._places.get(record.series_key) or self._find_place(record, counts)
            except DimseError as refusal:
                outcomes.append(refusal)
                continue
            outcomes.append(None)
            if record.sop_class_uid not in place.study.sop_classes:
                place.study.sop_classes.add(record.sop_class_uid)
                self._write_sets(place.study)
            row = _instance_row(record, place)
            for name in entry.unlink:
                execute(Statements.insert_deleted_file.text, (name, record.sop_instance_uid))
            if entry.replaces and self._replace(record, place, row, counts):
                continue
            rows.append(row)
        if rows:
            self._insert_instances(rows)
        if any(counts):
            execute(Statements.add_to_totals.text, (*counts, 1))
        execute("COMMIT")
        self._uncheckpointed += len(rows)
        return outcomes

    def _plain_rows(self, entries: Sequence[Entry]) -> list[_Row] | None:
        """Rows of a group in which all is known but the instances themselves; None if there is more to do."""
        rows: list[_Row] = []
        for entry in entries:
            record = entry.record
            place = self._places.get(record.series_key)
            if place is None or record.sop_class_uid not in place.study.sop_classes or entry.replaces or entry.unlink:
                return None
            rows.append(_instance_row(record, place))
        return rows

    def _insert_instances(self, rows: Sequence[_Row]) -> None:
        """One statement, a transaction by itself if none is open: the interpreter lock is given up once, not per row.

        Counts are kept by the connection's trigger.
        """
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            self._connection.execute(_insert_text(len(some)), [value for row in some for value in row])

    def _find_place(self, record: Record, counts: _Counts) -> _Place:
        """Look the series up, or make it, with its study and patient."""
        execute = self._connection.execute
        key = record.series_key
        upper = record.upper()
        found = execute(Statements.select_study.text, (key.study_instance_uid,)).fetchone()
        if found is None:
            study = self._insert_study(record, counts)
        else:
            study_id, patient_id, identity, modalities, sop_classes = found
            if identity != upper.identity:
                if self._options.patient_conflict == "reject":
                    raise PatientConflict("study is stored under another Patient ID", offending=(0x00100020,))
                log.warning("study under another patient kept", extra={"study": key.study_instance_uid})
            study = self._studies.get(study_id) or _Study(study_id, patient_id, _split(modalities), _split(sop_classes))
        self._studies[study.id] = study
        found = execute(Statements.select_series.text, (study.id, key.series_instance_uid)).fetchone()
        if found is not None:
            series_id = found[0]
        else:
            values = dict(zip(columns_of(Level.SERIES), upper.series, strict=True))
            series_id = self._insert(
                Statements.insert_series, values | {"study_fk": study.id, "number_of_instances": 0}
            )
            execute(Statements.add_to_study.text, (1, 0, study.id))
            execute(Statements.add_to_patient.text, (0, 1, 0, study.patient_id))
            counts.series += 1
            if upper.modality and upper.modality not in study.modalities:
                study.modalities.add(upper.modality)
                self._write_sets(study)
        if len(self._places) >= _KNOWN_SERIES:
            self._forget()
            self._studies[study.id] = study
        place = self._places[key] = _Place(series_id, study)
        return place

    def _insert_study(self, record: Record, counts: _Counts) -> _Study:
        execute = self._connection.execute
        upper = record.upper()
        found = execute(Statements.select_patient.text, (upper.identity,)).fetchone()
        if found is not None:
            patient_id = found[0]
        else:
            values = dict(zip(columns_of(Level.PATIENT), upper.patient, strict=True))
            values |= {"identity": upper.identity, **dict.fromkeys(_PATIENT_COUNTS, 0)}
            patient_id = self._insert(Statements.insert_patient, values)
            counts.patients += 1
        values = dict(zip(columns_of(Level.STUDY), upper.study, strict=True))
        values |= {"patient_fk": patient_id, "modalities": None, "sop_classes": None, **dict.fromkeys(_STUDY_COUNTS, 0)}
        study_id = self._insert(Statements.insert_study, values)
        execute(Statements.add_to_patient.text, (1, 0, 0, patient_id))
        counts.studies += 1
        return _Study(study_id, patient_id, set(), set())

    def _replace(self, record: Record, place: _Place, row: _Row, counts: _Counts) -> bool:
        """Put ``row`` in the place of the one with its UID; False if there is none (deleted meanwhile)."""
        known = _find(self._connection, record.sop_instance_uid)
        if known is None or known.series_id != place.series_id:
            return False
        self._connection.execute(Statements.update_instance.text, (*row, known.id))
        counts.bytes += record.data_set_offset + record.data_set_length - known.size
        return True

    def _remove_elsewhere(self, sop_instance_uid: str) -> None:
        """Remove the row of an instance that comes back in another series. Alone in its transaction: places change."""
        known = _find(self._connection, sop_instance_uid)
        if known is not None:
            self._connection.execute(
                Statements.insert_deleted_file.text, (f"instances/{known.path}", known.sop_instance_uid)
            )
            remove_rows(self._connection, [known])
            self._forget()

    def _write_sets(self, study: _Study) -> None:
        self._connection.execute(
            Statements.set_study_sets.text, (join_values(study.modalities), join_values(study.sop_classes), study.id)
        )

    def _insert(self, statement: Statement, values: Mapping[str, object]) -> int:
        row_id = self._connection.execute(statement.text, statement.row(values)).lastrowid
        if row_id is None:
            raise IndexFailure("index gave no row id")
        return row_id

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write otherwise, alone; what is remembered of the rows is forgotten."""
        with self.lock:
            self._forget()
            with self._alone() as connection:
                yield connection
            self._uncheckpointed += 1

    # asking

    def open_reader(self) -> None:
        """Open the calling thread's connection now, not with its first question."""
        self.look_up("")

    def look_up(self, sop_instance_uid: str) -> InstanceRow | None:
        """Find an instance by its UID, on a connection of the calling thread's own: it does not wait for a commit."""
        return _find(self._reader(), sop_instance_uid)

    def current(self, sop_instance_uid: str) -> InstanceRow | None:
        """Find an instance by its UID, whatever is being written; for rare questions from any thread."""
        with self.lock:
            return _find(self._connection, sop_instance_uid)

    def look_up_all(self, sop_instance_uids: Sequence[str]) -> dict[str, InstanceRow | None]:
        """The same for several: mostly none of them is there, and one question says so."""
        found: dict[str, InstanceRow | None] = dict.fromkeys(sop_instance_uids)
        text = _are_there_text(len(sop_instance_uids))
        for (uid,) in self._reader().execute(text, sop_instance_uids).fetchall():
            found[uid] = self.look_up(uid)
        return found

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for long reading."""
        connection = self._connect()
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
            return self._connection.execute(Statements.select_deleted_files.text).fetchall()

    def last_note(self) -> int:
        """Number of the newest note."""
        with self.lock:
            return int(self._connection.execute(Statements.select_last_deleted_file.text).fetchone()[0] or 0)

    def drop_notes(self, last: int) -> None:
        """Their files are gone for good."""
        with self.lock, self._alone() as connection:
            connection.execute(Statements.delete_deleted_files.text, (last,))

    def totals(self) -> Totals:
        """Give the archive's totals."""
        with self.lock:
            return Totals(*self._connection.execute(Statements.select_totals.text).fetchone())

    # durability

    def sync(self) -> None:
        """Return when all rows committed before the call survive a power cut.

        Our own fdatasync of the log: a checkpoint syncs it only if no reader holds it back.
        """
        os.fdatasync(self._wal)

    def checkpoint(self) -> bool:
        """Take the log into the index, synced; commits go on meanwhile.

        Returns:
            All rows committed before the call are in the index's file. False: a reader still needs an older state.
        """
        with self.lock:
            rows, self._uncheckpointed = self._uncheckpointed, 0
        if not rows:
            return True
        _, frames, taken = self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        complete = frames == taken
        with self.lock:
            if not complete:
                self._uncheckpointed += rows
            elif not self._uncheckpointed or frames * _PAGE > self._options.checkpoint_bytes:
                self._restart_log()
        return bool(complete)

    def _restart_log(self) -> None:
        """Let the log begin anew. Whoever writes first then syncs its header: here, and not in a commit."""
        _, frames, taken = self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if frames == taken:
            self._checkpointer.execute(Statements.add_to_totals.text, (0, 0, 0, 0, 0, 1))

    # private

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None and self._local.opened == self._opened:
            return connection
        with self.lock:
            if connection is not None:
                self._readers.remove(connection)
                connection.close()  # its own thread does it: it may be in use until now
            connection = self._connect()
            self._local.connection, self._local.opened = connection, self._opened
            self._readers.append(connection)
        return connection

    @contextmanager
    def _alone(self) -> Iterator[sqlite3.Connection]:
        """A transaction, the lock being held."""
        if self.failed:
            raise IndexFailure(f"index: {self.failed}")
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        self._forget()
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):  # after an I/O error SQLite has rolled back by itself
                self._connection.execute("ROLLBACK")

    def _forget(self) -> None:
        self._places.clear()
        self._studies.clear()


def _instance_row(record: Record, place: _Place) -> _Row:
    return (
        place.series_id,
        *record.image,
        record.transfer_syntax_uid,
        record.data_set_offset,
        record.data_set_length,
        record.digest,
        record.source_ae_title,
        record.received_at,
        record.attributes,
    )


@cache
def _insert_text(rows: int) -> str:
    insert, values, marks = Statements.insert_instance.text.partition(" VALUES ")
    return insert + values + ", ".join([marks] * rows)


@cache
def _are_there_text(uids: int) -> str:
    return f"SELECT sop_instance_uid FROM instance WHERE sop_instance_uid IN ({', '.join('?' * uids)})"  # noqa: S608


def _find(connection: sqlite3.Connection, sop_instance_uid: str) -> InstanceRow | None:
    found = connection.execute(Statements.select_instance.text, (sop_instance_uid,)).fetchone()
    return None if found is None else InstanceRow(*found)


_FILE = ("transfer_syntax_uid", "data_set_offset", "data_set_length", "digest", "source_ae_title", "received_at")
if Statements.insert_instance.names != ("series_fk", *columns_of(Level.IMAGE), *_FILE, "attributes"):
    raise AssertionError("statements.py is older than keys.py: run python -m pacslite.archive.index.definitions")

_PATIENT_COUNTS = ("number_of_studies", "number_of_series", "number_of_instances")
_STUDY_COUNTS = ("number_of_series", "number_of_instances")


def _split(values: str | None) -> set[str]:
    return set(values.split("\\")) if values else set()
