"""The floor under durable storage: a bare loop that only writes and syncs the same bytes, several at a time."""

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.load import StoreLoad, StoreResult
from benchmarks.peers import empty
from benchmarks.samples import sample
from benchmarks.workers import Start, run_workers

__all__ = ["floor"]


def floor(load: StoreLoad, folder: Path) -> StoreResult:
    """Write what ``load`` sends below ``folder``; one thread stands for one association."""
    directory = Path(tempfile.mkdtemp(prefix="floor-", dir=folder))
    try:
        [result] = run_workers([partial(_run, load, directory)])
        return result
    finally:
        empty(directory)


def _run(load: StoreLoad, directory: Path, start: Start) -> StoreResult:
    data = sample(load.sample).data
    with ThreadPoolExecutor(load.associations) as pool:
        for _ in pool.map(partial(_write, data, directory, 1), range(-load.associations, 0)):
            pass  # the threads are there before the clock starts
        start()
        began = time.perf_counter()
        latencies = list(pool.map(partial(_write, data, directory, load.instances), range(load.associations)))
        seconds = time.perf_counter() - began
    return StoreResult(seconds, load.total, load.total * len(data), 0, [one for part in latencies for one in part])


def _write(data: bytes, directory: Path, count: int, thread: int) -> list[float]:
    latencies = []
    for number in range(count):
        began = time.perf_counter()
        file = os.open(directory / f"{thread}.{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fdatasync(file)
        finally:
            os.close(file)
        latencies.append(time.perf_counter() - began)
    return latencies
