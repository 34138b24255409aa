"""``pacslite echo``: exit 0 if every C-ECHO was answered 0000, else 1."""

import time
from typing import Annotated

import typer

from pacslite.cli.options import Config, UsageError, command, run
from pacslite.cli.output import complain, print_line
from pacslite.cli.peers import Calling, OptionalPeer, Tls, client_of
from pacslite.dimse.status import Status
from pacslite.scu.client import Client
from pacslite.scu.requestor import Address

__all__ = ["app"]

app = command()


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
    peer = peer or _own_address(config)
    # its own certificate need not be made out to 127.0.0.1
    client = client_of(peer, calling, tls=tls, config=config, check_names=not itself)
    raise typer.Exit(run(_echo(client, peer, repeat)))


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


def _own_address(config: Config) -> Address:
    """Of the server with this configuration, seen from its own machine: what a container's health check asks."""
    from pacslite.config import load

    server = load(config).settings.server
    everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    return Address(server.ae_title, everywhere.get(server.host, server.host), server.port, server.tls)
