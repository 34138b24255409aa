"""``pacslite stats``: what is stored. Reads only, beside a running server too."""

import sqlite3
from contextlib import closing
from pathlib import Path

import typer

from pacslite.archive.index.statements import Statements
from pacslite.archive.index.writer import Totals
from pacslite.cli.local import settings_for
from pacslite.cli.options import Config, DataDir, Json, command
from pacslite.cli.output import complain, print_json, print_line, size

__all__ = ["app"]

app = command()


@app.command()
def stats(data_dir: DataDir = None, config: Config = None, json_: Json = False) -> None:
    """Print how many patients, studies, series and instances there are, and their size."""
    index = settings_for(config, data_dir).server.data_dir / "index.sqlite"
    if not index.is_file():
        complain(f"{index.parent} holds no archive")
        raise typer.Exit(1)
    totals = _totals(index)
    if json_:
        print_json(totals._asdict())
        return
    for name, count in totals._asdict().items():
        print_line(f"{name:<12}{size(count) if name == 'bytes' else count}")


def _totals(index: Path) -> Totals:
    with closing(sqlite3.connect(f"{index.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        return Totals(*connection.execute(Statements.select_totals.text).fetchone())
