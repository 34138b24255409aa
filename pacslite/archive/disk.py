"""Threads that do the archive's blocking calls.

A queue.SimpleQueue and a loop: half the cost of a ThreadPoolExecutor's future a job, and the job itself says whom to
wake.
"""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVarTuple

__all__ = ["DiskThreads"]

_Arguments = TypeVarTuple("_Arguments")

log = logging.getLogger("pacslite.archive")


class DiskThreads:
    """``count`` threads that take jobs in order, each after it has called ``prepare``.

    A job must not raise; one that does is logged and lost.
    """

    def __init__(self, name: str, count: int, prepare: Callable[[], None] | None = None) -> None:
        self._prepare = prepare
        self._jobs: SimpleQueue[tuple[Callable[..., None], tuple[object, ...]] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Callable[[*_Arguments], None], *args: *_Arguments) -> None:
        """Queue ``job(*args)``; never blocks. Who submits bounds how much waits here."""
        self._jobs.put((job, args))

    def stop(self) -> None:
        """Finish what is queued, then end the threads. Blocks."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        if self._prepare is not None:
            self._attempt(self._prepare, ())
        while (entry := self._jobs.get()) is not None:
            self._attempt(*entry)
            del entry  # a job holds an object's bytes: not while we wait for the next

    def _attempt(self, job: Callable[..., None], args: tuple[object, ...]) -> None:
        try:
            job(*args)
        except Exception:
            log.exception("disk thread", extra={"job": getattr(job, "__qualname__", repr(job))})
