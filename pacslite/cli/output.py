"""What commands print: lines for people, JSON for scripts, a progress bar where the terminal is one.

Everything a peer sent is escaped: a name in an answer cannot clear the screen or colour it.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from pacslite.log import escape

__all__ = ["Bar", "complain", "counted", "print_json", "print_line", "progress_bar", "size"]


def print_line(text: str) -> None:
    print(escape(text))


def print_json(value: Any) -> None:
    """One object on a line, ASCII only."""
    print(json.dumps(value, default=str))


def complain(text: str) -> None:
    print(escape(text), file=sys.stderr)


class Bar(Protocol):
    """Long work on its way."""

    def advance(self, amount: int = 1) -> None: ...

    def set(self, done: int, total: int) -> None: ...


class _NoBar:
    def advance(self, amount: int = 1) -> None:
        pass

    def set(self, done: int, total: int) -> None:
        pass


@contextmanager
def progress_bar(title: str, total: int | None = None) -> Iterator[Bar]:
    """A bar on standard error; nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield _NoBar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(title), total=total)

        class _RichBar:
            def advance(self, amount: int = 1) -> None:
                progress.advance(task, amount)

            def set(self, done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

        yield _RichBar()


def counted(count: int, one: str, more: str = "") -> str:
    """``1 instance``, ``2 instances``, ``no instances``."""
    return f"{count or 'no'} {one if count == 1 else more or one + 's'}"


def size(count: int) -> str:
    """``527430`` as ``527.4 kB``."""
    amount, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):  # noqa: B007
        if amount < 1000:
            break
        amount /= 1000
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
