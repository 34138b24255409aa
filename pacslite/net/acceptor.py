"""The acceptor's side: admit, negotiate, then perform what is asked until the association ends (PS3.8 §7.1)."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from pacslite.access import Access, Grant, Refusal
from pacslite.dimse.messages import CommandField, Message
from pacslite.dimse.service import Peer, Request
from pacslite.dimse.uids import VERIFICATION
from pacslite.net.attention import Attention
from pacslite.net.connection import Connection
from pacslite.net.dispatch import Dispatcher
from pacslite.net.ended import (
    AssociationAborted,
    AssociationRefused,
    AssociationRejectedError,
    AssociationReleased,
    TimedOut,
)
from pacslite.net.fault import log_fault
from pacslite.net.flood import FloodLog
from pacslite.net.identity import Identity, IdentityVerifier
from pacslite.net.limits import Limits
from pacslite.upper_layer.negotiation import Acceptance, AcceptorPolicy, Negotiated, check_request, negotiate
from pacslite.upper_layer.pdu import AAssociateRJ, AAssociateRQ, PDUError

__all__ = ["Acceptor", "AcceptorOptions"]

log = logging.getLogger("pacslite.association")

_KNOWN_ANSWERS = 64
_KEPT_UID_BYTES = 16_384  # in a request; what has more the codec does not keep either

# Requests that may run side by side when an asynchronous operations window was negotiated (PS3.7 §D.3.3.3)
_CONCURRENT = frozenset({CommandField.C_STORE_RQ, CommandField.C_ECHO_RQ})


class _Served:
    """An association that is established."""

    __slots__ = ("peer", "requests", "window")

    def __init__(self, peer: Peer, window: int) -> None:
        self.peer = peer
        self.window = window  # requests performed at once
        self.requests = 0


@dataclass(frozen=True, slots=True)
class AcceptorOptions:
    """What every association we accept has in common."""

    maximum_length: int = 131_072  # bytes of a P-DATA-TF PDU that we receive
    operations: int = 16  # outstanding requests on one association that we perform at once
    implementation_class_uid: str = ""
    implementation_version_name: str = ""
    attention_seconds: float = 0.0  # after an answer, see ``Attention``


class Acceptor:
    """Serves accepted connections: their ``AssociationUser``, but for the beginning and end of the transport.

    What needs no waiting is done in the call that tells of it. A task is made for an association when there is
    something to wait for: a request that a service performs, or the identity of a user.

    Args:
        dispatcher: Knows the services.
        access: Who may associate, and what each may do; asked anew for every association, so it can be replaced.
        identity: Verifies user identity items; asked for anew like ``access``.
        limits: Counts associations.
        options: As configured.
        ready: Set when all services are there; until then only associations for verification alone are answered.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        access: Callable[[], Access],
        identity: Callable[[], IdentityVerifier],
        limits: Limits,
        options: AcceptorOptions,
        ready: asyncio.Event,
    ) -> None:
        self.draining = False  # no association outlives the request that it performs
        self._dispatcher = dispatcher
        self._access = access
        self._identity = identity
        self._limits = limits
        self._ready = ready
        self._policy = AcceptorPolicy(
            offer=dispatcher.offer,
            maximum_length=options.maximum_length,
            implementation_class_uid=options.implementation_class_uid,
            implementation_version_name=options.implementation_version_name,
            operations_invoked=options.operations,
            operations_performed=options.operations,
        )
        self._answers: dict[int, tuple[AAssociateRQ, Acceptance]] = {}
        self._operations = options.operations
        self._awaited: dict[Connection, asyncio.Task[None]] = {}  # admission of those that must wait for it
        self._served: dict[Connection, _Served] = {}
        self._turned_away = FloodLog(log, time.monotonic)
        self._attention = Attention(
            asyncio.get_running_loop(), options.attention_seconds, lambda: not dispatcher.performing
        )

    @property
    def associations(self) -> int:
        """Established at this moment, or still performing."""
        return len(self._served)

    # what a connection tells

    def requested(self, connection: Connection, request: AAssociateRQ) -> None:
        """Admit and negotiate."""
        try:
            grant = self._judge(connection, request)
            if isinstance(grant, Refusal):
                self._refuse(connection, request, grant)
            elif self._identity().needs_time(request) or self._must_wait(request):
                self._awaited[connection] = asyncio.create_task(self._admit_later(connection, request, grant))
            else:
                self._admit(connection, request, grant, self._identity().verify(request))
                self._attention.pay()
        except Exception as error:
            self._fail(connection, error)

    def answered(self, connection: Connection, message: Message) -> bool:
        """Perform a request that nothing is awaited for, and that is alone."""
        try:
            served = self._served[connection]
            if not self._dispatcher.answer_at_once(connection, message, served.peer):
                return False
            served.requests += 1
            self._attention.pay()
            self._dismiss_if_draining(connection)
        except Exception as error:
            self._fail(connection, error)
        return True

    def begin(self, connection: Connection, message: Message) -> Request:
        return self._dispatcher.begin(connection, message, self._served[connection].peer)

    def arrived(self, connection: Connection, request: Request) -> None:
        """Have a request performed."""
        try:
            served = self._served[connection]
            served.requests += 1
            connection.queue(request)
            if connection.server is None:
                connection.server = asyncio.create_task(self._serve(connection, served))
        except Exception as error:
            self._fail(connection, error)

    def release_requested(self, connection: Connection) -> None:
        """Answer; or let the task do it when it has performed all."""
        if connection.server is None:
            connection.respond_release()
            self._attention.pay()

    def ended(self, connection: Connection) -> None:
        """The association is over, or there was none; who performs something on it concludes when that is done."""
        awaited = self._awaited.pop(connection, None)
        if awaited is not None:
            awaited.cancel()
        if connection.server is None:
            self._conclude(connection)

    # private: before the association

    def _judge(self, connection: Connection, request: AAssociateRQ) -> Grant | Refusal:
        """May it be accepted, whoever its user is?"""
        congestion = self._limits.congestion(connection.host)
        if congestion is not None:
            return congestion
        unsound = check_request(request)
        if unsound is not None:
            rejection = unsound.rejection
            return Refusal(rejection.result, rejection.source, rejection.reason, unsound.why)
        return self._access().admit(
            calling_ae_title=request.calling_ae_title,
            called_ae_title=request.called_ae_title,
            host=connection.host,
            certificate_names=connection.certificate_names,
        )

    def _must_wait(self, request: AAssociateRQ) -> bool:
        return not self._ready.is_set() and any(
            context.abstract_syntax != VERIFICATION for context in request.presentation_contexts
        )

    async def _admit_later(self, connection: Connection, request: AAssociateRQ, grant: Grant) -> None:
        """Admit when its user is known and the services are there; cancelled when the connection ends before."""
        try:
            verifier = self._identity()
            waits = verifier.needs_time(request)
            identity = await asyncio.to_thread(verifier.verify, request) if waits else verifier.verify(request)
            if isinstance(identity, Identity) and self._must_wait(request):
                await self._ready.wait()
            del self._awaited[connection]
            self._admit(connection, request, grant, identity)
        except asyncio.CancelledError:
            if self._awaited.pop(connection, None) is not None:  # not by its end
                connection.abort("the server is stopping")
            raise
        except Exception as error:
            self._awaited.pop(connection, None)
            self._fail(connection, error)

    def _admit(self, connection: Connection, request: AAssociateRQ, grant: Grant, identity: Identity | Refusal) -> None:
        if isinstance(identity, Refusal):
            return self._refuse(connection, request, identity)
        try:
            answer = self._answer(request, identity.response)
        except PDUError as error:  # answering all that it proposes takes more than an item can hold
            return self._refuse(connection, request, Refusal(1, 1, 1, str(error)))
        host, calling, called = connection.host, request.calling_ae_title, request.called_ae_title
        full = self._limits.admit(host, calling)
        if full is not None:
            return self._refuse(connection, request, full)
        peer = Peer(connection.association_id, calling, called, host, grant.allow, identity.user)
        self._served[connection] = _Served(peer, answer.negotiated.operations_invoked or self._operations)
        connection.accept(answer)
        if log.isEnabledFor(logging.INFO):
            _log_accepted(peer, request, answer.negotiated)
        return None

    def _answer(self, request: AAssociateRQ, identity_response: bytes | None) -> Acceptance:
        """Negotiate, or say again what the same request was answered before; the codec keeps those that are equal."""
        if request.user_information.user_identity is not None:
            return Acceptance.of(request, negotiate(request, self._policy, user_identity_response=identity_response))
        known = self._answers.get(id(request))
        if known is not None and known[0] is request:
            return known[1]
        answer = Acceptance.of(request, negotiate(request, self._policy))
        if _uid_bytes(request) <= _KEPT_UID_BYTES:  # 64 requests of a megabyte each are no memory to keep for a peer
            if len(self._answers) >= _KNOWN_ANSWERS:
                self._answers.clear()
            self._answers[id(request)] = (request, answer)
        return answer

    def _refuse(self, connection: Connection, request: AAssociateRQ, refusal: Refusal) -> None:
        codes = refusal.result, refusal.source, refusal.reason
        self._log_rejected(connection, request.calling_ae_title, *codes, refusal.why)
        connection.reject(AAssociateRJ(*codes), f"rejected: {refusal.why}")

    # private: the association

    async def _serve(self, connection: Connection, served: _Served) -> None:
        try:
            await self._perform_requests(connection, served)
        except Exception as error:
            self._fail(connection, error)
        finally:
            self._leave(connection)

    async def _perform_requests(self, connection: Connection, served: _Served) -> None:
        """Perform what is asked, as many requests at once as were negotiated, until there will be no more."""
        window = served.window
        running: set[asyncio.Task[None]] = set()

        def performed(task: asyncio.Task[None]) -> None:
            running.discard(task)
            error = None if task.cancelled() else task.exception()
            if isinstance(error, Exception):
                self._fail(connection, error)
            self._dismiss_if_draining(connection)

        try:
            while (request := await connection.next_request()) is not None:
                if window > 1 and request.message.command_field in _CONCURRENT:
                    if len(running) >= window:
                        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    task = asyncio.create_task(self._dispatcher.perform(connection, request))
                    running.add(task)
                    task.add_done_callback(performed)
                else:
                    await self._dispatcher.perform(connection, request)
                self._dismiss_if_draining(connection)
            if running:
                await asyncio.wait(running)
        finally:
            for task in running:
                task.cancel()
        connection.respond_release()

    def _dismiss_if_draining(self, connection: Connection) -> None:
        if self.draining and not connection.active:
            connection.abort("the server is stopping", close_within=1.0)

    def _fail(self, connection: Connection, error: Exception) -> None:
        log_fault(log, "association failed", _facts(connection), error)
        if connection in self._served or connection.over is not None:
            connection.abort("internal error")
        else:
            connection.reject(AAssociateRJ(2, 1, 1), "rejected: internal error")

    def _leave(self, connection: Connection) -> None:
        """Its task ends."""
        connection.abort("the server is stopping")  # cancelled, if it is not over
        self._conclude(connection)

    def _conclude(self, connection: Connection) -> None:
        """It is over, and nothing is performed on it: account for it, once."""
        over = connection.over
        if over is not None and over.__traceback__ is not None:  # raised in who wanted to answer: leads back to it
            over.__traceback__ = over.__context__ = None
        served = self._served.pop(connection, None)
        if served is not None:
            self._limits.release(connection.host, served.peer.calling_ae_title)
            level = logging.INFO if isinstance(over, AssociationReleased) else logging.WARNING
            if log.isEnabledFor(level):
                facts = _facts(connection, served.peer.calling_ae_title)
                log.log(level, "association ended", extra=facts | {"requests": served.requests, "why": str(over)})
        elif isinstance(over, AssociationRejectedError):  # by the upper layer itself, AE-6
            self._log_rejected(connection, "", over.result, over.source, over.reason, "protocol version")
        elif not isinstance(over, AssociationRefused) and connection.association_id:  # else it was not let in
            facts = _facts(connection) | {"why": str(over)}
            if isinstance(over, AssociationAborted):
                self._turned_away.warning(connection.host, "no association", facts)
            else:
                log.log(logging.INFO if isinstance(over, TimedOut) else logging.DEBUG, "no association", extra=facts)

    def _log_rejected(
        self, connection: Connection, ae_title: str, result: int, source: int, reason: int, why: str
    ) -> None:
        facts = _facts(connection, ae_title) | {"reason": f"{result}/{source}/{reason}", "why": why}
        self._turned_away.warning(connection.host, "association rejected", facts)


def _facts(connection: Connection, ae_title: str = "") -> dict[str, object]:
    peer = f"{ae_title}@{connection.host}" if ae_title else connection.host
    return {"assoc": connection.association_id, "peer": peer}


def _log_accepted(peer: Peer, request: AAssociateRQ, negotiated: Negotiated) -> None:
    facts = {
        "assoc": peer.association_id,
        "peer": str(peer),
        "called": peer.called_ae_title,
        "contexts": f"{len(negotiated.contexts)}/{len(request.presentation_contexts)}",
    }
    if peer.user:
        facts["user"] = peer.user
    log.info("association accepted", extra=facts)


def _uid_bytes(request: AAssociateRQ) -> int:
    return sum(
        len(context.abstract_syntax) + sum(map(len, context.transfer_syntaxes))
        for context in request.presentation_contexts
    )
