"""The index that each kind of query walks along: no kind sorts what it finds, none reads a table by accident."""

import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pacslite.archive.answer import AnswerEncoder
from pacslite.archive.index.compiled import Page
from pacslite.archive.index.drivers import walks_of_values
from pacslite.archive.index.select import Selection, instances_of_series, named_instances, named_series
from pacslite.archive.keys import KEYS
from pacslite.archive.query import QueryOptions, parse_retrieve
from tests.support.index import EXPLICIT, Values, ask, encode, make_index, parse, uid

STUDY_KEYS = {
    "PatientName": "",
    "PatientID": "",
    "StudyInstanceUID": "",
    "StudyDate": "",
    "ModalitiesInStudy": "",
}
PATIENT_OF = "SEARCH patient USING INTEGER PRIMARY KEY (rowid=?)"
STUDIES_OF = "SEARCH study USING INDEX ix_study_patient_fk (patient_fk=?)"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_index(tmp_path_factory.mktemp("index"), [{"PatientName": "Doe^John", "PatientID": "1"}])


def explain(path: Path, page: Page) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {page.sql}", page.values)]


def plans_of(path: Path, values: Values, level: str, *, fuzzy: bool = False) -> list[list[list[str]]]:
    """Of each branch: the plan of its first page, then of each way to go on behind a row."""
    query = parse(STUDY_KEYS | dict(values) if level == "STUDY" else values, level=level, relational=True, fuzzy=fuzzy)
    selection = Selection(query)
    AnswerEncoder(query, selection.place)
    plans = []
    for branch in selection.branches:
        pages = [selection.first_page(branch, 20)]
        with closing(sqlite3.connect(path)) as connection:
            row = ("",) * len(connection.execute(*pages[0]).description)
        pages += [selection.next_page(branch, way, row, 20) for way in selection.ways_on(branch)]
        plans.append([explain(path, page) for page in pages])
    return plans


def walked(name: str, column: str, *, low: bool = True, high: bool = True) -> str:
    ends = " AND ".join([f"{column}>?"] * low + [f"{column}<?"] * high)
    return f"USING INDEX {name} ({ends})"


NAME = "ix_patient_patient_name_key"
DATE = "SEARCH study " + walked("ix_study_study_date_key", "study_date_key")
NAME_WALKS = [
    "SEARCH patient " + walked(NAME, "patient_name_key"),
    "SEARCH patient " + walked(f"{NAME}_second", "<expr>"),
    "SEARCH patient " + walked(f"{NAME}_third", "<expr>"),
]
# a query, its level, and of each branch what its first page reads first
LEADS: list[tuple[Values, str, list[str]]] = [
    ({}, "STUDY", ["SCAN study"]),
    ({"PatientID": "P1"}, "STUDY", ["SEARCH patient USING INDEX ix_patient_patient_id (patient_id=?)"]),
    ({"PatientID": "P*"}, "STUDY", ["SEARCH patient " + walked("ix_patient_patient_id", "patient_id")]),
    ({"AccessionNumber": "A"}, "STUDY", ["SEARCH study USING INDEX ix_study_accession_number (accession_number=?)"]),
    (
        {"AccessionNumber": "A?"},
        "STUDY",
        ["SEARCH study " + walked("ix_study_accession_number", "accession_number")],
    ),
    (
        {"StudyInstanceUID": "1.2"},
        "STUDY",
        ["SEARCH study USING INDEX sqlite_autoindex_study_1 (study_instance_uid=?)"],
    ),
    ({"PatientName": "doe*"}, "STUDY", NAME_WALKS),
    ({"PatientName": "doe^john"}, "STUDY", NAME_WALKS),
    ({"PatientName": "doe^john", "StudyDescription": "*"}, "STUDY", NAME_WALKS),
    ({"PatientName": "=yama*"}, "STUDY", NAME_WALKS[1:2]),
    ({"PatientName": "*oe^j*"}, "STUDY", ["SCAN patient_name_trigram VIRTUAL TABLE INDEX 64:M2"]),
    (  # followed by a common character, and not
        {"PatientName": "*oe*"},
        "STUDY",
        ["SCAN patient_name_trigram VIRTUAL TABLE INDEX 64:M2", f"SCAN patient USING INDEX {NAME}"],
    ),
    ({"PatientName": "*o*"}, "STUDY", [f"SCAN patient USING INDEX {NAME}"]),
    ({"StudyDate": "20240131"}, "STUDY", ["SEARCH study USING INDEX ix_study_study_date_key (study_date_key=?)"]),
    ({"StudyDate": "20240131-20240201"}, "STUDY", [DATE]),
    ({"StudyDate": "20240131-20240201", "PatientName": "doe*"}, "STUDY", [DATE]),
    ({"StudyDate": "20200101-", "PatientName": "doe*"}, "STUDY", NAME_WALKS),
    (
        {"StudyDate": "20200101-", "PatientID": "P1"},
        "STUDY",
        ["SEARCH patient USING INDEX ix_patient_patient_id (patient_id=?)"],
    ),
    (
        {"StudyDate": "20200101-"},
        "STUDY",
        ["SEARCH study " + walked("ix_study_study_date_key", "study_date_key", high=False)],
    ),
    (
        {"StudyDate": "-20200101"},
        "STUDY",
        ["SEARCH study " + walked("ix_study_study_date_key", "study_date_key", low=False)],
    ),
    ({"StudyDescription": "*KNEE*"}, "STUDY", ["SCAN study USING INDEX ix_study_study_description"]),
    ({"ModalitiesInStudy": "XA"}, "STUDY", ["SCAN study USING INDEX ix_study_modalities"]),
    (
        {"PatientBirthDate": "19700101"},
        "STUDY",
        ["SEARCH patient USING INDEX ix_patient_patient_birth_date_key (patient_birth_date_key=?)"],
    ),
    (
        {"SeriesInstanceUID": "1.2", "SOPInstanceUID": ""},
        "IMAGE",
        ["SEARCH series USING COVERING INDEX ix_series_series_instance_uid (series_instance_uid=?)"],
    ),
    (
        {"SOPInstanceUID": "1.2"},
        "IMAGE",
        ["SEARCH instance USING COVERING INDEX sqlite_autoindex_instance_1 (sop_instance_uid=?)"],
    ),
    (
        {"Modality": "XA", "SeriesInstanceUID": ""},
        "SERIES",
        ["SEARCH series USING INDEX ix_series_modality (modality=?)"],
    ),
]


@pytest.mark.parametrize(("values", "level", "leads"), LEADS)
def test_query_walks_along_its_index(index: Path, values: Values, level: str, leads: list[str]) -> None:
    plans = plans_of(index, values, level)
    assert [first[0] for first, *_ in plans] == leads
    for branch in plans:
        for plan in branch:
            assert not [step for step in plan if step.startswith("USE TEMP B-TREE")], plan
            assert not [step for step in plan[1:] if step.startswith("SCAN")], plan


@pytest.mark.parametrize(("values", "level", "leads"), LEADS)
def test_walk_goes_on_where_it_was(index: Path, values: Values, level: str, leads: list[str]) -> None:
    """The last way to go on is behind the driver's own place: by a seek, never by counting from the start."""
    for *_, plan in plans_of(index, values, level):
        assert plan[0].startswith(("SEARCH", "SCAN patient_name_trigram VIRTUAL TABLE INDEX 64:M2>")), plan


def test_fuzzy_names_are_found_by_trigrams_of_their_sounds(index: Path) -> None:
    ((first, *_),) = plans_of(index, {"PatientName": "schmidt"}, "STUDY", fuzzy=True)
    assert first == ["SCAN patient_name_trigram VIRTUAL TABLE INDEX 64:M2", PATIENT_OF, STUDIES_OF]


def test_lists_are_looked_up_value_by_value(index: Path) -> None:
    """What they find is sorted: it is no more than what is listed."""
    ((first, *_),) = plans_of(index, {"StudyInstanceUID": "1.2\\1.3"}, "STUDY")
    assert first[0] == "SEARCH study USING INDEX sqlite_autoindex_study_1 (study_instance_uid=?)"


def test_unknown_values_are_a_branch_of_their_own(index: Path) -> None:
    query = parse({"StudyDate": "20240131"}, options=QueryOptions(match_unknown=True))
    selection = Selection(query)
    AnswerEncoder(query, selection.place)
    plans = [explain(index, selection.first_page(branch, 20)) for branch in selection.branches]
    assert [plan[0] for plan in plans] == [
        "SEARCH study USING INDEX ix_study_study_date_key (study_date_key=?)",
        "SEARCH study USING INDEX ix_study_study_date_key (study_date_key=?)",
    ]


@pytest.mark.parametrize(
    ("keyword", "values", "leads"),
    [
        (
            "StudyDate",
            {"PatientID": "1"},
            [
                "SEARCH study USING INDEX ix_study_study_date_key (study_date_key>?)",
                "SEARCH study USING INDEX ix_study_study_date_key (study_date_key=?)",  # those without a date
            ],
        ),
        ("StudyDate", {"StudyDate": "20240131-20240201"}, [DATE]),  # the filter walks in that order
        (
            "PatientName",
            {},
            [
                f"SEARCH patient USING INDEX {NAME} (patient_name_key>?)",
                f"SEARCH patient USING INDEX {NAME} (patient_name_key=?)",
            ],
        ),
    ],
)
def test_order_is_that_of_an_index(index: Path, keyword: str, values: Values, leads: list[str]) -> None:
    key = next(one for one in KEYS if one.keyword == keyword)
    query = replace(parse(STUDY_KEYS | dict(values)), order=key)
    selection = Selection(query)
    AnswerEncoder(query, selection.place)
    plans = [explain(index, selection.first_page(branch, 20)) for branch in selection.branches]
    assert [plan[0] for plan in plans] == leads
    assert not [step for plan in plans for step in plan if step.startswith("USE TEMP B-TREE")]


@pytest.mark.parametrize(
    ("level", "keys", "lead"),
    [
        ("PATIENT", {"PatientID": "1"}, "SEARCH patient USING COVERING INDEX ix_patient_patient_id (patient_id=?)"),
        (
            "STUDY",
            {"PatientID": "1", "StudyInstanceUID": uid(1, 0)},
            "SEARCH study USING INDEX sqlite_autoindex_study_1 (study_instance_uid=?)",
        ),
        (
            "SERIES",
            {"PatientID": "1", "StudyInstanceUID": uid(1, 0), "SeriesInstanceUID": uid(2, 0)},
            "SEARCH series USING INDEX ix_series_series_instance_uid (series_instance_uid=?)",
        ),
        (
            "IMAGE",
            {"SOPInstanceUID": uid(3, 0)},
            "SEARCH instance USING INDEX sqlite_autoindex_instance_1 (sop_instance_uid=?)",
        ),
    ],
)
def test_retrieve_finds_by_its_lowest_key(index: Path, level: str, keys: Values, lead: str) -> None:
    request = parse_retrieve(
        encode({"QueryRetrieveLevel": level, **keys}),
        model="patient",
        transfer_syntax_uid=EXPLICIT,
        relational=True,
        options=QueryOptions(),
    )
    page = named_instances(request.filters) if level == "IMAGE" else named_series(request.filters)
    plan = explain(index, page)
    assert plan[0] == lead
    assert not [step for step in plan if step.startswith("SCAN")]


def test_instances_are_read_series_by_series(index: Path) -> None:
    plan = explain(index, instances_of_series([1, 2]))
    assert plan[0] == "SEARCH instance USING INDEX ix_instance_series_fk (series_fk=?)"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"ModalitiesInStudy": "CT"},
        {"StudyDate": "20240101-20240131"},
        {"PatientName": "doe*"},
        {"PatientName": "=yama*"},
        {"PatientName": "*doe*"},
        {"PatientID": "P1"},
    ],
)
async def test_page_costs_what_it_holds(tmp_path: Path, values: Values) -> None:
    """All studies alike, so every walk is one long run of equal values: a late page costs no more than an early one."""
    same = {"PatientName": "Doe^John=Yamada", "PatientID": "P1", "StudyDate": "20240115", "Modality": "CT"}
    path = make_index(tmp_path, [same for _ in range(600)])
    query = parse(STUDY_KEYS | dict(values))
    selection = Selection(query)
    AnswerEncoder(query, selection.place)
    (branch, *_) = selection.branches
    with closing(sqlite3.connect(path)) as connection:
        costs = []
        page: Page | None = selection.first_page(branch, 20)
        found = 0
        while page is not None:
            steps = 0

            def count() -> int:
                nonlocal steps
                steps += 1
                return 0

            connection.set_progress_handler(count, 1)
            rows = connection.execute(*page).fetchall()
            found += len(rows)
            costs.append(steps)
            page = None
            for way in selection.ways_on(branch) if rows else ():
                following = selection.next_page(branch, way, rows[-1], 20)
                if connection.execute(*following).fetchall():
                    page = following
                    break
    assert found == 600
    assert max(costs) < 3 * min(costs[1:-1]), costs


def test_few_values_are_found_each_by_a_seek(index: Path) -> None:
    """A modality that one in a million studies has is found at once."""
    query = parse(STUDY_KEYS | {"ModalitiesInStudy": "XA"})
    selection = Selection(query)
    AnswerEncoder(query, selection.place)
    (branch,) = selection.branches
    page = selection.values_page(branch)
    assert page is not None
    reads = [step for step in explain(index, page) if "study" in step]
    assert reads == [
        "SEARCH study USING COVERING INDEX ix_study_modalities",
        "SEARCH study USING COVERING INDEX ix_study_modalities (modalities>?)",
    ]
    walks = walks_of_values(branch, ["CT", "CT\\XA", "MR", "XA", "XAB"])
    assert [explain(index, selection.first_page(walk, 20))[0] for walk in walks] == [
        "SEARCH study USING INDEX ix_study_modalities (modalities=?)"
    ] * 2


@pytest.mark.parametrize(
    "values",
    [{}, {"PatientID": "1"}, {"PatientName": "some*"}, {"PatientName": "*meone^el*"}, {"StudyDate": "20240115"}],
)
@pytest.mark.parametrize("level", ["SERIES", "IMAGE"])
async def test_pages_join_whatever_the_order_of_the_uids(tmp_path: Path, values: Values, level: str) -> None:
    """The series of a study are found in the order of their UIDs, and came in another."""
    same = {"PatientName": "Someone^Else", "PatientID": "1", "StudyDate": "20240115", "StudyInstanceUID": uid(1, 0)}
    numbers = list(range(700))
    random.Random(1).shuffle(numbers)
    path = make_index(tmp_path, [{**same, "SeriesInstanceUID": uid(2, number)} for number in numbers])
    asked = {"SeriesInstanceUID": "", **values}
    found = [answer["SeriesInstanceUID"] for answer in await ask(path, asked, level=level, relational=True)]
    assert sorted(found) == sorted(uid(2, number) for number in numbers)
