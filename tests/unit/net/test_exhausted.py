"""Memory that is used up, over real connections into the real archive: who sits on it, and a disk that has stalled."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event

import pytest

from pacslite.archive.archive import Archive
from pacslite.archive.instances.fileops import FileOperations
from pacslite.archive.options import StorageOptions
from pacslite.budget import Budget
from pacslite.net.reading import RECEIVE_BUFFER_SIZE
from pacslite.services.storage import StorageService
from tests.support.instances import Instance, make_instance
from tests.support.raw import command, p_data, pdv
from tests.support.site import MakeSite
from tests.support.storing import read
from tests.support.wire import CT_IMAGE, VERIFICATION, Answer, Context, Wire

CONTEXTS = [Context(1, VERIFICATION), Context(3, CT_IMAGE)]
STALL_SECONDS = 0.4


class _Disk(FileOperations):
    """Takes nothing until it is let go."""

    def __init__(self) -> None:
        self.go = Event()

    def append(self, fd: int, pieces: Sequence[bytes | bytearray]) -> None:
        self.go.wait(30)
        super().append(fd, pieces)


@asynccontextmanager
async def archive_of(
    make_site: MakeSite,
    folder: Path,
    budget: Budget,
    disk: FileOperations | None = None,
    stall_seconds: float = STALL_SECONDS,
) -> AsyncIterator[tuple[Archive, int]]:
    """An archive, and the port that stores into it."""
    options = StorageOptions(data_dir=folder, min_free_bytes=0, durability="none", stall_seconds=stall_seconds)
    async with Archive(options, budget=budget, operations=disk) as archive:
        site = make_site(services=[StorageService(archive)])
        await site.start()
        try:
            yield archive, site.port
        finally:
            if isinstance(disk, _Disk):
                disk.go.set()
            await site.stop()
        assert budget.used == 0


async def begin(port: int, instance: Instance, size: int) -> Wire:
    """An association with ``size`` bytes of an object, and no more for now."""
    wire = await Wire.associate(port, CONTEXTS)
    head = command(0x0001, sop_class=CT_IMAGE, sop_instance=instance.sop_instance_uid, has_data=True)
    wire.writer.write(p_data(pdv(3, 3, head)))
    await wire.send_part(3, instance.data[:size])
    return wire


async def test_who_begins_objects_and_does_not_go_on_takes_no_memory(make_site: MakeSite, tmp_path: Path) -> None:
    """300 associations hold 16 MB below the size that is worth a write, where 2 MB are allowed: nobody is refused."""
    budget = Budget(2_000_000)
    instances = [make_instance(n, seed=71, size=80_000) for n in range(300)]
    async with archive_of(make_site, tmp_path, budget) as (archive, port):
        halves = [await begin(port, instance, 56_000) for instance in instances]
        for _ in range(500):
            if budget.used <= budget.most:
                break
            await asyncio.sleep(0.01)
        assert budget.used <= budget.most
        async with await Wire.associate(port, CONTEXTS) as wire:
            for n in range(20):
                other = make_instance(n, seed=72, size=50_000)
                assert (await wire.store(CT_IMAGE, other.sop_instance_uid, other.data)).status == 0
        for wire, instance in zip(halves, instances, strict=True):
            await wire.send_rest(3, instance.data[56_000:])
            assert Answer.of(await wire.receive()).status == 0
            await wire.release()
            wire.close()
        assert all(read(archive, one.sop_instance_uid) == one.data for one in instances)


async def test_who_does_not_wait_for_answers_takes_no_memory(make_site: MakeSite, tmp_path: Path) -> None:
    """20 associations send 36 MB in small objects at once, of which the disk takes nothing yet."""
    budget, disk = Budget(2_000_000), _Disk()
    async with archive_of(make_site, tmp_path, budget, disk, stall_seconds=60) as (archive, port):
        wires = [await Wire.associate(port, CONTEXTS) for _ in range(20)]
        for n in range(60):  # no read ends in the middle of an object
            for series, wire in enumerate(wires):
                one = make_instance(n, seed=75, series=series, size=30_000)
                head = command(
                    0x0001, message_id=n + 1, sop_class=CT_IMAGE, sop_instance=one.sop_instance_uid, has_data=True
                )
                wire.writer.write(p_data(pdv(3, 3, head), pdv(3, 2, one.data)))
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert budget.used < budget.most + 20 * 300_000  # and of each what one read may bring
        disk.go.set()
        for wire in wires:
            for _ in range(60):
                assert Answer.of(await wire.receive()).status == 0
            await wire.release()
            wire.close()
        assert (await archive.totals()).instances == 1200


async def test_a_disk_that_takes_nothing(make_site: MakeSite, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A700 with a comment for who waits for memory, at once for who comes later; what the archive has taken is kept."""
    budget, disk = Budget(400_000), _Disk()
    early, large, other, late = (make_instance(n, seed=73, size=3_000_000 if n > 1 else 30_000) for n in range(1, 5))
    async with archive_of(make_site, tmp_path, budget, disk) as (archive, port):
        waiting = await begin(port, early, 0)
        await waiting.send_rest(3, early.data)  # complete: its answer comes when it is written
        senders = [await Wire.associate(port, CONTEXTS) for _ in range(2)]
        started = time.monotonic()
        answers = await asyncio.gather(
            *(
                wire.store(CT_IMAGE, one.sop_instance_uid, one.data)
                for wire, one in zip(senders, (large, other), strict=True)
            )
        )
        assert time.monotonic() - started >= STALL_SECONDS
        assert [answer.status for answer in answers] == [0xA700] * 2
        assert {answer.comment for answer in answers} == {"no memory left: the disk takes nothing"}
        started = time.monotonic()
        for wire in senders:  # the associations go on; whoever wants memory now is told at once
            assert await wire.echo() == 0
            answer = await wire.store(CT_IMAGE, late.sop_instance_uid, late.data)
            assert (answer.status, answer.comment) == (0xA700, "no memory left: the disk takes nothing")
        assert time.monotonic() - started < STALL_SECONDS
        assert budget.used <= budget.most + 4 * RECEIVE_BUFFER_SIZE  # what one read brings, of each of those refused
        disk.go.set()
        await asyncio.sleep(0.1)
        assert Answer.of(await waiting.receive()).status == 0
        for wire, one in zip(senders, (large, late), strict=True):
            assert (await wire.store(CT_IMAGE, one.sop_instance_uid, one.data)).status == 0
        assert all(read(archive, one.sop_instance_uid) == one.data for one in (early, large, late))
        for wire in (waiting, *senders):
            await wire.release()
            wire.close()
        told = [record.message for record in caplog.records if record.name == "pacslite.archive"]
        assert told == ["storing refused", "storing again"]
        await archive.settle()
        assert (await archive.totals()).instances == 3
        assert list((tmp_path / "incoming").iterdir()) == []


async def test_a_peer_that_leaves_a_stalled_disk(make_site: MakeSite, tmp_path: Path) -> None:
    """What it left is forgotten, and nobody is refused for it when the disk goes on."""
    budget, disk = Budget(400_000), _Disk()
    large, other = (make_instance(n, seed=74, size=3_000_000) for n in (1, 2))
    async with archive_of(make_site, tmp_path, budget, disk) as (archive, port):
        wire = await Wire.associate(port, CONTEXTS)
        storing = asyncio.create_task(wire.store(CT_IMAGE, large.sop_instance_uid, large.data))
        await asyncio.sleep(STALL_SECONDS / 2)
        storing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await storing
        wire.writer.transport.abort()
        await asyncio.sleep(STALL_SECONDS)
        disk.go.set()
        await asyncio.sleep(0.1)
        async with await Wire.associate(port, CONTEXTS) as wire:
            assert (await wire.store(CT_IMAGE, other.sop_instance_uid, other.data)).status == 0
        assert read(archive, other.sop_instance_uid) == other.data
