"""Memory is bounded whatever arrives: senders are stopped when the disk is behind, and all of them end."""

import asyncio
from pathlib import Path
from threading import Event

import pytest

from pacslite.archive.archive import Archive
from pacslite.archive.incoming import Incoming
from pacslite.archive.instances.fileops import FileOperations
from pacslite.archive.options import StorageOptions
from pacslite.budget import Budget
from tests.support.instances import Instance, make_instance
from tests.support.storing import EXPLICIT_LITTLE_ENDIAN, read

FRAGMENT = 32_768


class _Peer:
    """A connection that delivers as fast as it is read from."""

    def __init__(self, archive: Archive, instance: Instance) -> None:
        self.instance = instance
        self.paused = 0
        self.most_unflushed = 0
        self._open = asyncio.Event()
        self._open.set()
        self._archive = archive

    def pause_reading(self) -> None:
        self.paused += 1
        self._open.clear()

    def resume_reading(self) -> None:
        self._open.set()

    async def send(self) -> None:
        instance = self.instance
        incoming: Incoming = self._archive.begin(
            sop_class_uid=instance.sop_class_uid,
            sop_instance_uid=instance.sop_instance_uid,
            transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
            flow=self,
        )
        for at in range(0, len(instance.data), FRAGMENT):
            await self._open.wait()
            incoming.write(memoryview(instance.data)[at : at + FRAGMENT])
            self.most_unflushed = max(self.most_unflushed, incoming.pending + incoming.flushing)
            await asyncio.sleep(0)
        await incoming.commit()


class _SlowDisk(FileOperations):
    """Writes wait until the disk is let go."""

    def __init__(self) -> None:
        self.go = Event()

    def append(self, fd: int, pieces: object) -> None:
        self.go.wait(30)
        super().append(fd, pieces)  # type: ignore[arg-type]


@pytest.mark.parametrize("peers", [1, 60])
async def test_senders_stop_while_the_disk_does(tmp_path: Path, peers: int) -> None:
    disk, budget = _SlowDisk(), Budget(2 << 20)
    options = StorageOptions(
        data_dir=tmp_path, min_free_bytes=0, piece_bytes=256 << 10, unflushed_bytes=1 << 20, disk_threads=2
    )
    async with Archive(options, budget=budget, operations=disk) as archive:
        senders = [_Peer(archive, make_instance(n, size=2_000_000)) for n in range(peers)]
        tasks = [asyncio.create_task(sender.send()) for sender in senders]
        most = 0
        for _ in range(60):
            await asyncio.sleep(0.01)
            most = max(most, budget.used)
        assert all(sender.paused for sender in senders)
        disk.go.set()
        while not all(task.done() for task in tasks):
            most = max(most, budget.used)
            await asyncio.sleep(0.001)
        for task in tasks:
            task.result()
        assert budget.used == 0
        # the budget, and of each sender what came before it could be stopped
        assert most <= budget.limit + peers * (options.pressed_piece_bytes + 2 * FRAGMENT)
        assert (
            max(sender.most_unflushed for sender in senders) <= options.unflushed_bytes + options.piece_bytes + FRAGMENT
        )
        assert all(read(archive, sender.instance.sop_instance_uid) == sender.instance.data for sender in senders)


async def test_many_partial_objects_do_not_lock_each_other_out(tmp_path: Path) -> None:
    """Two hundred associations each hold half an object, together above the budget: all of them end."""
    budget = Budget(1 << 20)
    async with Archive(StorageOptions(data_dir=tmp_path, min_free_bytes=0), budget=budget) as archive:
        senders = [_Peer(archive, make_instance(n, size=100_000)) for n in range(200)]
        await asyncio.wait_for(asyncio.gather(*(sender.send() for sender in senders)), 30)
        assert budget.used == 0


async def test_budget_is_given_back_whatever_happens(tmp_path: Path) -> None:
    budget = Budget(1 << 20)
    options = StorageOptions(data_dir=tmp_path, min_free_bytes=0, piece_bytes=65_536)
    async with Archive(options, budget=budget) as archive:
        for number, end in enumerate(["abort", "garbage", "duplicate", "cancel", "mismatch"] * 2):
            instance = make_instance(number if end != "duplicate" else 0, size=300_000)
            incoming = archive.begin(
                sop_class_uid=instance.sop_class_uid,
                sop_instance_uid=instance.sop_instance_uid if end != "mismatch" else "1.2.3",
                transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
            )
            data = instance.data if end != "garbage" else b"\xff" * 300_000
            for at in range(0, len(data), FRAGMENT):
                incoming.write(memoryview(data)[at : at + FRAGMENT])
                if at % 3 == 0:
                    await asyncio.sleep(0)
            if end == "abort":
                incoming.abort()
                continue
            task = asyncio.create_task(incoming.commit())
            await asyncio.sleep(0)
            if end == "cancel":
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for _ in range(100):
            if budget.used == 0:
                break
            await asyncio.sleep(0.01)
        assert budget.used == 0
