"""Counts and sets of the index against the rows they stand for."""

import sqlite3
from itertools import groupby
from operator import itemgetter

from pacslite.archive.index.extra_values import forget_extra_values
from pacslite.archive.index.removal import sets_of
from pacslite.archive.index.statements import Statements
from pacslite.archive.index.writer import IndexWriter
from pacslite.archive.keys import Level

__all__ = ["correct_counts", "find_wrong_counts"]

# table, counter, and what it counts; a level after those that it counts
_COUNTS = (
    ("series", "number_of_instances", "SELECT count(*) FROM instance WHERE series_fk = series.id"),
    ("study", "number_of_series", "SELECT count(*) FROM series WHERE study_fk = study.id"),
    ("study", "number_of_instances", "SELECT total(number_of_instances) FROM series WHERE study_fk = study.id"),
    ("patient", "number_of_studies", "SELECT count(*) FROM study WHERE patient_fk = patient.id"),
    ("patient", "number_of_series", "SELECT total(number_of_series) FROM study WHERE patient_fk = patient.id"),
    ("patient", "number_of_instances", "SELECT total(number_of_instances) FROM study WHERE patient_fk = patient.id"),
    ("totals", "patients", "SELECT count(*) FROM patient"),
    ("totals", "studies", "SELECT count(*) FROM study"),
    ("totals", "series", "SELECT count(*) FROM series"),
    ("totals", "instances", "SELECT count(*) FROM instance"),
    ("totals", "bytes", "SELECT total(data_set_offset + data_set_length) FROM instance"),
)
_EMPTY = {
    "series": (Level.SERIES, "number_of_instances"),
    "study": (Level.STUDY, "number_of_series"),
    "patient": (Level.PATIENT, "number_of_studies"),
}
_FEW = 20  # named of each counter


def find_wrong_counts(index: IndexWriter, *, sets: bool) -> list[tuple[str, str]]:
    """Name the counters that are wrong, and say how; ``sets``: ModalitiesInStudy and SOPClassesInStudy too."""
    found: list[tuple[str, str]] = []
    with index.reading() as connection:
        connection.execute("BEGIN")  # one state for all: stores go on meanwhile
        try:
            for table, counter, right in _COUNTS:
                statement = f"SELECT id, {counter}, cast(({right}) AS INTEGER) AS counted FROM {table} WHERE {counter} <> counted LIMIT {_FEW}"  # noqa: S608, E501
                for row_id, stored, counted in connection.execute(statement):
                    found.append((f"{table} {row_id}", f"{counter} is {stored}, there are {counted}"))
            for table, (_, counter) in _EMPTY.items():
                for (row_id,) in connection.execute(f"SELECT id FROM {table} WHERE {counter} = 0 LIMIT {_FEW}"):  # noqa: S608
                    found.append((f"{table} {row_id}", "is empty"))
            if sets:
                found += _wrong_sets(connection)
        finally:
            connection.execute("ROLLBACK")
    return found


def correct_counts(index: IndexWriter) -> None:
    """Count all anew; a level is counted when what is empty below it is gone."""
    with index.transaction() as connection:
        for table, columns in groupby(_COUNTS, key=itemgetter(0)):
            for _, counter, right in columns:
                connection.execute(f"UPDATE {table} SET {counter} = cast(({right}) AS INTEGER)")  # noqa: S608
            if table in _EMPTY:
                _drop_empty(connection, table)
        for study_id, modalities, sop_classes in connection.execute(
            "SELECT id, modalities, sop_classes FROM study"
        ).fetchall():
            right_sets = sets_of(connection, study_id)
            if right_sets != (modalities, sop_classes):
                connection.execute(Statements.set_study_sets.text, (*right_sets, study_id))


def _drop_empty(connection: sqlite3.Connection, table: str) -> None:
    """Drop rows without anything below them, with their extra values: another row may get the id."""
    level, counter = _EMPTY[table]
    empty = [row_id for (row_id,) in connection.execute(f"SELECT id FROM {table} WHERE {counter} = 0")]  # noqa: S608
    connection.executemany(f"DELETE FROM {table} WHERE id = ?", [(row_id,) for row_id in empty])  # noqa: S608
    forget_extra_values(connection, {level: empty})


def _wrong_sets(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    found = []
    for study_id, *stored in connection.execute("SELECT id, modalities, sop_classes FROM study"):
        right = sets_of(connection, study_id)
        for name, is_, should in zip(("modalities", "sop_classes"), stored, right, strict=True):
            if is_ != should:
                found.append((f"study {study_id}", f"{name} is {is_}, should be {should}"))
    return found
