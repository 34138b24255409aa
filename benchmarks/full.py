"""Storing into an archive of a million instances against storing into an empty one, pacslite alone, in turns.

The index is generated and the files of its instances are not there: to store, none of them is opened. What is sent
belongs to new studies, whose UIDs come among the others'.
"""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.generate_index import generate_beside
from benchmarks.load import StoreLoad, store
from benchmarks.peers import PEERS, empty, running
from benchmarks.report import Figures, Journal, Target, table
from benchmarks.samples import sample

__all__ = ["run"]

INSTANCES = 1_000_000
_OF_A_STUDY = 201
_KEPT = 650  # bytes of a CT slice's attributes that are no columns
SAME_RATE = 0.9
_PREPARE_SECONDS = 20
STORES = (StoreLoad("CT", 1, 800), StoreLoad("CT", 4, 400), StoreLoad("SR", 4, 1500))


def run(journal: Journal, folder: Path, rounds: int, quick: bool, only: Sequence[str]) -> Iterator[str]:
    if only and "pacslite" not in only:
        return
    instances = INSTANCES // (10 if quick else 1)
    studies = instances // _OF_A_STUDY + 1
    archive = folder / "full"
    seconds = generate_beside(archive, studies, with_instances=studies, scattered=True, attributes=_KEPT)
    size = (archive / "index.sqlite").stat().st_size / 1e6
    _start_once(folder, archive)
    figures = [journal.figures("full", f"store {load.sample} x{load.associations}") for load in STORES]
    for number in range(rounds):
        for load, one in zip(STORES, figures, strict=True):
            fresh = folder / f"empty-{load.sample}-{load.associations}-{number}"
            fresh.mkdir()
            _start_once(folder, fresh)
            for name, data in _in_turn({"empty": fresh, "full": archive}, number):
                _store(load, folder, data, name, one)
            empty(fresh)
    empty(archive)
    sample.cache_clear()
    journal.save()
    yield _table(figures, f"{studies * _OF_A_STUDY:,} instances (index of {size:.0f} MB, made in {seconds:.0f} s)")


def _in_turn(archives: dict[str, Path], number: int) -> list[tuple[str, Path]]:
    return sorted(archives.items(), reverse=number % 2 == 0)


def _start_once(folder: Path, archive: Path) -> None:
    """What the first start of an archive makes, index and journal, is no part of what is measured."""
    with running(PEERS["pacslite"], folder, data=archive):
        end = time.monotonic() + _PREPARE_SECONDS
        while not (archive / "journal").exists() and time.monotonic() < end:
            time.sleep(0.05)


def _store(load: StoreLoad, folder: Path, archive: Path, name: str, figures: Figures) -> None:
    os.sync()
    with running(PEERS["pacslite"], folder, data=archive) as server:
        usage = server.usage()
        result = store(server, load, usage=usage)
        figures.add(
            name,
            rate=result.per_second,
            failed=result.failures,
            cpu=usage.cpu_seconds / result.instances * 1e6,
            start=server.started_in * 1e3,
        )


def _table(several: Sequence[Figures], subtitle: str) -> str:
    lines: list[list[str | float]] = []
    for load, figures in zip(STORES, several, strict=True):
        ratio = Target(SAME_RATE).judge(figures.ratio("full", "empty", "rate"))
        values = [figures.median(one, name) for name in ("rate", "cpu", "start") for one in ("empty", "full")]
        failed = figures.median("empty", "failed") + figures.median("full", "failed")
        lines.append([f"{load.sample} x{load.associations}", *values[:2], ratio, *values[2:], failed])
    columns = ["C-STORE", "empty/s", "full/s", "ratio", "empty us", "full us", "start ms", "start full", "failed"]
    return table(f"C-STORE into an archive of {subtitle}", columns, lines)
