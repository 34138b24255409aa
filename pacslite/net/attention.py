"""What the event loop does for a moment after an answer: look for what comes next, instead of going to sleep.

A peer that was answered mostly goes on at once. To sleep until then costs both sides more than to look: the processor
halts and is woken, on a virtual machine by its host, and finds its caches cold. With one peer on the same machine the
echoes of a second are nearly twice as many, for the same processor time each (docs/performance.md).
"""

import asyncio
import time
from collections.abc import Callable

__all__ = ["Attention"]

_MOST_MISSES = 7  # then it looks after one answer in 128


class Attention:
    """Keeps a loop awake where that pays.

    Args:
        seconds: For how long it looks; 0 is never.
        is_wanted: Asked while it looks; False when others want the interpreter.
        clock: Gives seconds.
    """

    __slots__ = ("_clock", "_has_looked", "_is_wanted", "_loop", "_misses", "_passing", "_seconds", "_until")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        is_wanted: Callable[[], bool],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._is_wanted = is_wanted
        self._clock = clock
        self._until = 0.0  # when it stops looking; 0: it does not look
        self._has_looked = False  # since it began: what comes before it has was there already
        self._misses = 0  # times in a row that nothing came
        self._passing = 0  # answers to come after which it does not look

    def pay(self) -> None:
        """A peer was answered, and is likely to go on."""
        if self._until:
            if self._has_looked:
                self._misses = 0  # it has, while we looked
        elif self._passing:
            self._passing -= 1
            return
        elif not self._seconds:
            return
        else:
            self._has_looked = False
            self._loop.call_soon(self._look)
        self._until = self._clock() + self._seconds

    def _look(self) -> None:
        if self._clock() < self._until and self._is_wanted():
            self._has_looked = True
            self._loop.call_soon(self._look)
            return
        self._until = 0.0
        self._misses = min(self._misses + 1, _MOST_MISSES)
        self._passing = (1 << self._misses) - 1
