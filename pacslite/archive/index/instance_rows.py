"""Rows of instances: made, inserted, found."""

import sqlite3
from collections.abc import Sequence
from functools import cache

from pacslite.archive.index.placing import Place
from pacslite.archive.index.removal import InstanceRow
from pacslite.archive.index.statements import Statements
from pacslite.archive.keys import Level
from pacslite.archive.record import Record, columns_of

__all__ = ["ROWS_AT_ONCE", "Row", "find_instance", "insert_instances", "instance_row", "those_there"]

Row = tuple[object, ...]

ROWS_AT_ONCE = 64  # of one statement


def instance_row(record: Record, place: Place) -> Row:
    """Make the row of an instance in a series that has one."""
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


def insert_instances(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """One statement, a transaction by itself if none is open: the interpreter lock is given up once, not per row.

    Counts are kept by the connection's trigger.
    """
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        connection.execute(_insert_text(len(some)), [value for row in some for value in row])


def find_instance(connection: sqlite3.Connection, sop_instance_uid: str) -> InstanceRow | None:
    """Give an instance's row."""
    found = connection.execute(Statements.select_instance.text, (sop_instance_uid,)).fetchone()
    return None if found is None else InstanceRow(*found)


def those_there(connection: sqlite3.Connection, sop_instance_uids: Sequence[str]) -> list[str]:
    """Those of the UIDs that have rows: mostly none, and one question says so."""
    found = connection.execute(_are_there_text(len(sop_instance_uids)), sop_instance_uids).fetchall()
    return [uid for (uid,) in found]


@cache
def _insert_text(rows: int) -> str:
    insert, values, marks = Statements.insert_instance.text.partition(" VALUES ")
    return insert + values + ", ".join([marks] * rows)


@cache
def _are_there_text(uids: int) -> str:
    return f"SELECT sop_instance_uid FROM instance WHERE sop_instance_uid IN ({', '.join('?' * uids)})"  # noqa: S608


_FILE = ("transfer_syntax_uid", "data_set_offset", "data_set_length", "digest", "source_ae_title", "received_at")
if Statements.insert_instance.names != ("series_fk", *columns_of(Level.IMAGE), *_FILE, "attributes"):
    raise AssertionError("statements.py is older than keys.py: run python -m pacslite.archive.index.definitions")
