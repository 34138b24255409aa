"""Tables of the index, derived from the keys (archive/keys.py).

patient <- study <- series <- instance by integer ids in the order of arrival: an instance that is replaced gets a new
one, so that who has read up to an id finds behind it what came since. ``attributes`` keeps, a level, header elements
that a query may return beyond the columns: raw, as received. Counts, ``modalities`` and ``sop_classes`` are maintained
by the writer, never computed at a match; ``patient_name_sounds`` is ``phonetic.name_sounds(patient_name)``.

Component groups of a person name stand in one ``_key`` column, joined by ``=`` (PS3.5 §6.2.1.1). The first is found by
the plain index on that column, the others by partial indexes over ``second_group`` and ``third_group`` of it, which
are empty where names have one group. Infix wildcards go through a trigram table that triggers keep (SQLite's FTS5,
external content: it holds no copy of the names).
"""

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    event,
    func,
    literal_column,
)

from pacslite.archive.keys import KEYS, Level
from pacslite.archive.revision import HEAD

__all__ = [
    "HEAD",
    "SQLITE_NAME_SEARCH",
    "deleted_file",
    "extra_key",
    "extra_value",
    "has_second_group",
    "has_third_group",
    "instance",
    "metadata",
    "patient",
    "second_group",
    "series",
    "study",
    "third_group",
    "totals",
]

metadata = MetaData()


def _key_columns(level: Level) -> list[Column[object]]:
    """Columns of the keys of ``level``: the value as received, and its normalised twin where there is one."""
    columns: list[Column[object]] = []
    for key in KEYS:
        if key.level is level:
            columns.append(Column(key.column, Integer if key.vr == "US" else Text, nullable=True))
            if key.match != key.column:
                columns.append(Column(key.match, Integer if key.vr == "IS" else Text, nullable=True))
    return columns


patient = Table(
    "patient",
    metadata,
    Column("id", Integer, primary_key=True),
    # Patient ID and its issuer, or the Study Instance UID where there is no Patient ID (PS3.3 §C.7.1.1: Type 2)
    Column("identity", Text, nullable=False, unique=True),
    *_key_columns(Level.PATIENT),
    Column("patient_name_sounds", Text),
    Column("number_of_studies", Integer, nullable=False, default=0),
    Column("number_of_series", Integer, nullable=False, default=0),
    Column("number_of_instances", Integer, nullable=False, default=0),
    Column("attributes", LargeBinary),
)
study = Table(
    "study",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("patient_fk", ForeignKey("patient.id"), nullable=False, index=True),
    *_key_columns(Level.STUDY),
    Column("modalities", Text),  # ascending, joined by a backslash
    Column("sop_classes", Text),
    Column("number_of_series", Integer, nullable=False, default=0),
    Column("number_of_instances", Integer, nullable=False, default=0),
    Column("attributes", LargeBinary),
    UniqueConstraint("study_instance_uid"),
)
series = Table(
    "series",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_fk", ForeignKey("study.id"), nullable=False),
    *_key_columns(Level.SERIES),
    Column("number_of_instances", Integer, nullable=False, default=0),
    Column("attributes", LargeBinary),
    UniqueConstraint("study_fk", "series_instance_uid"),  # finds the series of a study too
)
instance = Table(
    "instance",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("series_fk", ForeignKey("series.id"), nullable=False, index=True),
    *_key_columns(Level.IMAGE),
    Column("transfer_syntax_uid", Text, nullable=False),
    Column("data_set_offset", Integer, nullable=False),  # bytes before the data set in the file
    Column("data_set_length", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False),  # xxh3_128 of the data set bytes
    Column("source_ae_title", Text),
    Column("received_at", Integer, nullable=False),  # seconds since the epoch
    Column("attributes", LargeBinary),
    UniqueConstraint("sop_instance_uid"),
)
# The whole archive in one row (id 1), kept by the writer: quota and statistics never count rows.
totals = Table(
    "totals",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("patients", Integer, nullable=False, default=0),
    Column("studies", Integer, nullable=False, default=0),
    Column("series", Integer, nullable=False, default=0),
    Column("instances", Integer, nullable=False, default=0),
    Column("bytes", Integer, nullable=False, default=0),  # of the files
)
# Files whose rows are gone and that may still be there: committed with the removal of the rows, dropped once the
# unlinking is durable. ``name`` is relative to the data directory.
deleted_file = Table(
    "deleted_file",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("sop_instance_uid", Text, nullable=False),
)

# Keys by configuration (archive/extra.py). Of what is stored when a key comes, entities up to id ``up_to`` are given
# their values in the background, and ``position`` is the last that has them; later ones have them from the start.
extra_key = Table(
    "extra_key",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("tag", Integer, nullable=False),
    Column("vr", Text, nullable=False),
    Column("level", Integer, nullable=False),
    Column("creator", Text, nullable=False),
    Column("state", Text, nullable=False),  # building, complete, dropped (its values are still being removed)
    Column("position", Integer, nullable=False),
    Column("up_to", Integer, nullable=False),
)
# ``owner`` is the id of a patient, study, series or instance, as the key's level says
extra_value = Table(
    "extra_value",
    metadata,
    Column("key_id", Integer, primary_key=True, autoincrement=False),
    Column("owner", Integer, primary_key=True, autoincrement=False),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("value", Text),
    Column("form", Text),
    sqlite_with_rowid=False,  # so the index below ends with owner and place
)
Index("ix_extra_value_form", extra_value.c.key_id, extra_value.c.form)


# Literals and not bound values: the planner finds an index over an expression only by the same text.
def has_second_group(name_key: ColumnElement[str]) -> ColumnElement[bool]:
    """Is there more than the alphabetic component group?"""
    return func.instr(name_key, literal_column("'='")) > literal_column("0")


def second_group(name_key: ColumnElement[str]) -> ColumnElement[str]:
    """The ideographic component group, and what follows it."""
    return func.substr(name_key, func.instr(name_key, literal_column("'='")) + literal_column("1"))


def has_third_group(name_key: ColumnElement[str]) -> ColumnElement[bool]:
    """Is there a phonetic component group?"""
    return has_second_group(second_group(name_key)) & has_second_group(name_key)


def third_group(name_key: ColumnElement[str]) -> ColumnElement[str]:
    """The phonetic component group."""
    return second_group(second_group(name_key))


# Walked in order of (column, id): SQLite ends every entry with the rowid, which is the id.
for _key in KEYS:
    if _key.indexed and _key.kind != "U":
        _table = (patient, study, series, instance)[_key.level]
        _column = _table.c[_key.match]
        Index(f"ix_{_table.name}_{_key.match}", _column)
        if _key.vr == "PN":
            Index(
                f"ix_{_table.name}_{_key.match}_second",
                second_group(_column),
                sqlite_where=has_second_group(_column),
                _table=_table,
            )
            Index(
                f"ix_{_table.name}_{_key.match}_third",
                third_group(_column),
                sqlite_where=has_third_group(_column),
                _table=_table,
            )
Index("ix_patient_patient_id", patient.c.patient_id)
Index("ix_study_modalities", study.c.modalities)
Index("ix_series_series_instance_uid", series.c.series_instance_uid)

# detail=none: rowids only. A pattern is looked up by its trigrams, and compared with the name itself afterwards.
SQLITE_NAME_SEARCH: tuple[str, ...] = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS patient_name_trigram USING fts5(patient_name_key, patient_name_sounds, "
    "content='patient', content_rowid='id', tokenize='trigram case_sensitive 1', detail='none', columnsize=0)",
    "CREATE TRIGGER IF NOT EXISTS patient_name_inserted AFTER INSERT ON patient BEGIN "
    "INSERT INTO patient_name_trigram (rowid, patient_name_key, patient_name_sounds) "
    "VALUES (new.id, new.patient_name_key, new.patient_name_sounds); END",
    "CREATE TRIGGER IF NOT EXISTS patient_name_deleted AFTER DELETE ON patient BEGIN "
    "INSERT INTO patient_name_trigram (patient_name_trigram, rowid, patient_name_key, patient_name_sounds) "
    "VALUES ('delete', old.id, old.patient_name_key, old.patient_name_sounds); END",
    "CREATE TRIGGER IF NOT EXISTS patient_name_updated "
    "AFTER UPDATE OF patient_name_key, patient_name_sounds ON patient "
    "WHEN old.patient_name_key IS NOT new.patient_name_key OR old.patient_name_sounds IS NOT new.patient_name_sounds "
    "BEGIN INSERT INTO patient_name_trigram (patient_name_trigram, rowid, patient_name_key, patient_name_sounds) "
    "VALUES ('delete', old.id, old.patient_name_key, old.patient_name_sounds); "
    "INSERT INTO patient_name_trigram (rowid, patient_name_key, patient_name_sounds) "
    "VALUES (new.id, new.patient_name_key, new.patient_name_sounds); END",
)


@event.listens_for(metadata, "after_create")
def _create_name_search(_target: MetaData, connection: Connection, **_: object) -> None:
    if connection.dialect.name == "sqlite":
        for statement in SQLITE_NAME_SEARCH:
            connection.exec_driver_sql(statement)
