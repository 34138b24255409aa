"""An archive in this process, without a network: what tests of the storage half need again and again."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pacslite.archive.archive import Archive
from pacslite.archive.incoming import Incoming
from pacslite.archive.instances.fileops import FileOperations
from pacslite.archive.options import StorageOptions
from pacslite.archive.outcome import Stored
from pacslite.archive.reference import InstanceRef
from tests.support.instances import Instance

__all__ = [
    "DEFAULTS",
    "EXPLICIT_LITTLE_ENDIAN",
    "BrokenConnection",
    "FailingOperations",
    "archive_in",
    "begin",
    "files_in",
    "image_of",
    "read",
    "reference",
    "rows",
    "sqlite_error",
    "store",
]


@dataclass
class Defaults:
    """What ``archive_in`` gives archives that were not told: a module of tests may run with several."""

    journal_bytes: int = 0
    durability: str = "full"


DEFAULTS = Defaults()
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def archive_in(directory: Path, *, operations: FileOperations | None = None, **options: Any) -> Archive:
    """An archive that settles when it is told, or when it stops; without a journal unless told."""
    defaults = {"settle_seconds": 600.0, "settle_files": 1_000_000, "min_free_bytes": 0}
    options = defaults | asdict(DEFAULTS) | options
    return _Prepared(StorageOptions(data_dir=directory, **options), operations=operations)


class _Prepared(Archive):
    """Has its journal from the start, where it is to have one."""

    async def start(self) -> None:
        await super().start()
        self._store.prepare()


def begin(archive: Archive, instance: Instance, **changes: Any) -> Incoming:
    """The sink of a C-STORE of ``instance``."""
    arguments = {
        "sop_class_uid": instance.sop_class_uid,
        "sop_instance_uid": instance.sop_instance_uid,
        "transfer_syntax_uid": EXPLICIT_LITTLE_ENDIAN,
        "source_ae_title": "SENDER",
    }
    return archive.begin(**(arguments | changes))


async def store(archive: Archive, instance: Instance, *, fragment: int = 16_384, **changes: Any) -> Stored:
    """Send ``instance`` in fragments."""
    incoming = begin(archive, instance, **changes)
    for at in range(0, len(instance.data), fragment):
        incoming.write(memoryview(instance.data)[at : at + fragment])
    return await incoming.commit()


def rows(directory: Path, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Ask the index on a connection of our own."""
    with closing(sqlite3.connect(directory / "index.sqlite")) as connection:
        return connection.execute(query, arguments).fetchall()


def reference(archive: Archive, sop_instance_uid: str) -> InstanceRef:
    """What a query would give; StopIteration if it would not."""
    archive.index.catch_up()
    found = rows(
        archive.options.data_dir,
        "SELECT sop_class_uid, sop_instance_uid, study_instance_uid, series_instance_uid, transfer_syntax_uid, "
        "data_set_offset, data_set_length, digest FROM instance JOIN series ON series_fk = series.id "
        "JOIN study ON study_fk = study.id WHERE sop_instance_uid = ?",
        sop_instance_uid,
    )
    names = (
        "sop_class_uid",
        "sop_instance_uid",
        "study_instance_uid",
        "series_instance_uid",
        "transfer_syntax_uid",
        "data_set_offset",
        "data_set_length",
        "digest",
    )
    return InstanceRef(**dict(zip(names, next(iter(found)), strict=True)))


def read(archive: Archive, sop_instance_uid: str) -> bytes:
    """The data set of a visible instance."""
    file = archive.open(reference(archive, sop_instance_uid))
    try:
        return os.pread(file.fd, file.data_set_length, file.data_set_offset)
    finally:
        os.close(file.fd)


def files_in(directory: Path) -> list[str]:
    """Instance files, settled or not, relative to the data directory."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*.dcm"))


def image_of(directory: Path, to: Path) -> Path:
    """What SIGKILL would leave at this moment."""
    shutil.copytree(directory, to)
    return to


class FailingOperations(FileOperations):
    """Real calls, of which some fail instead.

    Args:
        fails: Called with the name of each call and how often it was made before; gives the errno to fail with, or 0.
    """

    def __init__(self, fails: Callable[[str, int], int], calls: Collection[str] = ()) -> None:
        self.fails = fails
        self.counts: dict[str, int] = {}
        for name in calls or ("create", "append", "write_at", "sync", "rename", "unlink", "make_directory"):
            setattr(self, name, self._failing(name, getattr(self, name)))

    def _failing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any) -> Any:
            count = self.counts[name] = self.counts.get(name, 0) + 1
            if error := self.fails(name, count):
                raise OSError(error, os.strerror(error))
            return call(*arguments)

        return made


class BrokenConnection:
    """Stands between the index's writer and a connection of it: statements fail while ``error`` is set.

    Args:
        statement: How the statements begin that fail.
        after: Of them, so many still work.
    """

    def __init__(self, connection: sqlite3.Connection, statement: str, *, after: int = 0) -> None:
        self.error: sqlite3.Error | None = None
        self.after = after
        self._connection = connection
        self._statement = statement

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        self._fail(sql)
        return self._connection.execute(sql, *arguments)

    def executemany(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        self._fail(sql)
        return self._connection.executemany(sql, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def _fail(self, sql: str) -> None:
        if self.error is not None and sql.startswith(self._statement):
            if self.after == 0:
                raise self.error
            self.after -= 1


def sqlite_error(code: int, text: str) -> sqlite3.OperationalError:
    """As SQLite raises it."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error
