"""What the outbox asks of the index: instances as they were stored, and where they are now.

A connection of its own that only reads; synchronous, for one thread at a time.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, Select, bindparam, func, select
from sqlalchemy.dialects import sqlite

from pacslite.archive.index.file import IndexFile
from pacslite.archive.index.schema import instance, patient, series, study
from pacslite.archive.keys import Key
from pacslite.archive.reference import InstanceRef

__all__ = ["IndexLookup", "StoredRow"]

_TABLES = (patient, study, series, instance)
_ROWS = 500  # a page
_JOINED = (
    instance.join(series, instance.c.series_fk == series.c.id)
    .join(study, series.c.study_fk == study.c.id)
    .join(patient, study.c.patient_fk == patient.c.id)
)


class StoredRow(NamedTuple):
    """An instance as rules see it; ``values`` of the keys asked for, in their normal form."""

    id: int
    sop_instance_uid: str
    digest: bytes
    source_ae_title: str | None
    received_at: int
    values: tuple[str | int | None, ...]


class IndexLookup:
    """Reads an index that exists."""

    def __init__(self, index: IndexFile) -> None:
        self._catch_up = index.catch_up
        self._connection = sqlite3.connect(index.path, isolation_level=None, check_same_thread=False, timeout=20)
        self._connection.execute("PRAGMA query_only=ON")
        self._connection.execute("PRAGMA cache_size=-1024")
        self._statements: dict[tuple[str, tuple[Key, ...]], str] = {}

    def close(self) -> None:
        self._connection.close()

    def newest(self) -> tuple[int, str] | None:
        """Row and SOP Instance UID of the last instance."""
        row = self._read("SELECT id, sop_instance_uid FROM instance ORDER BY id DESC LIMIT 1").fetchone()
        return None if row is None else (row[0], row[1])

    def position(self, sop_instance_uid: str) -> tuple[int, int] | None:
        """An instance's row, and when it was received."""
        sql = "SELECT id, received_at FROM instance WHERE sop_instance_uid = ?"
        row = self._read(sql, (sop_instance_uid,)).fetchone()
        return None if row is None else (row[0], row[1])

    def uid_at(self, row_id: int) -> str | None:
        row = self._read("SELECT sop_instance_uid FROM instance WHERE id = ?", (row_id,)).fetchone()
        return None if row is None else str(row[0])

    def named(self, sop_instance_uids: Sequence[str], keys: tuple[Key, ...]) -> list[StoredRow]:
        """Those of the instances that are there, in the order in which they were stored."""
        rows = self._read(self._statement("named", keys), (json.dumps(sop_instance_uids),))
        return [_stored(row) for row in rows]

    def after(self, row_id: int, keys: tuple[Key, ...]) -> list[StoredRow]:
        """A page of what was stored after a row."""
        return [_stored(row) for row in self._read(self._statement("after", keys), (row_id,))]

    def recent(self, row_id: int, up_to: int, since: int, keys: tuple[Key, ...]) -> list[StoredRow]:
        """What was received ``since``, of the rows after ``row_id``."""
        parameters = (row_id, up_to, since)
        return [_stored(row) for row in self._read(self._statement("recent", keys), parameters)]

    def references(self, sop_instance_uids: Iterable[str]) -> dict[str, InstanceRef]:
        """Where instances are, those that are there, by their UID."""
        rows = self._read(_REFERENCES, (json.dumps(list(sop_instance_uids)),))
        return {reference.sop_instance_uid: reference for reference in (InstanceRef(*row) for row in rows)}

    def _read(self, statement: str, parameters: Sequence[object] = ()) -> sqlite3.Cursor:
        self._catch_up()
        return self._connection.execute(statement, parameters)

    def _statement(self, kind: str, keys: tuple[Key, ...]) -> str:
        text = self._statements.get((kind, keys))
        if text is None:
            text = _compile(_select(kind, keys))
            if kind == "after":
                text += f" LIMIT {_ROWS}"
            self._statements[kind, keys] = text
        return text


def _compile(statement: Select[Any]) -> str:
    """Text for a prepared statement. SQLite joins in the order written where it says CROSS: from the instance up."""
    return str(statement.compile(dialect=sqlite.dialect(paramstyle="qmark"))).replace(" JOIN ", " CROSS JOIN ")


def _named() -> Select[tuple[object]]:
    values = func.json_each(bindparam("uids")).table_valued("value")
    return select(values.c.value)


def _select(kind: str, keys: Iterable[Key]) -> Select[tuple[object, ...]]:
    columns: Iterator[Column[object]] = (_TABLES[key.level].c[key.match] for key in keys)
    base = select(
        instance.c.id,
        instance.c.sop_instance_uid,
        instance.c.digest,
        instance.c.source_ae_title,
        instance.c.received_at,
        *columns,
    ).select_from(_JOINED)
    if kind == "named":
        return base.where(instance.c.sop_instance_uid.in_(_named())).order_by(instance.c.id)
    if kind == "after":
        return base.where(instance.c.id > bindparam("id")).order_by(instance.c.id)
    return base.where(
        instance.c.id > bindparam("id"),
        instance.c.id <= bindparam("up_to"),
        instance.c.received_at >= bindparam("since"),
    ).order_by(instance.c.id)


_OF_INSTANCE = {column.name: column for table in (study, series, instance) for column in table.columns}
_REFERENCES = _compile(
    select(*(_OF_INSTANCE[name] for name in InstanceRef._fields))
    .select_from(
        instance.join(series, instance.c.series_fk == series.c.id).join(study, series.c.study_fk == study.c.id)
    )
    .where(instance.c.sop_instance_uid.in_(_named()))
)


def _stored(row: Sequence[Any]) -> StoredRow:
    row_id, uid, digest, source, received_at, *values = row
    return StoredRow(row_id, uid, digest, source, received_at, tuple(values))
