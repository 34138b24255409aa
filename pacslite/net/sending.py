"""What all peers together have been sent and do not take: when it is too much, each gets less at once."""

import asyncio
from typing import Protocol

__all__ = ["Sender", "Sending"]

_LOOK_SECONDS = 0.02


class Sender(Protocol):
    """One of those that send."""

    @property
    def unsent(self) -> int:
        """Bytes that its transport still holds."""


class Sending:
    """Adds up, now and then, what is unsent: peers take bytes without telling us."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit_bytes: int) -> None:
        self._loop = loop
        self._limit = limit_bytes
        self._senders: dict[Sender, None] = {}
        self._next_look = 0.0
        self._pressed = False

    def add(self, sender: Sender) -> None:
        """It has much unsent."""
        self._senders[sender] = None

    def discard(self, sender: Sender) -> None:
        self._senders.pop(sender, None)

    @property
    def pressed(self) -> bool:
        """More is unsent than the limit."""
        now = self._loop.time()
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self._senders = {sender: None for sender in self._senders if sender.unsent}
            self._pressed = sum(sender.unsent for sender in self._senders) > self._limit
        return self._pressed
