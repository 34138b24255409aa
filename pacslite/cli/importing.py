"""``pacslite import``: files and folders into the archive, without a network; exit 1 if any failed."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import typer
import xxhash

from pacslite.archive.archive import Archive
from pacslite.cli.files import AlteredFile, DicomFile, NotAnInstance, inspect, inspect_data_set
from pacslite.cli.local import archive_of, settings_for
from pacslite.cli.options import Config, DataDir, Json, command, run
from pacslite.cli.output import Bar, complain, print_json, print_line, progress_bar, size
from pacslite.cli.paths import Paths
from pacslite.dimse.status import Status
from pacslite.errors import DimseError
from pacslite.folders import files_below

__all__ = ["app"]

app = command()

_AT_ONCE = 16  # files under way: they are synced and indexed in groups
_PIECE = 4 << 20


@app.command("import")
def import_(paths: Paths, data_dir: DataDir = None, config: Config = None, json_: Json = False) -> None:
    """Take files and folders into the archive; what is no DICOM instance is passed over."""
    settings = settings_for(config, data_dir)
    raise typer.Exit(run(_import(archive_of(settings), list(files_below(paths, hidden=False)), json_)))


class Importer:
    """Takes the files of one list, several at once."""

    def __init__(self, archive: Archive, bar: Bar) -> None:
        self.outcomes: Counter[str] = Counter()
        self.bytes = 0
        self._archive = archive
        self._bar = bar

    async def take_all(self, files: list[Path]) -> None:
        waiting = iter(files)
        await asyncio.gather(*(self._take_from(waiting) for _ in range(_AT_ONCE)))

    async def _take_from(self, waiting: Iterator[Path]) -> None:
        for path in waiting:
            try:
                self.outcomes[await self._take(path)] += 1
            except NotAnInstance as reason:
                self.outcomes["passed over"] += 1
                complain(f"{path}: passed over: {reason}")
            except (AlteredFile, DimseError, OSError) as error:
                self.outcomes["failed"] += 1
                complain(f"{path}: {getattr(error, 'strerror', None) or error}")
            self._bar.advance()

    async def _take(self, path: Path) -> str:
        """Store one file; ``stored``, ``duplicate`` or ``replaced``."""
        found = await asyncio.to_thread(inspect, path)
        try:
            return await self._store(path, found)
        except DimseError as error:
            if error.status != Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS:
                raise
        return await self._store(path, await asyncio.to_thread(inspect_data_set, path, found))  # its header is wrong

    async def _store(self, path: Path, found: DicomFile) -> str:
        import aiofiles

        flow = _Flow()
        digest = xxhash.xxh3_128() if found.digest is not None else None
        incoming = self._archive.begin(
            sop_class_uid=found.sop_class_uid,
            sop_instance_uid=found.sop_instance_uid,
            transfer_syntax_uid=found.transfer_syntax_uid,
            source_ae_title=found.source_ae_title,
            flow=flow,
        )
        try:
            async with aiofiles.open(path, "rb") as file:
                await file.seek(found.offset)
                left = found.end - found.offset
                while left and (piece := await file.read(min(_PIECE, left))):
                    left -= len(piece)
                    if digest is not None:
                        digest.update(piece)
                    incoming.write(memoryview(piece))
                    await flow.open.wait()
            if left:
                raise AlteredFile(f"ends {left} bytes too early: it has become shorter meanwhile")
            if digest is not None and digest.digest() != found.digest:
                raise AlteredFile("damaged, or altered since pacslite wrote it: the digest in its header differs")
            stored = await incoming.commit()
        finally:
            incoming.abort()
        self.bytes += stored.size if stored.outcome != "duplicate" else 0
        return stored.outcome


class _Flow:
    """Holds the reading of a file while the disk is behind."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()

    def pause_reading(self) -> None:
        self.open.clear()

    def resume_reading(self) -> None:
        self.open.set()


async def _import(archive: Archive, files: list[Path], json_: bool) -> int:
    start = time.perf_counter()
    async with archive:
        with progress_bar("import", len(files)) as bar:
            importer = Importer(archive, bar)
            await importer.take_all(files)
    outcomes = importer.outcomes
    if json_:
        print_json({key: outcomes[key] for key in ("stored", "replaced", "duplicate", "passed over", "failed")})
    else:
        print_line(
            f"{outcomes['stored']} stored, {outcomes['replaced']} replaced, {outcomes['duplicate']} there already, "
            f"{outcomes['passed over']} passed over, {outcomes['failed']} failed; "
            f"{size(importer.bytes)} in {time.perf_counter() - start:.2f} s"
        )
    return 1 if outcomes["failed"] or not sum(outcomes.values()) else 0
