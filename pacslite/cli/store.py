"""``pacslite store``: send files and folders; exit 1 if any was not stored."""

import time
from pathlib import Path

import typer

from pacslite.cli.options import Json, command, run
from pacslite.cli.output import complain, print_json, print_line, progress_bar, size
from pacslite.cli.paths import Paths
from pacslite.cli.peers import Calling, PeerArgument, Tls, client_of
from pacslite.dimse.status import is_done
from pacslite.folders import files_below
from pacslite.scu.client import Client, StoreResult
from pacslite.scu.requestor import Address

__all__ = ["app"]

app = command()


@app.command()
def store(
    peer: PeerArgument, paths: Paths, calling: Calling = "PACSLITE", tls: Tls = False, json_: Json = False
) -> None:
    """Send files to a peer (C-STORE)."""
    files = list(files_below(paths, hidden=False))
    if not files:
        complain("nothing to send")
        raise typer.Exit(1)
    raise typer.Exit(run(_store(client_of(peer, calling, tls=tls), peer, files, json_)))


async def _store(client: Client, peer: Address, files: list[Path], json_: bool) -> int:
    stored = stored_bytes = 0
    start = time.perf_counter()
    async with client:
        with progress_bar(f"to {peer}", len(files)) as bar:
            async for result in client.store(files):
                bar.advance()
                good = _is_stored(result)
                stored += good
                stored_bytes += result.size if good else 0
                if json_:
                    print_json(
                        {"path": str(result.path), "stored": good, "status": _status(result), "comment": result.comment}
                    )
                elif not good or result.status:
                    complain(": ".join(filter(None, (str(result.path), _status(result) or "not sent", result.comment))))
    seconds = time.perf_counter() - start
    if not json_:
        print_line(f"{stored} of {len(files)} files stored, {size(stored_bytes)} in {seconds:.2f} s")
    return 0 if stored == len(files) else 1


def _is_stored(result: StoreResult) -> bool:
    return result.status is not None and is_done(result.status)


def _status(result: StoreResult) -> str | None:
    return None if result.status is None else f"{result.status:04X}"
