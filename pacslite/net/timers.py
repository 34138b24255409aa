"""Timers, and what an established association may be silent for, which ARTIM does not supervise (PS3.8 §9.1.4 note)."""

import asyncio
import math
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from pacslite.net.ended import AssociationAborted, AssociationEnded, DimseTimeout
from pacslite.net.timeouts import Timeouts

__all__ = ["Timer", "Waiting", "Watched", "silence_left"]

_STALL_SECONDS = 1.0  # a timer that is so late tells of us and not of the peer
_EARLY_SECONDS = 0.001  # loops round


def _nothing() -> None:
    """What a closed timer would call: it keeps nobody."""


class Timer:
    """Calls back after some time.

    What is stopped, or started anew for later, costs nothing: the loop's timer stays, and is set again when it fires.
    ``close`` takes it away.

    When the process has been stopped (SIGSTOP, a suspended machine), all timers are due at once, and the loop asks
    them before it reads what has arrived meanwhile: then there is a moment more.
    """

    __slots__ = ("_callback", "_due", "_fires", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._due = math.inf
        self._handle: asyncio.TimerHandle | None = None
        self._fires = math.inf  # when the loop's timer does

    def __bool__(self) -> bool:
        """It runs."""
        return self._due < math.inf

    def start(self, seconds: float) -> None:
        """Run, from now and for ``seconds``."""
        self._due = due = self._loop.time() + seconds
        if due < self._fires:
            self._set()

    def stop(self) -> None:
        self._due = math.inf

    def close(self) -> None:
        """Stop for good, and leave nothing with the loop."""
        self._due = self._fires = math.inf
        self._callback = _nothing
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _set(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._fires = self._due
        self._handle = self._loop.call_at(self._due, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self._fires = math.inf
        now = self._loop.time()
        if now - self._due > _STALL_SECONDS:
            self.start(_STALL_SECONDS)
        elif now >= self._due - _EARLY_SECONDS:
            self._due = math.inf
            self._callback()
        elif self._due < math.inf:
            self._set()


class Waiting(Enum):
    """What an established association waits for from its peer."""

    NOTHING = auto()  # we work, or do not read
    REST_OF_MESSAGE = auto()
    RESPONSE = auto()
    ANYTHING = auto()  # idle


class Watched(Protocol):
    """An established association as ``silence_left`` sees it; times are the loop's."""

    @property
    def last_heard(self) -> float: ...

    @property
    def last_sent(self) -> float: ...

    @property
    def waits_for(self) -> Waiting: ...


def silence_left(watched: Watched, timeouts: Timeouts, now: float) -> tuple[float, AssociationEnded]:
    """Seconds for which the peer may still be silent, and what to say when they are over.

    The limits: in mid message, before a response, and when there is nothing to do. One timer does for all, set anew
    only when it fires: arming a timer for every message would cost more than it.
    """
    heard, sent = watched.last_heard, watched.last_sent
    match watched.waits_for:
        case Waiting.REST_OF_MESSAGE:
            limit = timeouts.dimse_seconds
            why = f"aborted: nothing heard for {limit:g} s in the middle of a message"
            return _left(limit, heard, now), AssociationAborted(why)
        case Waiting.RESPONSE:
            limit = timeouts.dimse_seconds
            return _left(limit, max(heard, sent), now), DimseTimeout(f"no response within {limit:g} s")
        case Waiting.ANYTHING:
            limit = timeouts.idle_seconds
            return _left(limit, max(heard, sent), now), AssociationAborted(f"aborted: idle for {limit:g} s")
        case Waiting.NOTHING:
            return math.inf, AssociationEnded("")


def _left(limit: float, since: float, now: float) -> float:
    return since + limit - now if limit else math.inf
