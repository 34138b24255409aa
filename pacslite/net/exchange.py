"""Requests of ours and the responses that have come for them."""

import asyncio
from collections import deque

from pacslite.dimse.messages import Message
from pacslite.dimse.status import is_pending
from pacslite.net.ended import AssociationEnded

__all__ = ["Exchange", "Exchanges"]

_RESPONSES = 1_000  # not taken yet, at which we stop reading
_RESPONSE_BYTES = 16_777_216  # of their data sets


class Exchange:
    """Responses of one request in order; ended by a response that is not pending, or by the association's end.

    Args:
        answered_by: Command Field of its responses.
        single: The request has one response, without a data set: it is the last whatever its status (PS3.7 §9.1.1,
            §9.1.5, §10.1).
    """

    __slots__ = ("_ended", "_held", "_loop", "_responses", "_waiter", "answered_by", "done", "single", "stops_peer")

    def __init__(self, loop: asyncio.AbstractEventLoop, answered_by: int, *, single: bool = False) -> None:
        self.answered_by = answered_by
        self.single = single
        self._loop = loop
        self._responses: deque[tuple[Message, bytes | None]] = deque()
        self._held = 0  # bytes of their data sets
        self._waiter: asyncio.Future[None] | None = None
        self._ended: AssociationEnded | None = None
        self.done = False  # the last response is here
        self.stops_peer = False  # which is not read until more has been taken

    @property
    def backlog(self) -> int:
        """Responses that nobody has taken yet."""
        return len(self._responses)

    @property
    def is_full(self) -> bool:
        """More responses wait than we let wait."""
        return len(self._responses) >= _RESPONSES or self._held > _RESPONSE_BYTES

    def put(self, response: Message, data_set: bytes | None) -> None:
        self._responses.append((response, data_set))
        self._held += len(data_set or b"")
        self.done = self.single or not is_pending(response.status)
        self._wake()

    def end(self, error: AssociationEnded) -> None:
        self._ended = error
        self._wake()

    async def next(self) -> tuple[Message, bytes | None]:
        """The next response and its data set.

        Raises:
            AssociationEnded: It will not come.
        """
        while not self._responses:
            if self._ended is not None:
                raise self._ended
            self._waiter = self._loop.create_future()
            await self._waiter
        response, data_set = self._responses.popleft()
        self._held -= len(data_set or b"")
        return response, data_set

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Exchanges:
    """What is outstanding on one association, by Message ID."""

    __slots__ = ("_by_id", "_last_id", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._by_id: dict[int, Exchange] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def next_message_id(self) -> int:
        """Unique among those outstanding (PS3.7 §9.1.1.1.1)."""
        self._last_id = self._last_id % 65_535 + 1
        while self._last_id in self._by_id:
            self._last_id = self._last_id % 65_535 + 1
        return self._last_id

    def begin(self, message_id: int, answered_by: int, *, single: bool) -> Exchange:
        exchange = self._by_id[message_id] = Exchange(self._loop, answered_by, single=single)
        return exchange

    def get(self, message_id: int) -> Exchange | None:
        return self._by_id.get(message_id)

    def forget(self, message_id: int) -> None:
        self._by_id.pop(message_id, None)

    def end(self, error: AssociationEnded) -> None:
        """The association is over: nothing more will come for any of them."""
        for exchange in self._by_id.values():
            exchange.end(error)
        self._by_id.clear()
