"""One transport connection: bytes to the association and back. No rule of the protocol is here.

``Connection`` moves bytes between an asyncio transport and the sans-I/O ``Association``, and sees to its beginning and
end. When it is read is ``Reading``'s matter, messages that arrive are ``Inbox``'s to sort, what goes out is
``Outflow``'s, and time limits stand in ``timers``.
"""

import asyncio
import math
import socket
import ssl
from collections.abc import Mapping
from functools import partial
from time import thread_time
from typing import cast

from pacslite.budget import HostBudget
from pacslite.dimse.command import Value
from pacslite.dimse.messages import RESPONSE, Message
from pacslite.dimse.reader import MessageError
from pacslite.dimse.service import DataSetSource, Request
from pacslite.dimse.writer import Frames
from pacslite.net.ended import (
    AssociationAborted,
    AssociationEnded,
    AssociationRefused,
    AssociationRejectedError,
    AssociationReleased,
    TimedOut,
    TlsFailed,
)
from pacslite.net.exchange import Exchange
from pacslite.net.inbox import Inbox
from pacslite.net.outflow import Outflow
from pacslite.net.pace import UNMEASURED
from pacslite.net.reading import Reading
from pacslite.net.sending import Sending
from pacslite.net.sockets import Acknowledgements, tune
from pacslite.net.timeouts import Timeouts
from pacslite.net.timers import Timer, Waiting, silence_left
from pacslite.net.tls import certificate_names, tls_problem
from pacslite.net.user import AssociationUser
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
from pacslite.upper_layer.machine import State
from pacslite.upper_layer.negotiation import Acceptance, AcceptedContext, Negotiated
from pacslite.upper_layer.pdu import AAssociateRJ, encode_p_data

__all__ = ["Connection"]

_SHORT_PDU = 10  # bytes: those that may be long are A-ASSOCIATE alone, and what is held of others is not worth counting
_SMALLEST_MAXIMUM_LENGTH = 8  # a PDV header and two bytes: nothing can be sent to a peer that accepts less


class Connection(asyncio.BufferedProtocol):
    """The transport side of one association.

    Args:
        association: A fresh one, of either side.
        user: Told of what happens.
        buffer: Of ``Reading``.
        budget: What must be held until there is more of it: unfinished PDUs (shared); the oldest end for lack of it.
        sending: What peers have been sent and do not take (shared).
        queue_bytes: Data sets, in memory, of requests that wait for their turn, at which we stop reading.
    """

    __slots__ = (
        "_acknowledgements", "_artim", "_awaiting", "_budget", "_established", "_held", "_inbox", "_loop", "_outflow",
        "_reading", "_timeouts", "_timer", "_transport", "_user", "_waiting_for_close", "active", "association",
        "association_id", "certificate_names", "host", "last_heard", "over", "server",
    )  # fmt: skip

    def __init__(
        self,
        association: Association,
        user: AssociationUser,
        *,
        buffer: memoryview,
        timeouts: Timeouts,
        budget: HostBudget,
        sending: Sending,
        queue_bytes: int = 4_194_304,
    ) -> None:
        self.association = association
        self.association_id = ""  # for log lines
        self.host = ""
        self.certificate_names: frozenset[str] | None = None  # of the peer's certificate; None: no TLS
        self.over: AssociationEnded | None = None
        self.server: asyncio.Task[None] | None = None  # performs the peer's requests; kept from being collected
        self._user = user
        self._timeouts = timeouts
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reading = Reading(self._loop, buffer)
        self._acknowledgements: Acknowledgements | None = None  # of a peer on a network
        self._outflow = Outflow(
            self._loop,
            association,
            sending,
            timeouts.write_seconds,
            broken=self.abort,
            stuck=self._peer_takes_nothing,
        )
        # One for both: ARTIM runs before an association and after it, and what silence is allowed counts in between
        self._timer = Timer(self._loop, self._timer_fired)
        self._artim = 0  # the start of ARTIM that it runs for; 0: none
        self._inbox = Inbox(self._loop, self, user, queue_bytes)
        self.active = self._inbox.active  # requests being received or performed, by message ID
        self._awaiting = 0  # coroutines that wait for a response
        self._established: asyncio.Future[Negotiated] | None = None  # for who has requested it
        self._waiting_for_close: list[asyncio.Future[None]] = []
        self._held = 0  # bytes of an unfinished PDU
        self.last_heard = self._loop.time()

    # The transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        self._transport = transport
        self._reading.connect(transport)
        peername = transport.get_extra_info("peername")
        self.host = str(peername[0]) if peername else ""
        handle: socket.socket | None = transport.get_extra_info("socket")
        has_tls = transport.get_extra_info("ssl_object") is not None
        self._outflow.connect(transport, -1 if handle is None or has_tls else handle.fileno())
        if handle is not None and handle.family != socket.AF_UNIX:
            if self.association.is_requestor:  # an accepted one has it from the socket that listens
                tune(handle, self._timeouts)
            self._acknowledgements = Acknowledgements(handle)
        if has_tls:
            self.certificate_names = certificate_names(transport.get_extra_info("peercert") or {})
        self._user.connected(self)
        self._after_step()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reading.window

    def buffer_updated(self, nbytes: int) -> None:
        self.last_heard = turn = self._loop.time()
        if nbytes <= UNMEASURED:
            self._receive(nbytes)
            return
        began = thread_time()
        self._receive(nbytes)
        reading = self._reading
        if reading.pace.is_over(turn, nbytes, thread_time() - began):
            reading.rest()
        if reading.pace.size != len(reading.window):
            reading.fit()

    def eof_received(self) -> bool:
        """A half-closed peer can ask no more: the association is over (PS3.8 §9.2, Evt17)."""
        self._lost(AssociationEnded("connection closed by the peer"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self._lost(AssociationEnded("connection closed by the peer"))
        elif isinstance(exc, ssl.SSLError):  # of TLS 1.3: what peers have against our certificate comes behind it
            self._lost(TlsFailed(f"TLS: {tls_problem(exc)}"))
        else:
            why = (isinstance(exc, OSError) and exc.strerror) or exc
            self._lost(AssociationEnded(f"connection lost: {why}"))
        self._timer.close()
        if self._held:
            self._hold(0)
        if self._acknowledgements is not None:
            self._acknowledgements.close()
        self._transport = self._acknowledgements = None
        self._reading.disconnect()
        self._outflow.disconnect()
        for waiter in self._waiting_for_close:
            if not waiter.done():
                waiter.set_result(None)
        self._user.closed(self)

    def pause_writing(self) -> None:
        self._outflow.pause()

    def resume_writing(self) -> None:
        self._outflow.resume()

    # Association control

    async def wait_established(self) -> None:
        """Of a requestor: wait for the answer to its A-ASSOCIATE-RQ.

        Raises:
            AssociationEnded: It was no acceptance, or there was none.
        """
        if self.over is None and self.association.negotiated is None:
            self._established = self._loop.create_future()
            await self._established
        if self.over is not None:
            raise self.over

    def accept(self, answer: Acceptance) -> None:
        """Answer the A-ASSOCIATE-RQ and be ready for messages."""
        self.association.accept(answer)
        self._after_step()
        self._establish(answer.negotiated)

    def reject(self, answer: AAssociateRJ, why: str) -> None:
        self.association.reject(answer)
        self._end(AssociationRefused(why))
        self._after_step()

    async def release(self) -> None:
        """Release the association and wait until the connection is closed; end it otherwise if that fails."""
        if self._inbox.released:
            self.respond_release()  # the peer was first
        elif self.over is None:
            if self.association.state is State.STA6:  # else it is asked already
                self.association.request_release()
                self._after_step()
            timer = Timer(self._loop, partial(self.abort, "no answer to our A-RELEASE-RQ"))
            timer.start(self._timeouts.artim_seconds)
            try:
                await self.wait_closed()
            finally:
                timer.close()
        await self.wait_closed()

    def respond_release(self) -> None:
        """Answer the peer's A-RELEASE-RQ; ARTIM then waits for it to close (AR-4)."""
        if self.over is None and self.association.state is State.STA8:
            self.association.respond_release()
            self._after_step()
            self._end(AssociationReleased("released by the peer"))

    def abort(self, why: str, reason: int = 0, *, close_within: float | None = None) -> None:
        """Send an A-ABORT and wait for the peer to close; harmless when the association is over.

        Args:
            reason: Of PS3.8 Table 9-26: then the source is the service-provider, else the service-user.
            close_within: Seconds after which we close; ARTIM if None.
        """
        if self.over is None:
            self._end(AssociationAborted(f"aborted: {why}"))
            self.association.abort(reason)
            self._after_step()
        if self.association.state is not State.STA13:  # there is no association yet, or no more
            self.drop()
        elif close_within is not None:
            self._loop.call_later(close_within, self.drop)

    async def wait_closed(self) -> None:
        if self._transport is not None:
            waiter = self._loop.create_future()
            self._waiting_for_close.append(waiter)
            await waiter

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

    @property
    def can_send_at_once(self) -> bool:
        """No message is being sent, and the peer takes what it is sent."""
        return self._outflow.is_free

    def queue(self, request: Request) -> None:
        """Keep a request for ``next_request``."""
        self._inbox.put(request)

    def forget(self, request: Request) -> None:
        """It is answered, or will never be: its Message ID is free."""
        self._inbox.forget(request)

    async def next_request(self) -> Request | None:
        """The next complete request; None when the peer has asked for release, or the association is over."""
        return await self._inbox.next_request()

    # Requests of our own

    def next_message_id(self) -> int:
        """Unique among those outstanding (PS3.7 §9.1.1.1.1)."""
        return self._inbox.exchanges.next_message_id()

    async def invoke(
        self, context: AcceptedContext, command: Mapping[int, Value], source: DataSetSource | bytes | None = None
    ) -> Message:
        """Send a request and wait for its one response (see ``Invoker``); a second is one to no request."""
        exchange = await self.begin_exchange(context, command, source, single=True)
        response, _ = await self.next_response(exchange)
        return response

    async def begin_exchange(
        self,
        context: AcceptedContext,
        command: Mapping[int, Value],
        source: DataSetSource | bytes | None = None,
        *,
        single: bool = False,
    ) -> Exchange:
        """Send a request; take its responses with ``next_response``, all of them: who takes none is sent no more."""
        if self.over is not None:
            raise self.over
        message_id, field = command[0x00000110], command[0x00000100]
        assert isinstance(message_id, int)
        assert isinstance(field, int)
        exchange = self._inbox.exchanges.begin(message_id, field | RESPONSE, single=single)
        try:
            await self.send(context.context_id, command, source)
        except BaseException:
            self._inbox.give_up(message_id)
            raise
        return exchange

    async def next_response(self, exchange: Exchange) -> tuple[Message, bytes | None]:
        """The next response of ``exchange``.

        Raises:
            DimseTimeout: None came, and nothing else either, within the DIMSE time limit; the association is aborted.
            AssociationEnded: It is over.
        """
        self._awaiting += 1
        try:
            return await self._inbox.next_response(exchange)
        finally:
            self._awaiting -= 1

    # Sending

    async def send(
        self, context_id: int, command: Mapping[int, Value] | bytes, source: DataSetSource | bytes | None = None
    ) -> None:
        """Send one message (see ``Outflow``)."""
        await self._outflow.send(context_id, command, source)

    def send_at_once(self, context_id: int, command: bytes) -> None:
        """Send an encoded command set, where ``can_send_at_once``."""
        self._outflow.write(encode_p_data(context_id, True, command, self.association.peer_maximum_length))

    async def send_frames(self, frames: Frames) -> None:
        """Send whole messages that are framed already."""
        await self._outflow.send_frames(frames)

    # Back-pressure to the peer (ReadFlow)

    def pause_reading(self) -> None:
        self._reading.pause()

    def resume_reading(self) -> None:
        self.last_heard = self._loop.time()  # from now on it is the peer's time again
        self._reading.resume()

    # For the timers (Watched)

    @property
    def last_sent(self) -> float:
        return self._outflow.last_sent

    @property
    def waits_for(self) -> Waiting:
        if self._reading.is_paused:  # what we wait for may stand behind requests that wait for us
            return Waiting.RESPONSE if self._awaiting and self._inbox.has_backlog else Waiting.NOTHING
        if self._inbox.in_message:
            return Waiting.REST_OF_MESSAGE
        if self._awaiting:
            return Waiting.RESPONSE
        return Waiting.NOTHING if self.active or self._inbox.exchanges else Waiting.ANYTHING

    # What arrives

    def _receive(self, nbytes: int) -> None:
        stepped = complete = False
        events = self.association.receive_bytes(self._reading.window[:nbytes])
        held = self.association.held
        if held != self._held:
            self._hold(held)
        for event in events:
            if type(event) is not Fragment:
                self._control(event)
                stepped = True
            elif self.over is None:
                try:
                    complete |= self._inbox.feed(event)
                except MessageError as error:
                    self.abort(str(error), error.reason)
        if stepped or self.over is not None:  # AA-7 says nothing to us, but something to the peer
            self._after_step()
        elif not complete and self._acknowledgements is not None:
            self._acknowledgements.hasten()

    def _hold(self, held: int) -> None:
        """Account for bytes that wait for the rest of their PDU, before an association, in it and after it."""
        self._held = held
        self._budget.hold(self, held if held > _SHORT_PDU else 0)

    def give_way(self) -> None:
        """Of ``HostBudget``: others need the room of the PDU that has begun."""
        held, self._held = self._held, 0
        self.abort(f"no memory left for the rest of a PDU, of which {held} bytes have come")
        self.drop()

    # Beginning and end

    def _control(self, event: AssociationEvent) -> None:
        match event:
            case AssociationRequested(request=request):
                if self.over is None and self.association.state is State.STA3:  # else its end is in the same bytes
                    self._user.requested(self, request)
            case ReleaseRequested():
                if self.association.state is State.STA9:  # release collision: the requestor answers first (AR-9)
                    self.association.respond_release()
                self._inbox.release()
                self._user.release_requested(self)
            case AssociationAccepted(negotiated=negotiated):
                if 0 < negotiated.peer_maximum_length < _SMALLEST_MAXIMUM_LENGTH:
                    length = negotiated.peer_maximum_length
                    self.abort(f"the peer accepts PDUs of {length} bytes, in which nothing can be sent", 6)
                elif self.over is None:
                    self._establish(negotiated)
                    if self._established is not None and not self._established.done():
                        self._established.set_result(negotiated)
            case AssociationRejected(result=result, source=source, reason=reason):
                self._end(AssociationRejectedError(result, source, reason))
            case Released():
                if self.association.state is State.STA12:  # now it is the acceptor's turn (AR-4)
                    self.association.respond_release()
                self._end(AssociationReleased("released"))
            case Aborted(by_peer=True, source=source, reason=reason):
                self._end(AssociationAborted(f"aborted by the peer (source {source}, reason {reason})"))
            case Aborted(problem=problem):
                self._end(AssociationAborted(f"aborted: {problem}"))
            case ConnectionClosed():
                self._end(AssociationEnded("connection closed by the peer"))
            case Fragment():
                raise AssertionError("fragments do not come here")

    def _establish(self, negotiated: Negotiated) -> None:
        self._inbox.open(negotiated.contexts)
        self._watch_silence()

    def _lost(self, why: AssociationEnded) -> None:
        if self.over is None:
            self._end(why)
        if self.association.state is not State.STA1:
            for event in self.association.connection_lost():
                self._control(event)

    def _end(self, why: AssociationEnded) -> None:
        """The association is over: tell everybody who waits, once."""
        if self.over is not None:
            return
        self.over = why
        self._reading.end()
        self._inbox.end(why)
        self._outflow.end(why)
        if self._established is not None and not self._established.done():
            self._established.set_exception(why)
        self._user.ended(self)

    def _after_step(self) -> None:
        """Obey the association: write its output, close when it says so, run ARTIM exactly while it wants it."""
        association = self.association
        output = association.data_to_send()
        if self._transport is None:
            return
        if output:
            self._outflow.put(output)
        if association.close_requested:
            self._transport.close()
        artim = association.artim_starts if association.artim_running else 0
        if artim != self._artim:
            self._artim = artim
            if artim:
                self._timer.start(self._timeouts.artim_seconds)
            else:
                self._timer.stop()

    def _timer_fired(self) -> None:
        if self._artim:
            self._artim_expired()
        elif self.over is None:
            left, why = silence_left(self, self._timeouts, self._loop.time())
            if left > 0:
                self._watch_silence(left)
            else:
                self._silent_for_too_long(why)

    def _watch_silence(self, left: float = math.inf) -> None:
        """Look in ``left`` seconds, or when the shortest limit could be reached by what begins now."""
        seconds = min(left, self._timeouts.shortest_silence)
        if seconds < math.inf:
            self._timer.start(seconds)

    def _artim_expired(self) -> None:
        self._end(TimedOut(f"nothing heard for {self._timeouts.artim_seconds:g} s (ARTIM)"))
        for event in self.association.timed_out():
            self._control(event)
        self._after_step()
        self.drop()  # AA-2; whatever is unsent, the peer has had its time

    def _silent_for_too_long(self, why: AssociationEnded) -> None:
        self._end(why)
        self.association.abort()
        self._after_step()

    def _peer_takes_nothing(self) -> None:
        self._end(TimedOut(f"the peer took nothing for {self._timeouts.write_seconds:g} s"))
        self.drop()
