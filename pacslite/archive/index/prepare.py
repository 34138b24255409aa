"""Brings an index file to the schema of this version before anybody opens it."""

from pathlib import Path

from sqlalchemy import create_engine, event, inspect
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from pacslite.archive.index.schema import HEAD, metadata

__all__ = ["prepare_index"]


def prepare_index(path: Path) -> None:
    """Create the tables of a new index and stamp them with the schema's revision."""
    engine = _engine(path)
    try:
        with engine.begin() as connection:
            if "instance" in inspect(connection).get_table_names():
                return
            metadata.create_all(connection)
            connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL)")
            connection.exec_driver_sql("DELETE FROM alembic_version")
            connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (HEAD,))
    finally:
        engine.dispose()


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def _configure(connection: object, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")  # type: ignore[attr-defined]

    return engine
