"""The text of the writer's SQL; written by ``python -m pacslite.archive.index.definitions``, then ``ruff format``."""

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Statement", "Statements"]


class Statement(NamedTuple):
    """SQL text and the names of its positional parameters, in order."""

    text: str
    names: tuple[str, ...]

    def row(self, values: Mapping[str, object]) -> tuple[object, ...]:
        """The parameters as the text wants them."""
        return tuple(values[name] for name in self.names)


class Statements:
    """All of them."""

    # written by definitions.py
    insert_patient = Statement(
        "INSERT INTO patient (identity, patient_name, patient_name_key, patient_id, issuer_of_patient_id, "
        "patient_birth_date, patient_birth_date_key, patient_birth_time, patient_birth_time_key, "
        "patient_sex, other_patient_ids, other_patient_names, other_patient_names_key, ethnic_group, "
        "patient_comments, patient_name_sounds, number_of_studies, number_of_series, number_of_instances, "
        "attributes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            "identity",
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
            "number_of_studies",
            "number_of_series",
            "number_of_instances",
            "attributes",
        ),
    )
    insert_study = Statement(
        "INSERT INTO study (patient_fk, study_instance_uid, study_date, study_date_key, study_time, "
        "study_time_key, accession_number, study_id, study_description, referring_physician_name, "
        "referring_physician_name_key, name_of_physicians_reading_study, "
        "name_of_physicians_reading_study_key, admitting_diagnoses, institution_name, "
        "timezone_offset_from_utc, patient_age, patient_size, patient_size_key, patient_weight, "
        "patient_weight_key, occupation, additional_patient_history, modalities, sop_classes, "
        "number_of_series, number_of_instances, attributes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
        "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            "patient_fk",
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
            "number_of_series",
            "number_of_instances",
            "attributes",
        ),
    )
    insert_series = Statement(
        "INSERT INTO series (study_fk, series_instance_uid, modality, series_number, series_number_key, "
        "series_date, series_date_key, series_time, series_time_key, series_description, station_name, "
        "performing_physician_name, performing_physician_name_key, operators_name, operators_name_key, "
        "body_part_examined, protocol_name, laterality, performed_procedure_step_start_date, "
        "performed_procedure_step_start_date_key, performed_procedure_step_start_time, "
        "performed_procedure_step_start_time_key, number_of_instances, attributes) VALUES (?, ?, ?, ?, ?, "
        "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            "study_fk",
            "series_instance_uid",
            "modality",
            "series_number",
            "series_number_key",
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
            "number_of_instances",
            "attributes",
        ),
    )
    insert_instance = Statement(
        "INSERT INTO instance (series_fk, sop_instance_uid, sop_class_uid, instance_number, "
        "instance_number_key, image_type, content_date, content_date_key, content_time, content_time_key, "
        "acquisition_number, acquisition_number_key, number_of_frames, number_of_frames_key, rows_, "
        "columns_, bits_allocated, transfer_syntax_uid, data_set_offset, data_set_length, digest, "
        "source_ae_title, received_at, attributes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
        "?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            "series_fk",
            "sop_instance_uid",
            "sop_class_uid",
            "instance_number",
            "instance_number_key",
            "image_type",
            "content_date",
            "content_date_key",
            "content_time",
            "content_time_key",
            "acquisition_number",
            "acquisition_number_key",
            "number_of_frames",
            "number_of_frames_key",
            "rows_",
            "columns_",
            "bits_allocated",
            "transfer_syntax_uid",
            "data_set_offset",
            "data_set_length",
            "digest",
            "source_ae_title",
            "received_at",
            "attributes",
        ),
    )
    update_instance = Statement(
        "UPDATE instance SET series_fk=?, sop_instance_uid=?, sop_class_uid=?, instance_number=?, "
        "instance_number_key=?, image_type=?, content_date=?, content_date_key=?, content_time=?, "
        "content_time_key=?, acquisition_number=?, acquisition_number_key=?, number_of_frames=?, "
        "number_of_frames_key=?, rows_=?, columns_=?, bits_allocated=?, transfer_syntax_uid=?, "
        "data_set_offset=?, data_set_length=?, digest=?, source_ae_title=?, received_at=?, attributes=? "
        "WHERE instance.id = ?",
        (
            "series_fk",
            "sop_instance_uid",
            "sop_class_uid",
            "instance_number",
            "instance_number_key",
            "image_type",
            "content_date",
            "content_date_key",
            "content_time",
            "content_time_key",
            "acquisition_number",
            "acquisition_number_key",
            "number_of_frames",
            "number_of_frames_key",
            "rows_",
            "columns_",
            "bits_allocated",
            "transfer_syntax_uid",
            "data_set_offset",
            "data_set_length",
            "digest",
            "source_ae_title",
            "received_at",
            "attributes",
            "of",
        ),
    )
    renumber_instance = Statement(
        "UPDATE instance SET id=(SELECT max(newest.id) + 1 AS anon_1 FROM instance AS newest) WHERE "
        "instance.sop_instance_uid = ?",
        ("sop_instance_uid",),
    )
    add_to_series = Statement(
        "UPDATE series SET number_of_instances=(series.number_of_instances + ?) WHERE series.id = ?",
        ("number_of_instances", "of"),
    )
    add_to_study = Statement(
        "UPDATE study SET number_of_series=(study.number_of_series + ?), "
        "number_of_instances=(study.number_of_instances + ?) WHERE study.id = ?",
        ("number_of_series", "number_of_instances", "of"),
    )
    add_to_patient = Statement(
        "UPDATE patient SET number_of_studies=(patient.number_of_studies + ?), "
        "number_of_series=(patient.number_of_series + ?), "
        "number_of_instances=(patient.number_of_instances + ?) WHERE patient.id = ?",
        ("number_of_studies", "number_of_series", "number_of_instances", "of"),
    )
    add_to_totals = Statement(
        "UPDATE totals SET patients=(totals.patients + ?), studies=(totals.studies + ?), "
        "series=(totals.series + ?), instances=(totals.instances + ?), bytes=(totals.bytes + ?) WHERE "
        "totals.id = ?",
        ("patients", "studies", "series", "instances", "bytes", "of"),
    )
    set_study_sets = Statement(
        "UPDATE study SET modalities=?, sop_classes=? WHERE study.id = ?",
        ("modalities", "sop_classes", "of"),
    )
    insert_totals = Statement(
        "INSERT INTO totals (id, patients, studies, series, instances, bytes) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT DO NOTHING",
        ("id", "patients", "studies", "series", "instances", "bytes"),
    )
    select_patient = Statement(
        "SELECT patient.id FROM patient WHERE patient.identity = ?",
        ("identity",),
    )
    select_study = Statement(
        "SELECT study.id, study.patient_fk, patient.identity, study.modalities, study.sop_classes FROM "
        "study JOIN patient ON study.patient_fk = patient.id WHERE study.study_instance_uid = ?",
        ("study_instance_uid",),
    )
    select_series = Statement(
        "SELECT series.id FROM series WHERE series.study_fk = ? AND series.series_instance_uid = ?",
        ("study_fk", "series_instance_uid"),
    )
    select_totals = Statement(
        "SELECT totals.patients, totals.studies, totals.series, totals.instances, totals.bytes FROM totals",
        (),
    )
    select_modalities = Statement(
        "SELECT DISTINCT series.modality FROM series WHERE series.study_fk = ? AND series.modality IS NOT NULL",
        ("of",),
    )
    select_sop_classes = Statement(
        "SELECT DISTINCT instance.sop_class_uid FROM instance JOIN series ON instance.series_fk = "
        "series.id WHERE series.study_fk = ?",
        ("of",),
    )
    select_sop_class = Statement(
        "SELECT instance.sop_class_uid FROM instance WHERE instance.id = ?",
        ("of",),
    )
    select_instance = Statement(
        "SELECT instance.id, instance.sop_instance_uid, instance.data_set_offset + "
        "instance.data_set_length AS anon_1, series.id AS id_1, series.series_instance_uid, study.id AS "
        "id_2, study.study_instance_uid, study.patient_fk, instance.digest FROM instance JOIN series ON "
        "instance.series_fk = series.id JOIN study ON series.study_fk = study.id WHERE "
        "instance.sop_instance_uid = ?",
        ("sop_instance_uid",),
    )
    select_page = Statement(
        "SELECT instance.id, instance.sop_instance_uid, instance.data_set_offset + "
        "instance.data_set_length AS anon_1, series.id AS id_1, series.series_instance_uid, study.id AS "
        "id_2, study.study_instance_uid, study.patient_fk, instance.digest FROM instance JOIN series ON "
        "instance.series_fk = series.id JOIN study ON series.study_fk = study.id WHERE instance.id > ? "
        "ORDER BY instance.id LIMIT ? OFFSET 0",
        ("after", "count"),
    )
    select_newest = Statement(
        "SELECT instance.id, instance.sop_instance_uid, instance.data_set_offset + "
        "instance.data_set_length AS anon_1, series.id AS id_1, series.series_instance_uid, study.id AS "
        "id_2, study.study_instance_uid, study.patient_fk, instance.digest FROM instance JOIN series ON "
        "instance.series_fk = series.id JOIN study ON series.study_fk = study.id ORDER BY instance.id "
        "DESC LIMIT ? OFFSET 0",
        ("count",),
    )
    select_of_patient = Statement(
        "SELECT instance.id, instance.sop_instance_uid, instance.data_set_offset + "
        "instance.data_set_length AS anon_1, series.id AS id_1, series.series_instance_uid, study.id AS "
        "id_2, study.study_instance_uid, study.patient_fk, instance.digest FROM instance JOIN series ON "
        "instance.series_fk = series.id JOIN study ON series.study_fk = study.id JOIN patient ON "
        "study.patient_fk = patient.id WHERE patient.patient_id = ? LIMIT ? OFFSET 0",
        ("uid", "count"),
    )
    select_of_study = Statement(
        "SELECT instance.id, instance.sop_instance_uid, instance.data_set_offset + "
        "instance.data_set_length AS anon_1, series.id AS id_1, series.series_instance_uid, study.id AS "
        "id_2, study.study_instance_uid, study.patient_fk, instance.digest FROM instance JOIN series ON "
        "instance.series_fk = series.id JOIN study ON series.study_fk = study.id WHERE "
        "study.study_instance_uid = ? LIMIT ? OFFSET 0",
        ("uid", "count"),
    )
    select_of_series = Statement(
        "SELECT instance.id, instance.sop_instance_uid, instance.data_set_offset + "
        "instance.data_set_length AS anon_1, series.id AS id_1, series.series_instance_uid, study.id AS "
        "id_2, study.study_instance_uid, study.patient_fk, instance.digest FROM instance JOIN series ON "
        "instance.series_fk = series.id JOIN study ON series.study_fk = study.id WHERE "
        "series.series_instance_uid = ? LIMIT ? OFFSET 0",
        ("uid", "count"),
    )
    select_of_image = Statement(
        "SELECT instance.id, instance.sop_instance_uid, instance.data_set_offset + "
        "instance.data_set_length AS anon_1, series.id AS id_1, series.series_instance_uid, study.id AS "
        "id_2, study.study_instance_uid, study.patient_fk, instance.digest FROM instance JOIN series ON "
        "instance.series_fk = series.id JOIN study ON series.study_fk = study.id WHERE "
        "instance.sop_instance_uid = ? LIMIT ? OFFSET 0",
        ("uid", "count"),
    )
    delete_instance = Statement(
        "DELETE FROM instance WHERE instance.id = ?",
        ("of",),
    )
    delete_series = Statement(
        "DELETE FROM series WHERE series.id = ? AND series.number_of_instances = 0",
        ("of",),
    )
    delete_study = Statement(
        "DELETE FROM study WHERE study.id = ? AND study.number_of_series = 0",
        ("of",),
    )
    delete_patient = Statement(
        "DELETE FROM patient WHERE patient.id = ? AND patient.number_of_studies = 0",
        ("of",),
    )
    insert_deleted_file = Statement(
        "INSERT INTO deleted_file (name, sop_instance_uid) VALUES (?, ?)",
        ("name", "sop_instance_uid"),
    )
    select_deleted_files = Statement(
        "SELECT deleted_file.id, deleted_file.name, deleted_file.sop_instance_uid FROM deleted_file ORDER "
        "BY deleted_file.id",
        (),
    )
    select_last_deleted_file = Statement(
        "SELECT max(deleted_file.id) AS max_1 FROM deleted_file",
        (),
    )
    delete_deleted_files = Statement(
        "DELETE FROM deleted_file WHERE deleted_file.id <= ?",
        ("up_to",),
    )
    select_instance_id = Statement(
        "SELECT instance.id FROM instance WHERE instance.sop_instance_uid = ?",
        ("sop_instance_uid",),
    )
    select_extra_keys = Statement(
        "SELECT extra_key.id, extra_key.tag, extra_key.vr, extra_key.level, extra_key.creator, "
        "extra_key.state, extra_key.position, extra_key.up_to FROM extra_key ORDER BY extra_key.id",
        (),
    )
    insert_extra_key = Statement(
        "INSERT INTO extra_key (tag, vr, level, creator, state, position, up_to) VALUES (?, ?, ?, ?, ?, ?, ?)",
        ("tag", "vr", "level", "creator", "state", "position", "up_to"),
    )
    set_extra_key = Statement(
        "UPDATE extra_key SET state=?, position=? WHERE extra_key.id = ?",
        ("state", "position", "of"),
    )
    delete_extra_key = Statement(
        "DELETE FROM extra_key WHERE extra_key.id = ?",
        ("of",),
    )
    insert_extra_value = Statement(
        "INSERT INTO extra_value (key_id, owner, place, value, form) VALUES (?, ?, ?, ?, ?)",
        ("key_id", "owner", "place", "value", "form"),
    )
    select_extra_values = Statement(
        "SELECT extra_value.place, extra_value.value, extra_value.form FROM extra_value WHERE "
        "extra_value.key_id = ? AND extra_value.owner = ? ORDER BY extra_value.place",
        ("of", "owner"),
    )
    delete_extra_values = Statement(
        "DELETE FROM extra_value WHERE extra_value.key_id = ? AND extra_value.owner = ?",
        ("of", "owner"),
    )
    select_extra_owners = Statement(
        "SELECT extra_value.owner FROM extra_value WHERE extra_value.key_id = ? AND extra_value.owner > ? "
        "GROUP BY extra_value.owner ORDER BY extra_value.owner LIMIT ? OFFSET 0",
        ("of", "after", "count"),
    )
    delete_extra_values_up_to = Statement(
        "DELETE FROM extra_value WHERE extra_value.key_id = ? AND extra_value.owner <= ?",
        ("of", "owner"),
    )
    select_last_patient = Statement(
        "SELECT max(patient.id) AS max_1 FROM patient",
        (),
    )
    select_last_study = Statement(
        "SELECT max(study.id) AS max_1 FROM study",
        (),
    )
    select_last_series = Statement(
        "SELECT max(series.id) AS max_1 FROM series",
        (),
    )
    select_last_image = Statement(
        "SELECT max(instance.id) AS max_1 FROM instance",
        (),
    )
    select_kept_of_patient = Statement(
        "SELECT patient.id, patient.identity, x'', patient.attributes FROM patient WHERE patient.id > ? "
        "AND patient.id <= ? ORDER BY patient.id LIMIT ? OFFSET 0",
        ("after", "up_to", "count"),
    )
    select_kept_of_study = Statement(
        "SELECT study.id, study.study_instance_uid, x'', study.attributes FROM study WHERE study.id > ? "
        "AND study.id <= ? ORDER BY study.id LIMIT ? OFFSET 0",
        ("after", "up_to", "count"),
    )
    select_kept_of_series = Statement(
        "SELECT series.id, series.series_instance_uid, x'', series.attributes FROM series WHERE series.id "
        "> ? AND series.id <= ? ORDER BY series.id LIMIT ? OFFSET 0",
        ("after", "up_to", "count"),
    )
    select_kept_of_image = Statement(
        "SELECT instance.id, instance.sop_instance_uid, instance.digest, instance.attributes FROM "
        "instance WHERE instance.id > ? AND instance.id <= ? ORDER BY instance.id LIMIT ? OFFSET 0",
        ("after", "up_to", "count"),
    )
    select_first_below_patient = Statement(
        "SELECT instance.id, instance.sop_instance_uid, instance.data_set_offset + "
        "instance.data_set_length AS anon_1, series.id AS id_1, series.series_instance_uid, study.id AS "
        "id_2, study.study_instance_uid, study.patient_fk, instance.digest FROM instance JOIN series ON "
        "instance.series_fk = series.id JOIN study ON series.study_fk = study.id WHERE study.patient_fk = "
        "? ORDER BY instance.id LIMIT ? OFFSET 0",
        ("of", "count"),
    )
    select_first_below_study = Statement(
        "SELECT instance.id, instance.sop_instance_uid, instance.data_set_offset + "
        "instance.data_set_length AS anon_1, series.id AS id_1, series.series_instance_uid, study.id AS "
        "id_2, study.study_instance_uid, study.patient_fk, instance.digest FROM instance JOIN series ON "
        "instance.series_fk = series.id JOIN study ON series.study_fk = study.id WHERE series.study_fk = "
        "? ORDER BY instance.id LIMIT ? OFFSET 0",
        ("of", "count"),
    )
    select_first_below_series = Statement(
        "SELECT instance.id, instance.sop_instance_uid, instance.data_set_offset + "
        "instance.data_set_length AS anon_1, series.id AS id_1, series.series_instance_uid, study.id AS "
        "id_2, study.study_instance_uid, study.patient_fk, instance.digest FROM instance JOIN series ON "
        "instance.series_fk = series.id JOIN study ON series.study_fk = study.id WHERE series.id = ? "
        "ORDER BY instance.id LIMIT ? OFFSET 0",
        ("of", "count"),
    )
    select_first_below_image = Statement(
        "SELECT instance.id, instance.sop_instance_uid, instance.data_set_offset + "
        "instance.data_set_length AS anon_1, series.id AS id_1, series.series_instance_uid, study.id AS "
        "id_2, study.study_instance_uid, study.patient_fk, instance.digest FROM instance JOIN series ON "
        "instance.series_fk = series.id JOIN study ON series.study_fk = study.id WHERE instance.id = ? "
        "ORDER BY instance.id LIMIT ? OFFSET 0",
        ("of", "count"),
    )
    select_identity_of_patient = Statement(
        "SELECT patient.identity, x'' FROM patient WHERE patient.id = ?",
        ("of",),
    )
    select_identity_of_study = Statement(
        "SELECT study.study_instance_uid, x'' FROM study WHERE study.id = ?",
        ("of",),
    )
    select_identity_of_series = Statement(
        "SELECT series.series_instance_uid, x'' FROM series WHERE series.id = ?",
        ("of",),
    )
    select_identity_of_image = Statement(
        "SELECT instance.sop_instance_uid, instance.digest FROM instance WHERE instance.id = ?",
        ("of",),
    )
