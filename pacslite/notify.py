"""Tells systemd how we are (sd_notify): a datagram to the socket that NOTIFY_SOCKET names, where there is one."""

import os
import socket
from contextlib import suppress

__all__ = ["notify"]


def notify(*states: str) -> None:
    """Send ``states``, as ``READY=1`` or ``STOPPING=1``. Nobody may be listening: that is no error."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        notifier.sendto("\n".join(states).encode(), address)
