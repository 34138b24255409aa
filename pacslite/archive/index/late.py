"""Rows that are written later than acknowledged, for who trades safety against power cuts for speed.

Nobody can tell: who reads writes them first, and after a kill their files are in the journal or in ``incoming/``.
"""

import sqlite3

from pacslite.archive.index.instance_rows import ROWS_AT_ONCE, Row, insert_instances

__all__ = ["LateRows"]


class LateRows:
    """Rows of acknowledged instances that are not in the index yet. For who holds the writer's lock.

    Asking whether one is late needs no lock: who was told of an instance finds it here, or in the index.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self.is_stuck = False  # they could not be written: no others are taken

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, sop_instance_uid: str) -> bool:
        return sop_instance_uid in self._rows

    def take(self, rows: dict[str, Row]) -> bool:
        """Take rows by their SOP Instance UIDs; False if that were too many for one statement."""
        if self.is_stuck or len(self._rows) + len(rows) > ROWS_AT_ONCE or not self._rows.keys().isdisjoint(rows):
            return False
        self._rows.update(rows)
        return True

    def write(self, connection: sqlite3.Connection) -> int:
        """Insert all of them, or none; tells how many.

        Raises:
            sqlite3.Error: They stay late.
        """
        self.is_stuck = True
        insert_instances(connection, [*self._rows.values()])
        self.is_stuck = False
        written = len(self._rows)
        self._rows = {}  # who asks meanwhile finds all or nothing of it
        return written

    def forget(self) -> None:
        """They are indexed anew, from their files."""
        self._rows = {}
        self.is_stuck = False
