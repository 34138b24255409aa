"""Listening sockets, the connections that came through them, and their orderly end."""

import asyncio
import itertools
import logging
import ssl
from dataclasses import dataclass

from pacslite.net.acceptor import Acceptor
from pacslite.net.connection import Connection, receive_buffer
from pacslite.net.timeouts import Timeouts
from pacslite.upper_layer.association import Association

__all__ = ["Endpoint", "Listener"]

log = logging.getLogger("pacslite.net")

_BACKLOG = 1_024


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen; ``tls`` is a context whose certificates may be loaded anew while it is in use."""

    host: str  # an address; empty: all of them, IPv4 and IPv6
    port: int
    tls: ssl.SSLContext | None = None


class Listener:
    """Accepts connections on some endpoints.

    Args:
        acceptor: Serves each of them.
        maximum_length: Announced and enforced for P-DATA-TF PDUs, bytes.
        maximum_connections: More are closed at once, associated or not; 0 = no limit.
    """

    def __init__(
        self, acceptor: Acceptor, timeouts: Timeouts, *, maximum_length: int, maximum_connections: int = 0
    ) -> None:
        self._acceptor = acceptor
        self._timeouts = timeouts
        self._maximum_length = maximum_length
        self._maximum_connections = maximum_connections
        self._buffer = receive_buffer()
        self._servers: list[asyncio.Server] = []
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._ids = itertools.count(1)
        self._draining = False

    async def start(self, endpoints: list[Endpoint]) -> list[int]:
        """Listen; gives the ports (of an endpoint with port 0 the one that the system chose).

        Raises:
            OSError: An address is in use or not ours.
        """
        loop = asyncio.get_running_loop()
        ports = []
        for endpoint in endpoints:
            server = await loop.create_server(
                self._protocol,
                endpoint.host or None,
                endpoint.port,
                ssl=endpoint.tls,
                ssl_handshake_timeout=self._timeouts.tls_handshake_seconds if endpoint.tls else None,
                backlog=_BACKLOG,
                reuse_address=True,
            )
            self._servers.append(server)
            ports.append(int(server.sockets[0].getsockname()[1]))
        return ports

    async def stop(self, drain_seconds: float) -> None:
        """Accept no more; let running operations end within ``drain_seconds``, then abort them."""
        self._draining = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            if not connection.active:
                connection.abort("the server is stopping")
        await self._wait(drain_seconds)
        for connection in list(self._connections):
            connection.abort("the server is stopping")
        await self._wait(1.0)
        for connection, task in list(self._connections.items()):
            connection.drop()
            task.cancel()
        await self._wait(1.0)
        self._servers.clear()

    @property
    def connections(self) -> int:
        return len(self._connections)

    # private

    def _protocol(self) -> Connection:
        return Connection(
            Association.acceptor(maximum_length=self._maximum_length),
            buffer=self._buffer,
            timeouts=self._timeouts,
            begin=self._acceptor.begin,
            connected=self._connected,
            ended=self._ended,
        )

    def _connected(self, connection: Connection) -> None:
        if self._draining or (self._maximum_connections and len(self._connections) >= self._maximum_connections):
            log.warning("connection refused", extra={"peer": connection.host, "why": "too many connections"})
            return connection.drop()
        task = asyncio.create_task(self._serve(connection, f"{next(self._ids):04x}"))
        self._connections[connection] = task
        return None

    async def _serve(self, connection: Connection, association_id: str) -> None:
        try:
            await self._acceptor.serve(connection, association_id, self._is_draining)
        except Exception:
            log.exception("association failed", extra={"assoc": association_id, "peer": connection.host})
            connection.abort("internal error")
        finally:
            self._connections.pop(connection, None)

    def _is_draining(self) -> bool:
        return self._draining

    def _ended(self, connection: Connection) -> None:
        """The coroutine notices by itself: whatever it waits for has ended."""

    async def _wait(self, seconds: float) -> None:
        if self._connections:
            await asyncio.wait(list(self._connections.values()), timeout=seconds)
