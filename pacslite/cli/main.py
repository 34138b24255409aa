"""The ``pacslite`` command: a module a command, imported when it is called.

Exit codes: 0 done, 1 the peer or some items failed, 2 usage or configuration.
"""

import importlib
import sqlite3
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from pacslite import __version__
from pacslite.errors import PacsliteError
from pacslite.log import escape
from pacslite.streams import give_up_output, open_standard_streams

__all__ = ["COMMANDS", "main"]

# In the order of the help. An import of over 20 ms is made inside the command that needs it: echo ends within 0.3 s.
COMMANDS = {
    "serve": "pacslite.cli.serve",
    "echo": "pacslite.cli.echo",
    "store": "pacslite.cli.store",
    "find": "pacslite.cli.find",
    "move": "pacslite.cli.move",
    "get": "pacslite.cli.get",
    "import": "pacslite.cli.importing",
    "check": "pacslite.cli.check",
    "reindex": "pacslite.cli.reindex",
    "stats": "pacslite.cli.stats",
    "delete": "pacslite.cli.delete",
    "queue": "pacslite.cli.queue",
    "db": "pacslite.cli.db",
    "config": "pacslite.cli.config",
}


class LazyGroup(TyperGroup):
    """The commands of COMMANDS; only the one that is asked for is imported."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        names: Any = dict.fromkeys(COMMANDS)
        self.commands = names  # typer looks here for the name that may have been meant

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        del ctx
        module = COMMANDS.get(cmd_name)
        return None if module is None else typer.main.get_command(importlib.import_module(module).app)


root = typer.Typer(
    cls=LazyGroup,
    help="A DICOM server: C-ECHO, C-STORE, C-FIND, C-MOVE, C-GET, and the same as a client.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"pacslite {__version__}")
        raise typer.Exit


@root.callback()
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version.", is_eager=True, callback=_show_version),
) -> None:
    del version


def main(args: list[str] | None = None) -> None:
    """Run a command and exit with its code; what pacslite raises on purpose is a line, not a traceback."""
    open_standard_streams()
    try:
        try:
            typer.main.get_command(root)(args, prog_name="pacslite")
        finally:
            sys.stdout.flush()  # at the interpreter's end nobody could tell in one line why it fails
    except PacsliteError as error:
        for line in str(error).splitlines() or [type(error).__name__]:
            print(f"pacslite: {escape(line)}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))
    except (OSError, sqlite3.Error) as error:
        give_up_output()
        if not isinstance(error, BrokenPipeError):  # of "pacslite find ... | head": nobody is left to tell
            print(f"pacslite: {escape(_told(error))}", file=sys.stderr)
        sys.exit(1)


def _told(error: Exception) -> str:
    """The system's word for it and the file, without numbers and quotes."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
