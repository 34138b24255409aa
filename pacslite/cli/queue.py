"""``pacslite queue list|retry|drop``: what waits to be sent. Works beside a running server, which takes it over."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pacslite.cli.local import settings_for
from pacslite.cli.options import Config, DataDir, Json, UsageError, group
from pacslite.cli.output import complain, counted, print_json, print_line
from pacslite.outbox.admin import LARGEST_ID, entries, try_again
from pacslite.outbox.admin import drop as drop_entries
from pacslite.outbox.database import Database
from pacslite.outbox.queue import Queue
from pacslite.outbox.retry import Retry

__all__ = ["OUTBOX", "app"]

OUTBOX = "outbox.sqlite"  # in the data directory

app = group("See and change what waits to be sent.")
Numbers = Annotated[
    list[int] | None, typer.Argument(metavar="[N...]", min=1, max=LARGEST_ID, help="Numbers of entries, as listed.")
]
All = Annotated[bool, typer.Option("--all", help="All that wait or have failed.")]


@app.command("list")
def list_(
    finished: Annotated[bool, typer.Option("--finished", help="Also what was sent or dropped lately.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
    json_: Json = False,
) -> None:
    """List what waits and what has failed, oldest first."""
    count = 0
    with _queue(config, data_dir) as queue:
        for entry in entries(queue, finished=finished) if queue is not None else ():
            count += 1
            if json_:
                print_json(entry._asdict())
                continue
            due = datetime.fromtimestamp(entry.due, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            error = f" error: {entry.error}" if entry.error else ""
            print_line(
                f"{entry.id} {entry.state} {entry.kind} to {entry.destination}: {entry.subject}, "
                f"{counted(entry.attempts, 'try', 'tries')}, due {due}{error}"
            )
    if not json_:
        print_line(counted(count, "entry", "entries"))


@app.command()
def retry(numbers: Numbers = None, everything: All = False, data_dir: DataDir = None, config: Config = None) -> None:
    """Try entries again now, failed ones too; exit 1 if one of them cannot be."""
    _change(try_again, "to be tried now", numbers, everything, config, data_dir)


@app.command()
def drop(numbers: Numbers = None, everything: All = False, data_dir: DataDir = None, config: Config = None) -> None:
    """Give entries up; exit 1 if one of them does not wait."""
    _change(drop_entries, "dropped", numbers, everything, config, data_dir)


def _change(
    change: Callable[[Queue, Sequence[int] | None], int],
    done: str,
    numbers: list[int] | None,
    everything: bool,
    config: Path | None,
    data_dir: Path | None,
) -> None:
    if bool(numbers) == everything:
        raise UsageError("queue: either numbers of entries or --all")
    wanted = sorted(set(numbers or ()))
    with _queue(config, data_dir) as queue:
        count = change(queue, wanted or None) if queue is not None else 0
    print_line(f"{counted(count, 'entry', 'entries')} {done}")
    raise typer.Exit(0 if everything or count == len(wanted) else 1)


@contextmanager
def _queue(config: Path | None, data_dir: Path | None) -> Iterator[Queue | None]:
    """The queue of the data directory; None where nothing was ever enqueued."""
    settings = settings_for(config, data_dir)
    folder = settings.server.data_dir
    if not folder.is_dir():  # a name that is mistyped has no empty queue
        complain(f"{folder} holds no archive")
        raise typer.Exit(1)
    path = folder / OUTBOX
    if not path.exists():
        yield None
        return
    database = Database(path)
    try:
        outbox = settings.outbox
        yield Queue(database, Retry(outbox.retry_seconds, outbox.maximum_retry_seconds, outbox.expire_seconds))
    finally:
        database.close()
