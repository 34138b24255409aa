"""Removal of instance rows, with what they leave empty; counts and sets stay right."""

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from pacslite.archive.index.extra_values import forget_extra_values
from pacslite.archive.index.statements import Statements
from pacslite.archive.instances.layout import InstancePath, instance_path
from pacslite.archive.keys import Level

__all__ = ["InstanceRow", "Removed", "join_values", "pages_of_rows", "remove_dangling", "remove_rows", "sets_of"]


class InstanceRow(NamedTuple):
    """An instance and where it belongs."""

    id: int
    sop_instance_uid: str
    size: int  # of the file
    series_id: int
    series_instance_uid: str
    study_id: int
    study_instance_uid: str
    patient_id: int
    digest: bytes

    @property
    def path(self) -> InstancePath:
        """Where its file belongs."""
        return instance_path(self.study_instance_uid, self.series_instance_uid, self.sop_instance_uid)


def pages_of_rows(connection: sqlite3.Connection, size: int) -> Iterator[list[InstanceRow]]:
    """All instances, the longest there first, ``size`` rows at a time."""
    last = 0
    while rows := [InstanceRow(*row) for row in connection.execute(Statements.select_page.text, (last, size))]:
        last = rows[-1].id
        yield rows


class Removed(NamedTuple):
    """Rows that are gone, and the bytes of their files."""

    instances: int
    series: int
    studies: int
    patients: int
    bytes: int


def join_values(values: Iterable[str]) -> str | None:
    """A set of values as its column has it: ascending, None if there are none."""
    return "\\".join(sorted(values)) or None


def sets_of(connection: sqlite3.Connection, study_id: int) -> tuple[str | None, str | None]:
    """ModalitiesInStudy and SOPClassesInStudy as the rows below a study have them, for its columns."""
    modalities = connection.execute(Statements.select_modalities.text, (study_id,))
    sop_classes = connection.execute(Statements.select_sop_classes.text, (study_id,))
    return join_values(value for (value,) in modalities), join_values(value for (value,) in sop_classes)


def remove_rows(connection: sqlite3.Connection, rows: Collection[InstanceRow]) -> Removed:
    """Delete rows, in the caller's transaction."""
    execute = connection.execute
    connection.executemany(Statements.delete_instance.text, [(row.id,) for row in rows])
    series_gone: list[int] = []
    studies_gone: list[int] = []
    patients_gone: list[int] = []
    places = Counter((row.series_id, row.study_id, row.patient_id) for row in rows)
    for (series_id, study_id, patient_id), count in places.items():
        execute(Statements.add_to_series.text, (-count, series_id))
        gone = execute(Statements.delete_series.text, (series_id,)).rowcount
        execute(Statements.add_to_study.text, (-gone, -count, study_id))
        execute(Statements.add_to_patient.text, (0, -gone, -count, patient_id))
        if gone:
            series_gone.append(series_id)
    for study_id, patient_id in {(row.study_id, row.patient_id) for row in rows}:
        if execute(Statements.delete_study.text, (study_id,)).rowcount:
            studies_gone.append(study_id)
            execute(Statements.add_to_patient.text, (-1, 0, 0, patient_id))
            if execute(Statements.delete_patient.text, (patient_id,)).rowcount:
                patients_gone.append(patient_id)
            continue
        execute(Statements.set_study_sets.text, (*sets_of(connection, study_id), study_id))
    forget_extra_values(
        connection,
        {
            Level.PATIENT: patients_gone,
            Level.STUDY: studies_gone,
            Level.SERIES: series_gone,
            Level.IMAGE: [row.id for row in rows],
        },
    )
    size = sum(row.size for row in rows)
    removed = Removed(len(rows), len(series_gone), len(studies_gone), len(patients_gone), size)
    totals = (-removed.patients, -removed.studies, -removed.series, -removed.instances, -size, 1)
    execute(Statements.add_to_totals.text, totals)
    return removed


def remove_dangling(connection: sqlite3.Connection, sop_instance_uid: str) -> bool:
    """Delete the row of an instance whose series or study has none: nobody finds it, and it keeps its UID from others.

    What is above it cannot be counted; ``check`` does. False if there is no such row.
    """
    execute = connection.execute
    found = execute(
        "SELECT id, series_fk, data_set_offset + data_set_length FROM instance WHERE sop_instance_uid = ?",
        (sop_instance_uid,),
    ).fetchone()
    if found is None or execute(Statements.select_instance.text, (sop_instance_uid,)).fetchone() is not None:
        return False
    instance_id, series_id, size = found
    execute(Statements.delete_instance.text, (instance_id,))
    execute(Statements.add_to_series.text, (-1, series_id))
    gone = execute(Statements.delete_series.text, (series_id,)).rowcount
    forget_extra_values(connection, {Level.SERIES: [series_id] * gone, Level.IMAGE: [instance_id]})
    execute(Statements.add_to_totals.text, (0, 0, -gone, -1, -size, 1))
    return True
