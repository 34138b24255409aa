"""Where an instance belongs: its series is looked up or made, with its study and patient, and then remembered."""

import logging
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pacslite.archive.index.extra_values import ExtraValues
from pacslite.archive.index.failures import IndexFailure, PatientConflict
from pacslite.archive.index.removal import join_values
from pacslite.archive.index.statements import Statement, Statements
from pacslite.archive.keys import Level
from pacslite.archive.options import Conflict
from pacslite.archive.record import Record, SeriesKey, columns_of

__all__ = ["Counts", "Place", "Places", "Study", "add_sop_class"]

log = logging.getLogger("pacslite.archive")

_KNOWN_SERIES = 4096  # places remembered: 4 associations send from 4 series, 1,000 from 1,000
_PATIENT_COUNTS = ("number_of_studies", "number_of_series", "number_of_instances")
_STUDY_COUNTS = ("number_of_series", "number_of_instances")


@dataclass(slots=True)
class Study:
    """A study's row, and the sets that it keeps."""

    id: int
    patient_id: int
    modalities: set[str]
    sop_classes: set[str]


class Place(NamedTuple):
    """A series' row."""

    series_id: int
    study: Study


@dataclass(slots=True)
class Counts:
    """What a transaction adds to the totals, beside the instances: those a trigger counts."""

    patients: int = 0
    studies: int = 0
    series: int = 0
    instances: int = 0
    bytes: int = 0

    def __iter__(self) -> Iterator[int]:
        return iter((self.patients, self.studies, self.series, self.instances, self.bytes))


class Places:
    """The series that were seen lately. For who holds the writer's lock, in a transaction."""

    def __init__(self, patient_conflict: Conflict, extra_values: ExtraValues) -> None:
        self.known: dict[SeriesKey, Place] = {}
        self._studies: dict[int, Study] = {}
        self._patient_conflict = patient_conflict
        self._extra_values = extra_values

    def forget(self) -> None:
        """Rows may be gone: look them up again."""
        self.known.clear()
        self._studies.clear()

    def find(self, connection: sqlite3.Connection, record: Record, counts: Counts, *, is_kept: bool) -> Place:
        """Look the series up, or make it.

        Raises:
            PatientConflict: Its study is another patient's, and such are rejected; not if it ``is_kept`` already.
        """
        key = record.series_key
        upper = record.upper()
        remember = True
        found = connection.execute(Statements.select_study.text, (key.study_instance_uid,)).fetchone()
        if found is None:
            study = self._insert_study(connection, record, counts)
        else:
            study_id, patient_id, identity, modalities, sop_classes = found
            if identity != upper.identity:
                if self._patient_conflict == "reject":
                    if not is_kept:
                        raise PatientConflict("study is stored under another Patient ID", offending=(0x00100020,))
                    remember = False  # or the next of them would not be refused
                log.warning("study under another patient kept", extra={"study": key.study_instance_uid})
            study = self._studies.get(study_id) or Study(study_id, patient_id, _split(modalities), _split(sop_classes))
        self._studies[study.id] = study
        found = connection.execute(Statements.select_series.text, (study.id, key.series_instance_uid)).fetchone()
        series_id = self._insert_series(connection, record, study, counts) if found is None else found[0]
        if len(self.known) >= _KNOWN_SERIES:
            self.forget()
            self._studies[study.id] = study
        place = Place(series_id, study)
        if remember:
            self.known[key] = place
        return place

    def _insert_series(self, connection: sqlite3.Connection, record: Record, study: Study, counts: Counts) -> int:
        upper = record.upper()
        values = dict(zip(columns_of(Level.SERIES), upper.series, strict=True))
        values |= {"study_fk": study.id, "number_of_instances": 0}
        series_id = _insert(connection, Statements.insert_series, values)
        self._extra_values.insert(connection, Level.SERIES, series_id, record)
        connection.execute(Statements.add_to_study.text, (1, 0, study.id))
        connection.execute(Statements.add_to_patient.text, (0, 1, 0, study.patient_id))
        counts.series += 1
        if upper.modality and upper.modality not in study.modalities:
            study.modalities.add(upper.modality)
            _write_sets(connection, study)
        return series_id

    def _insert_study(self, connection: sqlite3.Connection, record: Record, counts: Counts) -> Study:
        upper = record.upper()
        found = connection.execute(Statements.select_patient.text, (upper.identity,)).fetchone()
        if found is not None:
            patient_id = found[0]
        else:
            values = dict(zip(columns_of(Level.PATIENT), upper.patient, strict=True))
            values |= {"identity": upper.identity, **dict.fromkeys(_PATIENT_COUNTS, 0)}
            patient_id = _insert(connection, Statements.insert_patient, values)
            self._extra_values.insert(connection, Level.PATIENT, patient_id, record)
            counts.patients += 1
        values = dict(zip(columns_of(Level.STUDY), upper.study, strict=True))
        values |= {"patient_fk": patient_id, "modalities": None, "sop_classes": None, **dict.fromkeys(_STUDY_COUNTS, 0)}
        study_id = _insert(connection, Statements.insert_study, values)
        self._extra_values.insert(connection, Level.STUDY, study_id, record)
        connection.execute(Statements.add_to_patient.text, (1, 0, 0, patient_id))
        counts.studies += 1
        return Study(study_id, patient_id, set(), set())


def add_sop_class(connection: sqlite3.Connection, study: Study, sop_class_uid: str) -> None:
    """Keep the study's SOP classes."""
    if sop_class_uid not in study.sop_classes:
        study.sop_classes.add(sop_class_uid)
        _write_sets(connection, study)


def _write_sets(connection: sqlite3.Connection, study: Study) -> None:
    connection.execute(
        Statements.set_study_sets.text, (join_values(study.modalities), join_values(study.sop_classes), study.id)
    )


def _insert(connection: sqlite3.Connection, statement: Statement, values: Mapping[str, object]) -> int:
    row_id = connection.execute(statement.text, statement.row(values)).lastrowid
    if row_id is None:
        raise IndexFailure("index gave no row id")
    return row_id


def _split(values: str | None) -> set[str]:
    return set(values.split("\\")) if values else set()
