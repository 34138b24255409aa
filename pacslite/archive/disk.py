"""Threads that do the archive's blocking calls.

A queue.SimpleQueue and a loop: half the cost of a ThreadPoolExecutor's future a job, and the job itself says whom to
wake.
"""

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar, TypeVarTuple

__all__ = ["DiskThreads", "GroupThreads"]

_Arguments = TypeVarTuple("_Arguments")
_Item = TypeVar("_Item")

log = logging.getLogger("pacslite.archive")

_CALM_SECONDS = 0.005


class GroupThreads(Generic[_Item]):
    """``count`` threads that hand what waits to ``handle``, in order and in groups.

    A thread takes its share of what waits, ``most`` at most, and does not wait for more: an item that comes alone is a
    group. ``handle`` must not raise; what it raises is logged. Each thread calls ``prepare`` first, and ``calm`` once
    when nothing has come for some milliseconds.
    """

    def __init__(
        self,
        name: str,
        count: int,
        handle: Callable[[list[_Item]], None],
        *,
        most: int = 1,
        prepare: Callable[[], None] | None = None,
        calm: Callable[[], None] | None = None,
    ) -> None:
        self._items: SimpleQueue[_Item | None] = SimpleQueue()
        self._handle = handle
        self._prepare = prepare
        self._calm = calm
        self._most = most
        self._count = count
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, item: _Item) -> None:
        """Queue an item; never blocks. Who puts bounds how much waits here."""
        self._items.put(item)

    def stop(self) -> None:
        """Finish what is queued, then end the threads. Blocks."""
        for _ in self._threads:
            self._items.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        _call(self._prepare)
        while group := self._take():
            try:
                self._handle(group)
            except Exception:
                log.exception("disk thread")
            del group  # an item holds an object's bytes: not while we wait for the next

    def _take(self) -> list[_Item]:
        """The next group; empty at the end."""
        item = self._next()
        if item is None:
            return []
        group = [item]
        share = min(self._most, 1 + self._items.qsize() // self._count)
        while len(group) < share:
            try:
                item = self._items.get_nowait()
            except Empty:
                break
            if item is None:
                self._items.put(None)  # of another thread, or our own after this group
                break
            group.append(item)
        return group

    def _next(self) -> _Item | None:
        if self._calm is not None:
            try:
                return self._items.get(timeout=_CALM_SECONDS)
            except Empty:
                _call(self._calm)
        return self._items.get()


class DiskThreads:
    """Threads that run jobs in order."""

    def __init__(self, name: str, count: int, prepare: Callable[[], None] | None = None) -> None:
        self._threads: GroupThreads[tuple[Callable[..., None], tuple[object, ...]]] = GroupThreads(
            name, count, self._run_jobs, prepare=prepare
        )

    def submit(self, job: Callable[[*_Arguments], None], *args: *_Arguments) -> None:
        """Queue ``job(*args)``; never blocks."""
        self._threads.put((job, args))

    def stop(self) -> None:
        """Finish what is queued, then end the threads. Blocks."""
        self._threads.stop()

    @staticmethod
    def _run_jobs(jobs: list[tuple[Callable[..., None], tuple[object, ...]]]) -> None:
        for job, args in jobs:
            job(*args)


def _call(function: Callable[[], None] | None) -> None:
    try:
        if function is not None:
            function()
    except Exception:
        log.exception("disk thread")
