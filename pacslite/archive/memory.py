"""The end of back-pressure: who waits for a disk that takes nothing is refused, so that its memory serves others."""

import asyncio
import logging
from collections.abc import Callable, Collection

from pacslite.archive.outcome import OutOfResources

__all__ = ["MemoryExhausted", "Stall"]

log = logging.getLogger("pacslite.archive")


class MemoryExhausted(OutOfResources):
    """No memory for the rest of the object, and none to be expected: refused, PS3.4 §B.2.3."""


class Stall:
    """Notices that somebody waits for the disk and nothing has been written for some time. For the loop's thread.

    Args:
        seconds: How long.
        waiting: Who waits.
        begun: Called when it is so. ``stalled`` is true from then on until something has been written.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        waiting: Collection[object],
        begun: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._waiting = waiting
        self._begun = begun
        self._timer: asyncio.TimerHandle | None = None
        self._last = 0.0  # something was written, or nobody waited
        self.stalled = False

    def watch(self) -> None:
        """One more is about to wait."""
        if not self._waiting:
            self._last = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def progress(self) -> None:
        """Something has been written."""
        self._last = self._loop.time()
        if self.stalled:
            self.stalled = False
            log.warning("storing again")

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        left = self._last + self._seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self.stalled = True
            self._begun()
