"""Random lives of one archive, each ended by SIGKILL or a power cut: what senders were told last is what is there.

A life (lives.py) is a process with options and operations of its own, killed while it starts, serves or settles. What
is there then is judged by what was answered (life_history.py), and the next life goes on with it. PACSLITE_TEST_SEED
makes other lives; how fast the machine is decides as well, so none can be repeated to the letter.
"""

import asyncio
import logging
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pacslite.archive.archive import Archive
from pacslite.archive.options import StorageOptions
from tests.faults.life_history import LifeHistory
from tests.faults.lives import Life
from tests.support.disks import ForgetfulDisk
from tests.support.instances import digest_of
from tests.support.processes import ROOT
from tests.support.storing import files_in, read, rows

ROUNDS = int(os.environ.get("PACSLITE_TEST_KILL_ROUNDS", "30"))
SEED = os.environ.get("PACSLITE_TEST_SEED", "1")
LIVES = max(4, ROUNDS * 2 // 5)
TIMEOUT = 300 + 30 * LIVES

JOURNALS = (None, 0, 16 << 10, 64 << 10, 256 << 10, 64 << 20, 64 << 20)  # None: the one that is there
DURABILITIES = ("full", "full", "full", "commit", "none")


class Lives:
    """Of the archive in ``data_dir``; ``folder`` is for the files that the lives write beside it."""

    def __init__(
        self, name: str, data_dir: Path, folder: Path, log: pytest.LogCaptureFixture, *, failing: bool = False
    ) -> None:
        self.chance = random.Random(f"{SEED}/{name}")
        self.answers = 0
        self._name = name
        self._data_dir = data_dir
        self._folder = folder
        self._log = log
        self._failing = failing
        self._lived = 0
        self._history = LifeHistory()  # since the last look
        self._since: list[Life] = []

    def options(self, *durabilities: str) -> dict[str, Any]:
        choose = self.chance.choice
        return {
            "durability": choose(durabilities),
            "duplicates": choose(("replace", "replace", "keep", "reject")),
            "uid_conflict": choose(("replace", "keep", "reject")),
            "journal_bytes": choose(JOURNALS),
            "settle_seconds": choose((0.02, 0.1, 0.5, 5.0)),
            "settle_files": choose((4, 64, 256)),
        }

    async def live(self, options: dict[str, Any], disk: ForgetfulDisk | None = None) -> None:
        """Killed when it is silent, or at a random moment from its start on; with ``disk`` that is cut off before."""
        self._lived += 1
        hurries = bool(self._since) and self.chance.random() < 0.5  # to be killed while it finishes what was cut off
        life = Life(
            data_dir=self._data_dir,
            history=self._folder / f"history{self._lived}",
            seed=f"{SEED}/{self._name}/{self._lived}",
            storage=options,
            instances=self.chance.choice((2, 8)),
            workers=self.chance.choice((2, 6)),
            pause_seconds=self.chance.choice((0.005, 0.1)),  # in a calm hour nobody else syncs what is under way
            operations=0 if hurries else self.chance.choice((0, 0, 4, 16)),
            large=self.chance.random() < 0.7,
            failing=self.chance.choice((0.002, 0.01, 0.05)) if self._failing else 0.0,
        )
        self._since.append(life)
        said = self._folder / f"said{self._lived}"
        with said.open("wb") as output:
            words = [sys.executable, "-m", "tests.faults.lives", life.as_json()]
            process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=output)
        try:
            await _until(lambda: life.history.exists() or process.poll() is not None)
            if life.operations:
                await _until(lambda: b'"silent"' in life.history.read_bytes() or process.poll() is not None)
            else:
                await asyncio.sleep(self.chance.random() * (0.1 if hurries else 0.8))
            moment = math.inf
            if disk is not None:
                seed = None if self.chance.random() < 0.4 else self.chance.randrange(1 << 30)
                moment = await asyncio.to_thread(disk.cut, seed)
            ended = process.poll()
        finally:
            process.kill()
            process.wait()
        errors = said.read_text(errors="replace")
        assert ended is None, f"exit {ended} of {life}:\n{errors}"
        self._history.read(life.history, before=moment)
        if errors:
            self._history.complaints.append(f"there were errors:\n{errors}")

    async def look(self, options: dict[str, Any]) -> None:
        """Start again, judge what is there, before and after it is settled, and stop."""
        options = options | {"settle_seconds": 600.0, "settle_files": 1_000_000, "min_free_bytes": 0}
        self._log.clear()
        async with Archive(StorageOptions(self._data_dir, **options)) as archive:
            found = self._contents(archive)
            differences = (await archive.check(deep=True)).differences
            await archive.settle()
            differences += (await archive.check(deep=True)).differences
            settled = self._contents(archive)
        complaints = self._history.judge(found) + [f"a check found {difference}" for difference in differences]
        if settled != found:
            complaints.append(f"other contents are settled: {found}, then {settled}")
        files = [name for name in files_in(self._data_dir) if not name.startswith("damaged/")]
        if len(files) != len(found):
            complaints.append(f"{len(found)} instances are in {files}")
        if not self._failing:
            complaints += [f"an error was told: {each}" for each in self._history if each.outcome == "failed"]
            complaints += [
                f"an error was logged: {each}" for each in self._log.records if each.levelno >= logging.ERROR
            ]
        lived = "\n".join(map(Life.as_json, self._since))
        where = f"seed {SEED}, life {self._lived}; since the last look:\n{lived}\nthis one with {options}:\n"
        assert not complaints, where + "\n".join(complaints[:20])
        self.answers += sum(each.outcome is not None for each in self._history)
        self._history = LifeHistory(found)
        self._since.clear()

    def _contents(self, archive: Archive) -> dict[str, str]:
        uids = [uid for (uid,) in rows(self._data_dir, "SELECT sop_instance_uid FROM instance")]
        return {uid: digest_of(read(archive, uid)) for uid in uids}


async def _until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.01)


@pytest.mark.timeout(TIMEOUT)
async def test_lives_ended_by_sigkill(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With all options: what ends the process alone takes nothing. Some starts that finish what was cut off end too."""
    lives = Lives("kill", tmp_path / "data", tmp_path, caplog)
    for left in reversed(range(LIVES)):
        await lives.live(lives.options(*DURABILITIES))
        if not left or lives.chance.random() < 0.7:
            await lives.look(lives.options(*DURABILITIES))
    assert lives.answers > 2 * LIVES, "too slow to show anything"


@pytest.mark.timeout(TIMEOUT)
async def test_lives_with_failing_calls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """File operations fail now and then: what was answered by an error may be there or not, all else as ever."""
    lives = Lives("failing", tmp_path / "data", tmp_path, caplog, failing=True)
    for _ in range(LIVES // 2):
        await lives.live(lives.options(*DURABILITIES))
        await lives.look(lives.options(*DURABILITIES))
    assert lives.answers > LIVES, "too slow to show anything"


@pytest.fixture(params=["ext4", "xfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ForgetfulDisk]:
    disk = ForgetfulDisk(tmp_path / "power", request.param)
    yield disk
    disk.destroy()


@pytest.mark.timeout(TIMEOUT)
async def test_lives_ended_by_power_cuts(disk: ForgetfulDisk, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With "full"; a life with less in between is killed, and promised by the next start with "full"."""
    lives = Lives(disk.kind, disk.mounted / "data", tmp_path, caplog)
    disk.insert()
    for left in reversed(range(LIVES // 2)):
        options = lives.options(*["full"] * 8, "commit", "none")
        is_cut = options["durability"] == "full"
        await lives.live(options, disk if is_cut else None)
        if is_cut:
            await asyncio.to_thread(disk.remove)
            await asyncio.to_thread(disk.insert)
        if not left or not is_cut or lives.chance.random() < 0.7:
            await lives.look(lives.options("full"))
    assert lives.answers > LIVES, "too slow to show anything"
