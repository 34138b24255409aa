"""Values of extra keys against what they stand for, for ``pacslite check``.

Of patients, studies and series a value is that of the instance they were made from, which may be gone: it is compared
with nothing, as the columns are.
"""

import sqlite3
from collections.abc import Sequence

from pacslite.archive.extending import IDENTITY, OpenFile, read_values
from pacslite.archive.extra import ExtraKey, ExtraRow
from pacslite.archive.index.extra_values import COMPLETE, DROPPED, LAST, replace_values
from pacslite.archive.index.statements import Statements
from pacslite.archive.index.writer import IndexWriter
from pacslite.archive.keys import Level

__all__ = ["check_extra_values"]

_PAGE = 256


def check_extra_values(index: IndexWriter, open_file: OpenFile, *, deep: bool, repair: bool) -> list[tuple[str, str]]:
    """Name values of what is not there; ``deep``: values that are not those of their instances. Mends if told."""
    states = [one for one in index.extra_states() if one.state != DROPPED]
    found: list[tuple[str, str]] = []
    with index.reading() as connection:
        for one in states:
            found += _orphans(connection, index, one.key, repair=repair)
        of_instances = [one.key for one in states if one.state == COMPLETE and one.key.level is Level.IMAGE]
        if deep and of_instances:
            found += _wrong(connection, index, open_file, of_instances, repair=repair)
    return found


def _orphans(
    connection: sqlite3.Connection, index: IndexWriter, key: ExtraKey, *, repair: bool
) -> list[tuple[str, str]]:
    identity = IDENTITY[key.level].text
    found: list[tuple[str, str]] = []
    after = 0
    while owners := connection.execute(Statements.select_extra_owners.text, (key.id, after, _PAGE)).fetchall():
        after = owners[-1][0]
        for (owner,) in owners:
            if connection.execute(identity, (owner,)).fetchone() is not None:
                continue
            with index.extending() as writer:  # where nothing is stored or deleted meanwhile
                if _rows(writer, key, owner) and writer.execute(identity, (owner,)).fetchone() is None:
                    found.append((f"{key} {owner}", "value of what is not there"))
                    if repair:
                        replace_values(writer, key, owner, ())
    return found


def _wrong(
    connection: sqlite3.Connection, index: IndexWriter, open_file: OpenFile, keys: Sequence[ExtraKey], *, repair: bool
) -> list[tuple[str, str]]:
    (up_to,) = connection.execute(LAST[Level.IMAGE].text).fetchone()
    found: list[tuple[str, str]] = []
    after = 0
    while page := list(
        read_values(connection, open_file, Level.IMAGE, keys, (after, up_to or 0), pass_damaged=True)  # named by check
    ):
        after = page[-1].owner
        for owner, identity, digest, values in page:
            differing = [(key, rows) for key, rows in values if _rows(connection, key, owner) != rows]
            if not differing:
                continue
            with index.extending() as writer:
                if writer.execute(IDENTITY[Level.IMAGE].text, (owner,)).fetchone() != (identity, digest):
                    continue  # replaced or deleted meanwhile
                for key, rows in differing:
                    if (stored := _rows(writer, key, owner)) != rows:
                        found.append((identity, f"{key} is {_shown(stored)}, should be {_shown(rows)}"))
                        if repair:
                            replace_values(writer, key, owner, rows)
    return found


def _rows(connection: sqlite3.Connection, key: ExtraKey, owner: int) -> list[ExtraRow]:
    rows = connection.execute(Statements.select_extra_values.text, (key.id, owner)).fetchall()
    return [ExtraRow._make(row) for row in rows]


def _shown(rows: Sequence[ExtraRow]) -> str:
    return repr(rows[0].value) if rows else "nothing"
