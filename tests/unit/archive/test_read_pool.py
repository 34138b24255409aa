"""Statements that go to the database together: what they found, how far they came, and when."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pacslite.archive.index.compiled import Page
from pacslite.archive.index.file import IndexFile
from pacslite.archive.index.read_pool import Found, IndexUnreadable, ReadPool
from tests.support.index import make_index


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[ReadPool]:
    pool = ReadPool(IndexFile(make_index(tmp_path, [{}])), 2)
    await pool.open()
    yield pool
    await pool.close()


def values(*some: int) -> Page:
    """A statement that gives these."""
    return Page(" UNION ALL ".join("SELECT ?" for _ in some) or "SELECT 1 WHERE 0", some)


def slow(*before: int) -> Page:
    """The same, and then a value that a second's work has."""
    first = "".join("SELECT ? UNION ALL " for _ in before)
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
    return Page(f"{numbers} {first}SELECT max(i) FROM n", (5_000_000, *before))


def rows(*some: int) -> list[tuple[int]]:
    return [(one,) for one in some]


@pytest.mark.parametrize(
    ("pages", "found"),
    [
        ([], Found([], 0, False)),
        ([values()], Found([], 1, False)),
        ([values(1, 2)], Found(rows(1, 2), 1, False)),
        ([values(1, 2, 3)], Found(rows(1, 2, 3), 1, True)),  # as many as wanted: there may be more
        ([values(1, 2), values(), values(3)], Found(rows(1, 2, 3), 3, False)),
        ([values(1, 2), values(3, 4), values(5)], Found(rows(1, 2, 3, 4), 2, False)),  # enough
        ([values(1, 2), values(3, 4, 5), values(6)], Found(rows(1, 2, 3, 4, 5), 2, True)),
    ],
)
async def test_statements_run_until_there_is_enough(pool: ReadPool, pages: list[Page], found: Found) -> None:
    assert (await pool.collect(pages, 3))[:3] == found[:3]


async def test_what_was_found_does_not_wait_for_the_next_statement_once_it_took_long(pool: ReadPool) -> None:
    found = await pool.collect([values(), slow(1), values(2)], 100)
    assert found[:3] == (rows(1, 5_000_000), 2, False)
    assert found.seconds > 0.05
    found = await pool.collect([slow()._replace(values=(10,)), values(2)], 100)
    assert found[:3] == (rows(10, 2), 2, False)


async def test_all_rows_are_fetched_however_long_they_take(pool: ReadPool) -> None:
    """A retrieve plan that ended early would be a retrieve without some instances."""
    assert await pool.fetch(slow(1, 2)) == rows(1, 2, 5_000_000)


async def test_who_leaves_ends_all_statements(pool: ReadPool) -> None:
    started = time.perf_counter()
    running = asyncio.ensure_future(pool.collect([slow(), slow(), slow()], 100))
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert time.perf_counter() - started < 0.4
    assert await pool.fetch(values(1)) == rows(1)


async def test_long_statements_leave_a_connection_to_others(pool: ReadPool) -> None:
    long = [asyncio.ensure_future(pool.collect([slow()], 1, may_take_long=True)) for _ in range(2)]
    await asyncio.sleep(0.02)
    assert await asyncio.wait_for(pool.fetch(values(1)), 0.4) == rows(1)
    assert not any(one.done() for one in long)
    for one in long:
        one.cancel()
    await asyncio.wait(long)


async def test_what_sqlite_refuses_is_told(pool: ReadPool) -> None:
    with pytest.raises(IndexUnreadable, match="no such table") as refused:
        await pool.fetch(Page("SELECT * FROM missing", ()))
    assert refused.value.status == 0xC001
