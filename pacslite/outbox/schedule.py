"""Sees to it that what is due is tried: one task a destination, woken by us, by time, or by the command line."""

import asyncio
import logging
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from pacslite.outbox.offload import Offload
from pacslite.outbox.queue import Due, Entry, Queue

__all__ = ["Scheduler", "Serve"]

log = logging.getLogger("pacslite.outbox")

Serve = Callable[[str], Awaitable[bool]]

_POLL_SECONDS = 1.0  # how soon we notice what "pacslite queue" has changed
_HOUSEKEEPING_SECONDS = 60.0
_TROUBLE_SECONDS = 30.0  # after an error of our own


class Scheduler:
    """Calls ``serve[kind]`` with destinations for which something is due.

    Args:
        serve: Sends what is due to a destination, defers it where that fails, and says whether anything was sent.
        changed: Called when another process has written to the queue.
    """

    def __init__(
        self, queue: Queue, offload: Offload, serve: Mapping[str, Serve], changed: Callable[[], Awaitable[None]]
    ) -> None:
        self._queue = queue
        self._offload = offload
        self._serve = serve
        self._changed = changed
        self._wanted = asyncio.Event()
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._not_before: dict[tuple[str, str], float] = {}  # by the loop's time
        self._version = -1
        self._kept_house = queue.clock()  # what waits is tried first, and what is not verified gets there
        self._begun = False
        self._stopping = False

    def wake(self) -> None:
        """Look at once."""
        self._wanted.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                delay = await self._look()
            except Exception as error:
                _complain(error)
                delay = _TROUBLE_SECONDS
            try:
                async with asyncio.timeout(delay):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()

    async def stop(self, seconds: float) -> None:
        """Begin nothing more; what is being sent may end within ``seconds``."""
        self._stopping = True
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    # private

    async def _look(self) -> float:
        """Start what is due; gives the seconds until something else is."""
        due, expired, changed = await self._offload.run(self._read)
        alike = Counter((entry.kind, entry.destination, entry.error) for entry in expired)
        for (kind, destination, error), count in alike.items():
            facts = {"entries": count, "kind": kind, "to": destination, "why": error}
            log.warning("queue entries failed", extra=facts)
        if changed:
            await self._changed()
        now, elapsed = self._queue.clock(), asyncio.get_running_loop().time()
        delay = _POLL_SECONDS
        for kind, destination, at in due:
            key = (kind, destination)
            seconds = max(at - now, self._not_before.get(key, 0.0) - elapsed)
            if seconds > 0:
                delay = min(delay, seconds)
            elif key not in self._tasks and not self._stopping:
                self._tasks[key] = asyncio.create_task(self._work(key))
        return delay

    async def _work(self, key: tuple[str, str]) -> None:
        kind, destination = key
        self._not_before.pop(key, None)
        progress = False
        try:
            progress = await self._serve[kind](destination)
        except Exception as error:
            _complain(error)
            self._not_before[key] = asyncio.get_running_loop().time() + _TROUBLE_SECONDS
        finally:
            del self._tasks[key]
            if progress:  # what was enqueued for it meanwhile found it busy
                self.wake()

    def _read(self) -> tuple[list[Due], list[Entry], bool]:
        """In the thread."""
        version = self._queue.database.version()
        changed = version != self._version and self._version >= 0
        self._version = version
        if not self._begun:  # what was in their way when we ended may be what the restart is for
            self._queue.undefer()
            self._begun = True
        expired: list[Entry] = []
        now = self._queue.clock()
        if not self._kept_house <= now < self._kept_house + _HOUSEKEEPING_SECONDS:
            self._kept_house = now
            self._queue.hasten()
            self._queue.purge()
            expired = self._queue.expire()
            if expired:  # there may be more
                self._kept_house = 0.0
        return self._queue.destinations(), expired, changed


def _complain(error: Exception) -> None:
    if isinstance(error, sqlite3.Error | OSError):  # a full disk, say
        log.error("outbox failed", extra={"why": str(error), "seconds": _TROUBLE_SECONDS})
    else:
        log.error("outbox failed", exc_info=error)
