"""Remembers, for the next start, that files were not synced before their rows: it cannot know it from them.

The mark is an empty file in the data directory. A run short of ``full`` makes it before it stores anything; one with
``full`` removes it when it has looked at the rows, and synced what they stand for.
"""

from pathlib import Path

from pacslite.archive.instances.fileops import sync_folder
from pacslite.archive.ownership import make_file

__all__ = ["is_marked_unsynced", "mark_synced", "mark_unsynced"]

_MARK = "unsynced"


def is_marked_unsynced(data_dir: Path) -> bool:
    """Rows may have been written whose files are not on the disk."""
    return (data_dir / _MARK).exists()


def mark_unsynced(data_dir: Path) -> None:
    """Return when the mark survives a power cut: once in the life of a data directory, as a rule."""
    if not is_marked_unsynced(data_dir):
        make_file(data_dir / _MARK)
        sync_folder(data_dir)


def mark_synced(data_dir: Path) -> None:
    """All rows have their files, for good."""
    (data_dir / _MARK).unlink(missing_ok=True)
    sync_folder(data_dir)
