"""Builds the index anew from the files alone: ``pacslite reindex``.

The new index grows in ``index.sqlite.new`` and takes the old one's place when it is complete. An interrupted run is
taken up where it stopped, if the files that it indexed are what they were; until it is finished no archive starts on
the data directory.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pacslite.archive.extra import ExtraKey
from pacslite.archive.file_faults import MISPLACED, fault_of_file, is_of_file
from pacslite.archive.index.extra_values import DROPPED
from pacslite.archive.index.removal import InstanceRow, pages_of_rows
from pacslite.archive.index.upgrade import current_revision, is_damage, refuse_no_file, remedy, upgrade_index
from pacslite.archive.index.writer import AlreadyThere, Entry, IndexFailure, IndexFull, IndexWriter
from pacslite.archive.instances.filesystem import FilesystemStore
from pacslite.archive.instances.header import read_header
from pacslite.archive.instances.layout import InstancePath, uid_in_name
from pacslite.archive.instances.protocol import InstanceStore
from pacslite.archive.lock import DataDirLock
from pacslite.archive.notes import carry_out_notes, is_back
from pacslite.archive.options import StorageOptions
from pacslite.archive.proof import digest_of, is_file_of, read_record
from pacslite.archive.record import Record
from pacslite.dataset.meta import FileMetaError, read_file_meta
from pacslite.errors import DimseError, PacsliteError

__all__ = ["IndexIncomplete", "ReindexAborted", "Reindexed", "refuse_incomplete", "reindex"]

log = logging.getLogger("pacslite.archive")

_GROUP = 512  # files a transaction
_READERS = 4
_INDEX = "index.sqlite"
_NEW = "index.sqlite.new"
_OF_MACHINE = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
# No room, or no permission, for what SQLite makes beside the file: that is no fault of the file
_BESIDE = frozenset(
    {
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMMAP,
        sqlite3.SQLITE_IOERR_SHMLOCK,
    }
)


class IndexIncomplete(PacsliteError):
    """There are instances, and no complete index of them."""


class ReindexAborted(PacsliteError):
    """Disk or system do not work: the old index, if there is one, is left alone."""


@dataclass(slots=True)
class Reindexed:
    """What a run did. ``refused``: files that are no instances, or whose UID another file has, with the reason."""

    files: int = 0
    indexed: int = 0
    resumed: int = 0  # indexed by an earlier run
    refused: list[tuple[str, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """The report in JSON's types."""
        return {
            "files": self.files,
            "indexed": self.indexed,
            "resumed": self.resumed,
            "refused": [{"name": name, "reason": reason} for name, reason in self.refused],
        }


def refuse_incomplete(data_dir: Path) -> None:
    """Before an archive starts.

    Raises:
        IndexIncomplete: A reindexing was interrupted, or the index is damaged, or it is gone, or empty, and the files
            are there.
        sqlite3.Error: The index cannot be read just then.
    """
    if (data_dir / _NEW).exists():
        raise IndexIncomplete(f"{data_dir}: reindexing was interrupted; run pacslite reindex to finish it")
    index = data_dir / _INDEX
    try:
        revision = current_revision(index)
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            raise IndexIncomplete(f"{index} is damaged ({error}); run pacslite reindex") from error
        raise
    instances = data_dir / "instances"
    if revision is None and instances.is_dir() and any(instances.iterdir()):
        raise IndexIncomplete(f"{data_dir}: instances without an index; run pacslite reindex")


def reindex(options: StorageOptions, progress: Callable[[int, int], None] | None = None) -> Reindexed:
    """Index all settled files anew. What is still in ``incoming`` is indexed by the next start.

    Args:
        progress: Called with the files done and, as far as the old index tells, the files there are.
    Raises:
        DataDirLocked: An archive is running on the data directory.
        IndexNoFile: Something else has the name of the index.
        ReindexAborted: No room, no descriptors, no permission, a failing disk. The next run goes on.
    """
    lock = DataDirLock(options.data_dir)
    try:
        for name in (_INDEX, _NEW):
            refuse_no_file(options.data_dir / name)
        return _reindex(options, progress)
    except (OSError, sqlite3.Error, IndexFailure, IndexFull) as error:
        raise ReindexAborted(
            f"{options.data_dir}: reindexing was given up: {error}; once that is mended, run pacslite reindex again"
            f"{_way_back(options.data_dir)}"
        ) from error
    finally:
        lock.release()


def _way_back(data_dir: Path) -> str:
    if (data_dir / _NEW).exists() and (data_dir / _INDEX).is_file():
        return f", or remove {_NEW} to go on with the old index"
    return ""


def _reindex(options: StorageOptions, progress: Callable[[int, int], None] | None) -> Reindexed:
    store = FilesystemStore(options.data_dir)
    try:
        return _Reindexing(store, options, progress).run()
    finally:
        store.close()


class _Reindexing:
    def __init__(
        self, store: InstanceStore, options: StorageOptions, progress: Callable[[int, int], None] | None
    ) -> None:
        self._store = store
        self._options = options
        self._progress = progress
        self._done = Reindexed()
        self._extra_keys: list[ExtraKey] = []
        self._stuck: list[tuple[str, str]] = []  # notes of what is deleted and could not be removed
        self._old: sqlite3.Connection | None = None

    def run(self) -> Reindexed:
        try:
            self._build()
        finally:
            self._close_old()
        self._take_place()
        return self._done

    def _build(self) -> None:
        total = self._read_old()
        index = self._open_new()
        try:
            index.drop_notes(index.last_note(), self._stuck)
            index.set_extra_keys(self._extra_keys)  # they are complete with the index: nothing was stored before
            with ThreadPoolExecutor(_READERS, thread_name_prefix="reindex") as readers:
                deleted = {name for name, _ in self._stuck}
                for group in _groups(self._store.settled()):
                    kept = [path for path in group if f"instances/{path}" not in deleted]
                    waiting = [path for path in kept if not self._is_indexed(index, path)]
                    self._index(index, list(zip(waiting, readers.map(self._read, waiting), strict=True)))
                    index.checkpoint()
                    if self._progress is not None:
                        self._progress(self._done.files, max(total, self._done.files))
            for name in self._store.misplaced():
                self._refuse(name, MISPLACED)
        finally:
            index.close()

    def _open_new(self) -> IndexWriter:
        """Open what an interrupted run left, if it is sound, else make an empty index."""
        path = self._options.data_dir / _NEW
        if path.exists():
            try:
                index = _open_sound(path, self._options)
            except Exception as error:  # whatever it is: all of it can be made again
                if _is_of_machine(error):
                    raise
                log.error("what was reindexed is damaged: begun anew", extra={"file": _NEW, "error": str(error)})
            else:
                changed = self._changed_since(index)
                if changed is None:
                    return index
                index.close()
                log.error(
                    "a file has changed since it was reindexed: begun anew", extra={"file": f"instances/{changed}"}
                )
        for suffix in ("-wal", "-shm", ""):
            path.with_name(_NEW + suffix).unlink(missing_ok=True)
        return _open_sound(path, self._options)

    def _changed_since(self, index: IndexWriter) -> InstancePath | None:
        """The first file of an earlier run that is gone by now, or another: what else was made from it nobody knows."""
        with index.reading() as connection, ThreadPoolExecutor(_READERS, thread_name_prefix="reindex") as readers:
            for rows in pages_of_rows(connection, _GROUP):
                for row, is_there in zip(rows, readers.map(self._is_there, rows), strict=True):
                    if not is_there:
                        return row.path
        return None

    def _is_there(self, row: InstanceRow) -> bool:
        try:
            fd = self._store.open_settled(row.path)
            try:
                return is_file_of(fd, row)
            finally:
                os.close(fd)
        except FileMetaError:
            return False
        except OSError as error:
            fault_of_file(error, f"instances/{row.path}")
            return False

    def _read_old(self) -> int:
        """Carry out what the old index notes, if it still can be read; gives the number of files it knows."""
        path = self._options.data_dir / _INDEX
        if not path.exists():
            return 0
        try:
            upgrade_index(path)
            old = IndexWriter(path, self._options)
            try:
                carry_out_notes(self._store, old)
                self._stuck = [(name, uid) for _, name, uid in old.notes() if not self._is_back(old, name, uid)]
                self._extra_keys = [one.key for one in old.extra_states() if one.state != DROPPED]
                total = old.totals().instances
            finally:
                old.close()
            self._old = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
            return total
        except Exception as error:  # a damaged one has nothing to say
            if _is_of_machine(error):  # deletions that it notes must not be forgotten
                lack = remedy(error, path) if isinstance(error, sqlite3.Error) else ""
                raise IndexFailure(f"{path.name}: {error}{lack}") from error
            log.error(
                "old index is of no use: deletions that it notes are forgotten",
                extra={"file": _INDEX, "error": str(error)},
            )
            return 0

    def _close_old(self) -> None:
        if self._old is not None:
            self._old.close()
            self._old = None

    def _received_at(self, record: Record) -> int:
        """As the old index has it: a file may be a copy, and its time that of the copy."""
        if self._old is None:
            return record.received_at
        try:
            found = self._old.execute(
                "SELECT received_at FROM instance WHERE sop_instance_uid = ? AND digest = ?",
                (record.sop_instance_uid, record.digest),
            ).fetchone()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            log.error("old index is damaged: files are as old as their times", extra={"error": str(error)})
            self._close_old()
            return record.received_at
        return record.received_at if found is None else int(found[0])

    def _is_back(self, old: IndexWriter, name: str, sop_instance_uid: str) -> bool:
        try:
            return is_back(self._store, old, name, sop_instance_uid)
        except OSError as error:
            if not is_of_file(error):
                raise
            return True  # it is not known to be the one that was deleted

    def _is_indexed(self, index: IndexWriter, path: InstancePath) -> bool:
        self._done.files += 1
        uid = uid_in_name(path)
        known = None if uid is None else index.look_up(uid)
        if known is None or known.path != path:
            return False
        self._done.resumed += 1
        return True

    def _read(self, path: InstancePath) -> Record | str:
        """Give the record of a file, or why there is none."""
        try:
            fd = self._store.open_settled(path)
            try:
                return _record_of(fd)
            finally:
                os.close(fd)
        except (FileMetaError, DimseError) as error:
            return str(error)
        except OSError as error:  # raises, if not of the file: an index without it would take the place of one with it
            return fault_of_file(error, f"instances/{path}")

    def _index(self, index: IndexWriter, found: list[tuple[InstancePath, Record | str]]) -> None:
        entries: list[Entry] = []
        paths: dict[str, InstancePath] = {}
        for path, record in found:
            if isinstance(record, str):
                self._refuse(path, record)
            elif record.path != path:
                self._refuse(path, f"belongs at {record.path}")
            else:  # a path has one SOP Instance UID: none comes twice, unless it is hashed
                paths[record.sop_instance_uid] = path
                record.received_at = self._received_at(record)
                entries.append(Entry(record, is_kept=True))
        for entry, error in zip(entries, index.commit(entries) if entries else [], strict=True):
            path = paths[entry.record.sop_instance_uid]
            if isinstance(error, IndexFull | IndexFailure):  # not the file's fault, as in recovery.py
                raise error
            if error is None:
                self._done.indexed += 1
            elif isinstance(error, AlreadyThere) and _has(index, entry.record.sop_instance_uid, path):
                self._done.resumed += 1  # its name is a hash, and did not say so
            else:
                self._refuse(path, str(error))

    def _refuse(self, path: InstancePath | str, reason: str) -> None:
        self._done.refused.append((f"instances/{path}", reason))
        log.warning("not indexed", extra={"file": f"instances/{path}", "reason": reason})

    def _take_place(self) -> None:
        """Replace the old index; its log must not be taken for the new one's."""
        directory = self._options.data_dir
        log_of_new = directory / f"{_NEW}-wal"
        if log_of_new.exists() and log_of_new.stat().st_size:  # it could not be taken in, and has rows
            raise IndexFailure(f"{log_of_new.name} cannot be taken into the new index")
        for suffix in ("-wal", "-shm"):
            (directory / f"{_INDEX}{suffix}").unlink(missing_ok=True)
            (directory / f"{_NEW}{suffix}").unlink(missing_ok=True)
        self._store.sync_all()
        (directory / _NEW).replace(directory / _INDEX)
        self._store.sync_all()


def _open_sound(path: Path, options: StorageOptions) -> IndexWriter:
    upgrade_index(path)
    index = IndexWriter(path, options)
    try:
        for problem in index.integrity(deep=False):
            raise IndexFailure(problem)
    except BaseException:
        index.close()
        raise
    return index


def _is_of_machine(error: Exception) -> bool:
    """Whatever is in the index: it could not be opened or written just then."""
    if isinstance(error, OSError):
        return not is_of_file(error)
    code = getattr(error, "sqlite_errorcode", 0)
    return isinstance(error, IndexFull) or code & 0xFF in _OF_MACHINE or code in _BESIDE


def _groups(paths: Iterator[InstancePath]) -> Iterator[list[InstancePath]]:
    while group := list(islice(paths, _GROUP)):
        yield group


def _has(index: IndexWriter, sop_instance_uid: str, path: InstancePath) -> bool:
    known = index.current(sop_instance_uid)
    return known is not None and known.path == path


def _record_of(fd: int) -> Record:
    """Read one file: only its header, if the header has the digest."""
    meta = read_file_meta(fd)
    status = os.fstat(fd)
    if meta.digest is None or meta.data_set_length is None:  # not written by us
        meta = meta._replace(
            digest=digest_of(fd, meta.data_set_offset), data_set_length=status.st_size - meta.data_set_offset
        )
    else:
        read_header(fd)
        if meta.data_set_offset + meta.data_set_length != status.st_size:
            raise FileMetaError(f"{status.st_size} bytes instead of {meta.data_set_offset + meta.data_set_length}")
    record = read_record(fd, meta, verify=False)
    record.received_at = int(status.st_mtime)
    return record
