"""Arguments and options that several commands share, and how a command's coroutine is run."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from pacslite.errors import PacsliteError

__all__ = [
    "Calling",
    "Config",
    "DataDir",
    "Json",
    "KeyArguments",
    "PeerArgument",
    "UsageError",
    "command",
    "run",
]

Result = TypeVar("Result")


class UsageError(PacsliteError):
    """The command line asks for what cannot be. Exit code 2."""


def command() -> typer.Typer:
    """A typer application of one command, without the parts that cost start time."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


_PEER = re.compile(r"(?P<title>.*[^ ].*)@(?P<host>\[[^]]+\]|[^:\[\]]+):(?P<port>\d{1,5})", re.DOTALL)


def _peer(text: str) -> str:
    match = _PEER.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise typer.BadParameter(f"AET@HOST:PORT expected, such as PACSLITE@127.0.0.1:11112, not {text!r}")
    return _ae_title(match["title"]) + text[match.end("title") :]


def _ae_title(text: str) -> str:
    title = text.strip(" ")
    if not 0 < len(title) <= 16 or not (title.isascii() and title.isprintable()) or "\\" in title:
        raise typer.BadParameter(f"{text!r} is no AE title: 1 to 16 printable ASCII characters without the backslash")
    return title


PeerArgument = Annotated[str, typer.Argument(metavar="AET@HOST:PORT", help="The peer.", parser=_peer)]
Calling = Annotated[str, typer.Option("--calling", metavar="AET", help="Our AE title.", parser=_ae_title)]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="TOML file with the settings.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", metavar="DIR", help="Where the archive is.")]
Json = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]
KeyArguments = Annotated[
    list[str],
    typer.Argument(metavar="KEY[=VALUE]...", help="Keyword (PatientName) or tag (0010,0010), and what to match."),
]


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
