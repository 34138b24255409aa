"""``pacslite reindex``: the index anew, from the files alone; exit 1 if some files were refused."""

import typer

from pacslite.archive.reindex import reindex as rebuild
from pacslite.cli.local import archived_settings_for
from pacslite.cli.options import Config, DataDir, Json, command
from pacslite.cli.output import complain, counted, print_json, print_line, progress_bar
from pacslite.options import storage_options

__all__ = ["app"]

app = command()


@app.command()
def reindex(data_dir: DataDir = None, config: Config = None, json_: Json = False) -> None:
    """Build the index from the files; a run that was interrupted goes on where it stopped."""
    options = storage_options(archived_settings_for(config, data_dir))
    with progress_bar("reindex") as bar:
        done = rebuild(options, bar.set)
    if json_:
        print_json(done.as_json())
    else:
        for name, reason in done.refused:
            complain(f"{name}: refused: {reason}")
        earlier = f", {done.resumed} by an earlier run" if done.resumed else ""
        print_line(f"{counted(done.files, 'file')}, {done.indexed} indexed{earlier}, {len(done.refused)} refused")
    raise typer.Exit(1 if done.refused else 0)
