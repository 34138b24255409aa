"""The way in of one association: messages sorted by who waits for them.

Requests go to the coroutine that performs them, in order; responses to the exchange that waits for them; a C-CANCEL to
its request. What is not taken is bounded: then the peer is no longer read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pacslite.dimse.messages import CommandField, Message
from pacslite.dimse.reader import (
    BoundedBuffer,
    DataSetSink,
    Discard,
    IdentifierTooLong,
    MessageError,
    MessageReader,
)
from pacslite.dimse.service import Request
from pacslite.net.ended import AssociationEnded
from pacslite.net.exchange import Exchange, Exchanges
from pacslite.net.fault import log_fault
from pacslite.upper_layer.events import Fragment
from pacslite.upper_layer.negotiation import AcceptedContext

if TYPE_CHECKING:
    from pacslite.net.connection import Connection
    from pacslite.net.user import AssociationUser

__all__ = ["Inbox"]

log = logging.getLogger("pacslite.association")

_RESPONSE_LIMIT = 16_777_216  # bytes of an identifier in a response to us
_REQUEST_BACKLOG = 64  # requests not begun yet, at which we stop reading


class Inbox:
    """Takes fragments, gives requests and responses.

    Args:
        connection: Whose requests come; stops the peer.
        user: Takes them, at once or with ``put`` for ``next_request``.
        queue_bytes: Data sets, in memory, of requests that wait for their turn, at which we stop reading.
    """

    __slots__ = (
        "_arriving", "_backlogged", "_connection", "_loop", "_queue_bytes", "_reader", "_released",
        "_requests", "_response_data", "_user", "_waiter", "active", "exchanges",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: Connection,
        user: AssociationUser,
        queue_bytes: int,
    ) -> None:
        self.active: dict[int, Request] = {}  # requests being received or performed, by message ID
        self.exchanges = Exchanges(loop)  # requests of ours
        self._loop = loop
        self._connection: Connection | None = connection  # None when its association is over
        self._user = user
        self._queue_bytes = queue_bytes
        self._reader: MessageReader | None = None
        self._arriving: Request | None = None
        self._response_data: BoundedBuffer | None = None
        self._requests: deque[Request] = deque()
        self._backlogged = False
        self._waiter: asyncio.Future[None] | None = None
        self._released = False

    def open(self, contexts: Mapping[int, AcceptedContext]) -> None:
        """The association is established with these presentation contexts."""
        self._reader = MessageReader(contexts, self._begin_message)

    def feed(self, fragment: Fragment) -> bool:
        """Take ``fragment``; says whether it completed a message.

        Raises:
            MessageError: The association cannot go on.
        """
        assert self._reader is not None
        message = self._reader.feed(fragment)
        if message is None:
            return False
        if message.is_response:
            self._deliver_response(message)
        elif message.command_field == CommandField.C_CANCEL_RQ:
            cancelled = self.active.get(message.message_id_being_responded_to)
            if cancelled is not None:  # a late one is ignored (PS3.7 §9.3.2.3)
                cancelled.cancel()
        else:
            self._deliver_request(message)
        return True

    @property
    def in_message(self) -> bool:
        """A message has begun and not ended."""
        return self._reader is not None and not self._reader.idle

    @property
    def has_backlog(self) -> bool:
        """More requests wait than we let wait: the peer is not read."""
        return self._backlogged

    def release(self) -> None:
        """The peer will ask nothing more."""
        self._released = True
        self._wake()

    @property
    def released(self) -> bool:
        return self._released

    def end(self, why: AssociationEnded) -> None:
        """The association is over: nothing of what has not been performed remains, and nobody waits any more."""
        if self._reader is not None and not self._reader.idle:
            self._tell(self._reader.abort)
        self._reader = self._connection = None
        for request in [*self.active.values()]:
            self._tell(request.abandon)
        for request in self._requests:
            if request.sink is not None:
                self._tell(request.sink.abort)
            self.forget(request)
        self._requests.clear()
        if self._arriving is not None:
            self.forget(self._arriving)
            self._arriving = None
        if self.exchanges:
            self.exchanges.end(why)
        self._wake()

    def forget(self, request: Request) -> None:
        """It is answered, or will never be: its Message ID is free."""
        message_id = request.message.message_id
        if self.active.get(message_id) is request:
            del self.active[message_id]

    # taking

    def put(self, request: Request) -> None:
        """Let a request wait for its turn."""
        self._requests.append(request)
        if not self._backlogged and self._is_too_much():
            self._backlogged = True
            self._pause()
        self._wake()

    async def next_request(self) -> Request | None:
        """The next complete request; None when the peer has asked for release, or the association is over."""
        while not self._requests:
            if self._connection is None or self._released:
                return None
            self._waiter = self._loop.create_future()
            await self._waiter
        request = self._requests.popleft()
        if self._backlogged and not self._is_too_much():
            self._backlogged = False
            self._resume()
        return request

    async def next_response(self, exchange: Exchange) -> tuple[Message, bytes | None]:
        """The next response of ``exchange``, and its data set.

        Raises:
            AssociationEnded: It will not come.
        """
        response = await exchange.next()
        if exchange.stops_peer and not exchange.is_full:
            exchange.stops_peer = False
            self._resume()
        return response

    def give_up(self, message_id: int) -> None:
        """Nobody will take the responses of this exchange."""
        exchange = self.exchanges.get(message_id)
        self.exchanges.forget(message_id)
        if exchange is not None and exchange.stops_peer:
            self._resume()

    # private

    def _tell(self, of_the_end: Callable[[], None]) -> None:
        """A service that fails at it keeps nobody else from hearing of the end."""
        try:
            of_the_end()
        except Exception as error:
            log_fault(log, "a service failed at the end of an association", {}, error)

    def _begin_message(self, message: Message) -> DataSetSink:
        """The sink of a data set that is about to arrive."""
        if message.is_response:
            exchange = self.exchanges.get(message.message_id_being_responded_to)
            if exchange is None or exchange.single:
                return Discard()  # nobody asked, which is told when it is complete; or nobody reads it
            self._response_data = BoundedBuffer(_RESPONSE_LIMIT)
            return self._response_data
        if message.command_field == CommandField.C_CANCEL_RQ:  # has none (PS3.7 §9.3.2.3), whatever it says
            return Discard()
        assert self._connection is not None
        self._arriving = request = self._user.begin(self._connection, message)
        self.active.setdefault(message.message_id, request)
        return request.sink if request.sink is not None else Discard()

    def _deliver_request(self, message: Message) -> None:
        request, self._arriving = self._arriving, None
        user, connection = self._user, self._connection
        assert connection is not None
        if request is None:
            if not (self._requests or self.active) and user.answered(connection, message):
                return
            request = user.begin(connection, message)
            self.active.setdefault(message.message_id, request)
        user.arrived(connection, request)

    def _deliver_response(self, message: Message) -> None:
        message_id = message.message_id_being_responded_to
        data, self._response_data = self._response_data, None
        exchange = self.exchanges.get(message_id)
        if exchange is None:
            raise MessageError(f"a {message.label} response to message {message_id}, which is not outstanding")
        if message.command_field != exchange.answered_by:  # its 0000 would say that an instance is stored, say
            raise MessageError(f"a {message.label} response to message {message_id}, which asked for something else")
        try:
            data_set = data.getvalue() if data is not None else None
        except IdentifierTooLong as error:
            raise MessageError(f"{message.label} response: {error}") from error
        exchange.put(message, data_set)
        if exchange.done:
            self.exchanges.forget(message_id)
        elif exchange.is_full and not exchange.stops_peer:
            exchange.stops_peer = True
            self._pause()

    def _is_too_much(self) -> bool:
        requests = self._requests
        if len(requests) < 2:  # as good as always, of a peer that waits for its answers
            return False
        held = sum(request.sink.held for request in requests if request.sink is not None)
        return len(requests) >= _REQUEST_BACKLOG or held > self._queue_bytes

    def _pause(self) -> None:
        if self._connection is not None:
            self._connection.pause_reading()

    def _resume(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
