"""Follow a C-MOVE or C-GET to its end: the bar, the last line, the exit code."""

from collections.abc import AsyncIterator

from pacslite.cli.output import complain, print_json, print_line, progress_bar
from pacslite.dimse.status import Status
from pacslite.scu.client import Progress

__all__ = ["follow"]


async def follow(responses: AsyncIterator[Progress], title: str, json_: bool) -> int:
    """0 if the final status is 0000, else 1 with the reason and the instances that failed."""
    last: Progress | None = None
    with progress_bar(title) as bar:
        async for last in responses:
            done = last.completed + last.failed + last.warning
            bar.set(done, done + last.remaining)
    if last is None:
        complain(f"{title}: no response")
        return 1
    if json_:
        print_json(last._asdict() | {"status": f"{last.status:04X}"})
    else:
        print_line(f"{last.completed} completed, {last.failed} failed, {last.warning} with a warning")
        if last.status != Status.SUCCESS:
            complain(f"{title}: status {last.status:04X} {last.comment}".rstrip())
        for uid in last.failed_sop_instance_uids:
            complain(f"failed: {uid}")
    return 0 if last.status == Status.SUCCESS else 1
