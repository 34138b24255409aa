"""Arguments that are files and folders."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Paths", "files_below"]

Paths = Annotated[
    list[Path], typer.Argument(metavar="PATH...", exists=True, help="Files, and folders with all that is in them.")
]


def files_below(paths: list[Path]) -> list[Path]:
    """Folders walked, in the order of names; hidden files are left out."""
    files: list[Path] = []
    for path in paths:
        below = sorted(path.rglob("*")) if path.is_dir() else [path]
        files += [file for file in below if file.is_file() and (file == path or not file.name.startswith("."))]
    return files
