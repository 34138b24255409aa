"""``pacslite check``: do index and files agree? Exit 0 if they do, or all was mended."""

from typing import Annotated

import typer

from pacslite.archive.archive import Archive
from pacslite.archive.check import CheckAborted, CheckReport
from pacslite.cli.local import archive_of, archived_settings_for
from pacslite.cli.options import Config, DataDir, Json, command, run
from pacslite.cli.output import counted, print_json, print_line, progress_bar, size

__all__ = ["app"]

app = command()

_SET_ASIDE = frozenset({"damaged", "foreign", "surplus"})


@app.command()
def check(
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what differs; files are set aside, not deleted.")
    ] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read every file and compare its digest.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Compare index and files in both directions; exit 1 if something differs and is not mended."""
    archive = archive_of(archived_settings_for(config, data_dir))
    try:
        report = run(_check(archive, deep, repair))
    except CheckAborted as aborted:
        if not json_:
            _print_differences(aborted.report)
        raise
    if json_:
        print_json(report.as_json())
    else:
        _print_differences(report)
        if any(difference.kind == "index" for difference in report.differences):
            print_line("the index is damaged, and nothing else was looked at: stop the server, run pacslite reindex")
        read = f", {size(report.bytes)} read" if deep else ""
        print_line(
            f"{counted(report.instances, 'instance')} in the index, {counted(report.files, 'file')}{read}: "
            f"{counted(len(report.differences), 'difference')}"
        )
        if any(difference.mended and difference.kind in _SET_ASIDE for difference in report.differences):
            print_line(f"what was set aside is in {archive.options.data_dir / 'damaged'}")
    raise typer.Exit(0 if report.clean else 1)


def _print_differences(report: CheckReport) -> None:
    for difference in report.differences:
        mended = " (mended)" if difference.mended else ""
        print_line(f"{difference.kind}: {difference.name}: {difference.detail}{mended}")


async def _check(archive: Archive, deep: bool, repair: bool) -> CheckReport:
    async with archive:
        with progress_bar("check") as bar:
            return await archive.check(deep=deep, repair=repair, progress=bar.set)
