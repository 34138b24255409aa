"""What rows took the place of, where files are not synced before their rows: such a row may outlive its file.

Notes among those of removed files: ``replaced/`` and the name of the file that was the instance's before. A deletion
is noted too, as ``deleted/``: what was replaced before it is nobody's any more.
"""

import sqlite3
from collections.abc import Iterable, Sequence

from pacslite.archive.index.removal import InstanceRow
from pacslite.archive.index.statements import Statements

__all__ = ["drop_note", "note_deleted", "note_replaced", "replaced_files"]

_REPLACED = "replaced/"
_DELETED = "deleted/"


def note_replaced(connection: sqlite3.Connection, sop_instance_uid: str, unlink: Sequence[str]) -> None:
    """Before its row is written anew; ``unlink``: where its file is, if that is not in its place."""
    found = connection.execute(Statements.select_instance.text, (sop_instance_uid,)).fetchone()
    if found is not None:
        for name in unlink or (f"instances/{InstanceRow(*found).path}",):
            connection.execute(Statements.insert_deleted_file.text, (_REPLACED + name, sop_instance_uid))


def note_deleted(connection: sqlite3.Connection, sop_instance_uids: Iterable[str]) -> None:
    """With the removal of their rows."""
    connection.executemany(Statements.insert_deleted_file.text, [(_DELETED, uid) for uid in sop_instance_uids])


def drop_note(connection: sqlite3.Connection, name: str) -> None:
    """The file is an instance's again."""
    connection.execute("DELETE FROM deleted_file WHERE name = ?", (name,))


def replaced_files(notes: Iterable[tuple[int, str, str]]) -> dict[str, list[str]]:
    """By SOP Instance UID the files that were its before, from the newest to the oldest that may still be there."""
    files: dict[str, list[str]] = {}
    for _, name, sop_instance_uid in notes:
        if name == _DELETED:
            files.pop(sop_instance_uid, None)
        elif name.startswith(_REPLACED):
            files.setdefault(sop_instance_uid, []).insert(0, name.removeprefix(_REPLACED))
    return files
