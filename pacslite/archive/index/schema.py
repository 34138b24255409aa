"""Tables of the index, derived from the keys (archive/keys.py).

patient <- study <- series <- instance by integer ids that only grow. ``attributes`` keeps, a level, the header elements
that a query may return beyond the columns: raw, as received (see ``encode_kept``/``decode_kept`` in archive/ingest).
Counts, ``modalities`` and ``sop_classes`` are maintained by the writer, never computed at a match.
"""

from sqlalchemy import Column, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

from pacslite.archive.keys import KEYS, Level

__all__ = ["deleted_file", "instance", "metadata", "patient", "series", "study", "totals"]

metadata = MetaData()

_INTEGER_KEYS = {"IS", "US"}


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
    Column("modalities", Text),
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
    Column("study_fk", ForeignKey("study.id"), nullable=False, index=True),
    *_key_columns(Level.SERIES),
    Column("number_of_instances", Integer, nullable=False, default=0),
    Column("attributes", LargeBinary),
    UniqueConstraint("study_fk", "series_instance_uid"),
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
)

for _key in KEYS:
    if _key.indexed and _key.kind != "U":
        _table = (patient, study, series, instance)[_key.level]
        Index(f"ix_{_table.name}_{_key.match}", _table.c[_key.match], _table.c.id)
Index("ix_patient_patient_id", patient.c.patient_id, patient.c.id)
Index("ix_series_series_instance_uid", series.c.series_instance_uid)
