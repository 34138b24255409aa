"""Gives what was stored before a key was configured the values of that key, and removes those of keys that are gone.

In the background, while the archive serves: what is kept of a header in the index is read where the attribute is there,
else the header of the file. A batch is one short transaction, which also says how far it is: a restart, or a kill, goes
on from there. Stores and queries are given the processor in between.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pacslite.archive.extra import ExtraKey, ExtraRow, extra_rows, is_private
from pacslite.archive.file_faults import is_of_file
from pacslite.archive.index.extra_values import BUILDING, COMPLETE, DROPPED, ExtraState, replace_values
from pacslite.archive.index.removal import InstanceRow
from pacslite.archive.index.statements import Statement, Statements
from pacslite.archive.index.writer import IndexWriter
from pacslite.archive.instances.layout import InstancePath
from pacslite.archive.kept import decode_kept
from pacslite.archive.keys import Level, level_of
from pacslite.dataset.meta import FileMetaError, read_file_meta
from pacslite.dataset.scan import HeaderScanner, scan_header
from pacslite.errors import DimseError

__all__ = ["IDENTITY", "Extender", "OpenFile", "Values", "read_value", "read_values"]

log = logging.getLogger("pacslite.archive")

OpenFile = Callable[[str, InstancePath], int]  # of a SOP Instance UID, and where its file belongs

_AT_ONCE = 16  # entities a transaction, and header reads without a pause: a store waits for a few milliseconds at most
_FILES = 8  # of an entity's instances, tried one after the other until one can be read
_PIECE = 1 << 16
_RETRY_SECONDS = 5.0
_LEAST_PAUSE = 0.001

_PAGES: Mapping[Level, Statement] = {
    Level.PATIENT: Statements.select_kept_of_patient,
    Level.STUDY: Statements.select_kept_of_study,
    Level.SERIES: Statements.select_kept_of_series,
    Level.IMAGE: Statements.select_kept_of_image,
}
IDENTITY: Mapping[Level, Statement] = {
    Level.PATIENT: Statements.select_identity_of_patient,
    Level.STUDY: Statements.select_identity_of_study,
    Level.SERIES: Statements.select_identity_of_series,
    Level.IMAGE: Statements.select_identity_of_image,
}
_FIRST: Mapping[Level, Statement] = {
    Level.PATIENT: Statements.select_first_below_patient,
    Level.STUDY: Statements.select_first_below_study,
    Level.SERIES: Statements.select_first_below_series,
    Level.IMAGE: Statements.select_first_below_image,
}


class Values(NamedTuple):
    """An entity, and its values of some keys, as they were when it was read."""

    owner: int
    identity: str
    digest: bytes
    rows: tuple[tuple[ExtraKey, list[ExtraRow]], ...]


class Extender:
    """Does what there is to do, then ends; blocks in a thread of its own.

    Args:
        progress: Called, in that thread, when the state of a key has changed.
    """

    def __init__(self, index: IndexWriter, open_file: OpenFile, progress: Callable[[], None]) -> None:
        self._index = index
        self._open_file = open_file
        self._progress = progress
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, if there is anything to do."""
        if any(one.state != COMPLETE for one in self._index.extra_states()):
            self._thread = threading.Thread(target=self._run, name="extend", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End after the batch that is being written. Blocks."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._index.reading() as connection:
                    self._drop()
                    for level in Level:
                        self._build(connection, level)
            except (OSError, sqlite3.Error, DimseError) as error:  # the disk is full, or the index has failed
                log.warning("extra keys wait", extra={"error": str(error)})
                self._stopping.wait(_RETRY_SECONDS)
            except Exception:
                log.exception("extra keys")
                return
            else:
                return

    def _drop(self) -> None:
        """Remove the values of keys that are none any more."""
        for one in self._states(DROPPED):
            is_done = False
            while not is_done:
                began = time.monotonic()
                with self._index.extending() as connection:
                    arguments = (one.key.id, 0, _AT_ONCE)
                    owners = connection.execute(Statements.select_extra_owners.text, arguments).fetchall()
                    if owners:
                        connection.execute(Statements.delete_extra_values_up_to.text, (one.key.id, owners[-1][0]))
                    else:
                        connection.execute(Statements.delete_extra_key.text, (one.key.id,))
                        is_done = True
                if self._pause(began):
                    return
            log.info("extra key removed", extra={"key": str(one.key)})

    def _build(self, reader: sqlite3.Connection, level: Level) -> None:
        """Give all entities of a level their values of all its keys that are not complete."""
        states = [one for one in self._states(BUILDING) if one.key.level is level]
        if not states:
            return
        keys = [one.key for one in states]
        position = min(one.position for one in states)
        up_to = max(one.up_to for one in states)
        log.info("extra keys", extra={"keys": ", ".join(map(str, keys)), "position": position, "up_to": up_to})
        while not self._stopping.is_set():
            began = time.monotonic()
            page = list(read_values(reader, self._open_file, level, keys, (position, up_to)))
            is_last = len(page) < _AT_ONCE
            if page:
                position = page[-1].owner
            self._write(level, page, states, up_to if is_last else position, COMPLETE if is_last else BUILDING)
            if is_last:
                self._index.sync()  # queries trust it from now on, and so it must outlive a failure of the index
                log.info("extra keys complete", extra={"keys": ", ".join(map(str, keys))})
                self._progress()
                return
            self._pause(began)

    def _write(self, level: Level, page: Sequence[Values], states: Sequence[ExtraState], at: int, state: str) -> None:
        with self._index.extending() as connection:
            for owner, identity, digest, values in page:
                now = connection.execute(IDENTITY[level].text, (owner,)).fetchone()
                if now != (identity, digest):  # deleted or replaced meanwhile; what took its place has its values
                    continue
                for key, rows in values:
                    replace_values(connection, key, owner, rows)
            for one in states:
                connection.execute(Statements.set_extra_key.text, (state, max(at, one.position), one.key.id))

    def _states(self, state: str) -> list[ExtraState]:
        return [one for one in self._index.extra_states() if one.state == state]

    def _pause(self, began: float) -> bool:
        """Leave as much time to others as was taken; True at the end."""
        return self._stopping.wait(max(_LEAST_PAUSE, time.monotonic() - began))


def read_values(
    reader: sqlite3.Connection,
    open_file: OpenFile,
    level: Level,
    keys: Sequence[ExtraKey],
    between: tuple[int, int],
    *,
    pass_damaged: bool = False,
) -> Iterator[Values]:
    """The next entities of a level behind an id, a batch of them, with their values as far as they can be read.

    Args:
        pass_damaged: Nor does it matter when they can.
    Raises:
        OSError: Another time there may be more to read: were these taken for all, queries would find too little.
    """
    after, up_to = between
    for owner, identity, digest, attributes in reader.execute(_PAGES[level].text, (after, up_to, _AT_ONCE)).fetchall():
        found: dict[ExtraKey, list[ExtraRow]] = {}
        if attributes is not None:
            found = _rows_of_kept(keys, attributes)
        missing = [key for key in keys if not found.get(key)]
        if missing:
            scan = _scan_first(reader, open_file, level, owner, pass_damaged=pass_damaged)
            for key in missing:
                if scan is not None:
                    found[key] = extra_rows(key, scan, scan.charsets)
                else:  # nobody knows
                    found.pop(key, None)
        yield Values(owner, identity, digest, tuple(found.items()))


def read_value(reader: sqlite3.Connection, open_file: OpenFile, key: ExtraKey, owner: int) -> str | None:
    """The value of one entity, from a file. Raises OSError where that cannot be read just now."""
    scan = _scan_first(reader, open_file, key.level, owner)
    rows = extra_rows(key, scan, scan.charsets) if scan is not None else []
    return rows[0].value if rows else None


def _rows_of_kept(keys: Sequence[ExtraKey], attributes: bytes) -> dict[ExtraKey, list[ExtraRow]]:
    """Values of those attributes that are kept at the level of their key."""
    kept_there = [key for key in keys if not is_private(key.tag) and key.level is level_of(key.tag)]
    if not kept_there:
        return {}
    syntax, charsets, elements = decode_kept(attributes)
    try:
        scan = scan_header(elements, syntax, detect=False)
    except DimseError:
        return {}
    return {key: extra_rows(key, scan, charsets) for key in kept_there}


def _scan_first(
    reader: sqlite3.Connection, open_file: OpenFile, level: Level, owner: int, *, pass_damaged: bool = False
) -> HeaderScanner | None:
    """The header of the instance that an entity was made from, or of the first that is there and can be read.

    Raises:
        OSError: None can be, and one of them may be some other time.
    """
    failure: OSError | None = None
    for row in map(InstanceRow._make, reader.execute(_FIRST[level].text, (owner, _FILES)).fetchall()):
        try:
            fd = open_file(row.sop_instance_uid, row.path)
            try:
                return _scan(fd)
            finally:
                os.close(fd)
        except (FileNotFoundError, FileMetaError, DimseError) as error:
            log.warning("header not read", extra={"file": str(row.path), "error": str(error)})
        except OSError as error:
            log.warning("header not read", extra={"file": str(row.path), "error": str(error)})
            if not (pass_damaged and is_of_file(error)):
                failure = error
    if failure is not None:
        raise failure
    return None


def _scan(fd: int) -> HeaderScanner:
    meta = read_file_meta(fd)
    scan = HeaderScanner(meta.transfer_syntax_uid)
    at = meta.data_set_offset
    while not scan.complete:
        piece = os.pread(fd, _PIECE, at)
        if not piece:
            scan.finish()
            break
        scan.feed(memoryview(piece))
        at += len(piece)
    return scan
