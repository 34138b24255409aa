"""Forwarding rules: which instances a condition takes, how keys may be written, and what is refused."""

import pytest

from pacslite.archive.normalise import normalise
from pacslite.outbox.rules import Rule, RuleError, RuleSet, key_named, make_rule


def destinations(rules: RuleSet, calling: str | None = "CT01", **values: str) -> list[str]:
    """Where an instance goes whose index columns have ``values``, given by keyword and as received."""
    found = [values.get(key.keyword) for key in rules.keys]
    return rules.destinations(
        calling, [value and normalise(key.vr, value) for key, value in zip(rules.keys, found, strict=True)]
    )


def takes(when: dict[str, str | list[str]], **values: str) -> bool:
    return destinations(RuleSet([make_rule("WS", when)]), **values) == ["WS"]


@pytest.mark.parametrize(
    ("key", "asked", "value", "taken"),
    [
        ("Modality", "CT", "CT", True),
        ("Modality", "CT", "MR", False),
        ("Modality", "CT", "CTX", False),  # the whole value
        ("Modality", "ct", "CT", False),  # §C.2.2.2.1: case matters
        ("Modality", ["CT", "MR"], "MR", True),  # alternatives
        ("Modality", "C?", "CR", True),
        ("modality", "C*", "CT", True),  # the column's name
        ("0008,0060", "CT", "CT", True),  # the tag
        ("00080060", "CT", "CT", True),
        ("station_name", "ROOM_*", "ROOM_2", True),
        ("station_name", "ROOM_*", "ROOMS", False),  # "_" is no wildcard
        ("StationName", "A[1]%", "A[1]%", True),  # nor are these
        ("StationName", "A[1]%", "A1x", False),
        ("StationName", "A*", "", False),  # an absent value fits nothing
        ("StationName", "*", "", True),  # universal: also what has none
        ("PatientName", "DOE^*", "doe^jane", True),  # names by their folded form
        ("PatientName", "MUELLER", "Müller", False),
        ("PatientName", "MULLER", "Müller", True),
        ("StudyDate", "20240101-20240131", "20240131", True),  # both ends belong to the range
        ("StudyDate", "20240101-20240131", "20240201", False),
        ("StudyDate", "-20231231", "20230101", True),
        ("SeriesNumber", "7", "007", True),  # IS is matched by meaning
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2", True),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.*", "1.2.840.10008.5.1.4.1.1.2", True),  # unlike in a query
        ("ImageType", "LOCALIZER", "ORIGINAL\\PRIMARY\\LOCALIZER", True),  # any of the values
        ("ImageType", "LOCAL", "ORIGINAL\\PRIMARY\\LOCALIZER", False),
    ],
)
def test_condition(key: str, asked: str | list[str], value: str, taken: bool) -> None:
    keyword = key_named(key).keyword
    assert takes({key: asked}, **{keyword: value}) is taken


@pytest.mark.parametrize(
    ("asked", "calling", "taken"),
    [("CT*", "CT01", True), ("CT*", "MR01", False), (["A", "CT01"], "CT01", True), ("CT*", None, False)],
)
def test_calling_ae_title(asked: str | list[str], calling: str | None, taken: bool) -> None:
    rules = RuleSet([make_rule("WS", {"calling_ae_title": asked})])
    assert bool(destinations(rules, calling)) is taken


def test_all_conditions_must_hold() -> None:
    when: dict[str, str | list[str]] = {"Modality": "CT", "StationName": "A*"}
    assert takes(when, Modality="CT", StationName="A1")
    assert not takes(when, Modality="CT", StationName="B1")
    assert not takes(when, Modality="MR", StationName="A1")


def test_rule_without_conditions_takes_everything() -> None:
    assert destinations(RuleSet([Rule("WS", ())])) == ["WS"]


def test_a_destination_of_several_rules_gets_an_instance_once() -> None:
    rules = RuleSet([make_rule("WS", {}), make_rule("PACS2", {"Modality": "CT"}), make_rule("WS", {"Modality": "CT"})])
    assert destinations(rules, Modality="CT") == ["WS", "PACS2"]
    assert destinations(rules, Modality="MR") == ["WS"]


def test_nothing_goes_back_to_who_sent_it() -> None:
    rules = RuleSet([make_rule("PACS2", {}), make_rule("WS", {})])
    assert destinations(rules, "PACS2") == ["WS"]


@pytest.mark.parametrize(
    ("when", "named"),
    [
        ({"Modallity": "CT"}, "Modallity"),
        ({"PixelData": "1"}, "PixelData"),  # an attribute, but no key
        ({"": "1"}, "''"),
        ({"Modality": ""}, "Modality"),
        ({"Modality": []}, "Modality"),
        ({"StudyDate": "tomorrow"}, "StudyDate"),
        ({"StudyDate": "2024*"}, "StudyDate"),
        ({"SeriesNumber": "seven"}, "SeriesNumber"),
    ],
)
def test_what_is_no_condition_is_refused_by_name(when: dict[str, str | list[str]], named: str) -> None:
    with pytest.raises(RuleError, match=named):
        make_rule("WS", when)
