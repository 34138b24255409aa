"""Whatever is asked: an answer or a refusal in the protocol's terms, soon, and nothing is executed that was asked."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacslite.errors import DimseError
from tests.support.index import ask, find, make_index, parse, reading

UTF_8 = {"SpecificCharacterSet": "ISO_IR 192"}
KEYS = [
    "PatientName",
    "PatientID",
    "OtherPatientNames",
    "OtherPatientIDs",
    "AccessionNumber",
    "StudyDescription",
    "ReferringPhysicianName",
    "ModalitiesInStudy",
    "StudyInstanceUID",
    "SOPClassesInStudy",
    "RequestingPhysician",
    "PatientComments",
]
nasty = st.text(
    st.one_of(st.sampled_from("*?%_[]'\";()\\^=-\0\x1b \t aäß山"), st.characters(codec="utf-8")), max_size=24
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stored = [
        {**UTF_8, "PatientName": 'O\'Brien^"Bob"', "PatientID": "'; DROP TABLE study; --", "StudyDescription": "50%"},
        {**UTF_8, "PatientName": "Doe^John", "PatientID": "2", "Modality": "CT"},
    ]
    return make_index(tmp_path_factory.mktemp("hostile"), stored)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from(KEYS), nasty, max_size=3), min_size=1, max_size=8), st.booleans())
async def test_any_text_is_answered_or_refused(index: Path, asked: list[dict[str, str]], fuzzy: bool) -> None:
    async with reading(index) as reader:
        for values in asked:
            encoded: dict[str, Any] = {
                keyword: text.encode("utf-8", "replace") + b" " * (len(text.encode("utf-8", "replace")) % 2)
                for keyword, text in values.items()
            }
            status = None
            try:
                await find(reader, parse({**UTF_8, **encoded}, fuzzy=fuzzy, relational=True))
            except DimseError as error:
                status = error.status
            assert status in {None, 0xA900}, values
        assert len(await find(reader, parse({}))) == 2


@pytest.mark.parametrize(
    ("keyword", "key", "found"),
    [
        ("PatientID", "'; DROP TABLE study; --", 1),
        ("PatientID", "' OR '1'='1", 0),
        ("PatientName", "O'Brien*", 1),
        ("PatientName", '*"Bob"*', 1),
        ("PatientName", '*" OR "*', 0),
        ("PatientName", "*NEAR(a b)*", 0),
        ("PatientName", "*{a}:b*", 0),
        ("StudyDescription", "50%", 1),
        ("StudyDescription", "%", 0),
    ],
)
async def test_nothing_asked_is_executed(index: Path, keyword: str, key: str, found: int) -> None:
    assert len(await ask(index, {keyword: key})) == found


async def test_costly_patterns_cost_little(tmp_path: Path) -> None:
    path = make_index(tmp_path, [{"PatientComments": "a" * 2000, "OtherPatientIDs": "\\".join(["a" * 60] * 40)}] * 20)
    started = time.monotonic()
    async with reading(path) as reader:
        for keyword in ("PatientComments", "OtherPatientIDs", "PatientName", "RequestingPhysician"):
            assert await find(reader, parse({keyword: "*a" * 1000 + "*b"})) == []
            assert await find(reader, parse({keyword: "?" * 4000})) == []
    assert time.monotonic() - started < 5


async def test_long_lists_are_answered(tmp_path: Path) -> None:
    path = make_index(tmp_path, [{}])
    many = "\\".join(f"1.2.{number}" for number in range(5000))
    assert await ask(path, {"StudyInstanceUID": many}) == []
    (answer,) = await ask(path, {"StudyInstanceUID": f"{many}\\1.2.826.0.1.3680043.9.7433.99.1.0", "StudyID": ""})
    assert answer["StudyID"] == ""
