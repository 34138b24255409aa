"""``pacslite stats``: what is stored, and how far extra keys are. Reads only, beside a running server too."""

import sqlite3
from contextlib import closing
from pathlib import Path

import typer

from pacslite.archive.index.extra_values import BUILDING, ExtraState, extra_states
from pacslite.archive.index.statements import Statements
from pacslite.archive.index.upgrade import connect_to_read, current_revision
from pacslite.archive.index.writer import Totals
from pacslite.archive.reindex import refuse_incomplete
from pacslite.cli.local import naming, settings_for
from pacslite.cli.options import Config, DataDir, Json, command
from pacslite.cli.output import complain, print_json, print_line, size

__all__ = ["app"]

app = command()


@app.command()
def stats(data_dir: DataDir = None, config: Config = None, json_: Json = False) -> None:
    """Print how many patients, studies, series and instances there are, and their size."""
    index = settings_for(config, data_dir).server.data_dir / "index.sqlite"
    with naming(index):
        if not index.is_file() or current_revision(index) is None:
            refuse_incomplete(index.parent)  # says so, if there are instances
            complain(f"{index.parent} holds no archive")
            raise typer.Exit(1)
        totals, keys = _read(index)
    if json_:
        extra = {"extra_keys": {str(one.key): _progress(one) for one in keys}} if keys else {}
        print_json({**totals._asdict(), **extra})
        return
    for name, count in totals._asdict().items():
        print_line(f"{name:<12}{size(count) if name == 'bytes' else count}")
    for one in keys:
        print_line(f"extra key {one.key}: {_progress(one)}")


def _read(index: Path) -> tuple[Totals, list[ExtraState]]:
    with closing(connect_to_read(index)) as connection:
        row = connection.execute(Statements.select_totals.text).fetchone()
        totals = Totals(*(row or (0,) * len(Totals._fields)))  # none before an archive has opened the index
        try:
            return totals, extra_states(connection)
        except sqlite3.OperationalError:  # an index that no server of this version has opened yet
            return totals, []


def _progress(one: ExtraState) -> str:
    return f"{one.state} {100 * one.position // one.up_to} %" if one.state == BUILDING else one.state
