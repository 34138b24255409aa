"""Notes of files whose rows are gone: written with the removal of the rows, dropped when the files are gone for good.

Were a note dropped before the removal of its file is durable, a power cut would bring the file back, and from
``incoming`` it would be indexed again.
"""

import logging
import os

from pacslite.archive.index.writer import IndexWriter
from pacslite.archive.instances.layout import InstancePath
from pacslite.archive.instances.protocol import InstanceStore
from pacslite.archive.proof import is_file_of
from pacslite.dataset.meta import FileMetaError

__all__ = ["carry_out_notes", "is_back"]

log = logging.getLogger("pacslite.archive")


def carry_out_notes(store: InstanceStore, index: IndexWriter) -> int:
    """Remove what is noted, make that durable, drop the notes. Nothing may be settled meanwhile. Gives how many."""
    notes = index.notes()
    if not notes:
        return 0
    if index.outlives_files and not _sync_all(store):  # first what takes the place of the files, then they go
        return 0
    stuck: list[tuple[str, str]] = []  # these wait for the next time, or the next start; the others for none of them
    for _, name, sop_instance_uid in notes:
        try:
            _carry_out(store, index, name, sop_instance_uid)
        except OSError as error:
            if not stuck:
                log.error("removal", extra={"file": name, "error": str(error)})
            stuck.append((name, sop_instance_uid))
    if len(stuck) == len(notes):
        return 0
    if not _sync_all(store):
        return 0
    index.drop_notes(notes[-1][0], stuck)
    return len(notes) - len(stuck)


def is_back(store: InstanceStore, index: IndexWriter, name: str, sop_instance_uid: str) -> bool:
    """What was deleted was stored again, and its new file is in the noted one's place.

    Until it is settled there, the file at its place is the one that was deleted.

    Raises:
        OSError: The file cannot be read.
    """
    directory, _, rest = name.partition("/")
    known = index.current(sop_instance_uid)
    if directory != "instances" or known is None or str(known.path) != rest:
        return False
    try:
        fd = store.open_settled(known.path)
    except FileNotFoundError:
        return False
    try:
        return is_file_of(fd, known)
    except FileMetaError:  # whose it was cannot be said: a check sets it aside
        return True
    finally:
        os.close(fd)


def _sync_all(store: InstanceStore) -> bool:
    try:
        store.sync_all()
    except OSError as error:
        log.error("removal", extra={"error": str(error)})
        return False
    return True


def _carry_out(store: InstanceStore, index: IndexWriter, name: str, sop_instance_uid: str) -> None:
    directory, _, rest = name.partition("/")
    if directory == "incoming":
        store.remove_incoming(rest)
    elif directory == "instances" and not is_back(store, index, name, sop_instance_uid):
        store.remove_settled(InstancePath(*rest.split("/")))
