"""The writer's SQL, written with SQLAlchemy Core from the schema; ``statements.py`` holds its text for SQLite.

SQLAlchemy's import costs a third of the time in which ``serve`` has to answer, and its execution six times a prepared
sqlite3 statement. So the text is a module of its own: ``python -m pacslite.archive.index.definitions`` writes it anew
after a change of schema or keys, and a test holds the two equal.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import (
    BindParameter,
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

from pacslite.archive.index.schema import (
    deleted_file,
    extra_key,
    extra_value,
    instance,
    patient,
    series,
    study,
    totals,
)
from pacslite.archive.keys import UNIQUE_KEY, Level

__all__ = ["compiled", "module_text"]

_DIALECT = sqlite.dialect(paramstyle="qmark")
_NONE: ColumnElement[int] = literal_column("0")  # a plain 0 would become a parameter
_NEWEST = instance.alias("newest")
_TABLES = (patient, study, series, instance)


class Compiled(NamedTuple):
    """SQL text and the names of its positional parameters, in order."""

    text: str
    names: tuple[str, ...]


def compiled() -> dict[str, Compiled]:
    """All statements by name."""
    return {name: _compile(statement) for name, statement in _definitions().items()}


def module_text(statements: dict[str, Compiled]) -> str:
    """The body of ``Statements``, before ``ruff format``."""
    lines = []
    for name, (text, names) in statements.items():
        pieces = "\n".join(f"        {piece!r}" for piece in _pieces(text))
        lines.append(f"    {name} = Statement(\n{pieces},\n        {names!r},\n    )\n")
    return "".join(lines)


def _definitions() -> dict[str, ClauseElement]:
    of: BindParameter[int] = bindparam("of")
    return {
        "insert_patient": _insert(patient),
        "insert_study": _insert(study),
        "insert_series": _insert(series),
        "insert_instance": _insert(instance),
        "update_instance": update(instance)
        .where(instance.c.id == of)
        .values({column.name: bindparam(column.name) for column in instance.columns if column.name != "id"}),
        "renumber_instance": update(instance)
        .where(instance.c.sop_instance_uid == bindparam("sop_instance_uid"))
        .values(id=select(func.max(_NEWEST.c.id) + literal_column("1")).scalar_subquery()),
        "add_to_series": _add(series, "number_of_instances"),
        "add_to_study": _add(study, "number_of_series", "number_of_instances"),
        "add_to_patient": _add(patient, "number_of_studies", "number_of_series", "number_of_instances"),
        "add_to_totals": _add(totals, "patients", "studies", "series", "instances", "bytes"),
        "set_study_sets": update(study)
        .where(study.c.id == of)
        .values(modalities=bindparam("modalities"), sop_classes=bindparam("sop_classes")),
        "insert_totals": sqlite.insert(totals)
        .values({column.name: bindparam(column.name) for column in totals.columns})
        .on_conflict_do_nothing(),
        "select_patient": select(patient.c.id).where(patient.c.identity == bindparam("identity")),
        "select_study": select(
            study.c.id, study.c.patient_fk, patient.c.identity, study.c.modalities, study.c.sop_classes
        )
        .join_from(study, patient, study.c.patient_fk == patient.c.id)
        .where(study.c.study_instance_uid == bindparam("study_instance_uid")),
        "select_series": select(series.c.id).where(
            series.c.study_fk == bindparam("study_fk"),
            series.c.series_instance_uid == bindparam("series_instance_uid"),
        ),
        "select_totals": select(*[column for column in totals.columns if column.name != "id"]),
        "select_modalities": select(series.c.modality)
        .where(series.c.study_fk == of, series.c.modality.is_not(None))
        .distinct(),
        "select_sop_classes": select(instance.c.sop_class_uid)
        .join_from(instance, series, instance.c.series_fk == series.c.id)
        .where(series.c.study_fk == of)
        .distinct(),
        "select_sop_class": select(instance.c.sop_class_uid).where(instance.c.id == of),
        "select_instance": _rows().where(instance.c.sop_instance_uid == bindparam("sop_instance_uid")),
        "select_page": _first(_rows().where(instance.c.id > bindparam("after")).order_by(instance.c.id)),
        "select_newest": _first(_rows().order_by(instance.c.id.desc())),
        **{f"select_of_{level.name.lower()}": _rows_of(level) for level in Level},
        "delete_instance": delete(instance).where(instance.c.id == of),
        "delete_series": delete(series).where(series.c.id == of, series.c.number_of_instances == _NONE),
        "delete_study": delete(study).where(study.c.id == of, study.c.number_of_series == _NONE),
        "delete_patient": delete(patient).where(patient.c.id == of, patient.c.number_of_studies == _NONE),
        "insert_deleted_file": insert(deleted_file).values(
            name=bindparam("name"), sop_instance_uid=bindparam("sop_instance_uid")
        ),
        "select_deleted_files": select(
            deleted_file.c.id, deleted_file.c.name, deleted_file.c.sop_instance_uid
        ).order_by(deleted_file.c.id),
        "select_last_deleted_file": select(func.max(deleted_file.c.id)),
        "delete_deleted_files": delete(deleted_file).where(deleted_file.c.id <= bindparam("up_to")),
        "select_instance_id": select(instance.c.id).where(instance.c.sop_instance_uid == bindparam("sop_instance_uid")),
        "select_extra_keys": select(*extra_key.columns).order_by(extra_key.c.id),
        "insert_extra_key": _insert(extra_key),
        "set_extra_key": update(extra_key)
        .where(extra_key.c.id == of)
        .values(state=bindparam("state"), position=bindparam("position")),
        "delete_extra_key": delete(extra_key).where(extra_key.c.id == of),
        "insert_extra_value": insert(extra_value).values(
            {one.name: bindparam(one.name) for one in extra_value.columns}
        ),
        "select_extra_values": select(extra_value.c.place, extra_value.c.value, extra_value.c.form)
        .where(extra_value.c.key_id == of, extra_value.c.owner == bindparam("owner"))
        .order_by(extra_value.c.place),
        "delete_extra_values": delete(extra_value).where(
            extra_value.c.key_id == of, extra_value.c.owner == bindparam("owner")
        ),
        "select_extra_owners": select(extra_value.c.owner)
        .where(extra_value.c.key_id == of, extra_value.c.owner > bindparam("after"))
        .group_by(extra_value.c.owner)
        .order_by(extra_value.c.owner)
        .limit(bindparam("count"))
        .offset(_NONE),
        "delete_extra_values_up_to": delete(extra_value).where(
            extra_value.c.key_id == of, extra_value.c.owner <= bindparam("owner")
        ),
        **{f"select_last_{level.name.lower()}": select(func.max(_TABLES[level].c.id)) for level in Level},
        **{f"select_kept_of_{level.name.lower()}": _kept_page(level) for level in Level},
        **{f"select_first_below_{level.name.lower()}": _first_below(level) for level in Level},
        **{f"select_identity_of_{level.name.lower()}": _named(level) for level in Level},
    }


def _identity(level: Level) -> ColumnElement[str]:
    """What tells an entity from another that gets its id later."""
    return patient.c.identity if level is Level.PATIENT else _TABLES[level].c[UNIQUE_KEY[level].column]


def _kept_page(level: Level) -> ClauseElement:
    """Entities in the order of their ids, with what is kept of their headers."""
    table = _TABLES[level]
    digest = table.c.digest if level is Level.IMAGE else literal_column("x''")
    return (
        select(table.c.id, _identity(level), digest, table.c.attributes)
        .where(table.c.id > bindparam("after"), table.c.id <= bindparam("up_to"))
        .order_by(table.c.id)
        .limit(bindparam("count"))
        .offset(_NONE)
    )


def _first_below(level: Level) -> ClauseElement:
    """The instances below an entity, the first that came first: its values are theirs."""
    column = {Level.PATIENT: study.c.patient_fk, Level.STUDY: series.c.study_fk, Level.SERIES: series.c.id}
    return _first(_rows().where(column.get(level, instance.c.id) == bindparam("of")).order_by(instance.c.id))


def _named(level: Level) -> ClauseElement:
    """Is the entity still what it was when it was read?"""
    table = _TABLES[level]
    digest = table.c.digest if level is Level.IMAGE else literal_column("x''")
    return select(_identity(level), digest).where(table.c.id == bindparam("of"))


def _insert(table: Table) -> ClauseElement:
    names = [column.name for column in table.columns if column.name != "id"]
    return insert(table).values({name: bindparam(name) for name in names})


def _add(table: Table, *counts: str) -> ClauseElement:
    """Add to counters of one row; the parameters are the counters' names, then ``of``."""
    values = {name: table.c[name] + bindparam(name) for name in counts}
    return update(table).where(table.c.id == bindparam("of")).values(values)


def _rows() -> Select[*tuple[object, ...]]:
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


def _rows_of(level: Level) -> ClauseElement:
    """Rows below a unique key."""
    rows = _rows()
    if level is Level.PATIENT:
        rows = rows.join(patient, study.c.patient_fk == patient.c.id)
    return _first(rows.where(_TABLES[level].c[UNIQUE_KEY[level].column] == bindparam("uid")))


def _first(rows: Select[*tuple[object, ...]]) -> ClauseElement:
    return rows.limit(bindparam("count")).offset(_NONE)


def _compile(statement: ClauseElement) -> Compiled:
    text = statement.compile(dialect=_DIALECT)
    if not isinstance(text, SQLCompiler):
        raise TypeError(statement)
    return Compiled(re.sub(r"\s+", " ", str(text)), tuple(text.positiontup or ()))


def _pieces(text: str) -> Iterable[str]:
    return re.findall(r".{1,96}(?:\s+|$)", text)


def _write() -> None:
    path = Path(__file__).with_name("statements.py")
    head, mark, _ = path.read_text().partition("    # written by definitions.py\n")
    path.write_text(head + mark + module_text(compiled()))


if __name__ == "__main__":
    _write()
