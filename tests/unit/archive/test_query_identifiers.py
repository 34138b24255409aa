"""What a C-FIND, C-MOVE or C-GET identifier asks, and which are refused and how (PS3.4 §C.4.1.1.3, §C.4.1.3, §C.6)."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacslite.archive.keys import Level
from pacslite.archive.matching import Between, Like, OneOf
from pacslite.archive.query import Model, QueryOptions, RetrieveRequest, parse_query, parse_retrieve
from pacslite.dataset.decode import IdentifierError
from pacslite.errors import DimseError
from tests.support.index import EXPLICIT, IMPLICIT, Values, encode, parse

STRICT = QueryOptions(strict=True)
LENIENT = QueryOptions(require_upper_keys=False)


def refusal(values: Values, **how: Any) -> IdentifierError:
    with pytest.raises(IdentifierError) as refused:
        parse(values, **how)
    assert refused.value.status == 0xA900
    return refused.value


@pytest.mark.parametrize(
    ("model", "level", "known"),
    [
        ("patient", "PATIENT", True),
        ("patient", "IMAGE", True),
        ("study", "PATIENT", False),
        ("study", "STUDY", True),
        ("patient_study_only", "STUDY", True),
        ("patient_study_only", "SERIES", False),
        ("study", "FRAME", False),
        ("study", "", False),
        ("study", "study", False),
        ("study", None, False),
    ],
)
def test_level_is_one_of_the_models(model: Model, level: str | None, *, known: bool) -> None:
    how: dict[str, Any] = {"model": model, "level": level, "options": LENIENT}
    if known:
        assert parse({}, **how).level is Level[str(level)]
    else:
        assert refusal({}, **how).offending == (0x00080052,)


@pytest.mark.parametrize(
    ("model", "level", "keys", "missing"),
    [
        ("patient", "PATIENT", {}, None),
        ("patient", "STUDY", {}, "PatientID(0010,0020)"),
        ("patient", "STUDY", {"PatientID": ""}, "PatientID(0010,0020)"),
        ("patient", "STUDY", {"PatientID": "1"}, None),
        ("patient", "STUDY", {"PatientID": "*"}, "PatientID(0010,0020)"),
        ("patient", "STUDY", {"PatientID": "1\\2"}, "PatientID(0010,0020)"),
        ("patient", "SERIES", {"PatientID": "1"}, "StudyInstanceUID(0020,000D)"),
        ("study", "STUDY", {}, None),
        ("study", "SERIES", {}, "StudyInstanceUID(0020,000D)"),
        ("study", "SERIES", {"StudyInstanceUID": "1.2"}, None),
        ("study", "SERIES", {"StudyInstanceUID": "1.2\\1.3"}, "StudyInstanceUID(0020,000D)"),
        ("study", "IMAGE", {"StudyInstanceUID": "1.2"}, "SeriesInstanceUID(0020,000E)"),
        ("study", "IMAGE", {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"}, None),
    ],
)
def test_unique_keys_of_upper_levels_are_required(model: Model, level: str, keys: Values, missing: str | None) -> None:
    """§C.4.1.3.1.1; not where relational queries were negotiated, nor for devices that the configuration forgives."""
    if missing is None:
        parse(keys, model=model, level=level)
    else:
        refused = refusal(keys, model=model, level=level)
        assert missing in str(refused)
        assert f"({refused.offending[0] >> 16:04X},{refused.offending[0] & 0xFFFF:04X})" in missing
    parse(keys, model=model, level=level, relational=True)
    parse(keys, model=model, level=level, options=LENIENT)


@pytest.mark.parametrize("patient_id", ["1*", "What?", "A*1", "?"])
def test_unique_key_of_an_upper_level_is_one_value_whatever_it_has(patient_id: str) -> None:
    """§C.4.1.3.1.1, §C.4.2.2.1: single value matching, and LO may have ``*`` and ``?`` (PS3.5 §6.2)."""
    values = {"PatientID": patient_id, "StudyInstanceUID": "1.2"}
    (literal, _) = parse(values, model="patient").filters
    assert literal.match == OneOf((patient_id,))
    for level in ("PATIENT", "STUDY"):
        assert retrieve(values, level, "patient").filters[0].match == OneOf((patient_id,))
    for pattern in (
        parse(values, model="patient", relational=True),
        parse(values, model="patient", options=LENIENT),
        parse({"PatientID": patient_id}, model="patient", level="PATIENT"),
    ):
        assert pattern.filters[0].match == Like((patient_id,))


def test_keys_below_the_level_are_ignored_or_refused() -> None:
    query = parse({"Modality": "CT", "StudyDate": ""})
    assert query.unsupported_keys == (0x00080060,)
    assert query.filters == ()
    assert refusal({"Modality": "CT"}, options=STRICT).offending == (0x00080060,)


def test_relational_query_matches_keys_below() -> None:
    query = parse({"Modality": "CT", "StudyDate": ""}, relational=True, options=STRICT)
    assert [one.key.keyword for one in query.lower_filters] == ["Modality"]
    assert query.unsupported_keys == (0x00080060,)  # matched, not returned


def test_what_is_no_key() -> None:
    """Group lengths, Retrieve AE Title, Query/Retrieve View, Instance Availability: neither matched nor refused."""
    identifier = (
        b"\x08\x00\x00\x00\x04\x00\x00\x00\x10\x00\x00\x00"
        + b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY "
        + b"\x08\x00\x53\x00\x08\x00\x00\x00CLASSIC "
        + b"\x08\x00\x54\x00\x04\x00\x00\x00MINE"
        + b"\x08\x00\x56\x00\x08\x00\x00\x00OFFLINE "
    )
    query = parse_query(identifier, model="study", transfer_syntax_uid=IMPLICIT, options=STRICT)
    assert query.filters == ()
    assert query.unsupported_keys == ()
    assert [one.tag for one in query.return_keys] == [0x00080056]


@pytest.mark.parametrize("keyword", ["PixelData", "DataSetTrailingPadding"])
def test_unsupported_optional_keys_are_told(keyword: str) -> None:
    assert len(parse({keyword: b"", "PatientName": ""}).unsupported_keys) == 1


def test_binary_keys_are_returned_and_matched_by_nothing() -> None:
    """§C.2.2.1.3, Table C.4-1: an optional key supported for existence only is universal, and FF01 says so."""
    for value, unsupported in ((b"", ()), (b"\x18\x00\x63\x10", (0x00280009,))):
        query = parse({"FrameIncrementPointer": value}, level="IMAGE", relational=True)
        assert [one.tag for one in query.return_keys] == [0x00280009]
        assert (query.filters, query.kept_filters, query.unsupported_keys) == ((), (), unsupported)


@pytest.mark.parametrize(
    ("inner", "is_told"),
    [
        ({}, False),
        ({"FrameIncrementPointer": b""}, False),
        ({"FrameIncrementPointer": b"\x18\x00\x63\x10"}, True),
        ({"RequestedProcedureID": "R1", "ICCProfile": b"\0\0"}, True),
        ({"ScheduledProtocolCodeSequence": [{"FrameIncrementPointer": b"\x18\x00\x63\x10"}]}, True),
        ({"(0019,0010)": "MINE", "(0019,1001)": ""}, False),  # a private creator says whose the others are
        ({"(0019,0010)": "MINE", "(0019,1001)": "x"}, True),
    ],
)
def test_keys_of_an_item_that_are_not_matched_are_told(inner: Values, *, is_told: bool) -> None:
    query = parse({"RequestAttributesSequence": [inner]}, level="SERIES", relational=True)
    assert query.unsupported_keys == (0x00400275,) * is_told


def test_private_keys_are_told() -> None:
    identifier = (
        encode({"QueryRetrieveLevel": "STUDY"}) + b"\x09\x00\x10\x00LO\x04\x00MINE" + b"\x09\x00\x01\x10LO\x00\x00"
    )
    query = parse_query(identifier, model="study", transfer_syntax_uid=EXPLICIT, options=STRICT)
    assert query.unsupported_keys == (0x00090010, 0x00091001)


@pytest.mark.parametrize("transfer_syntax_uid", [IMPLICIT, EXPLICIT])
def test_keys_are_read_in_their_character_set(transfer_syntax_uid: str) -> None:
    for charset in ("ISO_IR 100", "ISO_IR 192", "GB18030"):
        values = {"SpecificCharacterSet": charset, "PatientID": "Müé"}
        query = parse(values, transfer_syntax_uid=transfer_syntax_uid)
        assert query.charsets == (charset,)
        assert query.filters[0].match == OneOf(("Müé",))


def test_sequence_key_has_one_item() -> None:
    two = {"ProcedureCodeSequence": [{"CodeValue": "1"}, {"CodeValue": "2"}]}
    assert refusal(two).offending == (0x00081032,)
    assert parse({"ProcedureCodeSequence": []}).kept_filters == ()
    assert parse({"ProcedureCodeSequence": [{}]}).kept_filters == ()
    assert parse({"ProcedureCodeSequence": [{"CodeValue": ""}]}).kept_filters == ()
    assert len(parse({"ProcedureCodeSequence": [{"CodeValue": "1"}]}).kept_filters) == 1


def test_value_where_a_sequence_belongs_is_refused() -> None:
    identifier = encode({"QueryRetrieveLevel": "STUDY"}) + b"\x08\x00\x32\x10LO\x02\x00X "
    with pytest.raises(IdentifierError):
        parse_query(identifier, model="study", transfer_syntax_uid=EXPLICIT, options=QueryOptions())


def test_ranges_of_date_and_time_are_one_if_negotiated() -> None:
    values = {"StudyDate": "20240101-20240102", "StudyTime": "1000-1100"}
    apart = parse(values)
    assert (len(apart.filters), apart.moments) == (2, ())
    (moment,) = parse(values, datetime_matching=True).moments
    assert moment.dates == Between("20240101", "20240102")
    assert moment.times == Between("100000.000000", "110059.999999")
    assert moment.combined


@pytest.mark.parametrize(("date", "time"), [("20240101-", "-1100"), ("20240101", "1000-1100"), ("20240101-", "1000")])
def test_other_forms_of_date_and_time_stay_apart(date: str, time: str) -> None:
    """§C.2.2.2.5: combined only if both are the same form of range."""
    query = parse({"StudyDate": date, "StudyTime": time}, datetime_matching=True)
    assert query.moments == ()
    assert len(query.filters) == 2


def test_timezone_counts_only_if_negotiated() -> None:
    values = {"StudyDate": "20240101", "TimezoneOffsetFromUTC": "+0200"}
    assert parse(values).moments == ()
    (moment,) = parse(values, timezone=True).moments
    assert moment.offset == 120
    assert refusal(values | {"TimezoneOffsetFromUTC": "+2500"}, timezone=True).offending == (0x00080201,)


# C-MOVE and C-GET


def retrieve(values: Values, level: str, model: Model = "study", **how: Any) -> RetrieveRequest:
    how.setdefault("options", QueryOptions())
    identifier = encode({"QueryRetrieveLevel": level, **values})
    return parse_retrieve(identifier, model=model, transfer_syntax_uid=EXPLICIT, **how)


def test_retrieve_names_unique_keys() -> None:
    request = retrieve({"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3\\1.4"}, "SERIES")
    assert request.level is Level.SERIES
    assert {one.key.keyword: one.match for one in request.filters} == {
        "StudyInstanceUID": OneOf(("1.2",)),
        "SeriesInstanceUID": OneOf(("1.3", "1.4")),
    }


@pytest.mark.parametrize(
    ("model", "level", "keys"),
    [
        ("study", "STUDY", {}),
        ("study", "STUDY", {"StudyInstanceUID": ""}),
        ("study", "STUDY", {"PatientID": "1"}),
        ("study", "SERIES", {"SeriesInstanceUID": "1.3"}),  # no study
        ("study", "PATIENT", {"PatientID": "1"}),
        ("patient", "PATIENT", {"PatientID": "*"}),
        ("patient", "PATIENT", {"PatientID": "1\\2"}),
        ("patient", "STUDY", {"StudyInstanceUID": "1.2"}),  # no patient
    ],
)
def test_retrieve_without_its_keys_is_refused(model: Model, level: str, keys: Values) -> None:
    with pytest.raises(IdentifierError) as refused:
        retrieve(keys, level, model)
    assert refused.value.status == 0xA900


def test_relational_retrieve_needs_its_own_key_only() -> None:
    assert retrieve({"SOPInstanceUID": "1.4"}, "IMAGE", relational=True).level is Level.IMAGE
    assert retrieve({"SOPInstanceUID": "1.4"}, "IMAGE", "composite").level is Level.IMAGE
    assert retrieve({"SOPInstanceUID": "1.4"}, "IMAGE", options=LENIENT).level is Level.IMAGE


def test_other_keys_of_a_retrieve_are_ignored_or_refused() -> None:
    keys = {"StudyInstanceUID": "1.2", "StudyDate": "20240101", "SeriesInstanceUID": "1.3"}
    assert [one.key.keyword for one in retrieve(keys, "STUDY").filters] == ["StudyInstanceUID"]
    with pytest.raises(IdentifierError):
        retrieve(keys, "STUDY", options=STRICT)


# whatever comes


@settings(max_examples=300)
@given(st.binary(max_size=200), st.sampled_from([IMPLICIT, EXPLICIT, "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"]))
def test_any_bytes_are_a_query_or_refused(identifier: bytes, transfer_syntax_uid: str) -> None:
    status = None
    try:
        parse_query(identifier, model="study", transfer_syntax_uid=transfer_syntax_uid, options=QueryOptions())
    except DimseError as error:
        status = error.status
    assert status in {None, 0xA900, 0xC000}


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(
            ["PatientName", "StudyDate", "StudyTime", "Modality", "Rows", "ProcedureCodeSequence", "SeriesNumber"]
        ),
        st.binary(max_size=40),
    ),
    st.booleans(),
)
def test_any_values_are_a_query_or_refused(values: dict[str, bytes], fuzzy: bool) -> None:
    status = None
    try:
        parse(values, level="IMAGE", relational=True, fuzzy=fuzzy, transfer_syntax_uid=EXPLICIT)
    except DimseError as error:
        status = error.status
    assert status in {None, 0xA900, 0xC000}
