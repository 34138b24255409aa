"""The acceptor's side: admit, negotiate, then perform what is asked until the association ends (PS3.8 §7.1)."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from pacslite.access import Access, Refusal
from pacslite.dimse.messages import CommandField, Message
from pacslite.dimse.service import Peer, Request
from pacslite.dimse.uids import VERIFICATION
from pacslite.net.connection import Connection
from pacslite.net.dispatch import Dispatcher
from pacslite.net.ended import AssociationEnded
from pacslite.net.identity import IdentityVerifier
from pacslite.net.limits import Limits
from pacslite.upper_layer.negotiation import AcceptorPolicy, Negotiated, check_request, negotiate
from pacslite.upper_layer.pdu import AAssociateRJ, AAssociateRQ

__all__ = ["Acceptor", "AcceptorOptions"]

log = logging.getLogger("pacslite.association")

# Requests that may run side by side when an asynchronous operations window was negotiated (PS3.7 §D.3.3.3)
_CONCURRENT = frozenset({CommandField.C_STORE_RQ, CommandField.C_ECHO_RQ})


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
        except AssociationEnded as ended:
            log.debug("no association", extra=facts | {"why": str(ended)})
            return await connection.wait_closed()
        assert isinstance(request, AAssociateRQ)
        facts["peer"] = f"{request.calling_ae_title}@{connection.host}"
        peer = await self._admit(connection, request, association_id)
        if isinstance(peer, Refusal):
            refusal = AAssociateRJ(peer.result, peer.source, peer.reason)
            if connection.over is None:
                connection.reject(refusal, f"rejected: {peer.why}")
            log.warning(
                "association rejected",
                extra=facts | {"reason": f"{peer.result}/{peer.source}/{peer.reason}", "why": peer.why},
            )
            return await connection.wait_closed()
        try:
            await self._serve_established(connection, facts, draining)
        finally:
            self._peers.pop(connection, None)
            self._limits.release(connection.host, peer.calling_ae_title)
        return await connection.wait_closed()

    # private

    async def _admit(self, connection: Connection, request: AAssociateRQ, association_id: str) -> Peer | Refusal:
        """Peer of an association that was accepted, or why it must be rejected; the answer is sent for the former."""
        unsound = check_request(request)
        if unsound is not None:
            return Refusal(unsound.result, unsound.source, unsound.reason, "protocol version or application context")
        calling, called = request.calling_ae_title, request.called_ae_title
        grant = self._access().admit(calling_ae_title=calling, called_ae_title=called, host=connection.host)
        if isinstance(grant, Refusal):
            return grant
        identity = await self._identity.verify(request)
        if isinstance(identity, Refusal):
            return identity
        if not self._ready.is_set() and any(
            context.abstract_syntax != VERIFICATION for context in request.presentation_contexts
        ):
            await self._ready.wait()
        full = self._limits.admit(connection.host, calling)
        if full is not None:
            return full
        if connection.over is not None:  # it went away while its identity was verified
            self._limits.release(connection.host, calling)
            return Refusal(2, 1, 1, str(connection.over))
        answer = negotiate(request, self._policy, user_identity_response=identity.response)
        peer = Peer(association_id, calling, called, connection.host, grant.allow, identity.user)
        self._peers[connection] = peer
        negotiated = connection.accept(answer)
        self._log_accepted(peer, request, negotiated)
        return peer

    async def _serve_established(
        self, connection: Connection, facts: dict[str, object], draining: Callable[[], bool]
    ) -> None:
        window = connection.negotiated.operations_invoked or self._operations
        running: set[asyncio.Task[None]] = set()
        count = 0
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
                connection.abort("the server is stopping")
        if running:
            await asyncio.wait(running)
        connection.respond_release()
        level = logging.INFO if connection.over is None or "released" in str(connection.over) else logging.WARNING
        log.log(level, "association ended", extra=facts | {"requests": count, "why": str(connection.over)})

    def _log_accepted(self, peer: Peer, request: AAssociateRQ, negotiated: Negotiated) -> None:
        log.info(
            "association accepted",
            extra={
                "assoc": peer.association_id,
                "peer": str(peer),
                "called": peer.called_ae_title,
                "contexts": f"{len(negotiated.contexts)}/{len(request.presentation_contexts)}",
            },
        )
