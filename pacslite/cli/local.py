"""The archive of this machine, for the commands that work on it without a network."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from pacslite.archive.archive import Archive
from pacslite.archive.index.upgrade import remedy
from pacslite.cli.output import complain
from pacslite.config import Settings, load
from pacslite.config.load import Flag
from pacslite.errors import PacsliteError
from pacslite.log import configure
from pacslite.options import storage_options

__all__ = ["IndexUnreadable", "archive_of", "archived_settings_for", "naming", "settings_for"]


class IndexUnreadable(PacsliteError):
    """SQLite's reason, and of which file."""


def settings_for(config: Path | None, data_dir: Path | None) -> Settings:
    """The settings that ``serve`` would have with these flags.

    Logging is set up by them too, for errors: a command itself says what is worth a line.
    """
    flags = [Flag("server.data_dir", "--data-dir", data_dir)] if data_dir is not None else []
    settings = load(config, flags=flags).settings
    configure("debug" if settings.log.level == "debug" else "error", settings.log.format)
    return settings


def archived_settings_for(config: Path | None, data_dir: Path | None) -> Settings:
    """The same for a command that works on what is stored: where nothing is, the name may be mistyped, and it ends."""
    settings = settings_for(config, data_dir)
    folder = settings.server.data_dir
    if not any((folder / name).exists() for name in ("index.sqlite", "instances")):
        complain(f"{folder} holds no archive")
        raise typer.Exit(1)
    return settings


def archive_of(settings: Settings) -> Archive:
    """For ``async with``; DataDirLocked if a server has it."""
    return Archive(storage_options(settings))


@contextmanager
def naming(index: Path) -> Iterator[None]:
    """SQLite does not say in which file it finds what is wrong, nor what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise IndexUnreadable(f"{index}: {error}{remedy(error, index)}") from error
