"""C-STORE: instances a second, latency, processor time and memory of each server, and the floor under them."""

import mmap
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.floor import floor
from benchmarks.load import StoreLoad, StoreResult, store
from benchmarks.peers import Peer, Server, available, running
from benchmarks.report import Figures, Journal, Target, percentile, table
from benchmarks.samples import sample

__all__ = ["run"]

SERVERS = ("pacslite", "Orthanc", "pacslite none", "storescp", "dcmqrscp")
LARGE = ("pacslite", "Orthanc")
LEAST = "least"  # of a server that stores whole objects in memory first: not for large ones
FLOOR = "floor"
PLACED_SECONDS = 5
_TOUCHED_BYTES = 2 << 30  # at most


@dataclass(frozen=True, slots=True)
class Row:
    """A load and what is asked: durable against Orthanc and the floor, durability = none against storescp."""

    load: StoreLoad
    orthanc: float
    storescp: float
    floor: float = 0.0
    memory_megabytes: float = 0.0
    servers: tuple[str, ...] = (*SERVERS, LEAST, FLOOR)

    @property
    def title(self) -> str:
        return f"{self.load.sample} x{self.load.associations}"


ROWS = (
    Row(StoreLoad("CT", 1, 400), 3.0, 1.0, 0.7),
    Row(StoreLoad("CT", 4, 200), 2.2, 0.9, 0.7),
    Row(StoreLoad("CT", 16, 60), 2.2, 1.0, 0.7),
    Row(StoreLoad("MR", 1, 600), 2.5, 1.0, 0.7),
    Row(StoreLoad("MR", 4, 300), 2.5, 0.9, 0.7),
    Row(StoreLoad("SR", 1, 1000), 2.2, 0.75),
    Row(StoreLoad("SR", 4, 600), 2.5, 0.6),
    Row(StoreLoad("64 MiB", 1, 8), 3.0, 1.0, memory_megabytes=100, servers=(*SERVERS, FLOOR)),
    Row(StoreLoad("64 MiB", 4, 3), 0.0, 0.0, servers=(*SERVERS, FLOOR)),
    Row(StoreLoad("200 MB", 16, 1), 0.0, 0.0, memory_megabytes=256, servers=(*LARGE, FLOOR)),
)


def run(journal: Journal, folder: Path, rounds: int, quick: bool, only: Sequence[str]) -> Iterator[str]:
    """Measure every load, all servers in each round and in another order, and give the tables as they are ready."""
    done = []
    for row in ROWS:
        load = StoreLoad(row.load.sample, row.load.associations, max(1, row.load.instances // (4 if quick else 1)))
        figures = journal.figures("storage", row.title)
        peers = available([name for name in row.servers if name != FLOOR and (not only or name in only)])
        for number in range(rounds):
            turn: list[Peer | None] = [*peers, None]
            turn = turn[number % len(turn) :] + turn[: number % len(turn)]
            for peer in turn:
                _measure(peer, load, folder, figures)
        sample.cache_clear()
        journal.save()
        done.append((row, figures))
        yield _details(row, load, figures, rounds)
    yield _summary(done)


def _measure(peer: Peer | None, load: StoreLoad, folder: Path, figures: Figures) -> None:
    os.sync()  # what the one before left unwritten is not this one's burden
    touched = _touch(load)
    if peer is None:
        touched.close()
        figures.add(FLOOR, **_rates(floor(load, folder)))
        return
    with running(peer, folder, associations=load.associations) as server:
        usage = server.usage()
        touched.close()
        result = store(server, load, usage=usage)
        cpu = usage.cpu_seconds
        sent = load.total + load.associations - result.failures  # with those that warmed up
        size = result.bytes // load.total
        figures.add(
            peer.name,
            **_rates(result),
            cpu_microseconds=cpu / load.total * 1e6,
            cpu_seconds=cpu,
            memory=usage.peak_bytes / 1e6,
            failed=result.failures,
            lost=_missing(server, sent, size),
        )


def _touch(load: StoreLoad) -> mmap.mmap:
    """Memory that the page cache can have at once, when this is closed.

    A virtual machine that gives unused memory back gets it again a page at a time: to write 512 KiB took 0.2 ms
    or 1.3 ms, and who came first after a pause paid.
    """
    size = min(int(load.total * len(sample(load.sample).data) * 1.5) + (256 << 20), _TOUCHED_BYTES)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)


def _missing(server: Server, sent: int, size: int) -> int:
    """What was acknowledged and is in no file after some seconds: a journal may have it before."""
    for _ in range(PLACED_SECONDS):
        if (missing := sent - server.stored(size)) <= 0:
            return 0
        time.sleep(1)
    return missing


def _rates(result: StoreResult) -> dict[str, float]:
    return {
        "rate": result.per_second,
        "megabytes": result.megabytes_per_second,
        "p50": percentile(result.latencies, 50) * 1e3,
        "p99": percentile(result.latencies, 99) * 1e3,
    }


_COLUMNS = {
    "instances/s": "rate",
    "MB/s": "megabytes",
    "p50 ms": "p50",
    "p99 ms": "p99",
    "CPU s": "cpu_seconds",
    "CPU us each": "cpu_microseconds",
    "memory MB": "memory",
    "failed": "failed",
    "lost": "lost",
}


def _details(row: Row, load: StoreLoad, figures: Figures, rounds: int) -> str:
    lines: list[list[str | float]] = [
        [name, *(figures.median(name, figure) for figure in _COLUMNS.values())]
        for name in row.servers
        if name in figures.rounds
    ]
    title = f"C-STORE {row.title}: {load.instances} instances on each association, medians of {rounds} rounds"
    return table(title, ["server", *_COLUMNS], lines)


def _summary(done: Sequence[tuple[Row, Figures]]) -> str:
    lines: list[list[str | float]] = []
    for row, figures in done:
        durable = Target(row.orthanc).judge(figures.ratio("pacslite", "Orthanc", "rate")) if row.orthanc else "-"
        fast = Target(row.storescp).judge(figures.ratio("pacslite none", "storescp", "rate")) if row.storescp else "-"
        share = figures.ratio("pacslite", FLOOR, "rate")
        memory = figures.median("pacslite", "memory")
        lines.append(
            [
                row.title,
                figures.median("pacslite", "rate"),
                figures.median("Orthanc", "rate"),
                durable,
                figures.median("pacslite none", "rate"),
                figures.median("storescp", "rate"),
                fast,
                figures.ratio("pacslite", "dcmqrscp", "rate"),
                figures.median(FLOOR, "rate"),
                Target(row.floor).judge(share) if row.floor else share,
                Target(row.memory_megabytes, below=True, unit=" MB").judge(memory) if row.memory_megabytes else memory,
            ]
        )
    columns = ["load", "durable/s", "Orthanc/s", "durable : Orthanc", "none/s", "storescp/s", "none : storescp"]
    return table("C-STORE, summary", [*columns, "durable : dcmqrscp", "floor/s", "durable : floor", "memory MB"], lines)
