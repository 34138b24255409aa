"""Arguments and options that several commands share, and how a command's coroutine is run."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import typer

from pacslite.cli.paths import path_of
from pacslite.errors import PacsliteError

__all__ = ["Config", "DataDir", "Json", "UsageError", "command", "group", "run"]

Result = TypeVar("Result")


class UsageError(PacsliteError):
    """The command line asks for what cannot be."""

    exit_code: ClassVar[int] = 2


def group(text: str) -> typer.Typer:
    """A typer application of several commands, likewise."""
    return typer.Typer(
        help=text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def command() -> typer.Typer:
    """A typer application of one command, without the parts that cost start time."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", parser=path_of, help="TOML file with the settings.")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="DIR", parser=path_of, help="Where the archive is.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run on uvloop, or on asyncio's own loop where uvloop is not there."""
    factory: Callable[[], asyncio.AbstractEventLoop]
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(coroutine)
