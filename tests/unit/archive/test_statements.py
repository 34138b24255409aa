"""The text of the writer's SQL is that of its definitions, and SQLite finds an index for every row it looks for."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pacslite.archive.index.definitions import compiled
from pacslite.archive.index.statements import Statement, Statements
from pacslite.archive.index.upgrade import upgrade_index

WRITTEN = {name: value for name, value in vars(Statements).items() if isinstance(value, Statement)}


def test_text_is_that_of_the_definitions() -> None:
    """If this fails: ``python -m pacslite.archive.index.definitions`` and ``ruff format``."""
    assert {name: tuple(statement) for name, statement in WRITTEN.items()} == {
        name: tuple(statement) for name, statement in compiled().items()
    }


# the whole table is one row, or is read in the order of its ids
SCANS = {"select_extra_keys", "select_totals", "select_deleted_files", "select_newest"}


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_no_statement_reads_a_whole_table(tmp_path: Path, name: str) -> None:
    upgrade_index(tmp_path / "index.sqlite")
    statement = WRITTEN[name]
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement.text}", [1] * len(statement.names)).fetchall()
    scans = [text for *_, text in plan if text.startswith("SCAN")]
    assert not scans or name in SCANS, plan


def test_the_archive_starts_without_sqlalchemy() -> None:
    """Its import would be a third of the time in which ``serve`` has to answer."""
    done = subprocess.run(
        [sys.executable, "-c", "import pacslite.archive.archive, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"sqlalchemy", "alembic", "pydicom", "jellyfish", "anyascii", "aiosqlite"}
