"""The index as those see it who only read."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["IndexFile"]


def _nothing_is_late() -> None:
    """Where nobody writes."""


class IndexFile(NamedTuple):
    """A SQLite file, and what to call before each reading of it: what was acknowledged is in it then.

    ``catch_up`` may be called in any thread; it blocks.
    """

    path: Path
    catch_up: Callable[[], None] = _nothing_is_late
