"""``pacslite find``: query a peer; exit 1 if it did not end with 0000."""

import sys

from pacslite.cli.options import Json, command, run
from pacslite.cli.output import counted, print_json, print_line
from pacslite.cli.peers import (
    Calling,
    KeyArguments,
    LevelOption,
    ModelOption,
    PeerArgument,
    Tls,
    client_of,
    keys_of,
    model_of,
)
from pacslite.scu.client import Client, Level, Model, OperationFailed
from pacslite.scu.identifier import Answer

__all__ = ["app"]

app = command()


@app.command()
def find(
    peer: PeerArgument,
    keys: KeyArguments,
    level: LevelOption = None,
    model: ModelOption = None,
    calling: Calling = "PACSLITE",
    tls: Tls = False,
    json_: Json = False,
) -> None:
    """Query a peer (C-FIND): keys with a value are matched, all are returned."""
    wanted = keys_of(keys)
    level = level or "study"
    run(_find(client_of(peer, calling, tls=tls), wanted, level, model_of(level, model), json_))


async def _find(client: Client, keys: dict[str, str], level: Level, model: Model, json_: bool) -> None:
    number = 0
    failure: OperationFailed | None = None
    async with client:
        try:
            async for answer in client.find(keys, level=level, model=model):
                number += 1
                if json_:
                    print_json(_trimmed(answer))
                else:
                    print_line(f"# {number}")
                    _print_answer(_trimmed(answer), "")
                sys.stdout.flush()  # a reader that has enough ("head") is noticed at once, and the peer told
        except OperationFailed as error:
            failure = error
    if not json_ and (number or failure is None):
        print_line(counted(number, "match", "matches"))
    if failure is not None:
        sys.stdout.flush()  # the answers first
        raise failure


def _trimmed(answer: Answer) -> Answer:
    """Without the padding of values (PS3.5 §6.2)."""
    return {
        keyword: value.strip(" \0") if isinstance(value, str) else [_trimmed(item) for item in value]
        for keyword, value in answer.items()
    }


def _print_answer(answer: Answer, indent: str) -> None:
    for keyword, value in answer.items():
        if isinstance(value, str):
            print_line(f"{indent}{keyword:<32} {value}".rstrip())
        else:
            print_line(f"{indent}{keyword}")
            for item in value:
                _print_answer(item, indent + "    ")
