"""How answers come: page by page, each once, soon, and without holding anything while nobody reads."""

import asyncio
import sqlite3
import threading
from contextlib import aclosing, closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacslite.archive.index.file import IndexFile
from pacslite.archive.index.reader import IndexReader, IndexUnreadable, TooManyMatches
from pacslite.archive.keys import KEYS
from pacslite.archive.query import QueryOptions, parse_retrieve
from tests.support.index import EXPLICIT, Values, decode, encode, find, make_index, parse, reading, uid

ALL: Values = {"StudyInstanceUID": "", "PatientName": ""}
_KEYS = {key.keyword: key for key in KEYS}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 studies of 300 patients, of whom one has very many."""
    studies = [
        {"PatientID": str(patient), "PatientName": f"Doe^{patient % 7}", "StudyDate": f"202401{number % 28 + 1:02d}"}
        for number in range(1000)
        for patient in [number if number < 300 else 0]
    ]
    return make_index(tmp_path_factory.mktemp("many"), studies)


@pytest.mark.parametrize(
    ("key", "number"),
    [
        ({}, 1000),
        ({"PatientName": "doe*"}, 1000),
        ({"PatientName": "doe^0"}, 743),
        ({"PatientName": "*oe^*"}, 1000),
        ({"PatientName": "*e^*"}, 1000),
        ({"PatientID": "0"}, 701),
        ({"StudyDate": "20240101-20240131"}, 1000),
        ({"StudyDate": "20240105"}, 36),
        ({"StudyDate": "20240105-"}, 856),
    ],
)
async def test_each_match_comes_once(many: Path, key: Values, number: int) -> None:
    async with reading(many) as reader:
        answers = await find(reader, parse(dict(ALL) | dict(key)))
    uids = [answer["StudyInstanceUID"] for answer in answers]
    assert len(set(uids)) == len(uids) == number


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=150),
    st.sampled_from([1, 3, 20, 256]),
)
async def test_each_match_comes_once_whoever_it_belongs_to(
    tmp_path: Path, studies: list[tuple[int, int]], page: int
) -> None:
    """Few patients with few names, so that pages end everywhere within what is equal."""
    path = make_index(
        tmp_path,
        [
            {"PatientID": str(patient), "PatientName": f"Name{patient % 2}", "StudyDate": f"2024010{day + 1}"}
            for patient, day in studies
        ],
    )
    async with reading(path, page=page) as reader:
        for key in ({}, {"PatientName": "name*"}, {"PatientName": "*ame*"}, {"StudyDate": "20240101-20240131"}):
            answers = await find(reader, parse(dict(ALL) | key))
            found = sorted(answer["StudyInstanceUID"] for answer in answers)
            assert found == sorted(uid(1, number) for number in range(len(studies)))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.sampled_from(["", *"abc"]), st.integers(0, 3)), min_size=1, max_size=40),
    st.sampled_from(["StudyDate", "PatientName", "AccessionNumber"]),
    st.sampled_from([{}, {"StudyDate": "20240102-"}, {"PatientName": "*b*"}]),
    st.integers(0, 12),
    st.integers(0, 12),
)
async def test_pages_of_an_ordered_query_fit_together(
    tmp_path: Path, studies: list[tuple[str, int]], order: str, key: Values, offset: int, limit: int
) -> None:
    """As HTTP will ask: by a key, what has none last, from one place on and no more than wanted."""
    days = ["", "20240101", "20240102", "20240103"]
    data_sets = [
        {"PatientID": str(number), "PatientName": name, "StudyDate": days[day], "AccessionNumber": name * day}
        for number, (name, day) in enumerate(studies)
    ]
    ordered = replace(parse({**dict.fromkeys(data_sets[0], ""), **key}), order=_KEYS[order])
    async with reading(make_index(tmp_path, data_sets)) as reader:
        everything = await find(reader, ordered)
        page = await find(reader, replace(ordered, offset=offset, limit=limit))
        unordered = await find(reader, replace(ordered, order=None))
    values = [answer[order] for answer in everything]
    assert values == sorted(values, key=lambda value: (not value, value))
    assert sorted(answer["PatientID"] for answer in everything) == sorted(one["PatientID"] for one in unordered)
    assert page == everything[offset : offset + limit if limit else None]


@pytest.mark.parametrize("keyword", ["StudyTime", "Modality"])
async def test_order_that_no_index_gives_is_refused(many: Path, keyword: str) -> None:
    async with reading(many) as reader:
        with pytest.raises(ValueError, match=keyword):
            await find(reader, replace(parse(ALL), order=_KEYS[keyword]))


async def test_first_batch_is_small(many: Path) -> None:
    async with reading(many) as reader, aclosing(reader.find(parse(ALL))) as batches:
        sizes = [len(batch) async for batch in batches]
    assert 0 < sizes[0] <= 20
    assert max(sizes) <= 256


async def test_reader_that_pauses_holds_no_connection(many: Path) -> None:
    async with reading(many, connections=1) as reader, aclosing(reader.find(parse(ALL))) as slow:
        first = await anext(slow)
        assert len(await find(reader, parse(ALL))) == 1000
        rest = [one async for batch in slow for one in batch]
    assert len(first) + len(rest) == 1000


async def test_queries_share_few_connections(many: Path) -> None:
    async with reading(many, connections=2) as reader:
        found = await asyncio.gather(*(find(reader, parse(ALL)) for _ in range(20)))
    assert {len(answers) for answers in found} == {1000}


async def test_stores_go_on_meanwhile(many: Path) -> None:
    """Neither waits for the other."""
    async with reading(many) as reader, aclosing(reader.find(parse(ALL))) as batches:
        first = await anext(batches)
        with closing(sqlite3.connect(many, timeout=0)) as writer:
            writer.execute("UPDATE study SET study_description = 'touched' WHERE id = 1")
            rest = [one async for batch in batches for one in batch]
            writer.rollback()
    assert len(first) + len(rest) == 1000


async def test_more_matches_than_allowed_are_refused_after_those_allowed(many: Path) -> None:
    async def answered(most: int) -> tuple[int, int]:
        query = parse(ALL, options=QueryOptions(maximum_results=most))
        count, status = 0, 0
        async with reading(many) as reader, aclosing(reader.find(query)) as batches:
            try:
                async for batch in batches:
                    count += len(batch)
            except TooManyMatches as refusal:
                status = refusal.status
        return count, status

    assert await answered(999) == (999, 0xA700)
    assert await answered(20) == (20, 0xA700)
    assert await answered(1000) == (1000, 0)
    assert await answered(0) == (1000, 0)


@pytest.fixture
def lockable(tmp_path: Path) -> Path:
    """An index whose readers can be made to wait: without write-ahead log a writer does that."""
    path = make_index(tmp_path, [{"PatientName": "Doe"}])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    return path


def lock(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


async def test_long_statement_lets_the_caller_look_up(lockable: Path) -> None:
    """Empty batches come while SQLite is busy: time to see a C-CANCEL."""
    async with reading(lockable) as reader:
        with closing(lock(lockable)) as writer:
            async with aclosing(reader.find(parse(ALL))) as batches:
                assert await anext(batches) == []
                writer.execute("ROLLBACK")
                answers = [decode(one) async for batch in batches for one in batch]
    assert [answer["PatientName"] for answer in answers] == ["Doe"]


async def test_query_that_is_left_gives_its_connection_back(lockable: Path) -> None:
    async with reading(lockable, connections=1) as reader:
        with closing(lock(lockable)) as writer:
            async with aclosing(reader.find(parse(ALL))) as batches:
                assert await anext(batches) == []
            writer.execute("ROLLBACK")
        assert len(await find(reader, parse(ALL))) == 1


async def test_stop_leaves_no_thread(many: Path) -> None:
    before = set(threading.enumerate())
    async with reading(many, connections=3) as reader:
        batches = reader.find(parse(ALL))
        await anext(batches)
    with pytest.raises(IndexUnreadable):
        await anext(batches)
    left = [one for one in set(threading.enumerate()) - before if not one.name.startswith("asyncio")]
    for thread in left:
        thread.join(5)
    assert not [thread for thread in left if thread.is_alive()]


async def test_index_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    reader = IndexReader(IndexFile(tmp_path / "index.sqlite"))
    with pytest.raises(IndexUnreadable):
        await reader.start()
    await reader.stop()
    assert list(tmp_path.iterdir()) == []


async def test_waiting_queries_hear_of_the_end(lockable: Path) -> None:
    async with reading(lockable, connections=1) as reader:
        with closing(lock(lockable)):
            waiting = [asyncio.ensure_future(find(reader, parse(ALL))) for _ in range(3)]
            await asyncio.sleep(0.05)
            await reader.stop()
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {IndexUnreadable}


# retrieve plans


SERIES = [{"PatientID": "1", "StudyInstanceUID": uid(1, n % 2), "SeriesInstanceUID": uid(2, n)} for n in range(4)]


@pytest.fixture(scope="module")
def retrievable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies of two series of ten instances, their numbers against the order of arrival."""
    instances = [one | {"InstanceNumber": str(10 - number)} for one in SERIES for number in range(10)]
    return make_index(tmp_path_factory.mktemp("retrievable"), instances)


@pytest.mark.parametrize(
    ("level", "keys", "series"),
    [
        ("PATIENT", {"PatientID": "1"}, [0, 2, 1, 3]),
        ("STUDY", {"PatientID": "1", "StudyInstanceUID": uid(1, 1)}, [1, 3]),
        ("STUDY", {"PatientID": "1", "StudyInstanceUID": f"{uid(1, 1)}\\{uid(1, 0)}"}, [0, 2, 1, 3]),
        ("STUDY", {"PatientID": "2", "StudyInstanceUID": uid(1, 1)}, []),
        (
            "SERIES",
            {"PatientID": "1", "StudyInstanceUID": uid(1, 1), "SeriesInstanceUID": f"{uid(2, 3)}\\{uid(2, 0)}"},
            [3],
        ),
        ("SERIES", {"PatientID": "1", "StudyInstanceUID": uid(1, 1), "SeriesInstanceUID": uid(2, 1)}, [1]),
    ],
)
async def test_plan_is_by_series_and_instance_number(
    retrievable: Path, level: str, keys: Values, series: list[int]
) -> None:
    request = parse_retrieve(
        encode({"QueryRetrieveLevel": level, **keys}),
        model="patient",
        transfer_syntax_uid=EXPLICIT,
        options=QueryOptions(),
    )
    async with reading(retrievable) as reader:
        plan = await reader.plan(request)
    assert [one.sop_instance_uid for one in plan] == [
        uid(3, of_series * 10 + number) for of_series in series for number in reversed(range(10))
    ]
    assert {one.series_instance_uid for one in plan} == {uid(2, one) for one in series}
    assert {one.study_instance_uid for one in plan} == {uid(1, one % 2) for one in series}


async def test_plan_of_named_instances(retrievable: Path) -> None:
    keys = {
        "StudyInstanceUID": uid(1, 0),
        "SeriesInstanceUID": uid(2, 0),
        "SOPInstanceUID": f"{uid(3, 3)}\\{uid(3, 7)}\\{uid(3, 7)}\\{uid(3, 15)}\\1.2.3",
    }
    request = parse_retrieve(
        encode({"QueryRetrieveLevel": "IMAGE", **keys}),
        model="study",
        transfer_syntax_uid=EXPLICIT,
        options=QueryOptions(),
    )
    async with reading(retrievable) as reader:
        (seven, three) = await reader.plan(request)
    assert (seven.sop_instance_uid, three.sop_instance_uid) == (uid(3, 7), uid(3, 3))
    assert three.transfer_syntax_uid == EXPLICIT
    assert three.study_instance_uid == uid(1, 0)
    assert three.series_instance_uid == uid(2, 0)
