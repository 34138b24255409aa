"""The requestor's side: connect, associate, and hand out the established connection (PS3.8 §7.1)."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from pacslite.dimse.messages import Message
from pacslite.dimse.service import Request
from pacslite.net.connection import Connection, receive_buffer
from pacslite.net.ended import AssociationEnded, ConnectFailed
from pacslite.net.timeouts import Timeouts
from pacslite.upper_layer.association import Association
from pacslite.upper_layer.pdu import AAssociateRQ

__all__ = ["associate"]


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
        ConnectFailed: Nobody listens there, TLS failed, or there was no answer in time.
        AssociationRejectedError: The peer refused.
    """
    loop = asyncio.get_running_loop()

    def protocol() -> Connection:
        return Connection(
            Association.requestor(request),
            buffer=buffer if buffer is not None else receive_buffer(),
            timeouts=timeouts,
            begin=begin,
            connected=lambda connection: connection.association.transport_connected(),
            ended=lambda _: None,
        )

    try:
        async with asyncio.timeout(timeouts.connect_seconds or None):
            _, connection = await loop.create_connection(
                protocol,
                host,
                port,
                ssl=tls,
                server_hostname=host if tls is not None and tls.check_hostname else ("" if tls is not None else None),
                ssl_handshake_timeout=timeouts.tls_handshake_seconds if tls is not None else None,
            )
    except TimeoutError as error:
        raise ConnectFailed(f"{host}:{port}: no connection within {timeouts.connect_seconds:g} s") from error
    except ssl.SSLError as error:
        raise ConnectFailed(f"{host}:{port}: TLS failed: {error.reason or error}") from error
    except OSError as error:
        raise ConnectFailed(f"{host}:{port}: {error.strerror or error}") from error
    assert connection.established is not None
    answer_timer = loop.call_later(timeouts.artim_seconds, connection.abort, "no answer to our A-ASSOCIATE-RQ")
    try:
        await asyncio.shield(connection.established)
    except AssociationEnded as ended:
        connection.drop()
        if isinstance(ended, ConnectFailed):
            raise
        raise ConnectFailed(str(ended)) from ended
    except asyncio.CancelledError:
        connection.drop()
        with contextlib.suppress(AssociationEnded):
            await connection.wait_closed()
        raise
    finally:
        answer_timer.cancel()
    return connection
