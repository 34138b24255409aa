"""``pacslite move``: have a peer send to a third; exit 0 if everything arrived."""

import typer

from pacslite.cli.options import Json, command, run
from pacslite.cli.peers import (
    AETitleOption,
    Calling,
    KeyArguments,
    LevelOption,
    ModelOption,
    PeerArgument,
    Tls,
    client_of,
    keys_of,
    level_of,
    model_of,
)
from pacslite.cli.retrieval import follow
from pacslite.scu.client import Client, Level, Model
from pacslite.scu.requestor import Address

__all__ = ["app"]

app = command()


@app.command()
def move(
    peer: PeerArgument,
    keys: KeyArguments,
    to: AETitleOption,
    level: LevelOption = None,
    model: ModelOption = None,
    calling: Calling = "PACSLITE",
    tls: Tls = False,
    json_: Json = False,
) -> None:
    """Have a peer send what the keys name to another AE (C-MOVE)."""
    wanted = keys_of(keys)
    level = level_of(wanted, level)
    raise typer.Exit(
        run(_move(client_of(peer, calling, tls=tls), peer, wanted, to, level, model_of(level, model), json_))
    )


async def _move(
    client: Client, peer: Address, keys: dict[str, str], to: str, level: Level, model: Model, json_: bool
) -> int:
    async with client:
        return await follow(client.move(keys, to=to, level=level, model=model), f"{peer} to {to}", json_)
