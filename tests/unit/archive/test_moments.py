"""Dates and times that are looked at together: as one moment, and in another timezone (PS3.4 §C.2.2.2.5, §C.5.1.1).

Wherever the two stand: in columns, in what is kept of a header, or in extra keys.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pacslite.archive.extra import ExtraKeys, parse_extra_keys
from pacslite.archive.query import QueryOptions
from tests.support.index import ask, extra_keys_of, make_index, parse, uid

COMBINED, ADJUSTED = {"datetime_matching": True}, {"timezone": True}
WHERE = {
    "columns": ("StudyDate", "StudyTime", ()),
    "columns of the image": ("ContentDate", "ContentTime", ()),
    "kept": ("AcquisitionDate", "AcquisitionTime", ()),
    "kept of the series": ("DateOfLastCalibration", "TimeOfLastCalibration", ()),
    "an extra key and kept": ("AcquisitionDate", "AcquisitionTime", ("AcquisitionDate",)),
    "kept and an extra key": ("AcquisitionDate", "AcquisitionTime", ("AcquisitionTime",)),
    "extra keys": ("AcquisitionDate", "AcquisitionTime", ("AcquisitionDate", "AcquisitionTime")),
}
everywhere = pytest.mark.parametrize(("date_keyword", "time_keyword", "extra"), WHERE.values(), ids=WHERE)


class Place:
    """Instances with a date and a time, each of a study of its own."""

    def __init__(
        self, folder: Path, names: tuple[str, str], extra: tuple[str, ...], stored: Sequence[tuple[str, ...]]
    ) -> None:
        self._names = names
        self._path = make_index(
            folder,
            [{names[0]: day, names[1]: at, "TimezoneOffsetFromUTC": offset} for day, at, offset in stored],
            extra_keys=extra,
        )

    async def found(self, asked: dict[str, str], *, unknown: bool = False, **negotiated: bool) -> list[int]:
        """The numbers of those that match what is asked of ``Date`` and ``Time``."""
        names = dict(zip(("Date", "Time"), self._names, strict=True))
        values: dict[str, Any] = {"SOPInstanceUID": "", **{names.get(name, name): text for name, text in asked.items()}}
        options = QueryOptions(match_unknown=unknown, extra_keys=extra_keys_of(self._path))
        answers = await ask(self._path, values, level="IMAGE", relational=True, options=options, **negotiated)
        return sorted(int(answer["SOPInstanceUID"].rpartition(".")[2]) for answer in answers)


@everywhere
@pytest.mark.parametrize(
    ("date", "time", "combined", "apart"),
    [
        ("20240101-20240102", "1000-1100", [1, 2], [1]),
        ("20240101-", "1000-", [1, 2, 3, 4], [1, 3]),
        ("-20240102", "-1100", [0, 1, 2], [0, 1, 2]),
        ("20240101-20240103", "1000-1100", [1, 2, 3, 4], [1]),  # without a time, but surely between
    ],
)
async def test_date_and_time_as_one(
    tmp_path: Path,
    date_keyword: str,
    time_keyword: str,
    extra: tuple[str, ...],
    date: str,
    time: str,
    combined: list[int],
    apart: list[int],
) -> None:
    stored = ["20240101 0900", "20240101 1030", "20240102 0900", "20240102 1200", "20240102 "]
    moments = [(*one.split(" "), "") for one in stored]
    place = Place(tmp_path, (date_keyword, time_keyword), extra, moments)
    assert await place.found({"Date": date, "Time": time}, datetime_matching=True) == combined
    assert await place.found({"Date": date, "Time": time}) == apart


@everywhere
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        # stored are, in UTC, 20240101 2230 and 20240101 2330
        ({"Date": "20240101", "TimezoneOffsetFromUTC": "+0100"}, [0]),
        ({"Date": "20240102", "TimezoneOffsetFromUTC": "+0100"}, [1]),
        ({"Date": "20240101", "TimezoneOffsetFromUTC": "+0000"}, [0, 1]),
        ({"Date": "20240102", "TimezoneOffsetFromUTC": "+0200"}, [0, 1]),
        ({"Date": "20240101", "Time": "2200-2300", "TimezoneOffsetFromUTC": "+0000"}, [0]),
        ({"Date": "20240101", "Time": "2330", "TimezoneOffsetFromUTC": "+0100"}, [0]),
        ({"Date": "20231231-20240101", "TimezoneOffsetFromUTC": "-0500"}, [0, 1]),
        ({"Time": "0030", "TimezoneOffsetFromUTC": "+0200"}, [0]),
    ],
)
async def test_dates_in_the_askers_timezone(
    tmp_path: Path,
    date_keyword: str,
    time_keyword: str,
    extra: tuple[str, ...],
    asked: dict[str, str],
    found: list[int],
) -> None:
    moments = [("20240101", "2330", "+0100"), ("20240102", "0830", "+0900")]
    place = Place(tmp_path, (date_keyword, time_keyword), extra, moments)
    assert await place.found(asked, timezone=True) == found


@everywhere
@pytest.mark.parametrize("driver", [{}, {"StudyInstanceUID": "\\".join(uid(1, number) for number in range(7))}])
@pytest.mark.parametrize(
    ("asked", "negotiated", "known", "unknown"),
    [
        ({"Date": "20240101-20240102", "Time": "1000-1100"}, COMBINED, {0, 1}, {2, 3, 6}),
        ({"Date": "20240101-", "Time": "1000-"}, COMBINED, {0, 1, 4, 5}, {2, 3, 6}),
        ({"Date": "-20240102", "Time": "-1100"}, COMBINED, {0, 1, 6}, {2, 3}),
        ({"Date": "20240101"}, ADJUSTED, {0, 6}, {2, 3}),
        ({"Date": "20240101", "Time": "1000-1100"}, ADJUSTED, {0}, {2, 6}),
        ({"Date": "20240101-20240102", "Time": "1000-1100"}, ADJUSTED | COMBINED, {0, 1}, {2, 3, 6}),
        # without a date its time is of no day, and cannot be brought to another timezone
        ({"Time": "1000-1100"}, ADJUSTED, {0, 2, 4}, {5, 6}),
        ({"Time": "1200"}, ADJUSTED, {3}, {5, 6}),
    ],
)
async def test_dates_and_times_that_are_not_there(
    tmp_path: Path,
    date_keyword: str,
    time_keyword: str,
    extra: tuple[str, ...],
    driver: dict[str, str],
    asked: dict[str, str],
    negotiated: dict[str, bool],
    known: set[int],
    unknown: set[int],
) -> None:
    """§C.2.2.1.2: what is unknown matches if configured, each part for itself, whichever key drives the query."""
    stored = ["20240101 1000", "20240102 0900", " 1030", " 1200", "20240103 1100", "20240103 ", "20240101 "]
    moments = [(*one.split(" "), "+0000") for one in stored]
    place = Place(tmp_path, (date_keyword, time_keyword), extra, moments)
    asked = {"TimezoneOffsetFromUTC": "+0000", **driver, **asked}
    assert await place.found(asked, **negotiated) == sorted(known)
    assert await place.found(asked, unknown=True, **negotiated) == sorted(known | unknown)


async def test_of_several_dates_each_has_its_time(tmp_path: Path) -> None:
    """The second calibration is another moment than the first date with the second time."""
    names = ("DateOfLastCalibration", "TimeOfLastCalibration")
    several = [
        ("20240101\\20240105", "0900\\1200", ""),
        ("20240101\\20240105", "1200\\0900", ""),
    ]
    several += [("20240101\\20240105", "0900", ""), ("20240101\\20240105", "never", "")]
    place = Place(tmp_path, names, (), several)
    asked = {"Date": "20240105-20240106", "Time": "1000-1100"}
    assert await place.found(asked, datetime_matching=True) == [0]
    assert await place.found(asked, datetime_matching=True, unknown=True) == [0, 2]


def test_pairs_that_cannot_be_joined_are_told() -> None:
    """Of an extra key at another level, and in an item: FF01."""
    ranges = {"AcquisitionDate": "20240101-20240102", "AcquisitionTime": "1000-1100"}
    options = QueryOptions(extra_keys=ExtraKeys(parse_extra_keys(["AcquisitionDate@SERIES"])))
    for asked, tags in (
        (ranges, (0x00080022, 0x00080032)),
        ({"RequestAttributesSequence": [ranges]}, (0x00400275,)),
        ({"RequestAttributesSequence": [{"ScheduledProtocolCodeSequence": [ranges]}]}, (0x00400275,)),
        ({"AcquisitionDate": "20240101-20240102"}, ()),
    ):
        how: dict[str, Any] = {"level": "IMAGE", "relational": True, "options": options}
        query = parse(asked, datetime_matching=True, **how)
        assert (query.unsupported_keys, query.moments, query.kept_moments) == (tags, (), ())
        assert parse(asked, **how).unsupported_keys == ()


BELOW = [
    ("StudyDate", "StudyTime"),
    ("SeriesDate", "SeriesTime"),
    ("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime"),
    ("ContentDate", "ContentTime"),
]


@pytest.mark.parametrize(("date_keyword", "time_keyword"), BELOW)
@pytest.mark.parametrize(
    ("date", "time", "modality", "patients"),
    [
        ("20240101-20240102", "2200-0400", "", [0, 1]),
        ("20240101-20240102", "2200-0400", "CT", [0]),
        ("20240102-", "0300-", "", [1, 2]),
        ("-20240101", "-1000", "", [2]),
        ("20240103-20240104", "2200-0400", "", []),
    ],
)
async def test_moments_below_the_level_are_one_too(
    tmp_path: Path, date_keyword: str, time_keyword: str, date: str, time: str, modality: str, patients: list[int]
) -> None:
    """In a relational query: the moment and the other keys of one descendant."""
    rows = [(0, "20240101", "2300", "CT"), (1, "20240102", "0330", "MR"), (2, "20240101", "1000", "CT")]
    rows.append((2, "20240102", "1200", "MR"))
    archive = [
        {"PatientID": str(patient), date_keyword: day, time_keyword: hour, "Modality": one}
        for patient, day, hour, one in rows
    ]
    path = make_index(tmp_path, archive)
    asked = {"PatientID": "", date_keyword: date, time_keyword: time, "Modality": modality}
    how: dict[str, Any] = {"model": "patient", "level": "PATIENT", "relational": True, "datetime_matching": True}
    assert sorted(int(answer["PatientID"]) for answer in await ask(path, asked, **how)) == patients


async def test_moments_below_the_level_in_another_timezone_are_matched_by_nothing(tmp_path: Path) -> None:
    path = make_index(tmp_path, [{"PatientID": "1", "StudyDate": "20240101", "StudyTime": "2300"}])
    asked = {"PatientID": "", "StudyDate": "20240102", "TimezoneOffsetFromUTC": "+0200"}
    how: dict[str, Any] = {"model": "patient", "level": "PATIENT", "relational": True, "timezone": True}
    assert 0x00080020 in parse(asked, **how).unsupported_keys
    assert len(await ask(path, asked, **how)) == 1
