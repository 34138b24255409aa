"""ARTIM, and what an established association may be silent for; neither supervises the other (PS3.8 §9.1.4 note)."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from pacslite.upper_layer.association import Association

__all__ = ["Artim", "Silence", "Watched"]


class Artim:
    """The ARTIM timer: runs exactly while the association wants it (PS3.8 §9.1.5).

    Args:
        expired: Called when it expires.
    """

    __slots__ = ("_expired", "_handle", "_loop", "_seconds", "_starts")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._expired = expired
        self._handle: asyncio.TimerHandle | None = None
        self._starts = 0

    def follow(self, association: Association) -> None:
        """Start, restart or stop, as the last step of ``association`` has it."""
        if not association.artim_running:
            self.stop()
        elif association.artim_starts != self._starts:
            self.stop()
            self._handle = self._loop.call_later(self._seconds, self._expired)
            self._starts = association.artim_starts

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Watched(Protocol):
    """An established association as ``Silence`` sees it; times are the loop's."""

    @property
    def last_heard(self) -> float: ...

    @property
    def last_sent(self) -> float: ...

    @property
    def in_message(self) -> bool:
        """A message of the peer has begun and not ended, and we read."""

    @property
    def is_idle(self) -> bool:
        """Nobody performs or awaits anything, and we read."""


class Silence:
    """Two limits on an established association: of the peer's silence in mid message, and of idleness.

    One handle does for both, set anew only when it fires: arming a timer for every PDU would cost more than the PDU.

    Args:
        message_seconds, idle_seconds: The limits; 0 is none.
        too_long: Told what was silent for too long.
    """

    __slots__ = ("_handle", "_idle_seconds", "_loop", "_message_seconds", "_too_long", "_watched")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        watched: Watched,
        *,
        message_seconds: float,
        idle_seconds: float,
        too_long: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._watched: Watched | None = watched
        self._message_seconds = message_seconds
        self._idle_seconds = idle_seconds
        self._too_long = too_long
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._look_again(float("inf"))

    def stop(self) -> None:
        self._watched = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look(self) -> None:
        watched = self._watched
        if watched is None:
            return
        left, what = float("inf"), ""
        now = self._loop.time()
        if watched.in_message:
            if self._message_seconds:
                left = watched.last_heard + self._message_seconds - now
                what = f"nothing heard for {self._message_seconds:g} s in the middle of a message"
        elif watched.is_idle and self._idle_seconds:
            left = max(watched.last_heard, watched.last_sent) + self._idle_seconds - now
            what = f"idle for {self._idle_seconds:g} s"
        if left <= 0:
            self._too_long(what)
        else:
            self._look_again(left)

    def _look_again(self, left: float) -> None:
        """In ``left`` seconds, or when the shorter limit could be reached by what begins now."""
        limits = [limit for limit in (self._message_seconds, self._idle_seconds) if limit]
        if limits:
            self._handle = self._loop.call_later(min(left, *limits), self._look)
