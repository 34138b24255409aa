"""Connections that read the index: few, each with a thread of its own, each lent for as long as a few statements run.

aiosqlite has the threads; a hop to one and back costs 0.1 ms, more than most statements. So several go in one hop, one
after the other, until they have found enough.
"""

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing, suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import aiosqlite

from pacslite.archive.index.file import IndexFile
from pacslite.errors import DimseError

if TYPE_CHECKING:  # importing it is importing SQLAlchemy
    from pacslite.archive.index.compiled import Page

__all__ = ["Found", "IndexUnreadable", "ReadPool"]

_SOON = 0.01  # seconds after which no further statement begins, if there is something to answer
_PRAGMAS = """
PRAGMA query_only = 1;
PRAGMA cache_size = -8192;
PRAGMA temp_store = MEMORY;
"""


class IndexUnreadable(DimseError):
    """Unable to process: the index gives no answer, or is closed (PS3.4 Table C.4-1)."""

    status: ClassVar[int] = 0xC001


class Found(NamedTuple):
    """What some statements found: ``ran`` of them, and whether the last of these may have more."""

    rows: list[Any]
    ran: int
    is_cut: bool
    seconds: float = 0


class ReadPool:
    """Used on one event loop. Statements that may take long leave one connection to others."""

    def __init__(self, index: IndexFile, connections: int) -> None:
        self._uri = f"{index.path.resolve().as_uri()}?mode=rw"
        self._number = connections
        self._catch_up = index.catch_up
        self._all: list[_Connection] = []
        self._idle: asyncio.LifoQueue[_Connection | None] = asyncio.LifoQueue()  # None: closed
        self._long = asyncio.Semaphore(max(1, connections - 1))

    async def open(self) -> None:
        """Open the connections. ``close`` must follow: their threads keep the process alive.

        Raises:
            IndexUnreadable: There is no index, or it is none of ours.
        """
        self._probe()
        try:
            for _ in range(self._number):
                connection = _Connection(self._connect, self._catch_up)
                self._all.append(connection)
                await connection
                await connection.executescript(_PRAGMAS)
                self._idle.put_nowait(connection)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End what runs."""
        connections, self._all = self._all, []
        self._idle.put_nowait(None)
        for connection in connections:
            with suppress(ValueError):  # one that never came to be
                await connection.interrupt()
        for connection in connections:
            await connection.close()

    async def fetch(self, page: "Page") -> list[Any]:
        """All rows of one statement."""
        return (await self.collect([page], sys.maxsize)).rows

    async def collect(self, pages: Sequence["Page"], limit: int, *, may_take_long: bool = False) -> Found:
        """Run statements one after the other until they have ``limit`` rows, which is the limit of each of them.

        What one has found does not wait long for the next. When cancelled, what runs is interrupted.
        """
        if may_take_long:
            async with self._long:
                return await self.collect(pages, limit)
        connection = await self._idle.get()
        try:
            if connection is None or not self._all:
                raise IndexUnreadable("the index is closed")
            return await _run(connection, pages, limit)
        except sqlite3.Error as error:
            raise IndexUnreadable(f"index: {error}") from error
        finally:
            self._idle.put_nowait(connection)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._uri, uri=True, timeout=1, isolation_level=None, cached_statements=256)

    def _probe(self) -> None:
        """Fail before there are threads: aiosqlite does not wait for one whose connection fails."""
        try:
            with closing(sqlite3.connect(self._uri, uri=True)) as connection:
                connection.execute("SELECT id FROM study LIMIT 1").fetchone()
        except sqlite3.Error as error:
            raise IndexUnreadable(f"index: {error}") from error


class _Connection(aiosqlite.Connection):
    """aiosqlite's, with several statements in one hop."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], catch_up: Callable[[], None]) -> None:
        super().__init__(connect, 64)
        self._catch_up = catch_up
        self._is_left = False

    async def collect(self, pages: Sequence["Page"], limit: int) -> Found:
        """``ReadPool.collect``; who is cancelled meanwhile must ``leave``, and wait for the end of this."""
        self._is_left = False
        execute: Callable[..., Coroutine[Any, Any, Found]] = self._execute
        return await execute(self._collect, pages, limit)

    async def leave(self) -> None:
        """Interrupt what runs, and run no further statement."""
        self._is_left = True
        await self.interrupt()

    def _collect(self, pages: Sequence["Page"], limit: int) -> Found:
        """In the connection's thread."""
        began = perf_counter()
        self._catch_up()
        found: list[Any] = []
        for ran, page in enumerate(pages, start=1):
            rows = self._conn.execute(page.sql, page.values).fetchall()
            found += rows
            seconds = perf_counter() - began
            if len(found) >= limit or self._is_left or (found and seconds > _SOON):
                return Found(found, ran, len(rows) == limit, seconds)
        return Found(found, len(pages), False, perf_counter() - began)


async def _run(connection: _Connection, pages: Sequence["Page"], limit: int) -> Found:
    running = asyncio.ensure_future(connection.collect(pages, limit))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await connection.leave()
        await asyncio.wait({running})
        running.exception()  # it was interrupted, or it was done
        raise
