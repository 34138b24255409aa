"""Removal of instances, series, studies and patients: rows and files together, whatever interrupts it.

One transaction removes the rows and notes the files; the index is synced; then the files go, and, once that is durable,
the notes. A start finishes what a crash left. A reader that has a file open reads on.
"""

import logging
from dataclasses import dataclass

from pacslite.archive.index.removal import InstanceRow, Removed, remove_rows
from pacslite.archive.index.replaced import note_deleted
from pacslite.archive.index.statements import Statements
from pacslite.archive.index.writer import IndexWriter
from pacslite.archive.instances.layout import InstancePath
from pacslite.archive.instances.protocol import InstanceStore
from pacslite.archive.keys import Level
from pacslite.archive.settle import Settler, Unsettled

__all__ = ["Deleted", "Deleter"]

log = logging.getLogger("pacslite.archive")

_AT_ONCE = 256  # instances a transaction: stores wait a few milliseconds, no longer
_SELECT = {
    Level.PATIENT: Statements.select_of_patient.text,
    Level.STUDY: Statements.select_of_study.text,
    Level.SERIES: Statements.select_of_series.text,
    Level.IMAGE: Statements.select_of_image.text,
}


@dataclass(slots=True)
class Deleted:
    """What a deletion took."""

    instances: int = 0
    series: int = 0
    studies: int = 0
    patients: int = 0
    bytes: int = 0

    def add(self, removed: Removed) -> None:
        """Count a transaction's share."""
        self.instances += removed.instances
        self.series += removed.series
        self.studies += removed.studies
        self.patients += removed.patients
        self.bytes += removed.bytes


class Deleter:
    """Deletes while the archive serves. Its method blocks: call it off the loop."""

    def __init__(self, store: InstanceStore, index: IndexWriter, settler: Settler) -> None:
        self._store = store
        self._index = index
        self._settler = settler

    def delete(self, level: Level, uid: str, deleted: Deleted | None = None) -> Deleted:
        """Delete everything below a unique key; what is stored meanwhile stays or goes, whole.

        Args:
            deleted: Is told what goes, also where the rest then fails; else a new one is.
        """
        deleted = Deleted() if deleted is None else deleted
        while True:
            with self._settler.lock:  # nothing is settled to a path between its note and its removal
                try:
                    files = self._remove_rows(level, uid, deleted)
                except BaseException:
                    self._settler.noted()  # the rows may be gone: then their files go later
                    raise
                for path, unsettled in files:
                    self._unlink(path, unsettled)
                if not files:
                    break
        if deleted.instances:
            with self._settler.lock:
                self._settler.carry_out_notes()
        return deleted

    def _remove_rows(self, level: Level, uid: str, deleted: Deleted) -> list[tuple[InstancePath, Unsettled | None]]:
        """Remove rows, note their files; both are durable when it returns the files."""
        with self._index.lock:  # a cut would let what is stored again before the sync look like a refused duplicate
            with self._index.transaction() as connection:
                rows = [InstanceRow(*row) for row in connection.execute(_SELECT[level], (uid, _AT_ONCE))]
                files = [(row.path, self._settler.locate(row.sop_instance_uid)) for row in rows]
                notes = [(f"instances/{row.path}", row.sop_instance_uid) for row in rows]
                notes += [(f"incoming/{file.name}", file.sop_instance_uid) for _, file in files if file is not None]
                connection.executemany(Statements.insert_deleted_file.text, notes)
                if self._index.outlives_files:
                    note_deleted(connection, [row.sop_instance_uid for row in rows])
                removed = remove_rows(connection, rows)
            deleted.add(removed)
            if rows:
                self._index.sync()
        return files

    def _unlink(self, path: InstancePath, unsettled: Unsettled | None) -> None:
        try:
            if unsettled is not None:
                self._settler.forget(unsettled)
                self._store.remove_incoming(unsettled.name)
            self._store.remove_settled(path)
        except OSError as error:  # the row is gone, and the note stays
            log.error("delete", extra={"path": str(path), "error": str(error)})
