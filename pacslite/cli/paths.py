"""Arguments that are files and folders."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Paths"]

Paths = Annotated[
    list[Path], typer.Argument(metavar="PATH...", exists=True, help="Files, and folders with all that is in them.")
]
