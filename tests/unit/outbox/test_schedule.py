"""When what waits is tried: by the time, by what others change, and whatever becomes of the clock."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pacslite.outbox import queue as module
from pacslite.outbox.admin import entries
from pacslite.outbox.database import Database
from pacslite.outbox.offload import Offload
from pacslite.outbox.queue import Arrival, Queue
from pacslite.outbox.retry import Retry
from pacslite.outbox.schedule import Scheduler
from tests.support.clock import Clock


class Served:
    """A queue and a scheduler; what is served is noted, and sent."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.queue = Queue(Database(path / "outbox.sqlite"), Retry(10, 100, 1000), self.clock)
        self.offload = Offload("outbox")
        self.scheduler = Scheduler(self.queue, self.offload, {"forward": self._serve}, self._changed)
        self.sent: list[str] = []
        self.unreachable = False

    def enqueue(self, *uids: str) -> None:
        self.queue.enqueue([Arrival("WS", uid, bytes(16)) for uid in uids])

    async def until_sent(self, uids: Sequence[str]) -> None:
        async with asyncio.timeout(5):
            while self.sent != uids:
                await asyncio.sleep(0.01)

    async def _serve(self, destination: str) -> bool:
        if self.unreachable:
            await self.offload.run(self.queue.defer, "forward", destination, "unreachable")
            return False
        waiting = await self.offload.run(self.queue.take, "forward", destination, 100)
        await self.offload.run(self.queue.finish, [one.id for one in waiting])
        self.sent += [one.subject for one in waiting]
        return bool(waiting)

    async def _changed(self) -> None:
        pass


@asynccontextmanager
async def serving(path: Path, *uids: str, deferred: bool = False, hours: int = 0) -> AsyncIterator[Served]:
    """With these enqueued so long before it starts, for a destination that was left alone."""
    one = Served(path)
    one.enqueue(*uids)
    if deferred:
        one.queue.defer("forward", "WS", "unreachable")
    one.clock.now += hours * 3600.0
    task = asyncio.create_task(one.scheduler.run())
    try:
        yield one
    finally:
        await one.scheduler.stop(1)
        task.cancel()
        await asyncio.wait([task])
        await one.offload.stop()
        one.queue.database.close()


async def test_what_waits_is_sent_though_the_clock_was_set_back(tmp_path: Path) -> None:
    async with serving(tmp_path, "1") as one:
        await one.until_sent(["1"])
        await one.offload.run(one.enqueue, "2")
        one.clock.now -= 86_400
        one.scheduler.wake()
        await one.until_sent(["1", "2"])


async def test_destinations_are_tried_when_we_start(tmp_path: Path) -> None:
    """Nobody was there when we ended, which a new configuration has mended, say."""
    async with serving(tmp_path, "1", deferred=True) as one:
        await one.until_sent(["1"])


async def test_what_expired_while_we_were_down_is_tried_first(tmp_path: Path) -> None:
    async with serving(tmp_path, "1", deferred=True, hours=24) as one:
        await one.until_sent(["1"])


async def test_many_that_expire_take_turns_and_few_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All that came while a destination was away for days may expire in one minute, others have to be sent."""
    monkeypatch.setattr(module, "_EXPIRED_AT_ONCE", 40)
    caplog.set_level(logging.WARNING)
    async with serving(tmp_path, *map(str, range(100))) as one:
        one.unreachable = True
        one.clock.now += 3600
        async with asyncio.timeout(20):
            while {entry.state for entry in await one.offload.run(lambda: list(entries(one.queue)))} != {"failed"}:
                one.clock.now += 5
                one.scheduler.wake()
                await asyncio.sleep(0.01)
    lines = [vars(record) for record in caplog.records if record.message == "queue entries failed"]
    assert [line["entries"] for line in lines] == [40, 40, 20]
    assert {(line["to"], line["why"]) for line in lines} == {("WS", "expired: unreachable")}
