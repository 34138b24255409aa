"""The file of the outbox: what is sent later and must survive a restart, whoever kills us.

One table holds all of it, forwarded instances and commitment reports: they wait, fail, expire and are listed alike.
Transactions reach the disk when the system writes back, as the mark of what was enqueued goes with them (follower.py)
and a power cut only has the same instances enqueued again. What a peer was told is kept is synced: ``durable``.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pacslite.archive.index.upgrade import is_damage
from pacslite.archive.instances.fileops import sync_folder
from pacslite.archive.ownership import make_file
from pacslite.errors import DimseError, PacsliteError

__all__ = ["Database", "OutboxUnreadable", "OutboxUnwritable"]

_VERSION = 2
_SCHEMA = (
    # state: verifying (commitment), waiting, sent, failed (expired), dropped (by the operator, or no longer stored)
    """CREATE TABLE entry (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        destination TEXT NOT NULL,
        subject TEXT NOT NULL,
        state TEXT NOT NULL,
        created REAL NOT NULL,
        due REAL NOT NULL,
        expires REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        finished REAL,
        error TEXT,
        body BLOB,
        outcome BLOB,
        called_ae_title TEXT
    )""",
    "CREATE INDEX entry_due ON entry (kind, destination, state, due, id) WHERE finished IS NULL",
    "CREATE INDEX entry_expires ON entry (expires) WHERE finished IS NULL",
    "CREATE INDEX entry_finished ON entry (finished) WHERE finished IS NOT NULL",
    "CREATE INDEX entry_subject ON entry (subject, destination)",
    # how a destination as a whole fares: while it cannot be reached its entries are not touched one by one
    """CREATE TABLE destination (
        kind TEXT NOT NULL,
        ae_title TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        due REAL NOT NULL DEFAULT 0,
        error TEXT,
        PRIMARY KEY (kind, ae_title)
    ) WITHOUT ROWID""",
    # an entry as it is shown: what holds its destination up holds it up too
    """CREATE VIEW listed AS SELECT id, kind, destination, subject, state, created,
        iif(state = 'waiting', max(entry.due, coalesce(d.due, 0)), entry.due) AS due, expires, entry.attempts,
        coalesce(entry.error, iif(state = 'waiting', d.error, NULL)) AS error
        FROM entry LEFT JOIN (SELECT kind AS of_kind, ae_title, due, error FROM destination) AS d
        ON of_kind = kind AND ae_title = destination""",
    # up to which instance of the index the rules were applied; no row: there is nothing to catch up with
    """CREATE TABLE mark (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        instance_id INTEGER NOT NULL,
        sop_instance_uid TEXT NOT NULL,
        made REAL NOT NULL
    )""",
)


# by the version that lacks it
_UPGRADES = {1: "ALTER TABLE entry ADD COLUMN called_ae_title TEXT"}


class OutboxUnreadable(PacsliteError):
    """The file is no outbox, or one of a later version."""


class OutboxUnwritable(DimseError):
    """The disk does not take it: resource limitation."""

    status = 0x0213


class Database:
    """A connection; for one thread at a time. The command line opens a second one beside the server's.

    Raises:
        OutboxUnreadable: On opening.
    """

    def __init__(self, path: Path) -> None:
        is_new = not path.exists()
        if is_new:
            make_file(path)
        with ExitStack() as undo:
            try:
                self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=20)
                undo.callback(self.connection.close)
                execute = self.connection.execute
                execute("PRAGMA journal_mode=WAL")
                execute("PRAGMA synchronous=NORMAL")
                execute("PRAGMA cache_size=-2048")
                self._prepare(path)
            except sqlite3.Error as error:
                remedy = "; move it away: what waits in it will not be sent" if is_damage(error) else ""
                raise OutboxUnreadable(f"{path}: {error}{remedy}") from error
            undo.pop_all()
        if is_new:
            sync_folder(path.parent)

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Write; ``durable``: what is committed survives a power cut.

        Raises:
            sqlite3.Error: Nothing of it was written.
        """
        execute = self.connection.execute
        if durable:
            execute("PRAGMA synchronous=FULL")
        try:
            execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    execute("ROLLBACK")
                raise
        finally:
            if durable:
                execute("PRAGMA synchronous=NORMAL")

    def version(self) -> int:
        """A number that differs when another connection has written."""
        return int(self.connection.execute("PRAGMA data_version").fetchone()[0])

    def _prepare(self, path: Path) -> None:
        if self._version_of_schema() == 0:
            with self.transaction() as connection:
                if self._version_of_schema() == 0:  # nobody else was quicker
                    for statement in _SCHEMA:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version={_VERSION}")
        if self._version_of_schema() < _VERSION:
            with self.transaction() as connection:
                while (version := self._version_of_schema()) in _UPGRADES:
                    connection.execute(_UPGRADES[version])
                    connection.execute(f"PRAGMA user_version={version + 1}")
        version = self._version_of_schema()
        if version > _VERSION:
            raise OutboxUnreadable(f"{path} is of a later version of pacslite ({version}, not {_VERSION})")

    def _version_of_schema(self) -> int:
        return int(self.connection.execute("PRAGMA user_version").fetchone()[0])
