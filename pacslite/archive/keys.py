"""The attributes the archive knows: one row a key (PS3.4 Tables C.6-1 to C.6-4, and the usual optional ones).

Schema, writer, scanner and select derive from these rows: to add a key, add a row (and a migration).
``MAINTAINED`` are the attributes of §C.3.4 that the archive states itself; ``level_of`` says at which level any other
header attribute is kept and may be returned.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from pacslite.archive.modules import PATIENT_MODULES, SERIES_MODULES, STUDY_MODULES

__all__ = [
    "COLUMN_OF_TAG",
    "KEYS",
    "KEY_OF_TAG",
    "MAINTAINED",
    "UNIQUE_KEY",
    "Key",
    "Level",
    "Maintained",
    "level_of",
]


class Level(IntEnum):
    """Query/Retrieve Level (0008,0052), top down."""

    PATIENT = 0
    STUDY = 1
    SERIES = 2
    IMAGE = 3


_NORMALISED = frozenset({"PN", "DA", "TM", "DT", "IS", "DS"})


class Key(NamedTuple):
    """A key attribute and its columns.

    ``column`` holds the value as received (decoded to Unicode, padding stripped, values joined by a backslash; NULL if
    absent or empty); ``match`` is the column that is compared: the same, or a normalised twin where the VR is matched
    by meaning (PN, DA, TM, DT, IS, DS; PS3.4 §C.2.2.2), filled with ``normalise(vr, text)``.
    """

    tag: int
    keyword: str
    vr: str
    level: Level
    column: str
    kind: str  # U unique, R required, O optional
    indexed: bool = False
    multiple: bool = False  # value multiplicity above 1: any of the values may match (§C.2.2.3)

    @property
    def match(self) -> str:
        return f"{self.column}_key" if self.vr in _NORMALISED else self.column


class Maintained(NamedTuple):
    """An attribute that is no received value: the writer keeps its column, which is compared as it is."""

    tag: int
    keyword: str
    vr: str
    level: Level
    column: str
    indexed: bool = False
    multiple: bool = False

    @property
    def match(self) -> str:
        return self.column


_P, _ST, _SE, _I = Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE

KEYS: tuple[Key, ...] = (
    Key(0x00100010, "PatientName", "PN", _P, "patient_name", "R", True),
    Key(0x00100020, "PatientID", "LO", _P, "patient_id", "U", True),
    Key(0x00100021, "IssuerOfPatientID", "LO", _P, "issuer_of_patient_id", "O"),
    Key(0x00100030, "PatientBirthDate", "DA", _P, "patient_birth_date", "O", True),
    Key(0x00100032, "PatientBirthTime", "TM", _P, "patient_birth_time", "O"),
    Key(0x00100040, "PatientSex", "CS", _P, "patient_sex", "O"),
    Key(0x00101000, "OtherPatientIDs", "LO", _P, "other_patient_ids", "O", multiple=True),
    Key(0x00101001, "OtherPatientNames", "PN", _P, "other_patient_names", "O", multiple=True),
    Key(0x00102160, "EthnicGroup", "SH", _P, "ethnic_group", "O"),
    Key(0x00104000, "PatientComments", "LT", _P, "patient_comments", "O"),
    Key(0x0020000D, "StudyInstanceUID", "UI", _ST, "study_instance_uid", "U", True),
    Key(0x00080020, "StudyDate", "DA", _ST, "study_date", "R", True),
    Key(0x00080030, "StudyTime", "TM", _ST, "study_time", "R"),
    Key(0x00080050, "AccessionNumber", "SH", _ST, "accession_number", "R", True),
    Key(0x00200010, "StudyID", "SH", _ST, "study_id", "R", True),
    Key(0x00081030, "StudyDescription", "LO", _ST, "study_description", "O", True),
    Key(0x00080090, "ReferringPhysicianName", "PN", _ST, "referring_physician_name", "O", True),
    Key(0x00081060, "NameOfPhysiciansReadingStudy", "PN", _ST, "name_of_physicians_reading_study", "O", multiple=True),
    Key(0x00081080, "AdmittingDiagnosesDescription", "LO", _ST, "admitting_diagnoses", "O", multiple=True),
    Key(0x00080080, "InstitutionName", "LO", _ST, "institution_name", "O"),
    Key(0x00080201, "TimezoneOffsetFromUTC", "SH", _ST, "timezone_offset_from_utc", "O"),
    Key(0x00101010, "PatientAge", "AS", _ST, "patient_age", "O"),
    Key(0x00101020, "PatientSize", "DS", _ST, "patient_size", "O"),
    Key(0x00101030, "PatientWeight", "DS", _ST, "patient_weight", "O"),
    Key(0x00102180, "Occupation", "SH", _ST, "occupation", "O"),
    Key(0x001021B0, "AdditionalPatientHistory", "LT", _ST, "additional_patient_history", "O"),
    Key(0x0020000E, "SeriesInstanceUID", "UI", _SE, "series_instance_uid", "U", True),
    Key(0x00080060, "Modality", "CS", _SE, "modality", "R", True),
    Key(0x00200011, "SeriesNumber", "IS", _SE, "series_number", "R"),
    Key(0x00080021, "SeriesDate", "DA", _SE, "series_date", "O"),
    Key(0x00080031, "SeriesTime", "TM", _SE, "series_time", "O"),
    Key(0x0008103E, "SeriesDescription", "LO", _SE, "series_description", "O"),
    Key(0x00081010, "StationName", "SH", _SE, "station_name", "O"),
    Key(0x00081050, "PerformingPhysicianName", "PN", _SE, "performing_physician_name", "O", multiple=True),
    Key(0x00081070, "OperatorsName", "PN", _SE, "operators_name", "O", multiple=True),
    Key(0x00180015, "BodyPartExamined", "CS", _SE, "body_part_examined", "O"),
    Key(0x00181030, "ProtocolName", "LO", _SE, "protocol_name", "O"),
    Key(0x00200060, "Laterality", "CS", _SE, "laterality", "O"),
    Key(0x00400244, "PerformedProcedureStepStartDate", "DA", _SE, "performed_procedure_step_start_date", "O", True),
    Key(0x00400245, "PerformedProcedureStepStartTime", "TM", _SE, "performed_procedure_step_start_time", "O"),
    Key(0x00080018, "SOPInstanceUID", "UI", _I, "sop_instance_uid", "U", True),
    Key(0x00080016, "SOPClassUID", "UI", _I, "sop_class_uid", "O"),
    Key(0x00200013, "InstanceNumber", "IS", _I, "instance_number", "R"),
    Key(0x00080008, "ImageType", "CS", _I, "image_type", "O", multiple=True),
    Key(0x00080023, "ContentDate", "DA", _I, "content_date", "O"),
    Key(0x00080033, "ContentTime", "TM", _I, "content_time", "O"),
    Key(0x00200012, "AcquisitionNumber", "IS", _I, "acquisition_number", "O"),
    Key(0x00280008, "NumberOfFrames", "IS", _I, "number_of_frames", "O"),
    Key(0x00280010, "Rows", "US", _I, "rows_", "O"),
    Key(0x00280011, "Columns", "US", _I, "columns_", "O"),
    Key(0x00280100, "BitsAllocated", "US", _I, "bits_allocated", "O"),
)

# What the archive states about itself (PS3.4 §C.3.4, §C.6.1.1).
MAINTAINED: tuple[Maintained, ...] = (
    Maintained(0x00201200, "NumberOfPatientRelatedStudies", "IS", _P, "number_of_studies"),
    Maintained(0x00201202, "NumberOfPatientRelatedSeries", "IS", _P, "number_of_series"),
    Maintained(0x00201204, "NumberOfPatientRelatedInstances", "IS", _P, "number_of_instances"),
    Maintained(0x00080061, "ModalitiesInStudy", "CS", _ST, "modalities", True, multiple=True),
    Maintained(0x00080062, "SOPClassesInStudy", "UI", _ST, "sop_classes", multiple=True),
    Maintained(0x00201206, "NumberOfStudyRelatedSeries", "IS", _ST, "number_of_series"),
    Maintained(0x00201208, "NumberOfStudyRelatedInstances", "IS", _ST, "number_of_instances"),
    Maintained(0x00201209, "NumberOfSeriesRelatedInstances", "IS", _SE, "number_of_instances"),
    Maintained(0x00083002, "AvailableTransferSyntaxUID", "UI", _I, "transfer_syntax_uid"),
)

KEY_OF_TAG: Mapping[int, Key] = {key.tag: key for key in KEYS}
COLUMN_OF_TAG: Mapping[int, Key | Maintained] = {**KEY_OF_TAG, **{one.tag: one for one in MAINTAINED}}
UNIQUE_KEY: Mapping[Level, Key] = {key.level: key for key in KEYS if key.kind == "U"}

_LEVEL_OF_TAG: Mapping[int, Level] = {
    **dict.fromkeys(PATIENT_MODULES, Level.PATIENT),
    **dict.fromkeys(STUDY_MODULES, Level.STUDY),
    **dict.fromkeys(SERIES_MODULES, Level.SERIES),
    **{key.tag: key.level for key in KEYS},
}


def level_of(tag: int) -> Level:
    """The level whose information entity ``tag`` belongs to (PS3.3 Annex A, §C.7): where it is kept and returned."""
    return _LEVEL_OF_TAG.get(tag, Level.IMAGE)
