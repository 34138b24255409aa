"""When a connection is read, and how much at once: not while what has come must wait, nor for longer than its turn."""

import asyncio

from pacslite.net.pace import Pace

__all__ = ["RECEIVE_BUFFER_SIZE", "Reading", "receive_buffer"]

RECEIVE_BUFFER_SIZE = 262_144


def receive_buffer() -> memoryview:
    """A buffer that all connections of one event loop share.

    The loop calls ``get_buffer`` and ``buffer_updated`` back to back, so nothing of it is in use between two calls and
    an idle association holds no buffer at all.
    """
    return memoryview(bytearray(RECEIVE_BUFFER_SIZE))


class Reading:
    """The way in of one connection, open or closed.

    Args:
        buffer: From ``receive_buffer``. ``window`` is its part that is read into.
    """

    __slots__ = ("_buffer", "_ended", "_loop", "_pauses", "_resting", "_transport", "pace", "window")

    def __init__(self, loop: asyncio.AbstractEventLoop, buffer: memoryview) -> None:
        self._loop = loop
        self._buffer = buffer
        self._transport: asyncio.Transport | None = None
        self._pauses = 0
        self._resting = False  # until the loop's next turn
        self._ended = False
        self.pace = Pace(len(buffer))
        self.window = buffer[: self.pace.size]

    def connect(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def disconnect(self) -> None:
        """The transport is gone."""
        self._transport = None

    # back-pressure to the peer

    @property
    def is_paused(self) -> bool:
        """By somebody who will resume it."""
        return self._pauses > 0

    def pause(self) -> None:
        """Read no more until ``resume`` is called; may be nested."""
        self._pauses += 1
        if self._pauses == 1 and not self._ended and self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        self._pauses -= 1
        if self._pauses == 0 and not self._resting and not self._ended and self._transport is not None:
            self._transport.resume_reading()

    def end(self) -> None:
        """The association is over: whatever is paused, read on to see the peer close."""
        self._ended = True
        if self._pauses:
            self._open()

    # turns of the loop

    def rest(self) -> None:
        """Read on in the loop's next turn: others have theirs."""
        if self._transport is not None and not self._resting and not self._transport.is_closing():
            self._resting = True
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def fit(self) -> None:
        """Read so much at once as the pace says."""
        self.window = self._buffer[: self.pace.size]

    # private

    def _read_on(self) -> None:
        self._resting = False
        if not self._pauses or self._ended:
            self._open()

    def _open(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
