"""``pacslite db current|upgrade``: the schema of the index. ``serve`` upgrades an embedded index by itself."""

import typer

from pacslite.archive.index.upgrade import current_revision, upgrade_index
from pacslite.archive.lock import DataDirLock
from pacslite.archive.reindex import refuse_incomplete
from pacslite.archive.revision import HEAD
from pacslite.cli.local import archived_settings_for, naming, settings_for
from pacslite.cli.options import Config, DataDir, group
from pacslite.cli.output import print_line

__all__ = ["app"]

app = group("Show or upgrade the schema of the index.")


@app.command()
def current(data_dir: DataDir = None, config: Config = None) -> None:
    """Print the revision of the index and the one this version needs; exit 1 if they differ."""
    index = settings_for(config, data_dir).server.data_dir / "index.sqlite"
    with naming(index):
        revision = current_revision(index)
    print_line(f"{index}: {revision or 'none'}, needed: {HEAD}")
    raise typer.Exit(0 if revision == HEAD else 1)


@app.command()
def upgrade(data_dir: DataDir = None, config: Config = None) -> None:
    """Bring the index to the revision this version needs; the server must be stopped."""
    folder = archived_settings_for(config, data_dir).server.data_dir
    lock = DataDirLock(folder)
    try:
        with naming(folder / "index.sqlite"):
            refuse_incomplete(folder)  # an index made here, beside instances, would be taken for a complete one
            before = upgrade_index(folder / "index.sqlite")
    finally:
        lock.release()
    print_line(f"{folder / 'index.sqlite'}: {before or 'none'}, now: {HEAD}")
