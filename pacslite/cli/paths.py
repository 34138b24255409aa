"""Arguments and options that are files and folders.

Path("") is the current folder, which nobody asks for with a variable that is empty: it is refused everywhere.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Folder", "Paths", "path_of"]


def path_of(text: str) -> Path:
    """Raises BadParameter for an empty one."""
    if not text:
        raise typer.BadParameter('an empty path names nothing; the current folder is "."')
    return Path(text)


def _existing(text: str) -> Path:
    path = path_of(text)
    if not os.path.exists(path):  # noqa: PTH110 (false where it cannot be looked at)
        raise typer.BadParameter(f"path {text!r} does not exist")
    return path


def _folder(text: str) -> Path:
    path = path_of(text)
    if os.path.exists(path) and not os.path.isdir(path):  # noqa: PTH110, PTH112
        raise typer.BadParameter(f"{text!r} is a file")
    return path


Folder = Annotated[Path, typer.Option("--out", metavar="DIR", parser=_folder, help="Folder for the files; it is made.")]
Paths = Annotated[
    list[Path],
    typer.Argument(metavar="PATH...", parser=_existing, help="Files, and folders with all that is in them."),
]
