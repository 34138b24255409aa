"""Extra keys and their values as the writer keeps them; all in the caller's transaction.

What is stored while a key is there gets its values with its row: of a patient, study or series when it is made, as all
its columns are. What was there before gets them in the background (archive/extending.py).
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pacslite.archive.extra import ExtraKey, ExtraRow, extra_rows
from pacslite.archive.index.statements import Statement, Statements
from pacslite.archive.keys import Level
from pacslite.archive.record import Record

__all__ = [
    "BUILDING",
    "COMPLETE",
    "DROPPED",
    "LAST",
    "ExtraState",
    "ExtraValues",
    "configure_extra_keys",
    "extra_states",
    "forget_extra_values",
    "replace_values",
]

BUILDING = "building"
COMPLETE = "complete"
DROPPED = "dropped"  # no key any more, its values are still to be removed

LAST: Mapping[Level, Statement] = {
    Level.PATIENT: Statements.select_last_patient,
    Level.STUDY: Statements.select_last_study,
    Level.SERIES: Statements.select_last_series,
    Level.IMAGE: Statements.select_last_image,
}


class ExtraState(NamedTuple):
    """A key in the index; of its level's entities up to id ``up_to``, those up to ``position`` have their values."""

    key: ExtraKey
    state: str
    position: int
    up_to: int


class ExtraValues:
    """The keys whose values new rows get."""

    def __init__(self) -> None:
        self._keys: Mapping[Level, Sequence[ExtraKey]] = dict.fromkeys(Level, ())

    def load(self, connection: sqlite3.Connection) -> None:
        """Read what is a key now."""
        keys = [one.key for one in extra_states(connection) if one.state != DROPPED]
        self._keys = {level: tuple(key for key in keys if key.level is level) for level in Level}

    @property
    def has_instances(self) -> bool:
        """Does an instance have values of its own?"""
        return bool(self._keys[Level.IMAGE])

    def insert(self, connection: sqlite3.Connection, level: Level, owner: int, record: Record) -> None:
        """Values of an entity that was just made from ``record``."""
        for key in self._keys[level]:
            replace_values(connection, key, owner, extra_rows(key, record.scan, record.scan.charsets))

    def insert_instances(self, connection: sqlite3.Connection, records: Iterable[Record]) -> None:
        """The same of instances; those that took the place of others have ids of their own."""
        rows: list[tuple[object, ...]] = []
        for record in records:
            (owner,) = connection.execute(Statements.select_instance_id.text, (record.sop_instance_uid,)).fetchone()
            for key in self._keys[Level.IMAGE]:
                rows += [(key.id, owner, *row) for row in extra_rows(key, record.scan, record.scan.charsets)]
        connection.executemany(Statements.insert_extra_value.text, rows)


def extra_states(connection: sqlite3.Connection) -> list[ExtraState]:
    """All keys of the index, those too whose values are still being removed."""
    return [
        ExtraState(ExtraKey(tag, vr, Level(level), creator, key_id, state == COMPLETE), state, position, up_to)
        for key_id, tag, vr, level, creator, state, position, up_to in connection.execute(
            Statements.select_extra_keys.text
        )
    ]


def configure_extra_keys(connection: sqlite3.Connection, wanted: Sequence[ExtraKey]) -> bool:
    """Make these the keys: new ones wait for the background, others keep their values; True if something differs."""
    current = {one.key.definition: one for one in extra_states(connection) if one.state != DROPPED}
    definitions = {key.definition for key in wanted}
    gone = [one for one in current.values() if one.key.definition not in definitions]
    new = [key for key in wanted if key.definition not in current]
    for one in gone:
        connection.execute(Statements.set_extra_key.text, (DROPPED, one.position, one.key.id))
    for key in new:
        (last,) = connection.execute(LAST[key.level].text).fetchone()
        state = BUILDING if last else COMPLETE
        row = (key.tag, key.vr, int(key.level), key.creator, state, 0, last or 0)
        connection.execute(Statements.insert_extra_key.text, row)
    return bool(gone or new)


def replace_values(connection: sqlite3.Connection, key: ExtraKey, owner: int, rows: Sequence[ExtraRow]) -> None:
    """Give an entity these values of a key, and no others."""
    connection.execute(Statements.delete_extra_values.text, (key.id, owner))
    connection.executemany(Statements.insert_extra_value.text, [(key.id, owner, *row) for row in rows])


def forget_extra_values(connection: sqlite3.Connection, owners: Mapping[Level, Iterable[int]]) -> None:
    """Remove the values of entities that are gone."""
    for one in extra_states(connection):
        gone = [(one.key.id, owner) for owner in owners.get(one.key.level, ())]
        connection.executemany(Statements.delete_extra_values.text, gone)
