"""What the settings of the index cost, in an archive of a million instances: docs/architecture.md gives the figures.

    python -m benchmarks.index_settings [INSTANCES]

Rows of CT slices go through the index's writer in groups of eight, as sixteen senders make them, each series under a
UID of its own; now and then the settling thread's checkpoint runs beside. One setting differs from the defaults each
time; what is measured is the time of a commit, which a sender waits for.
"""

import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from benchmarks.generate_index import generate_beside
from benchmarks.report import RESULTS, percentile, table
from benchmarks.samples import identity, new_run, sample
from pacslite.archive.index.writer import Entry, IndexWriter
from pacslite.archive.options import StorageOptions
from pacslite.archive.record import Record, make_record
from pacslite.dataset.scan import scan_header

_OF_A_STUDY = 201
_ROWS = 8_000
_GROUP = 8
_SECONDS_BETWEEN_CHECKPOINTS = 0.25
_KEPT = 650

CASES: dict[str, tuple[dict[str, int], Sequence[str]]] = {
    "as it is": ({}, ()),
    "cache 2 MiB": ({"index_cache_bytes": 2 << 20}, ()),
    "cache 64 MiB": ({"index_cache_bytes": 64 << 20}, ()),
    "synchronous = FULL": ({}, ("PRAGMA synchronous = FULL",)),
    "checkpoints in commits": ({}, ("PRAGMA wal_autocheckpoint = 1000",)),
}


def records() -> Iterator[Record]:
    """CT slices, 200 a series; what varies is in the first bytes, and those are all that is scanned."""
    source = sample("CT")
    run = new_run()
    head = bytearray(source.data[:16_384])
    number = 0
    while True:
        fields = identity(run, number // 200, 0, number % 200)
        for name, value in fields.items():
            head[source.fields[name] : source.fields[name] + len(value)] = value.encode()
        record = make_record(
            scan_header(bytes(head), source.transfer_syntax),
            sop_class_uid=source.sop_class_uid,
            sop_instance_uid=fields["SOPInstanceUID"],
            transfer_syntax_uid=source.transfer_syntax,
            source_ae_title="BENCH",
        )
        record.digest = bytes(16)
        yield record
        number += 1


def measure(path: Path, options: dict[str, int], pragmas: Sequence[str]) -> list[float]:
    """Seconds of each commit of a group."""
    writer = IndexWriter(path, replace(StorageOptions(data_dir=path.parent), **options))  # type: ignore[arg-type]
    for pragma in pragmas:
        writer._connections.writer.execute(pragma)  # noqa: SLF001 (nobody else may choose these)
    waiting = list(islice(records(), _ROWS))
    ended = threading.Event()

    def settle() -> None:
        while not ended.wait(_SECONDS_BETWEEN_CHECKPOINTS):
            writer.checkpoint()

    settling = threading.Thread(target=settle)
    settling.start()
    times = []
    for at in range(0, _ROWS, _GROUP):
        group = [Entry(record) for record in waiting[at : at + _GROUP]]
        began = time.perf_counter()
        outcomes = writer.commit(group)
        times.append(time.perf_counter() - began)
        assert not any(outcomes), outcomes
    ended.set()
    settling.join()
    writer.close()
    return times


def main() -> None:
    instances = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(dir=RESULTS) as folder:
        archive = Path(folder) / "archive"
        studies = instances // _OF_A_STUDY + 1
        generate_beside(archive, studies, with_instances=studies, scattered=True, attributes=_KEPT)
        path = archive / "index.sqlite"
        times: dict[str, list[float]] = {name: [] for name in CASES}
        for _ in range(3):  # in turns: the index grows, and the machine is noisy
            for name, (options, pragmas) in CASES.items():
                times[name] += measure(path, options, pragmas)
        lines: list[list[str | float]] = [
            [name, statistics.mean(one) * 1e6 / _GROUP, percentile(one, 50) * 1e6, percentile(one, 99) * 1e6]
            for name, one in times.items()
        ]
        print(f"SQLite {sqlite3.sqlite_version}, {path.stat().st_size / 1e6:.0f} MB")
        columns = ["setting", "us a row", "p50 us a group", "p99 us a group"]
        print(table(f"Commits of {_GROUP} rows beside {instances:,} instances", columns, lines))


if __name__ == "__main__":
    main()
