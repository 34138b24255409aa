"""The associations of one client with its peer: opened when they are needed, kept for what comes next."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from pacslite.dimse.service import Service
from pacslite.errors import PacsliteError
from pacslite.net.connection import Connection
from pacslite.net.ended import AssociationEnded, AssociationRejectedError
from pacslite.scu.contexts import UNCOMPRESSED, presentation_contexts
from pacslite.scu.requestor import Address, Requestor
from pacslite.upper_layer.items import RoleSelection
from pacslite.upper_layer.negotiation import AcceptedContext

__all__ = ["Associations", "ContextNotAccepted"]

_TRANSIENT = 2  # Result of an A-ASSOCIATE-RJ (PS3.8 §9.3.4)
_AGAIN_SECONDS = 0.5


class ContextNotAccepted(PacsliteError):
    """The peer accepted the association, but not what the operation needs."""


class Associations:
    """Opens associations with ``address``; each is used by one operation at a time.

    Two on one would need a window that few peers negotiate (PS3.7 §D.3.3.3), and where the responses of one are not
    taken, reading stops for both: a query for every answer of another would wait for itself.
    """

    def __init__(self, requestor: Requestor, address: Address, calling_ae_title: str | None) -> None:
        self._requestor = requestor
        self._address = address
        self._calling_ae_title = calling_ae_title
        self._open: set[Connection] = set()
        self._idle: dict[str, list[Connection]] = {}  # by abstract syntax
        self._closed = 0  # how often

    @asynccontextmanager
    async def use(
        self,
        abstract_syntax: str,
        *,
        transfer_syntaxes: Sequence[str] = UNCOMPRESSED,
        extended: bytes | None = None,
        services: Sequence[Service] = (),
    ) -> AsyncIterator[tuple[Connection, AcceptedContext]]:
        """An association for ``abstract_syntax`` that nobody else uses, idle until now or opened; kept afterwards.

        Raises:
            ConnectFailed: There is none, and none could be opened.
            ContextNotAccepted: The peer does not offer the operation.
        """
        connection = self._take(abstract_syntax)
        if connection is None:
            connection = await self.open(
                [(abstract_syntax, transfer_syntaxes)],
                extended={abstract_syntax: extended} if extended is not None else None,
                services=services,
            )
        try:
            with self._address.named():
                yield connection, self.context(connection, abstract_syntax)
        finally:
            self._keep(abstract_syntax, connection)

    async def open(
        self,
        proposals: Sequence[tuple[str, Sequence[str]]],
        *,
        extended: Mapping[str, bytes] | None = None,
        roles: Sequence[RoleSelection] = (),
        services: Sequence[Service] = (),
    ) -> Connection:
        """An association with these (abstract syntax, transfer syntaxes), to be given to ``release``."""
        closed = self._closed
        with self._address.named():
            connection = await self._requestor.associate(
                self._address,
                presentation_contexts(proposals),
                roles=roles,
                extended=extended,
                services=services,
                calling_ae_title=self._calling_ae_title,
            )
        self._open.add(connection)
        if closed != self._closed:
            await self.release(connection)
            raise AssociationEnded("the client was closed while the association was opened")
        return connection

    async def open_alone(
        self,
        proposals: Sequence[tuple[str, Sequence[str]]],
        *,
        but: str,
        extended: Mapping[str, bytes] | None = None,
        roles: Sequence[RoleSelection] = (),
        services: Sequence[Service] = (),
    ) -> Connection:
        """``open``, when all idle ones are released but those for ``but``: the peer may take one association only.

        It may also take a moment to notice that the last one is over.
        """
        idle = [connection for name, some in self._idle.items() if name != but for connection in some]
        self._idle = {name: some for name, some in self._idle.items() if name == but}
        await self._release_all(idle)
        try:
            return await self.open(proposals, extended=extended, roles=roles, services=services)
        except AssociationRejectedError as error:
            if not idle or error.result != _TRANSIENT:
                raise
        await asyncio.sleep(_AGAIN_SECONDS)
        return await self.open(proposals, extended=extended, roles=roles, services=services)

    def context(self, connection: Connection, abstract_syntax: str) -> AcceptedContext:
        """What was accepted for ``abstract_syntax``, or ContextNotAccepted."""
        for context in connection.negotiated.contexts.values():
            if context.abstract_syntax == abstract_syntax:
                return context
        raise ContextNotAccepted(f"{self._address} does not accept SOP class {abstract_syntax}")

    async def release(self, connection: Connection) -> None:
        """Release one that is used no longer; harmless when it is over."""
        self._open.discard(connection)
        try:
            await connection.release()
        except AssociationEnded:
            connection.drop()

    async def close(self) -> None:
        """Release all, used ones too."""
        self._closed += 1
        self._idle.clear()
        await self._release_all(tuple(self._open))

    # private

    async def _release_all(self, connections: Sequence[Connection]) -> None:
        await asyncio.gather(*map(self.release, connections))

    def _take(self, abstract_syntax: str) -> Connection | None:
        idle = self._idle.get(abstract_syntax, [])
        while idle:
            connection = idle.pop()
            if connection.over is None:
                return connection
            self._open.discard(connection)
        return None

    def _keep(self, abstract_syntax: str, connection: Connection) -> None:
        if connection.over is not None:
            self._open.discard(connection)
        elif connection in self._open:  # else it is being released
            self._idle.setdefault(abstract_syntax, []).append(connection)
