"""From a request to its service and back: the one place where an error becomes a response."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from pacslite.budget import Budget
from pacslite.dimse.command import CommandSet
from pacslite.dimse.messages import Message, plain_response, response_to
from pacslite.dimse.reader import BoundedBuffer, Discard
from pacslite.dimse.service import ImmediateService, Peer, Request, Service
from pacslite.dimse.status import Status, is_failure, is_pending
from pacslite.dimse.uids import STORAGE_SERVICE_CLASS
from pacslite.dimse.writer import Frames, command_frames, data_frames
from pacslite.errors import DimseError
from pacslite.net.connection import Connection
from pacslite.net.ended import AssociationEnded
from pacslite.net.fault import log_fault
from pacslite.upper_layer.negotiation import AbstractSyntaxOffer

__all__ = ["ConnectionReply", "Dispatcher", "Observer"]

log = logging.getLogger("pacslite.dimse")

_KNOWN_SYNTAXES = 10_000  # a peer can invent private UIDs without end
_NARROW = 1_024  # bytes of a PDU; to a peer that takes no more, answers go out one by one

Observer = Callable[[Peer, Message, int | None, float], None]  # peer, request, final status, seconds


class DuplicateInvocation(DimseError):
    """Message ID of a request that is still being performed (PS3.7 §C.5.9)."""

    status = 0x0210


class UnrecognizedOperation(DimseError):
    """No operation of the presentation context's SOP class."""

    status = 0x0211


class SopClassNotSupported(DimseError):
    """Affected, or Requested, SOP class that is not the presentation context's (PS3.7 §C.5.6)."""

    status = 0x0122


class NotAuthorized(DimseError):
    """The peer is known, but not allowed to do this."""

    status = 0x0124


class ConnectionReply:
    """Sends the responses of one request (see ``Reply``)."""

    __slots__ = ("_connection", "_request", "status")

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._request = request
        self.status: int | None = None  # last sent

    async def __call__(
        self,
        status: int,
        data_set: bytes | None = None,
        *,
        comment: str = "",
        offending: Sequence[int] = (),
        extra: CommandSet | None = None,
    ) -> None:
        request, connection = self._request, self._connection
        if not is_pending(status):
            connection.forget(request)  # a peer may use the Message ID again as soon as it has read this
        self.status = status
        message = request.message
        command: CommandSet | bytes
        if data_set is None and not (comment or offending or extra) and message.is_composite:
            command = plain_response(message, status)
        else:
            command = response_to(
                message,
                status,
                has_data_set=data_set is not None,
                comment=comment,
                offending=offending,
                extra=extra,
            )
        await connection.send(message.context.context_id, command, data_set)

    async def batch(self, status: int, data_sets: Sequence[bytes]) -> None:
        connection, context_id = self._connection, self._request.message.context.context_id
        limit = connection.association.peer_maximum_length
        if 0 < limit < _NARROW:
            for data_set in data_sets:
                await self(status, data_set)
            return
        head = command_frames(context_id, response_to(self._request.message, status, has_data_set=True), limit)
        frames: Frames = []
        for data_set in data_sets:
            frames += head
            frames += data_frames(context_id, data_set, limit, is_last=True)
        self.status = status
        await connection.send_frames(frames)


class Dispatcher:
    """Finds the service of a request and sees it through.

    Args:
        services: In order; the first that makes an offer for an abstract syntax has it.
        observe: Told of every request performed.
        budget: On which identifiers are booked while they arrive and wait.
    """

    def __init__(
        self, services: Sequence[Service], observe: Observer | None = None, budget: Budget | None = None
    ) -> None:
        self.performing = 0  # requests, that something is awaited for
        self._services = list(services)
        self._observe = observe
        self._budget = budget
        self._service_of: dict[str, Service] = {}
        self._immediate: dict[str, ImmediateService] = {}  # of them

    def add(self, services: Sequence[Service]) -> None:
        """More services, behind those that are there."""
        self._services += services

    def offer(self, abstract_syntax: str, service_class: str | None) -> AbstractSyntaxOffer | None:
        for service in self._services:
            offer = service.offer(abstract_syntax, service_class)
            if offer is not None:
                if len(self._service_of) >= _KNOWN_SYNTAXES:
                    self._service_of.clear()
                    self._immediate.clear()
                self._service_of[abstract_syntax] = service
                if isinstance(service, ImmediateService):
                    self._immediate[abstract_syntax] = service
                return offer
        return None

    def begin(self, connection: Connection, message: Message, peer: Peer) -> Request:
        """The request of ``message``, with a sink where its data set goes. Never raises."""
        request = Request(message, peer, connection, connection)
        try:
            if message.message_id in connection.active:
                raise DuplicateInvocation(f"message {message.message_id} is still being performed")
            request.service = service = self._check(message, peer, self._find(message))
            if message.has_data_set:
                request.sink = service.begin(request)
        except Exception as error:
            request.refusal = _refusal(message, peer, error).with_traceback(None)  # which leads back to the request
        if request.refusal is not None:
            request.sink = Discard()
        if self._budget is not None and isinstance(request.sink, BoundedBuffer):
            request.sink.charge(self._budget)
        return request

    def answer_at_once(self, connection: Connection, message: Message, peer: Peer) -> bool:
        """Perform and answer a request that is alone and has no data set, if nothing is awaited for it.

        False: it is to be ``perform``ed. Never raises.
        """
        context = message.context
        service = self._immediate.get(context.abstract_syntax)
        if service is None or not message.is_composite or not connection.can_send_at_once:
            return False
        started = time.perf_counter()
        comment = ""
        try:
            self._check(message, peer, service)
            status = service.answer(message, peer)
        except Exception:
            return False  # told and answered where it comes up again
        try:
            connection.send_at_once(context.context_id, plain_response(message, status))
        except AssociationEnded as ended:  # by what came in the same bytes
            comment = str(ended)
        self._account(message, peer, status, time.perf_counter() - started, comment)
        return True

    async def perform(self, connection: Connection, request: Request) -> None:
        """Perform ``request`` and answer it, whatever happens; log one line."""
        message, peer = request.message, request.peer
        reply = ConnectionReply(connection, request)
        started = time.perf_counter()
        comment = ""
        self.performing += 1
        try:
            try:
                if request.refusal is not None:
                    raise request.refusal
                assert request.service is not None
                await request.service.handle(request, reply)
            except DimseError as error:
                comment = str(error)
                await reply(error.status, comment=comment, offending=error.offending)
            except AssociationEnded:
                raise
            except Exception as error:
                log_fault(log, f"{message.label} failed", _facts(peer), error)
                comment = f"internal error: {type(error).__name__}"
                await reply(Status.PROCESSING_FAILURE, comment=comment)
        except AssociationEnded as ended:
            comment = str(ended)
        finally:
            self.performing -= 1
            request.refusal = None  # raised, it leads back here
            connection.forget(request)
            if request.sink is not None:
                request.sink.abort()  # nothing where the service has taken it over
        self._account(message, peer, reply.status, time.perf_counter() - started, comment, request.facts)

    def _account(
        self,
        message: Message,
        peer: Peer,
        status: int | None,
        elapsed: float,
        comment: str,
        of_service: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        if self._observe is not None:
            self._observe(peer, message, status, elapsed)
        level = logging.INFO if status is not None and not is_failure(status) else logging.WARNING
        if log.isEnabledFor(level):
            facts = _facts(peer)
            facts["status"] = "none" if status is None else f"{status:04X}"
            facts |= of_service
            facts["ms"] = round(elapsed * 1000, 1)
            if comment:
                facts["comment"] = comment
            log.log(level, message.label, extra=facts)

    def _check(self, message: Message, peer: Peer, service: Service | None) -> Service:
        """May ``peer`` ask this of ``service``?"""
        abstract_syntax = message.context.abstract_syntax
        if service is None or message.command_field not in service.commands:
            raise UnrecognizedOperation(f"{message.label} is no operation of SOP class {abstract_syntax}")
        if message.sop_class_uid not in ("", abstract_syntax):
            raise SopClassNotSupported(f"SOP class {message.sop_class_uid} on a context of {abstract_syntax}")
        if service.permission not in peer.allowed:
            raise NotAuthorized(f"{peer.calling_ae_title} is not allowed to {service.permission}")
        return service

    def _find(self, message: Message) -> Service | None:
        abstract_syntax = message.context.abstract_syntax
        service = self._service_of.get(abstract_syntax)
        if (
            service is None
        ):  # forgotten; that it was accepted is certain, perhaps for the service class its proposer gave
            for service_class in (None, STORAGE_SERVICE_CLASS):
                if self.offer(abstract_syntax, service_class) is not None:
                    return self._service_of[abstract_syntax]
        return service


def _refusal(message: Message, peer: Peer, error: Exception) -> DimseError:
    """What ``error`` is answered with."""
    if isinstance(error, DimseError):
        return error
    log_fault(log, f"{message.label} failed", _facts(peer), error)
    return DimseError(f"internal error: {type(error).__name__}")


def _facts(peer: Peer) -> dict[str, object]:
    return {"assoc": peer.association_id, "peer": str(peer)}
