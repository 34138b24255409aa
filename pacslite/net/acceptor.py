"""The acceptor's side: admit, negotiate, then perform what is asked until the association ends (PS3.8 §7.1)."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pacslite.access import Access, Refusal
from pacslite.dimse.messages import CommandField, Message
from pacslite.dimse.service import Peer, Request
from pacslite.dimse.uids import VERIFICATION
from pacslite.net.connection import Connection
from pacslite.net.dispatch import Dispatcher
from pacslite.net.ended import (
    AssociationAborted,
    AssociationEnded,
    AssociationRejectedError,
    AssociationReleased,
    TimedOut,
)
from pacslite.net.identity import IdentityVerifier
from pacslite.net.limits import Limits
from pacslite.upper_layer.negotiation import AcceptorPolicy, Negotiated, check_request, negotiate
from pacslite.upper_layer.pdu import AAssociateAC, AAssociateRJ, AAssociateRQ, PDUError

__all__ = ["Acceptor", "AcceptorOptions"]

log = logging.getLogger("pacslite.association")

_KNOWN_ANSWERS = 64
_KEPT_UID_BYTES = 16_384  # in a request; what has more the codec does not keep either

# Requests that may run side by side when an asynchronous operations window was negotiated (PS3.7 §D.3.3.3)
_CONCURRENT = frozenset({CommandField.C_STORE_RQ, CommandField.C_ECHO_RQ})

_LEVELS = {AssociationAborted: logging.WARNING, TimedOut: logging.INFO}  # others only knocked: DEBUG
_UNSOUND = {  # reason of an A-ASSOCIATE-RJ that ``check_request`` gives
    1: "the peer accepts PDUs only in which nothing can be sent",
    2: "application context is not DICOM's",
}


class _Admitted(NamedTuple):
    peer: Peer
    identity_response: bytes | None


@dataclass(frozen=True, slots=True)
class AcceptorOptions:
    """What every association we accept has in common."""

    maximum_length: int = 131_072  # bytes of a P-DATA-TF PDU that we receive
    operations: int = 16  # outstanding requests on one association that we perform at once
    implementation_class_uid: str = ""
    implementation_version_name: str = ""


class Acceptor:
    """Serves accepted connections; one ``serve`` coroutine each.

    Args:
        dispatcher: Knows the services.
        access: Who may associate, and what each may do; asked anew for every association, so it can be replaced.
        identity: Verifies user identity items.
        limits: Counts associations.
        options: As configured.
        ready: Set when all services are there; until then only associations for verification alone are answered.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        access: Callable[[], Access],
        identity: IdentityVerifier,
        limits: Limits,
        options: AcceptorOptions,
        ready: asyncio.Event,
    ) -> None:
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
        self._answers: dict[int, tuple[AAssociateRQ, AAssociateAC]] = {}
        self._operations = options.operations
        self._peers: dict[Connection, Peer] = {}

    @property
    def associations(self) -> int:
        """Established at this moment."""
        return len(self._peers)

    def begin(self, connection: Connection, message: Message) -> Request:
        return self._dispatcher.begin(connection, message, self._peers[connection])

    async def serve(self, connection: Connection, association_id: str, draining: Callable[[], bool]) -> None:
        """From the A-ASSOCIATE-RQ to the end of the connection."""
        facts: dict[str, object] = {"assoc": association_id, "peer": connection.host}
        try:
            assert connection.established is not None
            request = await connection.established
        except AssociationRejectedError as rejected:  # by the upper layer itself, AE-6
            _log_rejected(facts, rejected.result, rejected.source, rejected.reason, "protocol version")
            return await connection.wait_closed()
        except AssociationEnded as ended:
            log.log(_LEVELS.get(type(ended), logging.DEBUG), "no association", extra=facts | {"why": str(ended)})
            return await connection.wait_closed()
        assert isinstance(request, AAssociateRQ)
        facts["peer"] = f"{request.calling_ae_title}@{connection.host}"
        admitted = await self._admit(connection, request, association_id)
        if isinstance(admitted, Refusal):
            result, source, reason, why = admitted.result, admitted.source, admitted.reason, admitted.why
            if connection.over is None:
                connection.reject(AAssociateRJ(result, source, reason), f"rejected: {why}")
                _log_rejected(facts, result, source, reason, why)
            else:
                log.debug("no association", extra=facts | {"why": str(connection.over)})
            return await connection.wait_closed()
        try:
            await self._serve_established(connection, request, admitted, facts, draining)
        finally:
            self._peers.pop(connection, None)
            self._limits.release(connection.host, request.calling_ae_title)
        return await connection.wait_closed()

    # private

    def _answer(self, request: AAssociateRQ, identity_response: bytes | None) -> AAssociateAC:
        """Negotiate, or say again what the same request was answered before; the codec keeps those that are equal."""
        if request.user_information.user_identity is not None:
            return negotiate(request, self._policy, user_identity_response=identity_response)
        known = self._answers.get(id(request))
        if known is not None and known[0] is request:
            return known[1]
        answer = negotiate(request, self._policy)
        if _uid_bytes(request) <= _KEPT_UID_BYTES:  # 64 requests of a megabyte each are no memory to keep for a peer
            if len(self._answers) >= _KNOWN_ANSWERS:
                self._answers.clear()
            self._answers[id(request)] = (request, answer)
        return answer

    async def _admit(self, connection: Connection, request: AAssociateRQ, association_id: str) -> _Admitted | Refusal:
        """Who asks, counted, if the association may be accepted; else why it must be rejected."""
        host, calling, called = connection.host, request.calling_ae_title, request.called_ae_title
        congestion = self._limits.congestion(host)
        if congestion is not None:
            return congestion
        unsound = check_request(request)
        if unsound is not None:
            return Refusal(unsound.result, unsound.source, unsound.reason, _UNSOUND[unsound.reason])
        grant = self._access().admit(
            calling_ae_title=calling,
            called_ae_title=called,
            host=host,
            certificate_names=connection.certificate_names,
        )
        if isinstance(grant, Refusal):
            return grant
        identity = await self._identity.verify(request)
        if isinstance(identity, Refusal):
            return identity
        if not self._ready.is_set() and any(
            context.abstract_syntax != VERIFICATION for context in request.presentation_contexts
        ):
            await self._ready.wait()
        if connection.over is not None:  # it went away while its identity was verified
            return Refusal(2, 1, 1, str(connection.over))
        full = self._limits.admit(host, calling)
        if full is not None:
            return full
        peer = Peer(association_id, calling, called, host, grant.allow, identity.user)
        return _Admitted(peer, identity.response)

    async def _serve_established(
        self,
        connection: Connection,
        request: AAssociateRQ,
        admitted: _Admitted,
        facts: dict[str, object],
        draining: Callable[[], bool],
    ) -> None:
        self._peers[connection] = admitted.peer
        try:
            negotiated = connection.accept(self._answer(request, admitted.identity_response))
        except PDUError as error:  # answering all that it proposes takes more than an item can hold
            _log_rejected(facts, 1, 1, 1, str(error))
            return connection.reject(AAssociateRJ(1, 1, 1), f"rejected: {error}")
        self._log_accepted(admitted.peer, request, negotiated)
        count = await self._perform_requests(connection, negotiated.operations_invoked or self._operations, draining)
        connection.respond_release()
        level = logging.INFO if isinstance(connection.over, AssociationReleased) else logging.WARNING
        return log.log(level, "association ended", extra=facts | {"requests": count, "why": str(connection.over)})

    async def _perform_requests(self, connection: Connection, window: int, draining: Callable[[], bool]) -> int:
        """Perform what is asked, up to ``window`` requests at once; gives their number when there will be no more."""
        running: set[asyncio.Task[None]] = set()
        count = 0
        try:
            while (request := await connection.next_request()) is not None:
                count += 1
                if window > 1 and request.message.command_field in _CONCURRENT:
                    if len(running) >= window:
                        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    task = asyncio.create_task(self._dispatcher.perform(connection, request))
                    running.add(task)
                    task.add_done_callback(running.discard)
                else:
                    await self._dispatcher.perform(connection, request)
                if draining() and not connection.active:
                    connection.abort("the server is stopping", close_within=1.0)
            if running:
                await asyncio.wait(running)
        finally:
            for task in running:
                task.cancel()
        return count

    def _log_accepted(self, peer: Peer, request: AAssociateRQ, negotiated: Negotiated) -> None:
        facts = {
            "assoc": peer.association_id,
            "peer": str(peer),
            "called": peer.called_ae_title,
            "contexts": f"{len(negotiated.contexts)}/{len(request.presentation_contexts)}",
        }
        if peer.user:
            facts["user"] = peer.user
        log.info("association accepted", extra=facts)


def _log_rejected(facts: dict[str, object], result: int, source: int, reason: int, why: str) -> None:
    log.warning("association rejected", extra=facts | {"reason": f"{result}/{source}/{reason}", "why": why})


def _uid_bytes(request: AAssociateRQ) -> int:
    return sum(
        len(context.abstract_syntax) + sum(map(len, context.transfer_syntaxes))
        for context in request.presentation_contexts
    )
