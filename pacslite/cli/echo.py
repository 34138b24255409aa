"""``pacslite echo``: exit 0 if every C-ECHO was answered 0000, else 1."""

import ipaddress
import time
from collections.abc import Mapping
from typing import Annotated, TypeAlias

import typer

from pacslite.cli.options import Config, UsageError, command, run
from pacslite.cli.output import complain, print_line
from pacslite.cli.peers import Calling, OptionalPeer, Tls, client_of
from pacslite.dimse.status import Status
from pacslite.net.ended import AssociationRejectedError
from pacslite.scu.client import Client
from pacslite.scu.requestor import Address

__all__ = ["app"]

app = command()

Codes: TypeAlias = tuple[int, int, int]  # Result, Source and Reason of an A-ASSOCIATE-RJ (PS3.8 §9.3.4)

_CALLING_AE_TITLE_NOT_RECOGNIZED: Codes = (1, 1, 3)
_NO_USER_IDENTITY: Codes = (1, 2, 1)  # PS3.7 §D.3.3.7.3


@app.command()
def echo(
    peer: OptionalPeer = None,
    calling: Calling = "PACSLITE",
    repeat: Annotated[int, typer.Option("--repeat", metavar="N", min=1, help="C-ECHOs on the association.")] = 1,
    itself: Annotated[bool, typer.Option("--self", help="Ask the server that the configuration describes.")] = False,
    tls: Tls = False,
    config: Config = None,
) -> None:
    """Verify that a peer answers (C-ECHO)."""
    if itself == (peer is not None):
        raise UsageError("echo: either AET@HOST:PORT or --self")
    refusals: Mapping[Codes, str] = {}
    if peer is None:
        peer, refusals = _itself(config)
    # its own certificate need not be made out to 127.0.0.1
    client = client_of(peer, calling, tls=tls, config=config, check_names=not itself)
    try:
        raise typer.Exit(run(_echo(client, peer, repeat)))
    except AssociationRejectedError as error:
        why = refusals.get((error.result, error.source, error.reason))
        if why is None:
            raise
        print_line(f"{peer}: answers, rejected as configured: {why}")


async def _echo(client: Client, peer: Address, repeat: int) -> int:
    good = 0
    async with client:
        for number in range(1, repeat + 1):
            start = time.perf_counter()
            status = await client.echo()
            milliseconds = 1000 * (time.perf_counter() - start)
            if status == Status.SUCCESS:
                good += 1
                print_line(f"{peer}: echo {number} answered in {milliseconds:.1f} ms")
            else:
                complain(f"{peer}: echo {number} answered with status {status:04X}")
    return 0 if good == repeat else 1


def _itself(config: Config) -> tuple[Address, Mapping[Codes, str]]:
    """The server with this configuration, seen from its own machine: what a container's health check asks.

    With it the rejections that the same configuration wants of us: a server that gives one is alive.
    """
    from pacslite.config import load

    settings = load(config).settings
    server, access = settings.server, settings.access
    everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    address = Address(server.ae_title, everywhere.get(server.host, server.host), server.port, server.tls)
    refusals = {}
    if access.unknown_peers == "nobody" or (access.unknown_peers == "loopback" and not _is_loopback(address.host)):
        refusals[_CALLING_AE_TITLE_NOT_RECOGNIZED] = f'access.unknown_peers is "{access.unknown_peers}"'
    if access.user_identity == "required":
        refusals[_NO_USER_IDENTITY] = 'access.user_identity is "required"'
    return address, refusals


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"
