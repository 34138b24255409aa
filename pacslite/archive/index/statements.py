"""The writer's SQL: built with SQLAlchemy Core from the schema, compiled to text once, run on the DBAPI connection.

An INSERT through a prepared sqlite3 statement costs a sixth of the same through SQLAlchemy's execution.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Select,
    Table,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.compiler import SQLCompiler

from pacslite.archive.index.schema import deleted_file, instance, patient, series, study, totals
from pacslite.archive.keys import Level
from pacslite.archive.record import columns_of

__all__ = ["Statement", "Statements", "compile_statement", "select_instance_rows"]


class Statement(NamedTuple):
    """SQL text and the names of its positional parameters, in order."""

    text: str
    names: tuple[str, ...]

    def row(self, values: Mapping[str, object]) -> tuple[object, ...]:
        """The parameters as the text wants them."""
        return tuple(values[name] for name in self.names)


_NONE: ColumnElement[int] = literal_column("0")  # a plain 0 would become a parameter
_DIALECT = sqlite.dialect(paramstyle="qmark")


def compile_statement(statement: ClauseElement) -> Statement:
    """Compile for SQLite, parameters by position."""
    compiled = statement.compile(dialect=_DIALECT)
    if not isinstance(compiled, SQLCompiler):
        raise TypeError(statement)
    return Statement(str(compiled), tuple(compiled.positiontup or ()))


def _insert(table: Table) -> Statement:
    names = [column.name for column in table.columns if column.name != "id"]
    return compile_statement(insert(table).values({name: bindparam(name) for name in names}))


def _add(table: Table, *counts: str) -> Statement:
    """Add to counters of one row; the parameters are the counters' names, then ``of``."""
    values = {name: table.c[name] + bindparam(name) for name in counts}
    return compile_statement(update(table).where(table.c.id == bindparam("of")).values(values))


_IMAGE = columns_of(Level.IMAGE)
_FILE = ("transfer_syntax_uid", "data_set_offset", "data_set_length", "digest", "source_ae_title", "received_at")
_INSTANCE_ROW = ("series_fk", *_IMAGE, *_FILE, "attributes")


def select_instance_rows() -> Select[*tuple[object, ...]]:
    """Columns of ``InstanceRow``."""
    return (
        select(
            instance.c.id,
            instance.c.sop_instance_uid,
            instance.c.data_set_offset + instance.c.data_set_length,
            series.c.id,
            series.c.series_instance_uid,
            study.c.id,
            study.c.study_instance_uid,
            study.c.patient_fk,
            instance.c.digest,
        )
        .join_from(instance, series, instance.c.series_fk == series.c.id)
        .join(study, series.c.study_fk == study.c.id)
    )


class Statements:
    """All of them; constants of the class, compiled when the module is imported."""

    insert_patient = _insert(patient)
    insert_study = _insert(study)
    insert_series = _insert(series)
    insert_instance = _insert(instance)
    update_instance = compile_statement(
        update(instance)
        .where(instance.c.id == bindparam("of"))
        .values({name: bindparam(name) for name in _INSTANCE_ROW})
    )
    select_patient = compile_statement(select(patient.c.id).where(patient.c.identity == bindparam("identity")))
    select_study = compile_statement(
        select(study.c.id, study.c.patient_fk, patient.c.identity, study.c.modalities, study.c.sop_classes)
        .join_from(study, patient, study.c.patient_fk == patient.c.id)
        .where(study.c.study_instance_uid == bindparam("study_instance_uid"))
    )
    select_series = compile_statement(
        select(series.c.id).where(
            series.c.study_fk == bindparam("study_fk"),
            series.c.series_instance_uid == bindparam("series_instance_uid"),
        )
    )
    select_instance = compile_statement(
        select_instance_rows().where(instance.c.sop_instance_uid == bindparam("sop_instance_uid"))
    )
    set_study_sets = compile_statement(
        update(study)
        .where(study.c.id == bindparam("of"))
        .values(modalities=bindparam("modalities"), sop_classes=bindparam("sop_classes"))
    )
    add_to_series = _add(series, "number_of_instances")
    add_to_study = _add(study, "number_of_series", "number_of_instances")
    add_to_patient = _add(patient, "number_of_studies", "number_of_series", "number_of_instances")
    add_to_totals = _add(totals, "patients", "studies", "series", "instances", "bytes")
    insert_totals = compile_statement(
        sqlite.insert(totals).values({c.name: bindparam(c.name) for c in totals.columns}).on_conflict_do_nothing()
    )
    select_totals = compile_statement(select(*[column for column in totals.columns if column.name != "id"]))
    insert_deleted_file = compile_statement(
        insert(deleted_file).values(name=bindparam("name"), sop_instance_uid=bindparam("sop_instance_uid"))
    )
    select_deleted_files = compile_statement(
        select(deleted_file.c.id, deleted_file.c.name, deleted_file.c.sop_instance_uid).order_by(deleted_file.c.id)
    )
    select_last_deleted_file = compile_statement(select(func.max(deleted_file.c.id)))
    delete_instance = compile_statement(delete(instance).where(instance.c.id == bindparam("of")))
    delete_series = compile_statement(
        delete(series).where(series.c.id == bindparam("of"), series.c.number_of_instances == _NONE)
    )
    delete_study = compile_statement(
        delete(study).where(study.c.id == bindparam("of"), study.c.number_of_series == _NONE)
    )
    delete_patient = compile_statement(
        delete(patient).where(patient.c.id == bindparam("of"), patient.c.number_of_studies == _NONE)
    )
    select_modalities = compile_statement(
        select(series.c.modality).where(series.c.study_fk == bindparam("of"), series.c.modality.is_not(None)).distinct()
    )
    select_sop_classes = compile_statement(
        select(instance.c.sop_class_uid)
        .join_from(instance, series, instance.c.series_fk == series.c.id)
        .where(series.c.study_fk == bindparam("of"))
        .distinct()
    )
    delete_deleted_files = compile_statement(delete(deleted_file).where(deleted_file.c.id <= bindparam("up_to")))


if Statements.insert_instance.names != _INSTANCE_ROW:
    raise AssertionError(f"columns of instance: {Statements.insert_instance.names}")
