"""Listening sockets, the connections that came through them, and their orderly end."""

import asyncio
import contextlib
import errno
import itertools
import logging
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from pacslite.budget import HostBudget
from pacslite.net.acceptor import Acceptor
from pacslite.net.connection import Connection
from pacslite.net.fault import log_fault
from pacslite.net.flood import FloodLog
from pacslite.net.limits import Limits
from pacslite.net.reading import receive_buffer
from pacslite.net.sending import Sending
from pacslite.net.sockets import listening_sockets
from pacslite.net.timeouts import Timeouts
from pacslite.net.tls import telling_of_failure, tls_problem
from pacslite.upper_layer.association import Association

__all__ = ["Endpoint", "Listener"]

log = logging.getLogger("pacslite.net")

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_SECONDS = 1.0  # before accepting is tried again when descriptors or memory have run out
_DISMISSAL_SECONDS = 1.0  # for an A-ABORT to arrive, when we stop


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen; ``tls`` gives the context of the next handshake."""

    host: str  # an address; empty: all of them, IPv4 and IPv6
    port: int
    tls: Callable[[], ssl.SSLContext] | None = None


class Listener:
    """Accepts connections on some endpoints.

    Args:
        acceptor: Serves each of them.
        limits: Counts them.
        budget: Bytes of unfinished PDUs that connections may hold, all together and those of one host.
        sending: What peers have been sent and do not take, all together.
        maximum_length: Announced and enforced for P-DATA-TF PDUs, bytes.
        queue_bytes: Data sets, in memory, that wait for their turn on one association, at which we stop reading.
    """

    def __init__(
        self,
        acceptor: Acceptor,
        timeouts: Timeouts,
        limits: Limits,
        budget: HostBudget,
        sending: Sending,
        *,
        maximum_length: int,
        queue_bytes: int = 4_194_304,
    ) -> None:
        # With ``connected`` and ``closed`` below, what makes us the connections' AssociationUser
        self.requested = acceptor.requested
        self.answered = acceptor.answered
        self.begin = acceptor.begin
        self.arrived = acceptor.arrived
        self.release_requested = acceptor.release_requested
        self.ended = acceptor.ended
        self._acceptor = acceptor
        self._timeouts = timeouts
        self._limits = limits
        self._budget = budget
        self._sending = sending
        self._maximum_length = maximum_length
        self._queue_bytes = queue_bytes
        self._buffer = receive_buffer()
        self._servers: list[asyncio.Server] = []
        self._doors: list[socket.socket] = []  # of endpoints with TLS
        self._handshakes: set[asyncio.Task[None]] = set()
        self._connections: set[Connection] = set()
        self._emptied = asyncio.Event()
        self._ids = itertools.count(1)
        self._refused = FloodLog(log, time.monotonic, lines=1, lines_per_second=1.0)
        self._no_handshake = FloodLog(log, time.monotonic, lines=100)  # scanners come by; who sets TLS up needs each

    async def start(self, endpoints: list[Endpoint]) -> list[int]:
        """Listen; gives the ports (of an endpoint with port 0 the one that the system chose).

        Raises:
            OSError: An address is in use or not ours.
        """
        loop = asyncio.get_running_loop()
        opened: list[list[socket.socket]] = []
        try:
            opened.extend(listening_sockets(endpoint.host, endpoint.port, self._timeouts) for endpoint in endpoints)
        except OSError:
            for one in itertools.chain(*opened):
                one.close()
            raise
        for endpoint, sockets in zip(endpoints, opened, strict=True):
            for one in sockets:
                if endpoint.tls is None:
                    self._servers.append(await loop.create_server(self._protocol, sock=one, backlog=4_096))
                else:
                    self._doors.append(one)
                    loop.add_reader(one.fileno(), self._accept, one, endpoint.tls)
        return [int(sockets[0].getsockname()[1]) for sockets in opened]

    async def stop(self, drain_seconds: float) -> None:
        """Accept no more; let running operations end within ``drain_seconds``, then abort them."""
        self._acceptor.draining = True
        for server in self._servers:
            server.close()
        for door in self._doors:
            asyncio.get_running_loop().remove_reader(door.fileno())
            door.close()
        self._servers.clear()
        self._doors.clear()
        handshakes = [*self._handshakes]
        for handshake in handshakes:
            handshake.cancel()
        for connection in list(self._connections):
            if not connection.active:
                self._dismiss(connection)
        await self._wait(drain_seconds)
        for connection in list(self._connections):
            self._dismiss(connection)
        await self._wait(2 * _DISMISSAL_SECONDS)
        for connection in list(self._connections):
            connection.drop()
            if connection.server is not None:
                connection.server.cancel()
        await self._wait(_DISMISSAL_SECONDS)
        if handshakes:
            await asyncio.wait(handshakes, timeout=_DISMISSAL_SECONDS)

    @property
    def connections(self) -> int:
        return len(self._connections)

    # what a connection tells

    def connected(self, connection: Connection) -> None:
        """Count it, if its handshake was not counted."""
        if connection.certificate_names is None:
            why = "the server is stopping" if self._acceptor.draining else self._limits.connect(connection.host)
            if why:
                self._refused.warning(connection.host, "connection refused", {"peer": connection.host, "why": why})
                connection.drop()
                return
        connection.association_id = f"{next(self._ids):04x}"
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """Forget it, when nothing is performed on it any more."""
        if connection in self._connections:
            server = connection.server
            if server is None or server.done():
                self._gone(connection)
            else:
                server.add_done_callback(lambda _: self._gone(connection))

    # private: with TLS

    def _accept(self, door: socket.socket, tls: Callable[[], ssl.SSLContext]) -> None:
        """Take one of those that have come, and shake hands in a task of its own: one that freezes holds nobody up.

        One in a turn of the loop: a handshake costs a millisecond or two, and of hundreds that come at once all would
        have theirs in the same turn.
        """
        try:
            one, address = door.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno in _EXHAUSTED:
                log.error("cannot accept", extra={"why": error.strerror})
                loop = asyncio.get_running_loop()
                loop.remove_reader(door.fileno())
                loop.call_later(_PAUSE_SECONDS, self._reopen, door, tls)
            return  # else that connection is gone already
        host = str(address[0])
        why = self._limits.handshake(host) or self._limits.connect(host)
        if why:
            one.close()
            self._refused.warning(host, "connection refused", {"peer": host, "why": why})
            return
        one.setblocking(False)
        self._begin_handshake(one, host, tls)

    def _reopen(self, door: socket.socket, tls: Callable[[], ssl.SSLContext]) -> None:
        if door.fileno() >= 0:
            asyncio.get_running_loop().add_reader(door.fileno(), self._accept, door, tls)

    def _begin_handshake(self, one: socket.socket, host: str, tls: Callable[[], ssl.SSLContext]) -> None:
        connection = self._protocol()
        task = asyncio.get_running_loop().create_task(self._shake_hands(connection, one, host, tls))

        def ended(_: asyncio.Task[None]) -> None:
            self._handshakes.discard(task)
            if not connection.association_id:  # not ``connected``, so that no ``closed`` will give its place back
                self._limits.disconnect(host)
                one.close()

        self._handshakes.add(task)
        task.add_done_callback(ended)

    async def _shake_hands(
        self, connection: Connection, one: socket.socket, host: str, tls: Callable[[], ssl.SSLContext]
    ) -> None:
        seconds = self._timeouts.tls_handshake_seconds
        try:
            with telling_of_failure(one):
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: connection,
                    one,
                    ssl=tls(),
                    ssl_handshake_timeout=seconds,
                    ssl_shutdown_timeout=seconds,
                )
        except OSError as error:
            self._no_handshake.warning(host, "TLS handshake failed", {"peer": host, "why": tls_problem(error)})
        except Exception as error:
            log_fault(log, "TLS handshake failed", {"peer": host}, error)

    # private

    def _protocol(self) -> Connection:
        return Connection(
            Association.acceptor(maximum_length=self._maximum_length),
            self,
            buffer=self._buffer,
            timeouts=self._timeouts,
            budget=self._budget,
            sending=self._sending,
            queue_bytes=self._queue_bytes,
        )

    def _dismiss(self, connection: Connection) -> None:
        connection.abort("the server is stopping", close_within=_DISMISSAL_SECONDS)

    async def _wait(self, seconds: float) -> None:
        if self._connections:
            self._emptied.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._emptied.wait()

    def _gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._limits.disconnect(connection.host)
        if not self._connections:
            self._emptied.set()
