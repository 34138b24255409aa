"""Rows whose patient, study or series is gone: no query finds what is below them. SQLite is not told to keep these."""

from pacslite.archive.index.extra_values import forget_extra_values
from pacslite.archive.index.writer import IndexWriter
from pacslite.archive.keys import Level

__all__ = ["drop_dangling", "find_dangling"]

# level, table, what names a row of it, its link, and the table that leads to; from above, for what is below goes too
_LINKS = (
    (Level.STUDY, "study", "study_instance_uid", "patient_fk", "patient"),
    (Level.SERIES, "series", "series_instance_uid", "study_fk", "study"),
    (Level.IMAGE, "instance", "sop_instance_uid", "series_fk", "series"),
)
_FEW = 20  # named of each table


def find_dangling(index: IndexWriter) -> list[tuple[str, str]]:
    """Name the rows, and say what each lacks."""
    found: list[tuple[str, str]] = []
    with index.reading() as connection:
        connection.execute("BEGIN")  # one state for all: stores and deletions go on meanwhile
        try:
            for _, table, name, link, above in _LINKS:
                statement = f"SELECT {name}, {link} FROM {_dangling(table, link, above)} LIMIT {_FEW}"  # noqa: S608
                for uid, row_id in connection.execute(statement):
                    found.append((uid, f"{table} without its {above} ({row_id})"))
        finally:
            connection.execute("ROLLBACK")
    return found


def drop_dangling(index: IndexWriter) -> list[str]:
    """Remove the rows and all below them; gives the SOP Instance UIDs, whose files are to be indexed again."""
    dropped: list[str] = []
    with index.transaction() as connection:
        for level, table, name, link, above in _LINKS:
            rows = connection.execute(f"SELECT id, {name} FROM {_dangling(table, link, above)}").fetchall()  # noqa: S608
            ids = [row_id for row_id, _ in rows]
            connection.executemany(f"DELETE FROM {table} WHERE id = ?", [(row_id,) for row_id in ids])  # noqa: S608
            forget_extra_values(connection, {level: ids})
            dropped = [uid for _, uid in rows]
    return dropped


def _dangling(table: str, link: str, above: str) -> str:
    return f"{table} WHERE NOT EXISTS (SELECT 1 FROM {above} WHERE {above}.id = {table}.{link})"  # noqa: S608
