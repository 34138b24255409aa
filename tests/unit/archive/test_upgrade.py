"""A new index and a migrated one are the same, and the file says which revision it is."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from shutil import copyfile

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from pacslite.archive.index.schema import metadata
from pacslite.archive.index.upgrade import IndexTooNew, current_revision, migrations_path, upgrade_index
from pacslite.archive.revision import HEAD

Schema = dict[str, str]


def schema_of(path: Path) -> Schema:
    """Every object's definition, without differences of spelling."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'patient_name_trigram_%'")
        return {name: re.sub(r"[\s\"]+", "", sql or "").replace("IFNOTEXISTS", "") for name, sql in rows}


def migrated_from_nothing(path: Path, to: str = "head") -> Path:
    """An index made by the migrations alone: an empty one that says it is of the base."""
    config = Config()
    config.set_main_option("script_location", str(migrations_path()))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("BEGIN")
        config.attributes["connection"] = connection
        command.upgrade(config, to)
    engine.dispose()
    return path


def test_head_is_alembics() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_path()))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_new_and_migrated_index_have_one_schema(tmp_path: Path) -> None:
    migrated = migrated_from_nothing(tmp_path / "migrated.sqlite")
    upgrade_index(tmp_path / "new.sqlite")
    assert schema_of(migrated) == schema_of(tmp_path / "new.sqlite")
    assert current_revision(migrated) == current_revision(tmp_path / "new.sqlite") == HEAD


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection")  # of indexes over expressions: seen above
@pytest.mark.filterwarnings("ignore:autogenerate skipping")
def test_alembic_finds_nothing_to_migrate(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{migrated_from_nothing(tmp_path / 'index.sqlite')}")
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, *_: not (name or "").startswith("patient_name_trigram")}
        )
        differences = compare_metadata(context, metadata)
    engine.dispose()
    assert differences == []


def test_a_second_upgrade_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    assert upgrade_index(path) is None
    before = path.read_bytes()
    assert upgrade_index(path) == HEAD
    assert path.read_bytes() == before


def test_revision_of_a_missing_or_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    assert current_revision(path) is None
    path.touch()
    assert current_revision(path) is None
    assert not (tmp_path / "index.sqlite-wal").exists()


def test_who_made_a_new_file_was_cut_off(tmp_path: Path) -> None:
    """Before it was in WAL mode: what SQLite has journalled is rolled back, and who only reads cannot do that."""
    making, path = tmp_path / "making.sqlite", tmp_path / "index.sqlite"
    with closing(sqlite3.connect(making)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE wide (value)")
        connection.execute("INSERT INTO wide VALUES (zeroblob(100000))")
        for suffix in ("", "-journal"):
            copyfile(f"{making}{suffix}", f"{path}{suffix}")
    assert path.stat().st_size
    assert current_revision(path) is None
    assert upgrade_index(path) is None
    assert current_revision(path) == HEAD


def test_index_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    upgrade_index(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'f00d'")
        connection.commit()
    with pytest.raises(IndexTooNew, match="f00d"):
        upgrade_index(path)


@pytest.mark.parametrize("name", ["a?b", "a%20b", "a#b", "a b", "ü&c=1", "file:a"])
def test_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    directory.mkdir()
    upgrade_index(directory / "new.sqlite")
    config = Config()
    config.set_main_option("script_location", str(migrations_path()))
    base = ScriptDirectory.from_config(config).get_base() or ""
    old = migrated_from_nothing(tmp_path / "old.sqlite", base).rename(directory / "old.sqlite")
    assert upgrade_index(old) == base
    assert current_revision(old) == current_revision(directory / "new.sqlite") == HEAD
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_trigram_table_follows_the_names(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    upgrade_index(path)
    counts = "number_of_studies, number_of_series, number_of_instances"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            f"INSERT INTO patient (identity, patient_name_key, {counts}) VALUES ('1', 'smith^john', 0, 0, 0)"
        )

        def found(trigram: str) -> bool:
            sql = "SELECT count(*) FROM patient_name_trigram WHERE patient_name_trigram MATCH ?"
            return bool(connection.execute(sql, (f'"{trigram}"',)).fetchone()[0])

        assert found("mit")
        connection.execute("UPDATE patient SET patient_name_key = 'jones^john'")
        assert found("nes")
        assert not found("mit")
        connection.execute("UPDATE patient SET number_of_studies = 2")
        assert found("nes")
        connection.execute("DELETE FROM patient")
        assert not found("nes")
        connection.execute("INSERT INTO patient_name_trigram (patient_name_trigram) VALUES ('integrity-check')")
