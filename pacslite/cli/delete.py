"""``pacslite delete``: remove a study, a series or an instance from the archive."""

from typing import Annotated

import typer

from pacslite.archive.archive import Archive
from pacslite.archive.delete import Deleted
from pacslite.archive.keys import Level
from pacslite.cli.local import archive_of, archived_settings_for
from pacslite.cli.options import Config, DataDir, UsageError, command, run
from pacslite.cli.output import complain, counted, print_line, size

__all__ = ["app"]

app = command()


@app.command()
def delete(
    study: Annotated[str | None, typer.Option("--study", metavar="UID", help="Study Instance UID.")] = None,
    series: Annotated[str | None, typer.Option("--series", metavar="UID", help="Series Instance UID.")] = None,
    instance: Annotated[str | None, typer.Option("--instance", metavar="UID", help="SOP Instance UID.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Delete from the archive, index and files together; exit 1 if there was nothing."""
    wanted = [
        (level, uid)
        for level, uid in ((Level.STUDY, study), (Level.SERIES, series), (Level.IMAGE, instance))
        if uid is not None
    ]
    if len(wanted) != 1 or not wanted[0][1]:
        raise UsageError("delete: one of --study, --series and --instance, with its UID")
    deleted = run(_delete(archive_of(archived_settings_for(config, data_dir)), *wanted[0]))
    if not deleted.instances:
        complain(f"{wanted[0][1]} is not in the archive")
        raise typer.Exit(1)
    print_line(f"{counted(deleted.instances, 'instance')} of {deleted.series} series deleted, {size(deleted.bytes)}")


async def _delete(archive: Archive, level: Level, uid: str) -> Deleted:
    async with archive:
        return await archive.delete(level, uid)
