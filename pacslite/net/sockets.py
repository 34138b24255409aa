"""Sockets: on which addresses we listen, and how connections notice a peer that has vanished."""

import errno
import os
import socket

from pacslite.net.timeouts import Timeouts

__all__ = ["Acknowledgements", "listening_sockets", "tune"]

_BACKLOG = 4_096  # the system may allow less
_PROBES = 4  # of a peer that does not answer
_NO_SUCH_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def listening_sockets(host: str, port: int, timeouts: Timeouts) -> list[socket.socket]:
    """Listen on ``host``; empty is all addresses, IPv4 and IPv6, on one port where there are both.

    A port can be taken again at once after a restart, connections in TIME_WAIT notwithstanding, but never while
    another process listens on it. What is accepted is tuned as the socket that listens is (see ``tune``).

    Raises:
        OSError: An address is in use, or not ours, or a name that nobody knows.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise OSError(error.errno, f"{host}: {error.strerror or error}") from error
    addresses = dict.fromkeys((family, address) for family, _, _, _, address in found)
    sockets: list[socket.socket] = []
    refused: OSError | None = None
    try:
        for family, address in addresses:
            chosen = (address[0], port, *address[2:])
            try:
                sockets.append(_listen(family, chosen))
                tune(sockets[-1], timeouts)
            except OSError as error:
                if error.errno not in _NO_SUCH_FAMILY:
                    raise
                refused = error  # IPv6 switched off, most often: the other family will do
                continue
            port = port or sockets[-1].getsockname()[1]
        if refused is not None and not sockets:
            raise refused
    except BaseException:
        for one in sockets:
            one.close()
        raise
    return sockets


def tune(connection: socket.socket, timeouts: Timeouts) -> None:
    """Send at once, and let the system notice a peer that has vanished, idle or in mid transfer.

    TCP_USER_TIMEOUT is for bytes that nobody acknowledges, but Linux also ends keep-alive by it, whatever number of
    probes was set: sooner if it is shorter, later if it is longer. So it is as long as they take, and left out where
    ``write_seconds`` is longer: it would end a peer that does not read, too.
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    unacknowledged = timeouts.write_seconds
    if timeouts.keepalive_seconds:
        idle = min(max(round(timeouts.keepalive_seconds), 1), 32_767)
        interval = max(min(idle, 300) // _PROBES, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
        probed = idle + _PROBES * interval
        unacknowledged = probed if 0 < unacknowledged <= probed else 0
    if unacknowledged:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(int(unacknowledged * 1000), 1))


class Acknowledgements:
    """Lets the system acknowledge at once what a connection has received; it forgets that soon.

    A peer that writes PDU headers and bodies apart without TCP_NODELAY (DCMTK) sends the body when the header is
    acknowledged: a delayed acknowledgement would cost it 40 ms a message. The socket that uvloop lends makes another
    for every option that is set; ours is made once, on the same descriptor, and must be closed before that is.
    """

    __slots__ = ("_lent", "_socket")

    def __init__(self, lent: socket.socket) -> None:
        self._lent = lent
        self._socket: socket.socket | None = None

    def hasten(self) -> None:
        """Now."""
        if self._socket is None:
            lent = self._lent
            self._socket = socket.socket(lent.family, lent.type, lent.proto, fileno=lent.fileno())
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def close(self) -> None:
        """Leave the descriptor to its owner."""
        if self._socket is not None:
            self._socket.detach()
            self._socket = None


def _listen(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        where = f"{address[0]} port {address[1]}"
        raise OSError(error.errno, f"{where}: {os.strerror(error.errno or 0)}") from error
    return listener
