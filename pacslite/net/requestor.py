"""The requestor's side: connect, associate, and hand out the established connection (PS3.8 §7.1)."""

import asyncio
import contextlib
import errno
import math
import os
import socket
import ssl
from collections.abc import Callable
from functools import partial

from pacslite.budget import HostBudget
from pacslite.dimse.messages import Message
from pacslite.dimse.service import Request
from pacslite.net.connection import Connection
from pacslite.net.ended import AssociationEnded, AssociationRejectedError, ConnectFailed, PeerNotReady
from pacslite.net.reading import receive_buffer
from pacslite.net.sending import Sending
from pacslite.net.timeouts import Timeouts
from pacslite.net.timers import Timer
from pacslite.net.tls import telling_of_failure, tls_problem
from pacslite.upper_layer.association import Association
from pacslite.upper_layer.pdu import AAssociateRQ

__all__ = ["associate", "host_and_port"]

_HELD_BYTES = 16_777_216  # of unfinished PDUs of one peer that we have called ourselves


async def associate(
    host: str,
    port: int,
    request: AAssociateRQ,
    *,
    timeouts: Timeouts,
    begin: Callable[[Connection, Message], Request],
    tls: ssl.SSLContext | None = None,
    buffer: memoryview | None = None,
) -> Connection:
    """Open an association.

    Args:
        begin: Makes the request of a message that the peer sends (C-STORE sub-operations of our C-GET, event reports).
        buffer: A shared receive buffer, if the caller keeps one for its associations.

    Raises:
        PeerNotReady: The host refuses the connection, or ends it without an answer.
        ConnectFailed: It cannot be reached, TLS failed, or there was no answer in time.
        AssociationRejectedError: The peer refused.
    """
    loop = asyncio.get_running_loop()

    def protocol() -> Connection:
        return Connection(
            Association.requestor(request),
            _Asked(begin),
            buffer=buffer if buffer is not None else receive_buffer(),
            timeouts=timeouts,
            budget=HostBudget(_HELD_BYTES),
            sending=Sending(loop, _HELD_BYTES),
        )

    where = host_and_port(host, port)
    transport = await _connect(host, port, timeouts.connect_seconds)
    try:
        with telling_of_failure(transport):
            _, connection = await loop.create_connection(
                protocol,
                sock=transport,
                ssl=tls,
                server_hostname=host if tls is not None and tls.check_hostname else ("" if tls is not None else None),
                ssl_handshake_timeout=timeouts.tls_handshake_seconds if tls is not None else None,
                ssl_shutdown_timeout=timeouts.tls_handshake_seconds if tls is not None else None,
            )
    except OSError as error:
        transport.close()
        if tls is None:
            raise _failed(error, where) from error
        raise ConnectFailed(f"TLS: {tls_problem(error)}", where) from error
    except BaseException:
        transport.close()
        raise
    await _await_answer(connection, where, timeouts.artim_seconds)
    return connection


def host_and_port(host: str, port: int) -> str:
    """As one writes them: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Asked:
    """Who has asked for an association, and takes what its peer asks with ``Connection.next_request``."""

    def __init__(self, begin: Callable[[Connection, Message], Request]) -> None:
        self.begin = begin

    def connected(self, connection: Connection) -> None:
        connection.association.transport_connected()

    def requested(self, connection: Connection, request: AAssociateRQ) -> None:
        raise AssertionError("a requestor is asked for no association")

    def answered(self, connection: Connection, message: Message) -> bool:
        return False

    def arrived(self, connection: Connection, request: Request) -> None:
        connection.queue(request)

    def release_requested(self, connection: Connection) -> None:
        """``next_request`` says so."""

    def ended(self, connection: Connection) -> None:
        """Whoever waits is told."""

    def closed(self, connection: Connection) -> None:
        """``wait_closed`` says so."""


async def _connect(host: str, port: int, seconds: float) -> socket.socket:
    """Connect to the first address of ``host`` that answers, all tries together within ``seconds``.

    Each has its share of the time that is left: an address that swallows everything (IPv6 that goes nowhere, most
    often) leaves some for the next.
    """
    loop = asyncio.get_running_loop()
    where = host_and_port(host, port)
    ends = loop.time() + (seconds or math.inf)
    failure = ConnectFailed("no address", where)
    try:
        async with asyncio.timeout(seconds or None):
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise ConnectFailed(f"not resolved within {seconds:g} s", where) from error
    except OSError as error:  # the name is not known
        raise ConnectFailed(error.strerror or str(error), where) from error
    except UnicodeError as error:  # a label that is empty or too long
        raise ConnectFailed("no host name", where) from error
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        share = (ends - loop.time()) / (len(addresses) - number)
        try:
            one = socket.socket(family, kind, protocol)
        except OSError as error:  # a family that this machine has not, or no descriptor left
            failure = _failed(error, where)
            continue
        one.setblocking(False)
        try:
            async with asyncio.timeout(share if seconds else None):
                await loop.sock_connect(one, address)
        except OSError as error:
            one.close()
            timed_out = ConnectFailed(f"no connection within {seconds:g} s", where)
            failure = _failed(error, where) if error.errno else timed_out
        except BaseException:
            one.close()
            raise
        else:
            return one
    raise failure


async def _await_answer(connection: Connection, where: str, seconds: float) -> None:
    timer = Timer(asyncio.get_running_loop(), partial(connection.abort, "no answer to our A-ASSOCIATE-RQ"))
    timer.start(seconds)
    try:
        await connection.wait_established()
    except AssociationEnded as ended:
        connection.drop()
        if isinstance(ended, AssociationRejectedError):
            raise AssociationRejectedError(ended.result, ended.source, ended.reason, where) from None
        is_closed = type(ended) is AssociationEnded  # and neither aborted nor silent for too long
        raise (PeerNotReady if is_closed else ConnectFailed)(str(ended), where) from ended
    except asyncio.CancelledError:
        connection.drop()
        with contextlib.suppress(AssociationEnded):
            await connection.wait_closed()
        raise
    finally:
        timer.close()


def _failed(error: OSError, where: str) -> ConnectFailed:
    not_ready = error.errno in {errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE}
    return (PeerNotReady if not_ready else ConnectFailed)(_reason(error), where)


def _reason(error: OSError) -> str:
    """The system's word for it: asyncio puts its own sentence and the address again into ``strerror``."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
