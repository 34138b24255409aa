"""From the archive to the queue: each instance that a rule wants is enqueued once, whenever we were killed."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pacslite.archive.archive import Archive
from pacslite.archive.keys import Level
from pacslite.archive.reindex import reindex
from pacslite.outbox import follower as module
from pacslite.outbox.admin import entries
from pacslite.outbox.database import Database
from pacslite.outbox.follower import Follower
from pacslite.outbox.lookup import IndexLookup
from pacslite.outbox.offload import Offload
from pacslite.outbox.queue import Queue
from pacslite.outbox.rules import RuleSet, make_rule
from tests.support.instances import Instance, make_instance
from tests.support.storing import archive_in, files_in, image_of, reference, store

ALL_TO_WS = RuleSet([make_rule("WS", {})])
NONE = RuleSet()


pytestmark = pytest.mark.usefixtures("each_way")


class Clock:
    """The time, and what a test adds to it."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Following:
    """A follower over an archive, with its queue."""

    def __init__(self, archive: Archive, clock: Clock) -> None:
        self.archive = archive
        path = archive.options.data_dir / "outbox.sqlite"
        self._followed = Queue(Database(path), clock=clock)  # the outbox thread's: a connection is for one thread
        self.queue = Queue(Database(path), clock=clock)
        self._lookup = IndexLookup(archive.index)
        self._offload = Offload("outbox")
        self.woken = 0
        self.follower = Follower(self._followed, self._lookup, self._offload, enqueued=self._wake)

    def _wake(self) -> None:
        self.woken += 1

    async def close(self) -> None:
        await self._offload.stop()
        self._lookup.close()
        self._followed.database.close()
        self.queue.database.close()

    def enqueued(self, state: str = "waiting") -> list[str]:
        return [entry.subject for entry in entries(self.queue, finished=True) if entry.state == state]

    def send_all(self) -> None:
        self.queue.finish(sent=[one.id for one in self.queue.take("forward", "WS", 10_000)])

    async def settled(self, count: int, seconds: float = 10) -> None:
        """Wait until that many have been enqueued in all."""
        async with asyncio.timeout(seconds):
            while len(list(entries(self.queue, finished=True))) < count:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def following(
    directory: Path,
    rules: RuleSet = ALL_TO_WS,
    clock: Clock | None = None,
    *,
    is_hooked: bool = True,
    **options: Any,
) -> AsyncIterator[Following]:
    """An archive that is followed; without the hook, as if killed before anything was noted."""
    async with archive_in(directory, **options) as archive:
        one = Following(archive, clock or Clock())
        await one.follower.follow(rules)
        if is_hooked:
            archive.on_stored.append(one.follower.arrived)
        task = asyncio.create_task(one.follower.run())
        try:
            yield one
        finally:
            task.cancel()
            await asyncio.wait([task])
            await one.close()


def instances(count: int, *, seed: int = 0) -> list[Instance]:
    return [make_instance(n, seed=seed, size=64) for n in range(count)]


def uids(some: Sequence[Instance]) -> list[str]:
    return [one.sop_instance_uid for one in some]


async def test_what_is_stored_is_enqueued_in_its_order(tmp_path: Path) -> None:
    some = instances(30)
    async with following(tmp_path) as one:
        for instance in some:
            await store(one.archive, instance)
        await one.settled(30)
        assert one.enqueued() == uids(some)
        async with asyncio.timeout(10):
            while not one.woken:  # when it is written, and not before
                await asyncio.sleep(0.01)


async def test_rules_decide(tmp_path: Path) -> None:
    rules = RuleSet(
        [make_rule("WS", {"PatientID": "P1-*", "calling_ae_title": "CT*"}), make_rule("B", {"Modality": "MR"})]
    )
    wanted, other = make_instance(1, seed=1, size=64), make_instance(1, seed=2, size=64)
    async with following(tmp_path, rules) as one:
        await store(one.archive, other, source_ae_title="CT01")
        await store(one.archive, make_instance(2, seed=1, size=64), source_ae_title="MR01")
        await store(one.archive, wanted, source_ae_title="CT01")
        await one.settled(1)
        assert one.enqueued() == uids([wanted])


async def test_duplicates_are_not_enqueued_and_replaced_ones_are(tmp_path: Path) -> None:
    first = make_instance(1, size=64)
    async with following(tmp_path) as one:
        await store(one.archive, first)
        await store(one.archive, first)
        await one.settled(1)
        one.send_all()
    async with following(tmp_path, duplicates="replace") as one:
        await store(one.archive, changed(first))
        await one.settled(2)
        assert one.enqueued() == [first.sop_instance_uid]


def changed(instance: Instance, *, series: int = 0, last: bytes = b"!!") -> Instance:
    """Another data set of the same SOP Instance UID."""
    number = int(instance.sop_instance_uid.rpartition(".")[2])
    other = make_instance(number, series=series, size=64)
    data = other.data.replace(other.sop_instance_uid.encode(), instance.sop_instance_uid.encode())[:-2] + last
    return replace(other, sop_instance_uid=instance.sop_instance_uid, data=data)


@pytest.mark.parametrize("which", [0, 2], ids=["older", "newest"])
@pytest.mark.parametrize("how", ["replaced", "twice", "moved", "deleted first"])
async def test_replaced_before_it_was_noted(tmp_path: Path, which: int, how: str) -> None:
    """Killed, or imported while no server ran: whatever its old version was, the new one is enqueued."""
    some = instances(3)
    clock = Clock()
    clock.ahead = -5  # all this was a while ago
    async with following(tmp_path, clock=clock) as one:
        for instance in some:
            await store(one.archive, instance)
        await one.settled(3)
        one.send_all()
    async with archive_in(tmp_path, duplicates="replace", uid_conflict="replace") as archive:
        if how == "deleted first":
            await archive.delete(Level.IMAGE, some[which].sop_instance_uid)
        if how == "twice":
            await store(archive, changed(some[which], last=b"??"))
        new = changed(some[which], series=int(how == "moved"))
        assert (await store(archive, new)).outcome == ("stored" if how == "deleted first" else "replaced")
    async with following(tmp_path) as one:
        await one.settled(4)
        await asyncio.sleep(0.2)
        assert one.enqueued() == [new.sop_instance_uid]
        (entry,) = one.queue.take("forward", "WS", 10)
        assert entry.body == reference(one.archive, new.sop_instance_uid).digest
        assert len(one.enqueued("sent")) == 3


@pytest.mark.parametrize("is_noted", [True, False])
@pytest.mark.parametrize("is_rebuilt", [True, False])
async def test_replaced_by_what_it_was_before(tmp_path: Path, is_noted: bool, is_rebuilt: bool) -> None:
    """The destination has what it was given last, not what it was given first."""
    first = make_instance(1, size=64)
    second = changed(first)
    async with following(tmp_path, duplicates="replace") as one:
        for count, version in enumerate((first, second), 1):
            await store(one.archive, version)
            await one.settled(count)
            one.send_all()
        if not is_noted:
            one.archive.on_stored.clear()
        await store(one.archive, first)
        if is_noted:
            await one.settled(3)
    if is_rebuilt:
        reindex(one.archive.options)
    async with following(tmp_path, duplicates="replace") as one:
        await one.settled(3)
        assert one.enqueued() == [first.sop_instance_uid]


async def test_what_was_stored_before_the_rules_came_stays(tmp_path: Path) -> None:
    before, after = instances(4)[:2], instances(4)[2:]
    async with following(tmp_path, NONE) as one:
        for instance in before:
            await store(one.archive, instance)
    async with following(tmp_path) as one:
        for instance in after:
            await store(one.archive, instance)
        await one.settled(2)
        assert one.enqueued() == uids(after)


async def test_rules_that_come_while_we_run(tmp_path: Path) -> None:
    first, second = instances(2)
    async with following(tmp_path, NONE) as one:
        await store(one.archive, first)
        await one.follower.follow(ALL_TO_WS)
        await store(one.archive, second)
        await one.settled(1)
        await one.follower.follow(NONE)
        assert one.queue.mark() is None
        assert one.enqueued() == [second.sop_instance_uid]


async def test_killed_before_anything_was_noted(tmp_path: Path) -> None:
    some = instances(6)
    async with following(tmp_path / "a") as one:
        for instance in some[:3]:
            await store(one.archive, instance)
        await one.settled(3)
        one.send_all()
        one.archive.on_stored.clear()
        for instance in some[3:]:
            await store(one.archive, instance)
        image = image_of(tmp_path / "a", tmp_path / "b")
    async with following(image) as one:
        await one.settled(6)
        assert one.enqueued("sent") == uids(some[:3])
        assert one.enqueued() == uids(some[3:])


async def test_what_arrives_while_we_catch_up_is_enqueued_once(tmp_path: Path) -> None:
    some = instances(700)
    async with following(tmp_path, is_hooked=False) as one:
        for instance in some[:350]:
            await store(one.archive, instance)
    async with following(tmp_path) as one:
        for instance in some[350:]:
            await store(one.archive, instance)
            if len(one.enqueued()) > 300:
                one.send_all()
        await one.settled(700)
        await asyncio.sleep(0.2)
        assert sorted(one.enqueued() + one.enqueued("sent")) == sorted(uids(some))


async def test_marked_instance_deleted_and_its_row_used_again(tmp_path: Path) -> None:
    """SQLite gives the number of the last row again when it was deleted: it says nothing then."""
    some = instances(4)
    async with following(tmp_path) as one:
        for instance in some[:3]:
            await store(one.archive, instance)
        await one.settled(3)
        one.send_all()
        one.archive.on_stored.clear()
        await one.archive.delete(Level.IMAGE, some[2].sop_instance_uid)
        await one.archive.delete(Level.IMAGE, some[1].sop_instance_uid)
        await store(one.archive, some[3])
    async with following(tmp_path) as one:
        await one.settled(4)
        assert one.enqueued() == uids(some[3:])
        mark = one.queue.mark()
        assert mark is not None
        assert mark.sop_instance_uid == some[3].sop_instance_uid


def restore_from_copy(directory: Path, when: float) -> None:
    """What a copy that was made then, without modification times, would be."""
    for file in files_in(directory):
        os.utime(directory / file, (when, when))


@pytest.mark.parametrize(("hours", "is_copy"), [(0, False), (2, False), (2, True)])
async def test_rebuilt_index_has_nothing_sent_again(tmp_path: Path, hours: int, is_copy: bool) -> None:
    """All its rows have other numbers; the archive may be years old, or have been sent a moment ago."""
    some = instances(5)[::-1]
    clock = Clock()
    async with following(tmp_path, is_hooked=hours == 0) as one:
        for instance in some:
            await store(one.archive, instance)
        if hours == 0:
            await one.settled(5)
            one.send_all()
    clock.ahead = hours * 3600.0
    async with following(tmp_path, RuleSet([make_rule("WS", {"PatientID": "nobody"})]), clock) as one:
        await asyncio.sleep(0.2)  # a mark that is made now, behind which there is nothing
    if is_copy:
        restore_from_copy(tmp_path, clock())
    else:
        (tmp_path / "index.sqlite").unlink()
    reindex(one.archive.options)
    async with following(tmp_path, clock=clock) as one:
        new = make_instance(99, size=64)
        await store(one.archive, new)
        await one.settled(6 if hours == 0 else 1)
        assert one.enqueued() == [new.sop_instance_uid]


async def test_rebuilt_after_an_unclean_stop(tmp_path: Path) -> None:
    """What was acknowledged and not noted is found by its reception; what was sent before that is remembered."""
    some = instances(7)[::-1]
    clock = Clock()
    async with following(tmp_path, clock=clock) as one:
        for instance in some[:5]:
            await store(one.archive, instance)
        await one.settled(5)
        one.send_all()
        one.archive.on_stored.clear()
        for instance in some[5:]:
            await store(one.archive, instance)
        clock.ahead = 7200.0
        one.queue.purge()
    restore_from_copy(tmp_path, clock())
    reindex(one.archive.options)
    async with following(tmp_path, clock=clock) as one:
        await one.settled(7)
        await asyncio.sleep(0.2)
        assert one.enqueued() == uids(some[5:])[::-1]
        assert one.enqueued("sent") == uids(some[:5])


async def test_more_than_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NOTED", 5)
    some = instances(40)
    async with following(tmp_path) as one:
        await asyncio.gather(*(store(one.archive, instance) for instance in some))
        await one.settled(40)
        await asyncio.sleep(0.2)
        assert sorted(one.enqueued()) == sorted(uids(some))


async def test_outbox_that_cannot_be_written_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.1)
    some = instances(3)
    async with following(tmp_path) as one:
        other = Database(tmp_path / "outbox.sqlite")
        other.connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON entry BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
        )
        for instance in some:
            await store(one.archive, instance)  # storing does not wait
        await asyncio.sleep(0.3)
        assert one.enqueued() == []
        other.connection.execute("DROP TRIGGER full")
        other.close()
        await one.settled(3)
        assert one.enqueued() == uids(some)
