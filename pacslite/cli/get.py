"""``pacslite get``: fetch from a peer into a folder; exit 0 if everything arrived."""

from pathlib import Path

import typer

from pacslite.cli.options import Json, command, run
from pacslite.cli.paths import Folder
from pacslite.cli.peers import (
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
def get(
    peer: PeerArgument,
    keys: KeyArguments,
    out: Folder,
    level: LevelOption = None,
    model: ModelOption = None,
    calling: Calling = "PACSLITE",
    tls: Tls = False,
    json_: Json = False,
) -> None:
    """Fetch what the keys name (C-GET)."""
    wanted = keys_of(keys)
    level = level_of(wanted, level)
    out.mkdir(parents=True, exist_ok=True)
    raise typer.Exit(
        run(_get(client_of(peer, calling, tls=tls), peer, wanted, out, level, model_of(level, model), json_))
    )


async def _get(
    client: Client, peer: Address, keys: dict[str, str], out: Path, level: Level, model: Model, json_: bool
) -> int:
    async with client:
        return await follow(client.get(keys, out, level=level, model=model), f"from {peer}", json_)
