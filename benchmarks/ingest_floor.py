"""The floor under a C-STORE and what the archive makes of it, in one run: ``python benchmarks/ingest_floor.py``.

Floor: a bare loop that writes and fdatasyncs the same bytes to new files, 1, 4 and 16 at a time, in threads.
Archive: the same objects through ``Archive.begin``, ``write``, ``commit`` in this process, without a network.
"""

import argparse
import asyncio
import itertools
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop
from pydicom.data import get_testdata_file

from pacslite.archive.archive import Archive
from pacslite.archive.options import StorageOptions
from pacslite.dataset.meta import read_file_meta

SIZES = {"SR 4 KiB": 4096, "MR 128 KiB": 128 << 10, "CT 512 KiB": 512 << 10}
FRAGMENT = 128 << 10
_PIXELS = b"\xe0\x7f\x10\x00OW\x00\x00"


class Objects:
    """Data sets of one size, alike but for their SOP Instance UID; one series for each sender."""

    def __init__(self, size: int) -> None:
        source = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
        meta = read_file_meta(source)
        header = source[meta.data_set_offset : source.index(_PIXELS)]
        if size < len(header) + 12:
            header = _without_private(header)
        pixels = max(2, size - len(header) - 12) & ~1
        self._instance = meta.sop_instance_uid
        self._template = header + _PIXELS + pixels.to_bytes(4, "little") + os.urandom(pixels)
        self._numbers = itertools.count(10**9)
        self.sop_class_uid = meta.sop_class_uid
        self.transfer_syntax_uid = meta.transfer_syntax_uid

    def make(self) -> tuple[str, memoryview]:
        uid = self._instance[:-10] + str(next(self._numbers))
        return uid, memoryview(self._template.replace(self._instance.encode(), uid.encode()))


def _without_private(header: bytes) -> bytes:
    """Drop odd groups, for objects smaller than the sample's header."""
    kept, at = [], 0
    while at < len(header):
        group = int.from_bytes(header[at : at + 2], "little")
        if header[at + 4 : at + 6] in {b"OB", b"OW", b"SQ", b"UN", b"UT"}:
            end = at + 12 + int.from_bytes(header[at + 8 : at + 12], "little")
        else:
            end = at + 8 + int.from_bytes(header[at + 6 : at + 8], "little")
        if not group & 1:
            kept.append(header[at:end])
        at = end
    return b"".join(kept)


def floor(directory: Path, data: bytes, in_flight: int, seconds: float) -> float:
    """New files a second, each written and fdatasynced before the next of its thread."""
    numbers = itertools.count()
    end = time.perf_counter() + seconds
    counts = [0] * in_flight

    def work(thread: int) -> None:
        while time.perf_counter() < end:
            fd = os.open(directory / f"{next(numbers)}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            os.write(fd, data)
            os.fdatasync(fd)
            os.close(fd)
            counts[thread] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(in_flight)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


async def ingest(
    directory: Path, objects: Objects, in_flight: int, seconds: float, durability: str
) -> tuple[float, float]:
    """Instances a second through the archive, and CPU microseconds each (of the whole process)."""
    made = 0
    async with Archive(StorageOptions(data_dir=directory, durability=durability)) as archive:  # type: ignore[arg-type]

        async def send(end: float) -> None:
            nonlocal made
            while time.perf_counter() < end:
                uid, data = objects.make()
                incoming = archive.begin(
                    sop_class_uid=objects.sop_class_uid,
                    sop_instance_uid=uid,
                    transfer_syntax_uid=objects.transfer_syntax_uid,
                    source_ae_title="BENCH",
                )
                for at in range(0, len(data), FRAGMENT):
                    incoming.write(data[at : at + FRAGMENT])
                await incoming.commit()
                made += 1

        start, cpu = time.perf_counter(), _cpu()
        await asyncio.gather(*(send(start + seconds) for _ in range(in_flight)))
        elapsed, used = time.perf_counter() - start, _cpu() - cpu
    return made / elapsed, used / made * 1e6


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _fresh(root: Path) -> Iterator[Path]:
    for number in itertools.count():
        directory = root / str(number)
        directory.mkdir()
        yield directory  # removed at the end: ext4 searches long for an inode that was not freed in the last seconds


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--dir", type=Path, default=Path.cwd() / "data", help="on the disk to measure")
    arguments.add_argument("--seconds", type=float, default=2.0)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", default="", help="part of a size's name")
    arguments.add_argument("--durability", default="full", choices=("full", "commit", "none"))
    options = arguments.parse_args()
    options.dir.mkdir(exist_ok=True)
    sys.setswitchinterval(0.0005)
    print(f"{'objects':<12}{'in flight':>10}{'floor /s':>10}{'archive /s':>12}{'of floor':>10}{'CPU us':>8}")
    with (
        tempfile.TemporaryDirectory(dir=options.dir) as root,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        fresh = _fresh(Path(root))
        for name, size in SIZES.items():
            if options.only not in name:
                continue
            objects = Objects(size)
            data = bytes(objects.make()[1])
            for in_flight in (1, 4, 16):
                floors, rates, cpus = [], [], []
                for _ in range(options.rounds):
                    floors.append(floor(next(fresh), data, in_flight, options.seconds))
                    rate, cpu = runner.run(ingest(next(fresh), objects, in_flight, options.seconds, options.durability))
                    rates.append(rate)
                    cpus.append(cpu)
                low, high, cpu = map(statistics.median, (floors, rates, cpus))
                print(f"{name:<12}{in_flight:>10}{low:>10.0f}{high:>12.0f}{high / low:>9.0%}{cpu:>9.0f}")


if __name__ == "__main__":
    main()
