"""The read side of the index: queries and retrieve plans, in pages (PS3.4 §C.4.1, §C.4.2).

aiosqlite runs the statements (index/read_pool.py), SQLAlchemy only writes them (index/select.py): its asyncio engine
costs 80 ms of import and more than a millisecond a statement. A page is one hop to a connection's thread and back.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

from pacslite.archive.answer import AnswerEncoder
from pacslite.archive.criteria import Query, RetrieveRequest
from pacslite.archive.index.file import IndexFile
from pacslite.archive.index.read_pool import Found, IndexUnreadable, ReadPool
from pacslite.archive.keys import Level
from pacslite.archive.pending import PendingValues, ReadValues
from pacslite.archive.reference import InstanceRef
from pacslite.archive.sieve import Cell, KeptReader, KeptValues, Sieve
from pacslite.errors import DimseError

if TYPE_CHECKING:  # importing it is importing SQLAlchemy
    from pacslite.archive.index.drivers import Branch
    from pacslite.archive.index.select import Selection, Way

__all__ = ["IndexReader", "IndexUnreadable", "TooManyMatches"]

_FIRST_PAGE = 20  # the first answer does not wait for more
_PAGE = 256  # 2 ms of encoding at most between two turns of the event loop
_KEPT_PAGE = 64  # and the same where kept attributes are taken apart
_KEPT_BYTES = 1 << 18  # of these in a page
_PAGE_SECONDS = 0.05  # what a search has found waits for the rest of its page about so long
_AT_ONCE = 8  # statements in one hop
_PATIENCE = 0.25  # seconds after which an empty batch lets the caller look for C-CANCEL


_Row = tuple[Cell, ...]


class TooManyMatches(DimseError):
    """Refused, out of resources: more matches than are allowed (PS3.4 Table C.4-1)."""

    status: ClassVar[int] = 0xA700


class IndexReader:
    """Answers queries from an index that exists. Used on the event loop it was started on.

    Args:
        connections: Most statements that run at once, each in a thread of its own.
        page: Most rows at once.
        read_values: Reads what extra keys that are not complete still lack.
    """

    def __init__(
        self,
        index: IndexFile,
        *,
        connections: int = 4,
        page: int = _PAGE,
        read_values: ReadValues | None = None,
    ) -> None:
        self._pool = ReadPool(index, connections)
        self._read_values = read_values
        self._page = page

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
        for moment in query.kept_moments:
            tags.setdefault(moment.level, set()).update((moment.date, moment.time))
        kept = KeptReader(tags, selection.place)
        pending = PendingValues(query, selection.place, self._read_values)
        most = query.options.maximum_results
        count, before = 0, query.offset
        of_columns, of_kept = (
            query.filters or query.lower_filters or query.moments or query.lower_moments,
            query.kept_filters or query.kept_moments,
        )
        has_keys = bool(of_columns or of_kept)
        takes_kept = bool(tags or pending)
        async with aclosing(self._pages(selection, has_keys=has_keys, takes_kept=takes_kept)) as pages:
            async for page in pages:
                rows = await asyncio.to_thread(pending.fill, page) if pending and page else page
                if sieve or tags:
                    sieved = [(row, values) for row in rows if sieve.accepts(row, values := kept.read(row))]
                else:
                    sieved = [(row, _NOTHING_KEPT) for row in rows]
                if before:
                    before, sieved = max(0, before - len(sieved)), sieved[before:]
                if query.limit:
                    del sieved[query.limit - count :]
                too_many = most > 0 and count + len(sieved) > most
                if too_many:
                    del sieved[most - count :]
                count += len(sieved)
                yield [encoder.encode(row, values) for row, values in sieved]
                if too_many:
                    raise TooManyMatches(f"more than {most} matches: ask for less")
                if query.limit and count == query.limit:
                    return

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

    async def _pages(
        self, selection: "Selection", *, has_keys: bool, takes_kept: bool
    ) -> AsyncGenerator[Sequence[_Row], None]:
        """All rows, branch after branch; an empty page now and then while a statement takes long.

        Statements go to the database a few at once. All ways on from a row are named by that row, whatever is found on
        the first of them meanwhile; behind a page that is cut all of them are open again.
        """
        walks = await self._walks(selection)
        ahead: list[tuple[Branch, Way | None]] = [(branch, None) for branch in walks]
        last: _Row = ()
        limit = 1 if takes_kept else min(_FIRST_PAGE, self._page)
        is_search = False
        while ahead:
            may_take_long = ahead[0][0].reads_all
            if may_take_long and has_keys and not is_search:
                limit = 1
            is_search = may_take_long and has_keys
            others = (at for at, (branch, _) in enumerate(ahead) if branch.reads_all is not may_take_long)
            asked = ahead[: min(_AT_ONCE, next(others, _AT_ONCE))]
            pages = [
                selection.first_page(branch, limit) if way is None else selection.next_page(branch, way, last, limit)
                for branch, way in asked
            ]
            running = asyncio.ensure_future(self._pool.collect(pages, limit, may_take_long=may_take_long))
            try:
                while not (await asyncio.wait({running}, timeout=_PATIENCE))[0]:
                    yield ()
            finally:
                if not running.done():
                    running.cancel()
                    await asyncio.wait({running})
            found = running.result()
            if found.rows:
                yield found.rows
            ahead = ahead[found.ran :]
            if found.is_cut:
                last = found.rows[-1]
                branch = asked[found.ran - 1][0]
                ways = [(branch, way) for way in selection.ways_on(branch)]
                ahead = [*ways, *(one for one in ahead if one[0] is not branch)]
            if found.rows:
                limit = min(self._page, _next_limit(found, takes_kept=takes_kept, is_search=is_search))

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


async def _load() -> None:
    """Import SQLAlchemy off the loop, 0.2 s, if nothing else has by the first query."""
    if _SELECT not in sys.modules:
        await asyncio.to_thread(import_module, _SELECT)


def _next_limit(found: Found, *, takes_kept: bool, is_search: bool) -> int:
    """Rows of the next page, if they are like those just found.

    In a search matches may be far between: then each goes out when it is found. Elsewhere a page has costs of its own.
    """
    number = len(found.rows)
    limit = _KEPT_PAGE if takes_kept else _PAGE
    if is_search:
        limit = min(limit, int(number * _PAGE_SECONDS / found.seconds))
    if takes_kept:
        size = sum(len(cell) for row in found.rows for cell in row if isinstance(cell, bytes))
        limit = min(limit, number * _KEPT_BYTES // max(size, 1))
    return max(1, limit)


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
