"""Rows that outlived their files: where files are not synced before their rows, a power cut may leave rows alone."""

import os
from collections.abc import Collection, Iterator

from pacslite.archive.index.removal import InstanceRow, remove_rows
from pacslite.archive.index.replaced import replaced_files
from pacslite.archive.index.statements import Statements
from pacslite.archive.index.writer import IndexWriter
from pacslite.archive.instances.protocol import InstanceStore
from pacslite.archive.proof import is_whole
from pacslite.archive.settle import Settler
from pacslite.dataset.meta import FileMetaError

__all__ = ["OutlivedRows"]

_AT_ONCE = 256  # rows looked at together


class OutlivedRows:
    """Finds them, and takes them away."""

    def __init__(self, store: InstanceStore, index: IndexWriter, settler: Settler) -> None:
        self._store = store
        self._index = index
        self._settler = settler

    def replaced(self) -> Iterator[tuple[InstanceRow, list[str]]]:
        """Rows among them that took the place of others; with the files that these had, from the newest on."""
        for sop_instance_uid, files in replaced_files(self._index.notes()).items():
            row = self._index.current(sop_instance_uid)
            if row is not None and self.is_alone(row):
                yield row, files

    def drop(self, others: Collection[InstanceRow] = ()) -> int:
        """Remove those among the newest rows, as far back as there are any, and ``others``; gives how many."""
        with self._index.transaction() as connection:
            remove_rows(connection, others)
            dropped = len(others)
            while True:
                newest = [InstanceRow(*row) for row in connection.execute(Statements.select_newest.text, (_AT_ONCE,))]
                alone = [row for row in newest if self.is_alone(row)]
                if not alone:
                    return dropped
                remove_rows(connection, alone)
                dropped += len(alone)

    def is_alone(self, row: InstanceRow) -> bool:
        """Its file is gone, or torn. One that cannot be read is neither."""
        unsettled = self._settler.locate(row.sop_instance_uid)  # on a full disk, for one
        try:
            fd = self._store.open_settled(row.path) if unsettled is None else self._store.open_incoming(unsettled.name)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            return not is_whole(fd, row)
        except FileMetaError:
            return True
        except OSError:
            return False
        finally:
            os.close(fd)
