"""Associations of ours: who we are, and how a request for one is put together."""

import asyncio
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pacslite.dimse.messages import Message
from pacslite.dimse.service import Peer, Request, Service
from pacslite.net.connection import Connection
from pacslite.net.dispatch import Dispatcher
from pacslite.net.ended import AssociationEnded
from pacslite.net.requestor import associate, host_and_port
from pacslite.net.timeouts import Timeouts
from pacslite.upper_layer.items import (
    AsynchronousOperationsWindow,
    ExtendedNegotiation,
    PresentationContext,
    RoleSelection,
    UserIdentity,
    UserInformation,
)
from pacslite.upper_layer.pdu import AAssociateRQ

__all__ = ["Address", "Requestor", "RequestorOptions"]


@dataclass(frozen=True, slots=True)
class Address:
    """An application entity as we call it."""

    ae_title: str
    host: str
    port: int
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> "Address":
        """``AET@HOST:PORT``; an IPv6 address in brackets. ``ValueError`` says what is wrong."""
        ae_title, at, place = text.rpartition("@")
        host, colon, port = place.rpartition(":")
        if not at or not colon or not host or not ae_title:
            raise ValueError(f"{text!r} is not AET@HOST:PORT")
        if not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 65_536:
            raise ValueError(f"{port!r} is no port")
        allowed = ae_title.isascii() and ae_title.isprintable() and "\\" not in ae_title
        if len(ae_title) > 16 or not ae_title.strip() or not allowed:
            raise ValueError(f"{ae_title!r} is no AE title: 1 to 16 printable ASCII characters without the backslash")
        return cls(ae_title, host.strip("[]"), int(port))

    @contextmanager
    def named(self) -> Iterator[None]:
        """What ends an association with it says that it was with it."""
        try:
            yield
        except AssociationEnded as ended:
            ended.peer = str(self)
            raise

    def __str__(self) -> str:
        return f"{self.ae_title}@{host_and_port(self.host, self.port)}"


@dataclass(frozen=True, slots=True)
class RequestorOptions:
    """What every association we request has in common."""

    calling_ae_title: str = "PACSLITE"
    maximum_length: int = 131_072  # bytes of a P-DATA-TF PDU that we receive
    operations: int = 1  # C-STOREs outstanding at once, where the peer negotiates it; 1: not asked for
    implementation_class_uid: str = ""
    implementation_version_name: str = ""
    timeouts: Timeouts = field(default_factory=Timeouts)
    tls: Callable[[], ssl.SSLContext] | None = None  # asked only for peers that speak TLS
    user_identity: UserIdentity | None = None


class Requestor:
    """Opens associations. ``services`` perform what a peer asks of us on one: sub-operations of a C-GET, reports."""

    def __init__(self, options: RequestorOptions, buffer: memoryview | None = None) -> None:
        self.options = options
        self._buffer = buffer

    async def associate(
        self,
        address: Address,
        contexts: Sequence[PresentationContext],
        *,
        roles: Sequence[RoleSelection] = (),
        extended: Mapping[str, bytes] | None = None,
        services: Sequence[Service] = (),
        calling_ae_title: str | None = None,
    ) -> Connection:
        """Open an association (see ``net.requestor.associate`` for what it raises)."""
        options = self.options
        window = AsynchronousOperationsWindow(options.operations, 1) if options.operations != 1 else None
        request = AAssociateRQ(
            called_ae_title=address.ae_title,
            calling_ae_title=calling_ae_title or options.calling_ae_title,
            presentation_contexts=tuple(contexts),
            user_information=UserInformation(
                maximum_length=options.maximum_length,
                implementation_class_uid=options.implementation_class_uid,
                implementation_version_name=options.implementation_version_name,
                window=window,
                roles=tuple(roles),
                extended=tuple(ExtendedNegotiation(uid, information) for uid, information in (extended or {}).items()),
                user_identity=options.user_identity,
            ),
        )
        dispatcher = Dispatcher(services)
        peer = Peer(
            association_id=f"to-{address.ae_title}",
            calling_ae_title=address.ae_title,
            called_ae_title=options.calling_ae_title,
            host=address.host,
            allowed=frozenset(service.permission for service in services),
        )

        def begin(connection: Connection, message: Message) -> Request:
            return dispatcher.begin(connection, message, peer)

        connection = await associate(
            address.host,
            address.port,
            request,
            timeouts=options.timeouts,
            begin=begin,
            tls=options.tls() if address.tls and options.tls is not None else None,
            buffer=self._buffer,
        )
        connection.server = asyncio.create_task(_serve(connection, dispatcher))
        return connection


async def _serve(connection: Connection, dispatcher: Dispatcher) -> None:
    """Perform what the peer asks, until the association ends; a release that the peer asks for is answered."""
    while (request := await connection.next_request()) is not None:
        await dispatcher.perform(connection, request)
    connection.respond_release()
