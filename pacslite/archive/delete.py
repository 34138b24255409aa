"""Removal of instances, series, studies and patients: rows and files together, whatever interrupts it.

One transaction removes the rows and notes the files; the index is synced; then the files go, and, once that is durable,
the notes. A start finishes what a crash left. A reader that has a file open reads on.
"""

import logging
import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import bindparam, literal_column, select

from pacslite.archive.index.schema import instance, patient, series, study
from pacslite.archive.index.statements import Statements, compile_statement
from pacslite.archive.index.writer import IndexWriter, join_values
from pacslite.archive.instances.layout import InstancePath, instance_path
from pacslite.archive.instances.protocol import InstanceStore
from pacslite.archive.keys import UNIQUE_KEY, Level
from pacslite.archive.settle import Settler, Unsettled

__all__ = ["Deleted", "Deleter", "finish_deletions"]

log = logging.getLogger("pacslite.archive")

_AT_ONCE = 256  # instances a transaction: stores wait a few milliseconds, no longer
_TABLES = (patient, study, series, instance)


class _Row(NamedTuple):
    id: int
    sop_instance_uid: str
    size: int
    series_id: int
    series_instance_uid: str
    study_id: int
    study_instance_uid: str
    patient_id: int

    @property
    def path(self) -> InstancePath:
        return instance_path(self.study_instance_uid, self.series_instance_uid, self.sop_instance_uid)


_SELECT = {
    level: compile_statement(
        select(
            instance.c.id,
            instance.c.sop_instance_uid,
            instance.c.data_set_offset + instance.c.data_set_length,
            series.c.id,
            series.c.series_instance_uid,
            study.c.id,
            study.c.study_instance_uid,
            study.c.patient_fk,
        )
        .join_from(instance, series, instance.c.series_fk == series.c.id)
        .join(study, series.c.study_fk == study.c.id)
        .join(patient, study.c.patient_fk == patient.c.id)
        .where(_TABLES[level].c[UNIQUE_KEY[level].column] == bindparam("uid"))
        .limit(bindparam("at_once"))
        .offset(literal_column("0"))
    )
    for level in Level
}


@dataclass(slots=True)
class Deleted:
    """What a deletion took."""

    instances: int = 0
    series: int = 0
    studies: int = 0
    patients: int = 0
    bytes: int = 0


class Deleter:
    """Deletes while the archive serves. Its method blocks: call it off the loop."""

    def __init__(self, store: InstanceStore, index: IndexWriter, settler: Settler) -> None:
        self._store = store
        self._index = index
        self._settler = settler

    def delete(self, level: Level, uid: str) -> Deleted:
        """Delete everything below a unique key; what is stored meanwhile stays or goes, whole."""
        deleted = Deleted()
        failed = False
        while True:
            with self._settler.lock:  # nothing is settled to a path between its note and its removal
                files = self._remove_rows(level, uid, deleted)
                for file in files:
                    failed = not self._unlink(*file) or failed
                if not files:
                    break
        if deleted.instances:
            with self._settler.lock:
                self._settler.drop_notes(failed=failed)
        return deleted

    def _remove_rows(self, level: Level, uid: str, deleted: Deleted) -> list[tuple[InstancePath, Unsettled | None]]:
        """Remove rows, note their files; both are durable when it returns the files."""
        with self._index.transaction() as connection:
            rows = [_Row(*row) for row in connection.execute(_SELECT[level].text, (uid, _AT_ONCE))]
            files = [(row.path, self._settler.locate(row.sop_instance_uid)) for row in rows]
            notes = [(f"instances/{row.path}", row.sop_instance_uid) for row in rows]
            notes += [(f"incoming/{file.name}", file.sop_instance_uid) for _, file in files if file is not None]
            connection.executemany(Statements.insert_deleted_file.text, notes)
            _remove(connection, rows, deleted)
        if rows:
            self._index.sync()
        return files

    def _unlink(self, path: InstancePath, unsettled: Unsettled | None) -> bool:
        try:
            if unsettled is not None:
                self._settler.forget(unsettled)
                self._store.remove_incoming(unsettled.name)
            self._store.remove_settled(path)
        except OSError as error:  # the row is gone and the note stays: the next start tries again
            log.error("delete", extra={"path": str(path), "error": str(error)})
            return False
        return True


def finish_deletions(store: InstanceStore, index: IndexWriter) -> int:
    """At a start: remove the files of deletions that were cut off. Before anything in ``incoming`` is looked at."""
    notes = index.notes()
    if not notes:
        return 0
    for _, name, sop_instance_uid in notes:
        directory, _, rest = name.partition("/")
        if directory == "incoming":
            store.remove_incoming(rest)
        elif index.look_up(sop_instance_uid) is None:  # else it was stored again since
            store.remove_settled(InstancePath(*rest.split("/")))
    store.sync_all()
    index.drop_notes(notes[-1][0])
    return len(notes)


def _remove(connection: sqlite3.Connection, rows: list[_Row], deleted: Deleted) -> None:
    """Delete rows and what they leave empty; keep counts and sets right."""
    execute = connection.execute
    connection.executemany(Statements.delete_instance.text, [(row.id,) for row in rows])
    places = Counter((row.series_id, row.study_id, row.patient_id) for row in rows)
    series_gone = studies_gone = patients_gone = 0
    for (series_id, study_id, patient_id), count in places.items():
        execute(Statements.add_to_series.text, (-count, series_id))
        gone = execute(Statements.delete_series.text, (series_id,)).rowcount
        execute(Statements.add_to_study.text, (-gone, -count, study_id))
        execute(Statements.add_to_patient.text, (0, -gone, -count, patient_id))
        series_gone += gone
    for study_id, patient_id in {(row.study_id, row.patient_id) for row in rows}:
        if execute(Statements.delete_study.text, (study_id,)).rowcount:
            studies_gone += 1
            execute(Statements.add_to_patient.text, (-1, 0, 0, patient_id))
            patients_gone += execute(Statements.delete_patient.text, (patient_id,)).rowcount
            continue
        modalities = [value for (value,) in execute(Statements.select_modalities.text, (study_id,))]
        sop_classes = [value for (value,) in execute(Statements.select_sop_classes.text, (study_id,))]
        execute(Statements.set_study_sets.text, (join_values(modalities), join_values(sop_classes), study_id))
    size = sum(row.size for row in rows)
    execute(Statements.add_to_totals.text, (-patients_gone, -studies_gone, -series_gone, -len(rows), -size, 1))
    deleted.instances += len(rows)
    deleted.series += series_gone
    deleted.studies += studies_gone
    deleted.patients += patients_gone
    deleted.bytes += size
