"""ARTIM, and what an established association may be silent for; neither supervises the other (PS3.8 §9.1.4 note)."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from pacslite.net.ended import AssociationAborted, AssociationEnded, DimseTimeout
from pacslite.upper_layer.association import Association

__all__ = ["Artim", "Silence", "Timer", "Waiting", "Watched"]

_EVER = float("inf")
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
        self._due = _EVER
        self._handle: asyncio.TimerHandle | None = None
        self._fires = _EVER  # when the loop's timer does

    def __bool__(self) -> bool:
        """It runs."""
        return self._due < _EVER

    def start(self, seconds: float) -> None:
        """Run, from now and for ``seconds``."""
        self._due = due = self._loop.time() + seconds
        if due < self._fires:
            self._set()

    def stop(self) -> None:
        self._due = _EVER

    def close(self) -> None:
        """Stop for good, and leave nothing with the loop."""
        self._due = self._fires = _EVER
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
        self._fires = _EVER
        now = self._loop.time()
        if now - self._due > _STALL_SECONDS:
            self.start(_STALL_SECONDS)
        elif now >= self._due - _EARLY_SECONDS:
            self._due = _EVER
            self._callback()
        elif self._due < _EVER:
            self._set()


class Artim:
    """The ARTIM timer: runs exactly while the association wants it (PS3.8 §9.1.5).

    Args:
        timer: Its owner's, who asks ``is_running`` when it fires. While ARTIM does not run, it may be another's.
    """

    __slots__ = ("_seconds", "_starts", "_timer", "is_running")

    def __init__(self, timer: Timer, seconds: float) -> None:
        self._seconds = seconds
        self._timer = timer
        self._starts = 0
        self.is_running = False

    def follow(self, association: Association) -> None:
        """Start, restart or stop, as the last step of ``association`` has it."""
        if not association.artim_running:
            if self.is_running:
                self.is_running = False
                self._timer.stop()
        elif association.artim_starts != self._starts:
            self.is_running = True
            self._timer.start(self._seconds)
            self._starts = association.artim_starts


class Waiting(Enum):
    """What an established association waits for from its peer."""

    NOTHING = auto()  # we work, or do not read
    REST_OF_MESSAGE = auto()
    RESPONSE = auto()
    ANYTHING = auto()  # idle


class Watched(Protocol):
    """An established association as ``Silence`` sees it; times are the loop's."""

    @property
    def last_heard(self) -> float: ...

    @property
    def last_sent(self) -> float: ...

    @property
    def waits_for(self) -> Waiting: ...


class Silence:
    """The limits on a peer's silence: in mid message, before a response, and when there is nothing to do.

    One timer does for all, set anew only when it fires: arming a timer for every message would cost more than it.

    Args:
        dimse_seconds: For the rest of a message, or a response; 0 is no limit.
        idle_seconds: For anything; 0 is no limit.
        too_long: Told that one was reached.
    """

    __slots__ = ("_dimse_seconds", "_idle_seconds", "_loop", "_timer", "_too_long", "_watched")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timer: Timer,
        watched: Watched,
        *,
        dimse_seconds: float,
        idle_seconds: float,
        too_long: Callable[[AssociationEnded], None],
    ) -> None:
        self._loop = loop
        self._watched: Watched | None = watched
        self._dimse_seconds = dimse_seconds or _EVER
        self._idle_seconds = idle_seconds or _EVER
        self._too_long = too_long
        self._timer = timer

    def start(self) -> None:
        self._look_again(_EVER)

    def stop(self) -> None:
        """The association is over. The timer may be ARTIM's by now."""
        self._watched = None

    def look(self) -> None:
        """The timer has fired."""
        watched = self._watched
        if watched is None:
            return
        limit, since, why = self._judge(watched)
        left = since + limit - self._loop.time()
        if left <= 0:
            self._too_long(why)
        else:
            self._look_again(left)

    def _judge(self, watched: Watched) -> tuple[float, float, AssociationEnded]:
        """The limit that holds now, since when, and what to say when it is reached."""
        heard, sent = watched.last_heard, watched.last_sent
        match watched.waits_for:
            case Waiting.REST_OF_MESSAGE:
                limit = self._dimse_seconds
                why = f"aborted: nothing heard for {limit:g} s in the middle of a message"
                return limit, heard, AssociationAborted(why)
            case Waiting.RESPONSE:
                limit = self._dimse_seconds
                return limit, max(heard, sent), DimseTimeout(f"no response within {limit:g} s")
            case Waiting.ANYTHING:
                limit = self._idle_seconds
                return limit, max(heard, sent), AssociationAborted(f"aborted: idle for {limit:g} s")
            case Waiting.NOTHING:
                return _EVER, heard, AssociationEnded("")

    def _look_again(self, left: float) -> None:
        """In ``left`` seconds, or when the shorter limit could be reached by what begins now."""
        seconds = min(left, self._dimse_seconds, self._idle_seconds)
        if seconds < _EVER:
            self._timer.start(seconds)
