"""One life of an archive, in a process that is to be killed: stores, deletions, settling and checks side by side.

A few SOP Instance UIDs, so that they meet; each store brings another content, and some another series. The file of
life_history.py has what was begun, and what was answered.
"""

import asyncio
import errno
import json
import logging
import random
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Self

from pacslite.archive.archive import Archive
from pacslite.archive.keys import Level
from pacslite.archive.options import StorageOptions
from pacslite.archive.outcome import DuplicateInstance
from pacslite.errors import DimseError, PacsliteError
from tests.faults.life_history import ABSENT, LifeRecorder, Outcome
from tests.support.instances import Instance, digest_of, make_instance
from tests.support.storing import FailingOperations, begin, read

__all__ = ["Life", "main"]

SIZES = (600, 4_000, 50_000, 200_000, 300_000)
LARGE = 3_000_000  # written while it arrives
_FRAGMENT = 65_536

_CALLS = (
    "create", "append", "write_at", "write_pieces", "write_durably", "read_at", "copy", "sync", "sync_directory",
    "sync_filesystem", "truncate", "rename", "unlink", "make_directory", "remove_directory", "open_file",
    "open_to_write", "open_directory",
)  # fmt: skip
_ERRORS = (errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EACCES)
_FAILURES = (PacsliteError, OSError, sqlite3.Error)


@dataclass(frozen=True)
class Life:
    """How it is lived."""

    data_dir: Path
    history: Path
    seed: str
    storage: dict[str, Any] = field(default_factory=dict)  # of StorageOptions
    instances: int = 8
    workers: int = 6
    pause_seconds: float = 0.005  # at most, between two operations of a worker
    operations: int = 0  # then it is silent; 0: it goes on and on
    large: bool = True  # some objects of 3 MB
    failing: float = 0.0  # share of the file operations that fail

    def as_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        return cls(**values | {name: Path(values[name]) for name in ("data_dir", "history")})

    @property
    def options(self) -> StorageOptions:
        return StorageOptions(self.data_dir, min_free_bytes=0, **self.storage)


class _Failures:
    """Which file operations fail: some calls of a life, now and then one of them, or several in a row."""

    def __init__(self, seed: str, share: float) -> None:
        self._chance = random.Random(f"{seed}/failures")
        self._share = share
        self._row = 0
        self.calls = self._chance.sample(_CALLS, self._chance.randrange(1, 8))
        self.begun = False

    def __call__(self, name: str, number: int) -> int:
        if not self.begun:
            return 0
        if self._row > 0:
            self._row -= 1
            return errno.EIO
        if self._chance.random() >= self._share:
            return 0
        if self._chance.random() < 0.2:
            self._row = self._chance.randrange(1, 30)
        return self._chance.choice(_ERRORS)


class _Living:
    """Several workers, each with one operation after the other."""

    def __init__(self, life: Life, archive: Archive, recorder: LifeRecorder) -> None:
        self._life = life
        self._archive = archive
        self._recorder = recorder
        self._chance = random.Random(life.seed)
        self._uids = [make_instance(number, size=0).sop_instance_uid for number in range(life.instances)]
        self._turns: Iterator[int] = iter(range(life.operations)) if life.operations else count()
        self._contents = (f"{life.seed}/{number}" for number in count(1))

    async def live(self) -> None:
        """Never ends; at last it may be silent."""
        await asyncio.gather(*(self._work() for _ in range(self._life.workers)))
        for uid in self._uids:
            self._read(uid)
        self._recorder.fall_silent()
        await asyncio.Event().wait()

    async def _work(self) -> None:
        for _ in self._turns:
            uid = self._chance.choice(self._uids)
            dice = self._chance.random()
            if dice < 0.05:
                await self._keep_house()
            elif dice < 0.25:
                await self._delete(uid)
            else:
                await self._store(uid)
            if self._chance.random() < 0.5:  # which of those that met was the last
                self._read(uid)
            await asyncio.sleep(self._chance.random() * self._life.pause_seconds)

    async def _store(self, uid: str) -> None:
        instance = self._instance(uid)
        name = self._recorder.begin("store", uid, instance.digest)
        data = memoryview(instance.data)
        outcome: Outcome
        comment = ""
        try:
            incoming = begin(self._archive, instance)
            for at in range(0, len(data), _FRAGMENT):
                incoming.write(data[at : at + _FRAGMENT])
                if len(data) >= LARGE and self._chance.random() < 0.3:
                    await asyncio.sleep(self._life.pause_seconds / 10)
            outcome = (await incoming.commit()).outcome
        except DimseError as error:
            outcome = "refused" if error.status == DuplicateInstance.status else "failed"
            comment = repr(error)
        self._recorder.end(name, outcome, comment=comment)

    def _instance(self, uid: str) -> Instance:
        number = int(uid.rpartition(".")[2])
        series = int(self._chance.random() < 0.2)
        size = self._chance.choice([*SIZES, *([LARGE] if self._life.large else [])])
        made = make_instance(number, series=series, size=size, salt=next(self._contents))
        data = made.data.replace(made.sop_instance_uid.encode(), uid.encode())  # that has the series in it
        return replace(made, sop_instance_uid=uid, data=data)

    async def _delete(self, uid: str) -> None:
        name = self._recorder.begin("delete", uid)
        outcome: Outcome
        comment = ""
        try:
            outcome = "deleted" if (await self._archive.delete(Level.IMAGE, uid)).instances else "nothing"
        except _FAILURES as error:
            outcome, comment = "failed", repr(error)
        self._recorder.end(name, outcome, comment=comment)

    def _read(self, uid: str) -> None:
        name = self._recorder.begin("read", uid)
        try:
            digest = digest_of(read(self._archive, uid))
        except StopIteration:  # no row
            digest = ABSENT
        except FileNotFoundError:  # deleted meanwhile, or moved to another series
            self._recorder.end(name, "gone")
            return
        except _FAILURES as error:
            self._recorder.end(name, "failed", comment=repr(error))
            return
        self._recorder.end(name, "read", digest=digest)

    async def _keep_house(self) -> None:
        """Settle or check. A repair believes an error of the disk, so there is none where errors are made up."""
        try:
            if self._chance.random() < 0.7:
                await self._archive.settle()
                return
            repair = not self._life.failing and self._chance.random() < 0.5
            report = await self._archive.check(deep=self._chance.random() < 0.5, repair=repair)
        except _FAILURES:
            if not self._life.failing:
                raise
            return
        if report.differences and not self._life.failing:
            self._recorder.tell(f"a check found: {report.differences}")


async def _live(life: Life, recorder: LifeRecorder) -> None:
    operations = failures = None
    if life.failing:
        failures = _Failures(life.seed, life.failing)
        operations = FailingOperations(failures, failures.calls)
    archive = Archive(life.options, operations=operations)
    await archive.start()
    if failures is not None:
        failures.begun = True
    await _Living(life, archive, recorder).live()


def main() -> None:
    """Live the life that the argument tells, until killed; on standard error is what must not be."""
    life = Life.from_json(sys.argv[1])
    logging.basicConfig(level=logging.CRITICAL if life.failing else logging.ERROR)
    with LifeRecorder(life.history, life.seed) as recorder:  # its file tells that the life begins
        asyncio.run(_live(life, recorder))


if __name__ == "__main__":
    main()
