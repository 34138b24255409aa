"""The rows of archive/keys.py are the standard's: PS3.4 Tables C.6-1 to C.6-4, and the dictionary of PS3.6."""

import pytest
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag

from pacslite.archive.index.schema import metadata
from pacslite.archive.keys import COLUMN_OF_TAG, KEYS, MAINTAINED, UNIQUE_KEY, Key, Level, Maintained, level_of
from pacslite.archive.modules import PATIENT_MODULES, SERIES_MODULES, STUDY_MODULES

# typed from the tables: unique and required keys, and the optional ones that are named there and not sequences
TABLES = {
    Level.PATIENT: """
        PatientName R, PatientID U, IssuerOfPatientID O, PatientBirthDate O, PatientBirthTime O, PatientSex O,
        OtherPatientIDs O, OtherPatientNames O, EthnicGroup O, PatientComments O, NumberOfPatientRelatedStudies O,
        NumberOfPatientRelatedSeries O, NumberOfPatientRelatedInstances O
    """,
    Level.STUDY: """
        StudyDate R, StudyTime R, AccessionNumber R, StudyID R, StudyInstanceUID U, ModalitiesInStudy O,
        SOPClassesInStudy O, ReferringPhysicianName O, StudyDescription O, NameOfPhysiciansReadingStudy O,
        AdmittingDiagnosesDescription O, PatientAge O, PatientSize O, PatientWeight O, Occupation O,
        AdditionalPatientHistory O, NumberOfStudyRelatedSeries O, NumberOfStudyRelatedInstances O
    """,
    Level.SERIES: """
        Modality R, SeriesNumber R, SeriesInstanceUID U, NumberOfSeriesRelatedInstances O
    """,
    Level.IMAGE: """
        InstanceNumber R, SOPInstanceUID U, SOPClassUID O, AvailableTransferSyntaxUID O
    """,
}
ROWS = [(level, *row.split()) for level, table in TABLES.items() for row in " ".join(table.split()).split(", ")]
ALL: tuple[Key | Maintained, ...] = (*KEYS, *MAINTAINED)


@pytest.mark.parametrize(("level", "keyword", "kind"), ROWS)
def test_key_of_the_standard_is_there(level: Level, keyword: str, kind: str) -> None:
    (key,) = [one for one in ALL if one.keyword == keyword]
    assert key.level is level
    assert (key.kind if isinstance(key, Key) else "O") == kind


@pytest.mark.parametrize("key", ALL, ids=lambda key: key.keyword)
def test_row_is_the_dictionarys(key: Key | Maintained) -> None:
    assert keyword_for_tag(key.tag) == key.keyword
    assert dictionary_VR(key.tag) == key.vr
    is_one_with_us = key.keyword == "AvailableTransferSyntaxUID"  # we transcode nothing to answer a query
    assert key.multiple is (dictionary_VM(key.tag) != "1" and not is_one_with_us)


def test_each_level_has_one_unique_key() -> None:
    assert [key.keyword for key in UNIQUE_KEY.values()] == [
        "PatientID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
    ]
    assert [one.keyword for one in KEYS if one.kind == "U"] == [key.keyword for key in UNIQUE_KEY.values()]


def test_tags_and_columns_are_distinct() -> None:
    assert len({one.tag for one in ALL}) == len(ALL) == len(COLUMN_OF_TAG)
    columns = [(one.level, name) for one in ALL for name in {one.column, one.match}]
    assert len(set(columns)) == len(columns)


@pytest.mark.parametrize("key", ALL, ids=lambda key: key.keyword)
def test_key_has_its_columns(key: Key | Maintained) -> None:
    table = metadata.tables[("patient", "study", "series", "instance")[key.level]]
    assert {key.column, key.match} <= set(table.columns.keys())
    if key.indexed and not (isinstance(key, Key) and key.kind == "U"):
        assert f"ix_{table.name}_{key.match}" in {index.name for index in table.indexes}


@pytest.mark.parametrize("modules", [PATIENT_MODULES, STUDY_MODULES, SERIES_MODULES])
def test_modules_are_the_dictionarys(modules: dict[int, str]) -> None:
    assert {tag: keyword_for_tag(tag) for tag in modules} == modules


def test_attribute_belongs_to_one_level() -> None:
    assert not set(PATIENT_MODULES) & set(STUDY_MODULES)
    assert not set(PATIENT_MODULES) & set(SERIES_MODULES)
    assert not set(STUDY_MODULES) & set(SERIES_MODULES)
    assert [level_of(tag) for tag in (0x00101040, 0x00321032, 0x00080070, 0x00180050)] == list(Level)
    assert all(level_of(key.tag) is key.level for key in KEYS)
