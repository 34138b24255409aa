"""``python -m benchmarks``: choose what to run, print the tables, keep the figures."""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import full, large, network, query, retrieve, storage
from benchmarks.peers import PEERS
from benchmarks.report import RESULTS, Journal

Section = Callable[[Journal, Path, int, bool, Sequence[str]], Iterator[str]]
SECTIONS: dict[str, Section] = {
    "storage": storage.run,
    "query": query.run,
    "retrieve": retrieve.run,
    "network": network.run,
    "large": large.run,
    "full": full.run,
}
BUSY_LOAD = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("section", nargs="?", default="all", choices=["all", *SECTIONS])
    parser.add_argument("--rounds", type=int, default=3, help="rounds, each with all servers (default 3)")
    parser.add_argument("--quick", action="store_true", help="a quarter of the load")
    parser.add_argument("--only", action="append", default=[], choices=PEERS, help="this server (may be repeated)")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="on whose file system the servers store")
    arguments = parser.parse_args()

    journal = Journal()
    began = time.monotonic()
    if (load := os.getloadavg()[0]) > BUSY_LOAD:
        print(
            f"The machine is busy (load {load:.1f}): others take from some servers more than from others.\n", flush=True
        )
    arguments.folder.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.folder))
    # on ext4: each directory below in a block group of its own, away from what others deleted (see peers.empty)
    subprocess.run(["chattr", "+T", str(folder)], check=False, capture_output=True)
    try:
        for name, section in SECTIONS.items():
            if arguments.section in ("all", name):
                for text in section(journal, folder, arguments.rounds, arguments.quick, arguments.only):
                    print(text, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{time.monotonic() - began:.0f} s; figures in {journal.save()}")


if __name__ == "__main__":
    main()
