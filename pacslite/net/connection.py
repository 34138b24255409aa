"""One transport connection: bytes to the association and back, timers, back-pressure. No rule of the protocol is here.

``Connection`` moves bytes between an asyncio transport and the sans-I/O ``Association``, and sorts what comes out:
requests to the coroutine that performs them, responses to the exchange that waits for them, C-CANCEL to its request.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import cast

from pacslite.dimse.command import Value
from pacslite.dimse.messages import CommandField, Message
from pacslite.dimse.reader import BoundedBuffer, DataSetSink, Discard, MessageError, MessageReader
from pacslite.dimse.service import DataSetSource, Request
from pacslite.dimse.writer import Frames, command_frames, data_frames, message_frames
from pacslite.net.ended import AssociationEnded, AssociationRejectedError, DimseTimeout
from pacslite.net.exchange import Exchange
from pacslite.net.timeouts import Timeouts
from pacslite.upper_layer.association import Association
from pacslite.upper_layer.events import (
    Aborted,
    AssociationAccepted,
    AssociationEvent,
    AssociationRejected,
    AssociationRequested,
    ConnectionClosed,
    Fragment,
    Released,
    ReleaseRequested,
)
from pacslite.upper_layer.negotiation import AcceptedContext, Negotiated
from pacslite.upper_layer.pdu import AAssociateAC, AAssociateRJ, AAssociateRQ

__all__ = ["RECEIVE_BUFFER_SIZE", "Connection", "receive_buffer"]

RECEIVE_BUFFER_SIZE = 262_144
_WRITE_HIGH, _WRITE_LOW = 1_048_576, 262_144  # bytes; uvloop's own high mark of 64 KiB would stop before one PDU is out
_SOURCE_PIECE = 1_048_576  # bytes of a data set read and written at once
_RESPONSE_LIMIT = 16_777_216  # bytes of an identifier in a response to us
_RESPONSE_BACKLOG = 1_000  # responses not taken yet, at which we stop reading
_REQUEST_BACKLOG = 64  # requests not begun yet, at which we stop reading


def receive_buffer() -> memoryview:
    """A buffer that all connections of one event loop share.

    The loop calls ``get_buffer`` and ``buffer_updated`` back to back, so nothing of it is in use between two calls and
    an idle association holds no buffer at all.
    """
    return memoryview(bytearray(RECEIVE_BUFFER_SIZE))


class Connection(asyncio.BufferedProtocol):
    """The transport side of one association.

    Args:
        association: A fresh one, of either side.
        buffer: From ``receive_buffer``.
        begin: Makes the ``Request`` of a request message, its sink opened; called as soon as its command set is there.
        connected: Called once when the transport is there.
        ended: Called once when everything is over.
    """

    def __init__(
        self,
        association: Association,
        *,
        buffer: memoryview,
        timeouts: Timeouts,
        begin: Callable[["Connection", Message], Request],
        connected: Callable[["Connection"], None],
        ended: Callable[["Connection"], None],
    ) -> None:
        self.association = association
        self.host = ""
        self.over: AssociationEnded | None = None
        self.server: asyncio.Task[None] | None = (
            None  # who performs the peer's requests; kept so that it is not collected
        )
        self.established: asyncio.Future[AAssociateRQ | Negotiated] | None = None
        self.active: dict[int, Request] = {}  # requests being received or performed, by message ID
        self._buffer = buffer
        self._timeouts = timeouts
        self._begin = begin
        self._connected = connected
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._reader: MessageReader | None = None
        self._arriving: Request | None = None
        self._response_data: BoundedBuffer | None = None
        self._requests: deque[Request] = deque()
        self._exchanges: dict[int, Exchange] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] | None = None
        self._message_id = 0
        self._releasing = False
        self._read_pauses = 0
        self._writable: asyncio.Future[None] | None = None
        self._unsent = 0
        self._sending: asyncio.Lock | None = None
        self._last_heard = self._loop.time()
        self._artim: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._supervisor: asyncio.TimerHandle | None = None

    # The transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_HIGH, low=_WRITE_LOW)
        peername = transport.get_extra_info("peername")
        self.host = str(peername[0]) if peername else ""
        handle: socket.socket | None = transport.get_extra_info("socket")
        if handle is not None and handle.family != socket.AF_UNIX:
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket = handle
        self.established = self._loop.create_future()
        self._connected(self)
        self._after_step()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._last_heard = self._loop.time()
        stepped = complete = False
        for event in self.association.receive_bytes(self._buffer[:nbytes]):
            if type(event) is Fragment:
                assert self._reader is not None
                try:
                    message = self._reader.feed(event)
                except MessageError as error:
                    self._end(AssociationEnded(f"aborted: {error}"))
                    self.association.abort()
                    stepped = True
                    break
                if message is not None:
                    self._deliver(message)
                    complete = True
            else:
                self._control(event)
                stepped = True
        if stepped:
            self._after_step()
        elif not complete and self._socket is not None:
            # A peer that writes PDU headers and bodies apart without TCP_NODELAY (DCMTK) sends the body when the header
            # is acknowledged: our delayed acknowledgement would cost it 40 ms a message. The kernel forgets the option.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def eof_received(self) -> bool:
        return False  # a half-closed peer can send no more: the association is over (PS3.8 §9.2, Evt17)

    def connection_lost(self, exc: Exception | None) -> None:
        for event in self.association.connection_lost():
            self._control(event)
        self._end(AssociationEnded(f"connection lost: {exc}" if exc else "connection closed by the peer"))
        for timer in (self._artim, self._write_timer, self._supervisor):
            if timer is not None:
                timer.cancel()
        self._transport = None
        self.resume_writing()
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)
        self._ended(self)

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()
        self._watch_writing()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    # Association control

    def accept(self, answer: AAssociateAC) -> Negotiated:
        """Answer the A-ASSOCIATE-RQ and be ready for messages."""
        self.association.accept(answer)
        return self._establish()

    def reject(self, answer: AAssociateRJ, why: str) -> None:
        self.association.reject(answer)
        self._end(AssociationEnded(why))
        self._after_step()

    async def release(self) -> None:
        """Release the association and wait until the connection is closed; end it otherwise if that fails."""
        if self.over is None:
            self.association.request_release()
            self._after_step()
            artim = self._loop.call_later(self._timeouts.artim_seconds, self.abort, "no answer to our A-RELEASE-RQ")
            await self.wait_closed()
            artim.cancel()

    def abort(self, why: str, reason: int = 0) -> None:
        """Send an A-ABORT (source: service-user) and close; harmless when the association is over."""
        if self.over is None:
            self._end(AssociationEnded(f"aborted: {why}"))
            self.association.abort(reason)
            self._after_step()

    async def wait_closed(self) -> None:
        if self._transport is not None:
            if self._closed is None:
                self._closed = self._loop.create_future()
            await asyncio.shield(self._closed)

    def drop(self) -> None:
        """Close the transport at once, whatever is unsent."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def negotiated(self) -> Negotiated:
        negotiated = self.association.negotiated
        if negotiated is None:
            raise self.over or AssociationEnded("the association is not established")
        return negotiated

    # Requests of the peer

    async def next_request(self) -> Request | None:
        """The next complete request; None when the peer has asked for release, or the association is over."""
        while not self._requests:
            if self.over is not None or self._releasing:
                return None
            self._waiter = self._loop.create_future()
            await self._waiter
        if len(self._requests) == _REQUEST_BACKLOG:
            self.resume_reading()
        return self._requests.popleft()

    def respond_release(self) -> None:
        """Answer the peer's A-RELEASE-RQ; ARTIM then waits for it to close (AR-4)."""
        if self._releasing and self.over is None:
            self.association.respond_release()
            self._end(AssociationEnded("released by the peer"))
            self._after_step()

    # Requests of our own

    def next_message_id(self) -> int:
        """Unique among those outstanding (PS3.7 §9.1.1.1.1)."""
        self._message_id = self._message_id % 65_535 + 1
        while self._message_id in self._exchanges:
            self._message_id = self._message_id % 65_535 + 1
        return self._message_id

    async def invoke(
        self, context: AcceptedContext, command: Mapping[int, Value], source: DataSetSource | bytes | None = None
    ) -> Message:
        """Send a request and wait for its one response (see ``Invoker``)."""
        exchange = await self.begin_exchange(context, command, source)
        response, _ = await self.next_response(exchange)
        return response

    async def begin_exchange(
        self, context: AcceptedContext, command: Mapping[int, Value], source: DataSetSource | bytes | None = None
    ) -> Exchange:
        """Send a request; take its responses with ``next_response``."""
        if self.over is not None:
            raise self.over
        exchange = Exchange(self._loop)
        message_id = command[0x00000110]
        assert isinstance(message_id, int)
        self._exchanges[message_id] = exchange
        await self.send(context.context_id, command, source)
        return exchange

    async def next_response(self, exchange: Exchange) -> tuple[Message, bytes | None]:
        """The next response of ``exchange``.

        Raises:
            DimseTimeout: None came within the DIMSE time limit; the association is aborted.
            AssociationEnded: It is over.
        """
        timer = None
        if self._timeouts.dimse_seconds and not exchange.backlog:
            timer = self._loop.call_later(self._timeouts.dimse_seconds, self._response_timed_out)
        try:
            response = await exchange.next()
        finally:
            if timer is not None:
                timer.cancel()
        if exchange.backlog == _RESPONSE_BACKLOG - 1:
            self.resume_reading()
        return response

    # Sending

    async def send(
        self, context_id: int, command: Mapping[int, Value], source: DataSetSource | bytes | None = None
    ) -> None:
        """Send one message; no other is sent between its fragments (PS3.7 §6.3).

        Raises:
            AssociationEnded: The association is over, before or in the middle of it.
        """
        limit = self.association.peer_maximum_length
        if self._sending is not None and self._sending.locked():
            async with self._sending:
                await self._send(context_id, command, source, limit)
        elif source is None or isinstance(source, bytes):
            self.write(message_frames(context_id, command, source, limit))
            if self._writable is not None:
                await self.drain()
        else:
            if self._sending is None:
                self._sending = asyncio.Lock()
            async with self._sending:
                await self._send(context_id, command, source, limit)

    async def send_frames(self, frames: Frames) -> None:
        """Send whole messages that are framed already."""
        if self._sending is not None and self._sending.locked():
            async with self._sending:
                self.write(frames)
        else:
            self.write(frames)
        if self._writable is not None:
            await self.drain()

    def write(self, frames: Frames) -> None:
        """Hand framed PDUs to the transport, uncopied."""
        if self.over is not None:
            raise self.over
        assert self._transport is not None
        self.association.send_p_data(frames)
        self._transport.writelines(self.association.data_to_send())

    async def drain(self) -> None:
        """Wait while the peer does not read."""
        while self._writable is not None:
            await asyncio.shield(self._writable)
        if self.over is not None:
            raise self.over

    @property
    def unsent(self) -> int:
        """Bytes that the transport still holds, by reference."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    # Back-pressure to the peer (ReadFlow)

    def pause_reading(self) -> None:
        self._read_pauses += 1
        if self._read_pauses == 1 and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._read_pauses -= 1
        self._last_heard = self._loop.time()
        if self._read_pauses == 0 and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # private

    async def _send(
        self, context_id: int, command: Mapping[int, Value], source: DataSetSource | bytes | None, limit: int
    ) -> None:
        if source is None or isinstance(source, bytes):
            self.write(message_frames(context_id, command, source, limit))
            return await self.drain()
        frames = command_frames(context_id, command, limit)
        left = source.length
        # whole PDUs in every piece: a piece that is no multiple would end in a short one
        piece = _SOURCE_PIECE // (limit - 6) * (limit - 6) if 6 < limit < _SOURCE_PIECE else _SOURCE_PIECE
        while True:
            data = await source.read(piece, reuse=self.unsent == 0)
            left -= len(data)
            if not data and left > 0:
                self.abort("the stored data set ended early")
                raise self.over or AssociationEnded("aborted")
            self.write(frames + data_frames(context_id, data, limit, is_last=left <= 0))
            if left <= 0:
                return None
            frames = []
            await self.drain()

    def _establish(self) -> Negotiated:
        negotiated = self.negotiated
        self._reader = MessageReader(negotiated.contexts, self._begin_message)
        self._after_step()
        self._supervise()
        return negotiated

    def _begin_message(self, message: Message) -> DataSetSink:
        """The sink of a data set that is about to arrive."""
        if message.is_response:
            self._response_data = BoundedBuffer(_RESPONSE_LIMIT)
            return self._response_data
        self._arriving = request = self._begin(self, message)
        self.active[message.message_id] = request
        return request.sink if request.sink is not None else Discard()

    def _deliver(self, message: Message) -> None:
        if message.is_response:
            self._deliver_response(message)
        elif message.command_field == CommandField.C_CANCEL_RQ:
            request = self.active.get(message.message_id_being_responded_to)
            if request is not None:  # a late one is ignored (PS3.7 §9.3.2.3)
                request.cancel()
        else:
            request, self._arriving = self._arriving, None
            if request is None:
                request = self._begin(self, message)
                self.active[message.message_id] = request
            self._requests.append(request)
            if len(self._requests) == _REQUEST_BACKLOG:
                self.pause_reading()
            self._wake()

    def _deliver_response(self, message: Message) -> None:
        message_id = message.message_id_being_responded_to
        data, self._response_data = self._response_data, None
        exchange = self._exchanges.get(message_id)
        if exchange is None:
            return self.abort(f"a {message.label} response to message {message_id}, which is not outstanding")
        if exchange.backlog == _RESPONSE_BACKLOG - 1:
            self.pause_reading()
        exchange.put(message, data.getvalue() if data is not None else None)
        if exchange.done:
            del self._exchanges[message_id]
        return None

    def _control(self, event: AssociationEvent) -> None:
        established = self.established
        assert established is not None
        match event:
            case AssociationRequested(request=request):
                established.set_result(request)
            case AssociationAccepted():
                established.set_result(self._establish())
            case AssociationRejected(result=result, source=source, reason=reason):
                self._end(AssociationRejectedError(result, source, reason))
            case ReleaseRequested():
                self._releasing = True
                self._wake()
            case Released():
                self._end(AssociationEnded("released"))
            case Aborted(by_peer=True, source=source, reason=reason):
                self._end(AssociationEnded(f"aborted by the peer (source {source}, reason {reason})"))
            case Aborted(problem=problem):
                self._end(AssociationEnded(f"aborted: {problem}"))
            case ConnectionClosed():
                self._end(AssociationEnded("connection closed by the peer"))
            case Fragment():
                raise AssertionError("fragments do not come here")

    def _end(self, why: AssociationEnded) -> None:
        """The association is over: tell everybody who waits, once."""
        if self.over is not None:
            return
        self.over = why
        if self._reader is not None:
            self._reader.abort()
        for request in self.active.values():
            request.abandon()
        for request in self._requests:
            if request.sink is not None:
                request.sink.abort()
        self._requests.clear()
        for exchange in self._exchanges.values():
            exchange.end(why)
        if self.established is not None and not self.established.done():
            self.established.set_exception(why)
            self.established.exception()  # nobody may be waiting: that is no error of its own
        self._wake()

    def _after_step(self) -> None:
        """Obey the association: write its output, close when it says so, run ARTIM exactly while it wants it."""
        transport, association = self._transport, self.association
        output = association.data_to_send()
        if transport is None:
            return
        if output:
            transport.writelines(output)
        if association.close_requested:
            transport.close()
        if association.artim_running:
            if self._artim is None:
                self._artim = self._loop.call_later(self._timeouts.artim_seconds, self._artim_expired)
        elif self._artim is not None:
            self._artim.cancel()
            self._artim = None

    def _artim_expired(self) -> None:
        self._artim = None
        for event in self.association.timed_out():
            self._control(event)
        self._end(AssociationEnded(f"nothing heard for {self._timeouts.artim_seconds:g} s (ARTIM)"))
        self._after_step()
        self.drop()  # AA-2; whatever is unsent, the peer has had its time

    def _response_timed_out(self) -> None:
        if self.over is None:
            self._end(DimseTimeout(f"no response within {self._timeouts.dimse_seconds:g} s"))
            self.association.abort()
            self._after_step()

    def _watch_writing(self) -> None:
        """While writing is paused, the peer must take bytes within every ``write_seconds``."""
        if not self._timeouts.write_seconds or self._transport is None:
            return
        self._unsent = self._transport.get_write_buffer_size()
        self._write_timer = self._loop.call_later(self._timeouts.write_seconds, self._check_writing)

    def _check_writing(self) -> None:
        if self._transport is None:
            return None
        if self._transport.get_write_buffer_size() < self._unsent:
            return self._watch_writing()
        self._end(AssociationEnded(f"the peer took nothing for {self._timeouts.write_seconds:g} s"))
        return self.drop()

    def _supervise(self) -> None:
        """One timer for both limits on silence; it is set anew only when it fires."""
        limits = [limit for limit in (self._timeouts.idle_seconds, self._timeouts.dimse_seconds) if limit]
        if not limits or self.over is not None or self._reader is None:
            return None
        now = self._loop.time()
        silent = now - self._last_heard
        due = min(limits)
        if not self._read_pauses:
            if not self._reader.idle:
                due = self._timeouts.dimse_seconds
                if due and silent >= due:
                    return self.abort(f"nothing heard for {due:g} s in the middle of a message")
            elif not self.active and not self._exchanges:
                due = self._timeouts.idle_seconds
                if due and silent >= due:
                    return self.abort(f"idle for {due:g} s")
        self._supervisor = self._loop.call_later(
            max(min(limits) - silent, 1.0) if due else min(limits), self._supervise
        )
        return None

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
