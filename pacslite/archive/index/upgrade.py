"""Brings an index file to the schema of this version.

At every start the revision in the file is compared with the schema's: 0.2 ms, and neither SQLAlchemy nor Alembic is
imported if they agree. A new file gets all tables at once and is stamped; an older one is migrated, in one transaction.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pacslite
from pacslite.archive.ownership import make_file, shut
from pacslite.archive.revision import HEAD
from pacslite.errors import PacsliteError

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = [
    "IndexNoFile",
    "IndexTooNew",
    "connect_to_read",
    "current_revision",
    "is_damage",
    "migrations_path",
    "refuse_no_file",
    "remedy",
    "upgrade_index",
]


_BESIDE = 128 << 10  # bytes that SQLite needs to open a file: for the index of its log, and the log's first pages
_CANNOT_MAKE = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR})  # what it needs beside it
_NO_ROOM = _CANNOT_MAKE | {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY}


class IndexTooNew(PacsliteError):
    """A later version of pacslite has migrated this index."""


class IndexNoFile(PacsliteError):
    """A directory or a pipe has its name: SQLite would say something else, or wait."""


def refuse_no_file(path: Path) -> None:
    """Raise IndexNoFile if what is there can be no index."""
    if path.exists() and not path.is_file():
        raise IndexNoFile(f"{path} is no file; move it away")


def current_revision(path: Path) -> str | None:
    """The revision of an index file, None for a file without tables or none at all.

    Raises:
        IndexNoFile, sqlite3.Error: It is none, or cannot be read.
    """
    refuse_no_file(path)
    if not path.exists():
        return None
    try:
        return _read_revision(connect_to_read(path))
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
    # who made it was cut off before it was in WAL mode: that is rolled back first
    return _read_revision(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True))


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Connect to an index for who reads it only; also where nothing can be made beside it, a backup or a full disk.

    SQLite shares its log with others by a file that it makes. Where the log holds nothing, all is in the index.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    uri = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        connection.close()
        log = path.with_name(f"{path.name}-wal")
        if _code(error) not in _CANNOT_MAKE or (log.exists() and log.stat().st_size):
            raise
        return sqlite3.connect(f"{uri}&immutable=1", uri=True)
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """The file is no sound database, and will not become one."""
    return _code(error) in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}


def remedy(error: sqlite3.Error, path: Path) -> str:
    """What to say behind the error, of the index at ``path``."""
    if is_damage(error):
        return "; run pacslite reindex"
    if _code(error) in _NO_ROOM and (lack := _lack_of_room(path.parent)):
        return lack
    if path.exists() and not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        return "; its owner has to be the user that runs pacslite, as of all in the data directory (chown -R)"
    return ""


def upgrade_index(path: Path) -> str | None:
    """Create or migrate an index file; blocking. Gives the revision it was of, None if it was new.

    Raises:
        IndexNoFile, IndexTooNew: It is none, or of a revision that this version does not know.
        sqlite3.Error: The disk refuses, or the file is damaged.
    """
    before = current_revision(path)
    if before is None:
        make_file(path)
    for suffix in ("", "-wal", "-shm"):
        shut(path.with_name(path.name + suffix))
    if before == HEAD:
        return before
    with _errors_of_sqlite():
        if before is None:
            _create(path)
        else:
            _migrate(path, before)
    return before


def migrations_path() -> Path:
    """Where the migrations are: in the installed package, or beside it in a source tree."""
    package = Path(pacslite.__file__).parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _lack_of_room(folder: Path) -> str:
    """SQLite calls it an error of input and output, or a file that cannot be opened."""
    found = os.statvfs(folder)
    if found.f_flag & os.ST_RDONLY:
        return "; the file system is read-only"
    if found.f_bavail * found.f_frsize < _BESIDE or (found.f_files and not found.f_favail):
        return "; the disk is full"
    return ""


def _read_revision(connection: sqlite3.Connection) -> str | None:
    with closing(connection):
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return None
            raise
    return str(row[0]) if row else None


@contextmanager
def _errors_of_sqlite() -> Iterator[None]:
    """SQLAlchemy's errors as those that they wrap: callers know them without importing it."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as error:
        if error.orig is None:
            raise
        raise error.orig from error


def _engine(path: Path) -> "Engine":
    """An engine on a file, whatever its name: in a URL made of text ``?`` and ``%`` would mean something."""
    from sqlalchemy import URL, create_engine

    return create_engine(URL.create("sqlite", database=str(path)))


def _create(path: Path) -> None:
    from pacslite.archive.index.schema import metadata

    engine = _engine(path)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL").close()  # its row, unread, would hold up the commit
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            metadata.create_all(connection)
            connection.exec_driver_sql(
                "CREATE TABLE IF NOT EXISTS alembic_version "
                "(version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
            )
            connection.exec_driver_sql("DELETE FROM alembic_version")
            connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (HEAD,))
            connection.commit()
    finally:
        engine.dispose()


def _migrate(path: Path, before: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(migrations_path()).replace("%", "%%"))
    try:
        ScriptDirectory.from_config(config).get_revision(before)
    except CommandError:
        raise IndexTooNew(f"{path} is of revision {before}, made by a later version of pacslite") from None
    engine = _engine(path)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # pysqlite begins none before DDL
            config.attributes["connection"] = connection
            command.upgrade(config, HEAD)
    finally:
        engine.dispose()
