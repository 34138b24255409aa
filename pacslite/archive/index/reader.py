"""The read side of the index: queries and retrieve plans, in pages (PS3.4 §C.4.1, §C.4.2).

aiosqlite runs the statements, SQLAlchemy only writes them (index/select.py): its asyncio engine costs 80 ms of import
and more than a millisecond a statement, where a statement on an aiosqlite connection of ours costs a hop to its thread
and back, 0.1 ms. A page is one hop. Connections are few and bounded; long walks leave one to the others.
"""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, closing, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import aiosqlite

from pacslite.archive.answer import AnswerEncoder
from pacslite.archive.criteria import Query, RetrieveRequest
from pacslite.archive.keys import Level
from pacslite.archive.reference import InstanceRef
from pacslite.archive.sieve import Cell, KeptReader, KeptValues, Sieve
from pacslite.errors import DimseError

if TYPE_CHECKING:  # importing it is importing SQLAlchemy
    from pacslite.archive.index.compiled import Page
    from pacslite.archive.index.drivers import Branch
    from pacslite.archive.index.select import Selection

__all__ = ["IndexReader", "IndexUnreadable", "TooManyMatches"]

_FIRST_PAGE = 20  # the first answer does not wait for more
_PAGE = 256  # 2 ms of encoding at most between two turns of the event loop
_KEPT_PAGE = 64  # and the same where kept attributes are taken apart
_PATIENCE = 0.25  # seconds after which an empty batch lets the caller look for C-CANCEL


class TooManyMatches(DimseError):
    """Refused, out of resources: more matches than are allowed (PS3.4 Table C.4-1)."""

    status: ClassVar[int] = 0xA700


class IndexUnreadable(DimseError):
    """Unable to process: the index gives no answer, or is closed (PS3.4 Table C.4-1)."""

    status: ClassVar[int] = 0xC001


class IndexReader:
    """Answers queries from an index file that exists. Used on the event loop it was started on.

    Args:
        connections: Most statements that run at once, each in a thread of its own.
    """

    def __init__(self, path: Path, *, connections: int = 4) -> None:
        self._pool = _Pool(path, connections)

    async def start(self) -> None:
        """Open the connections. ``stop`` must follow: their threads keep the process alive.

        Raises:
            IndexUnreadable: There is no index, or it is none of ours.
        """
        await self._pool.open()

    async def stop(self) -> None:
        """End what runs and close the connections."""
        await self._pool.close()

    async def find(self, query: Query) -> AsyncGenerator[list[bytes], None]:
        """Answers as encoded identifiers, in batches; an empty batch means that the search goes on.

        Close it (``contextlib.aclosing``) when you leave early: a running statement is interrupted.

        Raises:
            TooManyMatches: After the most answers that are allowed, if there are more. Status A700.
        """
        await _load()
        from pacslite.archive.index.select import Selection

        selection = Selection(query)
        encoder = AnswerEncoder(query, selection.place)
        sieve = Sieve(query, selection.place)
        tags = encoder.kept_tags
        for one in query.kept_filters:
            tags.setdefault(one.level, set()).add(one.tag)
        kept = KeptReader(tags, selection.place)
        most = query.options.maximum_results
        count = 0
        async with aclosing(self._pages(selection, _KEPT_PAGE if tags else _PAGE)) as pages:
            async for rows in pages:
                if sieve or tags:
                    sieved = [(row, values) for row in rows if sieve.accepts(row, values := kept.read(row))]
                else:
                    sieved = [(row, _NOTHING_KEPT) for row in rows]
                too_many = most > 0 and count + len(sieved) > most
                if too_many:
                    del sieved[most - count :]
                count += len(sieved)
                yield [encoder.encode(row, values) for row, values in sieved]
                if too_many:
                    raise TooManyMatches(f"more than {most} matches: ask for less")

    async def plan(self, request: RetrieveRequest) -> list[InstanceRef]:
        """The instances that a retrieve names, by series and Instance Number."""
        return [one async for batch in self.plan_batches(request) for one in batch]

    async def plan_batches(self, request: RetrieveRequest) -> AsyncGenerator[list[InstanceRef], None]:
        """The same in batches, each of whole series: memory does not depend on how much is retrieved."""
        await _load()
        from pacslite.archive.index.select import instances_of_series, named_instances, named_series

        if request.level is Level.IMAGE:
            rows = await self._pool.fetch(named_instances(request.filters))
            yield [InstanceRef._make((*row[2:5], *row[:2], *row[5:])) for row in rows]
            return
        series = await self._pool.fetch(named_series(request.filters))
        uids = {of: (study_uid, series_uid) for of, study_uid, series_uid, _ in series}
        for ids in _grouped([(of, number) for of, _, _, number in series], _PLANNED):
            place = {of: at for at, of in enumerate(ids)}
            rows = sorted(await self._pool.fetch(instances_of_series(ids)), key=lambda row: place[row[0]])
            yield [InstanceRef._make((*row[1:4], *uids[row[0]], *row[4:])) for row in rows]

    async def _pages(self, selection: "Selection", size: int) -> AsyncGenerator[Sequence[tuple[Cell, ...]], None]:
        """All rows, branch after branch; an empty page now and then while a statement takes long."""
        limit = _FIRST_PAGE
        for branch in await self._walks(selection):
            page: Page | None = selection.first_page(branch, limit)
            ways = selection.ways_on(branch)
            at = -1
            last: tuple[Cell, ...] = ()
            while page is not None:
                running = asyncio.ensure_future(self._pool.fetch(page, may_take_long=branch.reads_all))
                try:
                    while not (await asyncio.wait({running}, timeout=_PATIENCE))[0]:
                        yield ()
                finally:
                    if not running.done():
                        running.cancel()
                        await asyncio.wait({running})
                rows = running.result()
                if rows:
                    yield rows
                    last = rows[-1]
                # behind a full page all ways are open; one that is not full was the end of its way
                at = 0 if len(rows) == limit else at + 1 if at >= 0 else len(ways)
                limit = size
                page = selection.next_page(branch, ways[at], last, limit) if at < len(ways) else None

    async def _walks(self, selection: "Selection") -> Sequence["Branch"]:
        """The branches of a selection, those over few values taken apart."""
        from pacslite.archive.index.drivers import walks_of_values
        from pacslite.archive.index.select import MOST_VALUES

        walks: list[Branch] = []
        for branch in selection.branches:
            page = selection.values_page(branch)
            values = [row[0] for row in await self._pool.fetch(page)] if page is not None else []
            walks += walks_of_values(branch, values) if 0 < len(values) < MOST_VALUES else (branch,)
        return walks


class _Pool:
    """A few connections, each lent for one statement. Statements that may take long leave one connection to others."""

    def __init__(self, path: Path, connections: int) -> None:
        self._uri = f"{path.resolve().as_uri()}?mode=rw"
        self._number = connections
        self._all: list[aiosqlite.Connection] = []
        self._idle: asyncio.LifoQueue[aiosqlite.Connection | None] = asyncio.LifoQueue()  # None: closed
        self._long = asyncio.Semaphore(max(1, connections - 1))

    async def open(self) -> None:
        self._probe()
        try:
            for _ in range(self._number):
                connection = aiosqlite.connect(
                    self._uri, uri=True, timeout=1, isolation_level=None, cached_statements=256
                )
                self._all.append(connection)
                await connection
                await connection.executescript(_PRAGMAS)
                self._idle.put_nowait(connection)
        except BaseException:
            await self.close()
            raise

    def _probe(self) -> None:
        """Fail before there are threads: aiosqlite does not wait for one whose connection fails."""
        try:
            with closing(sqlite3.connect(self._uri, uri=True)) as connection:
                connection.execute("SELECT id FROM study LIMIT 1").fetchone()
        except sqlite3.Error as error:
            raise IndexUnreadable(f"index: {error}") from error

    async def close(self) -> None:
        connections, self._all = self._all, []
        self._idle.put_nowait(None)
        for connection in connections:
            with suppress(ValueError):  # one that never came to be
                await connection.interrupt()
        for connection in connections:
            await connection.close()

    async def fetch(self, page: "Page", *, may_take_long: bool = False) -> list[Any]:
        """Run a statement in one hop; when cancelled, interrupt it."""
        if may_take_long:
            async with self._long:
                return await self.fetch(page)
        connection = await self._idle.get()
        try:
            if connection is None or not self._all:
                raise IndexUnreadable("the index is closed")
            return await _run(connection, page)
        except sqlite3.Error as error:
            raise IndexUnreadable(f"index: {error}") from error
        finally:
            self._idle.put_nowait(connection)


async def _run(connection: aiosqlite.Connection, page: "Page") -> list[Any]:
    running = asyncio.ensure_future(connection.execute_fetchall(page.sql, page.values))
    try:
        return list(await asyncio.shield(running))
    except asyncio.CancelledError:
        await connection.interrupt()
        await asyncio.wait({running})
        running.exception()  # it was interrupted, or it was done
        raise


async def _load() -> None:
    """Import SQLAlchemy, 0.2 s, off the loop: at the first query, or earlier if somebody calls ``preload``."""
    if _SELECT not in sys.modules:
        await asyncio.to_thread(import_module, _SELECT)


def _grouped(series: Sequence[tuple[int, int]], size: int) -> Iterator[list[int]]:
    """Ids in groups of about ``size`` instances."""
    group: list[int] = []
    total = 0
    for of, number in series:
        group.append(of)
        total += number
        if total >= size:
            yield group
            group, total = [], 0
    if group:
        yield group


_SELECT = "pacslite.archive.index.select"
_NOTHING_KEPT = KeptValues()
_PLANNED = 1000  # instances a batch of a plan
_PRAGMAS = """
PRAGMA query_only = 1;
PRAGMA cache_size = -8192;
PRAGMA temp_store = MEMORY;
"""
