"""The index as it was first published."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text) for name in names]


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False)


def upgrade() -> None:
    op.create_table(
        "deleted_file",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sop_instance_uid", sa.Text, nullable=False),
    )
    op.create_table(
        "patient",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("identity", sa.Text, nullable=False, unique=True),
        *_text(
            "patient_name",
            "patient_name_key",
            "patient_id",
            "issuer_of_patient_id",
            "patient_birth_date",
            "patient_birth_date_key",
            "patient_birth_time",
            "patient_birth_time_key",
            "patient_sex",
            "other_patient_ids",
            "other_patient_names",
            "other_patient_names_key",
            "ethnic_group",
            "patient_comments",
            "patient_name_sounds",
        ),
        _count("number_of_studies"),
        _count("number_of_series"),
        _count("number_of_instances"),
        sa.Column("attributes", sa.LargeBinary),
    )
    op.create_table(
        "totals",
        sa.Column("id", sa.Integer, primary_key=True),
        _count("patients"),
        _count("studies"),
        _count("series"),
        _count("instances"),
        _count("bytes"),
    )
    op.create_table(
        "study",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("patient_fk", sa.Integer, sa.ForeignKey("patient.id"), nullable=False),
        *_text(
            "study_instance_uid",
            "study_date",
            "study_date_key",
            "study_time",
            "study_time_key",
            "accession_number",
            "study_id",
            "study_description",
            "referring_physician_name",
            "referring_physician_name_key",
            "name_of_physicians_reading_study",
            "name_of_physicians_reading_study_key",
            "admitting_diagnoses",
            "institution_name",
            "timezone_offset_from_utc",
            "patient_age",
            "patient_size",
            "patient_size_key",
            "patient_weight",
            "patient_weight_key",
            "occupation",
            "additional_patient_history",
            "modalities",
            "sop_classes",
        ),
        _count("number_of_series"),
        _count("number_of_instances"),
        sa.Column("attributes", sa.LargeBinary),
        sa.UniqueConstraint("study_instance_uid"),
    )
    op.create_table(
        "series",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study_fk", sa.Integer, sa.ForeignKey("study.id"), nullable=False),
        *_text(
            "series_instance_uid",
            "modality",
            "series_number",
        ),
        sa.Column("series_number_key", sa.Integer),
        *_text(
            "series_date",
            "series_date_key",
            "series_time",
            "series_time_key",
            "series_description",
            "station_name",
            "performing_physician_name",
            "performing_physician_name_key",
            "operators_name",
            "operators_name_key",
            "body_part_examined",
            "protocol_name",
            "laterality",
            "performed_procedure_step_start_date",
            "performed_procedure_step_start_date_key",
            "performed_procedure_step_start_time",
            "performed_procedure_step_start_time_key",
        ),
        _count("number_of_instances"),
        sa.Column("attributes", sa.LargeBinary),
        sa.UniqueConstraint("study_fk", "series_instance_uid"),
    )
    op.create_table(
        "instance",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("series_fk", sa.Integer, sa.ForeignKey("series.id"), nullable=False),
        *_text(
            "sop_instance_uid",
            "sop_class_uid",
            "instance_number",
        ),
        sa.Column("instance_number_key", sa.Integer),
        *_text(
            "image_type",
            "content_date",
            "content_date_key",
            "content_time",
            "content_time_key",
            "acquisition_number",
        ),
        sa.Column("acquisition_number_key", sa.Integer),
        *_text(
            "number_of_frames",
        ),
        sa.Column("number_of_frames_key", sa.Integer),
        sa.Column("rows_", sa.Integer),
        sa.Column("columns_", sa.Integer),
        sa.Column("bits_allocated", sa.Integer),
        sa.Column("transfer_syntax_uid", sa.Text, nullable=False),
        _count("data_set_offset"),
        _count("data_set_length"),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        *_text(
            "source_ae_title",
        ),
        _count("received_at"),
        sa.Column("attributes", sa.LargeBinary),
        sa.UniqueConstraint("sop_instance_uid"),
    )
    op.create_index("ix_patient_patient_birth_date_key", "patient", ["patient_birth_date_key"])
    op.create_index("ix_patient_patient_id", "patient", ["patient_id"])
    op.create_index("ix_patient_patient_name_key", "patient", ["patient_name_key"])
    op.create_index("ix_study_accession_number", "study", ["accession_number"])
    op.create_index("ix_study_modalities", "study", ["modalities"])
    op.create_index("ix_study_patient_fk", "study", ["patient_fk"])
    op.create_index("ix_study_referring_physician_name_key", "study", ["referring_physician_name_key"])
    op.create_index("ix_study_study_date_key", "study", ["study_date_key"])
    op.create_index("ix_study_study_description", "study", ["study_description"])
    op.create_index("ix_study_study_id", "study", ["study_id"])
    op.create_index("ix_series_modality", "series", ["modality"])
    op.create_index(
        "ix_series_performed_procedure_step_start_date_key", "series", ["performed_procedure_step_start_date_key"]
    )
    op.create_index("ix_series_series_instance_uid", "series", ["series_instance_uid"])
    op.create_index("ix_instance_series_fk", "instance", ["series_fk"])
    for table, name_key in (("patient", "patient_name_key"), ("study", "referring_physician_name_key")):
        second = f"substr({name_key}, instr({name_key}, '=') + 1)"
        third = f"substr({second}, instr({second}, '=') + 1)"
        has_second = f"instr({name_key}, '=') > 0"
        has_third = f"instr({second}, '=') > 0 AND {has_second}"
        for name, group, condition in (("second", second, has_second), ("third", third, has_third)):
            op.execute(f"CREATE INDEX ix_{table}_{name_key}_{name} ON {table} ({group}) WHERE {condition}")
    if op.get_bind().dialect.name == "sqlite":
        for statement in NAME_SEARCH:
            op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("before the first revision there is nothing")


NAME_SEARCH = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS patient_name_trigram USING fts5(patient_name_key, patient_name_sounds, "
    "content='patient', content_rowid='id', tokenize='trigram case_sensitive 1', detail='none', columnsize=0)",
    "CREATE TRIGGER IF NOT EXISTS patient_name_inserted AFTER INSERT ON patient BEGIN INSERT INTO "
    "patient_name_trigram (rowid, patient_name_key, patient_name_sounds) VALUES (new.id, new.patient_name_key, "
    "new.patient_name_sounds); END",
    "CREATE TRIGGER IF NOT EXISTS patient_name_deleted AFTER DELETE ON patient BEGIN INSERT INTO "
    "patient_name_trigram (patient_name_trigram, rowid, patient_name_key, patient_name_sounds) VALUES "
    "('delete', old.id, old.patient_name_key, old.patient_name_sounds); END",
    "CREATE TRIGGER IF NOT EXISTS patient_name_updated AFTER UPDATE OF patient_name_key, patient_name_sounds "
    "ON patient WHEN old.patient_name_key IS NOT new.patient_name_key OR old.patient_name_sounds IS NOT "
    "new.patient_name_sounds BEGIN INSERT INTO patient_name_trigram (patient_name_trigram, rowid, "
    "patient_name_key, patient_name_sounds) VALUES ('delete', old.id, old.patient_name_key, "
    "old.patient_name_sounds); INSERT INTO patient_name_trigram (rowid, patient_name_key, patient_name_sounds) "
    "VALUES (new.id, new.patient_name_key, new.patient_name_sounds); END",
)
