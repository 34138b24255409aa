"""Power cuts on a disk that forgets what was not synced, under ext4 and xfs with their own journals.

The cut comes first, then SIGKILL: what the doomed server still acknowledges after the cut is not counted.
"""

import asyncio
import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.checker import judge, observe
from tests.faults.history import History
from tests.faults.loading import Load
from tests.support.disks import ForgetfulDisk
from tests.support.exchange import send_instances
from tests.support.instances import Instance, make_instance
from tests.support.processes import ROOT, Pacslite, ServerFactory, run
from tests.support.wire import CT_IMAGE, AbortedError, Context, RejectedError, Wire

_CUTS_UNTIL_A_LOSS = 5
_MISSING = re.compile(r"was acknowledged and is not found|has \d+ instances, \d+ were acknowledged")
CUTS = int(os.environ.get("PACSLITE_TEST_POWER_CUTS", "8"))
SWEEP = CUTS > 8  # "make soak"
SEED = int(os.environ.get("PACSLITE_TEST_SEED", "1"))


@pytest.fixture(params=["ext4", "xfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ForgetfulDisk]:
    disk = ForgetfulDisk(tmp_path / "power", request.param, megabytes=16_384 if SWEEP else 768)
    yield disk
    disk.destroy()


def _server(new_server: ServerFactory, disk: ForgetfulDisk) -> Pacslite:
    return new_server(disk.mounted / "data", storage={"min_free_bytes": 0})


def test_the_disk_forgets(disk: ForgetfulDisk) -> None:
    """The test of the test: synced bytes survive, unsynced ones do not, nor does an unsynced name."""
    disk.insert()
    synced, unsynced, late = (disk.mounted / name for name in ("synced", "unsynced", "late"))
    for path in (synced, unsynced):
        path.write_bytes(b"x" * 100_000)
    with synced.open("rb") as file:
        os.fsync(file.fileno())
    directory = os.open(disk.mounted, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    late.write_bytes(b"late")
    disk.cut()
    disk.remove()
    disk.insert()
    assert synced.read_bytes() == b"x" * 100_000
    assert not unsynced.exists() or unsynced.read_bytes() != b"x" * 100_000
    assert not late.exists()


@pytest.mark.timeout(300 + 30 * CUTS)
async def test_power_cuts_under_load(disk: ForgetfulDisk, new_server: ServerFactory, tmp_path: Path) -> None:
    """Strict and random cuts in turn, all on one archive that grows; every fourth hits the start that recovers."""
    server = _server(new_server, disk)
    chance = random.Random(SEED)
    everything = History()
    for number in range((CUTS + 1) // 2):  # each file system gets half of them
        seed = None if number % 2 == 0 else chance.randrange(1 << 30)
        disk.insert()
        server.start()
        load = Load(tmp_path, server.port, number)
        await load.until_acknowledged()
        await asyncio.sleep(chance.random() * 1.2)
        moment = await asyncio.to_thread(disk.cut, seed)
        server.kill()
        fresh = await load.finish()
        await asyncio.to_thread(disk.remove)
        everything.merge(fresh, before=moment)
        await asyncio.to_thread(disk.insert)
        if number % 4 == 3:
            disk.cut_after(chance.randrange(1, 20), chance.randrange(1 << 30))
            server.launch()
            await asyncio.sleep(0.8)
            server.kill()
            await asyncio.to_thread(disk.remove)
            await asyncio.to_thread(disk.insert)
        server.start()
        seen = await observe(server.port, retrieve=fresh.studies())
        violations = judge(everything, seen)
        assert not violations, f"cut {number} ({seed}, {disk.kind}):\n" + "\n".join(violations[:20])
        await asyncio.to_thread(server.stop)
        await server.tool("check", "--deep", "--data-dir", server.data_dir)
        await asyncio.to_thread(disk.remove)
    assert len(everything.acknowledged()) > CUTS, "too slow to show anything"


@pytest.mark.parametrize("durability", ["commit", "none"])
async def test_less_durability_loses_and_says_so(tmp_path: Path, new_server: ServerFactory, durability: str) -> None:
    """The test of the test once more: without syncs the same cut loses what was acknowledged, and the judge sees it.

    With "commit" what is left is whole, since files are synced before they are settled; "none" promises an orderly stop
    only: the archive starts and serves, and bytes that the cut took are for ``check --deep`` to name.
    """
    for attempt in range(_CUTS_UNTIL_A_LOSS):  # a cut just after the second's sync takes nothing
        disk = ForgetfulDisk(tmp_path / f"power-{attempt}")
        try:
            disk.insert()
            server = new_server(disk.mounted / "data", storage={"min_free_bytes": 0, "durability": durability})
            server.start()
            load = Load(tmp_path, server.port, 1)
            await load.until_acknowledged(100)
            moment = await asyncio.to_thread(disk.cut)
            server.kill()
            history = History()
            history.merge(await load.finish(), before=moment)
            await asyncio.to_thread(disk.remove)
            await asyncio.to_thread(disk.insert)
            async with server.running():
                violations = judge(history, await observe(server.port))
            if durability == "commit":
                assert all(_MISSING.search(violation) for violation in violations), violations[:20]
                await server.tool("check", "--deep", "--data-dir", server.data_dir)
        finally:
            disk.destroy()
        if violations:
            break
    else:
        pytest.fail("nothing was ever lost")


@pytest.mark.parametrize("size", [20_000, 400_000])
async def test_what_a_killed_process_had_only_in_memory_is_promised_by_none(
    disk: ForgetfulDisk, new_server: ServerFactory, size: int
) -> None:
    """Killed before its sync, here by never syncing: the file is whole until the cut, and its sender tries again."""
    storage = {"min_free_bytes": 0, "journal_bytes": 8 << 20}
    disk.insert()
    careless = new_server(disk.mounted / "data", storage=storage | {"durability": "none"})
    async with careless.running():
        await _journal(careless)
    os.sync()
    careless.start()
    count = 3_000_000 // size  # less than half a journal: nothing is settled
    instances = [make_instance(n, seed=72, size=size) for n in range(count)]
    await send_instances(careless.port, instances)
    careless.kill()
    await _send_again_and_cut(disk, new_server(disk.mounted / "data", storage=storage), instances)


async def test_a_file_that_a_repair_indexed_is_promised_like_any_other(
    disk: ForgetfulDisk, new_server: ServerFactory
) -> None:
    """Put there a moment ago, and by nobody who synced it."""
    server = _server(new_server, disk)
    one = make_instance(1, seed=73, size=300_000)
    disk.insert()
    async with server.running():
        await send_instances(server.port, [one])
    (settled,) = (server.data_dir / "instances").rglob("*.dcm")
    content = settled.read_bytes()
    await server.tool("delete", "--instance", one.sop_instance_uid, "--data-dir", server.data_dir)
    settled.parent.mkdir(parents=True)
    settled.write_bytes(content)
    await server.tool("check", "--repair", "--data-dir", server.data_dir)
    await _send_again_and_cut(disk, server, [one])


async def _send_again_and_cut(disk: ForgetfulDisk, server: Pacslite, instances: list[Instance]) -> None:
    """What is answered 0000, because it is there, is there after a cut as well."""
    server.start()
    async with await Wire.associate(server.port, [Context(1, CT_IMAGE)]) as wire:
        for instance in instances:
            assert (await wire.store(CT_IMAGE, instance.sop_instance_uid, instance.data)).status == 0
        disk.cut()
    server.kill()
    disk.remove()
    disk.insert()
    async with server.running():
        seen = await observe(server.port)
    assert seen.content == {instance.sop_instance_uid: instance.digest for instance in instances}
    await server.tool("check", "--deep", "--data-dir", server.data_dir)


async def _journal(server: Pacslite) -> None:
    async with asyncio.timeout(10):
        while not (server.data_dir / "journal").exists():
            await asyncio.sleep(0.01)


@pytest.mark.timeout(7200 if SWEEP else 300)
async def test_cut_at_each_write_of_one_store(disk: ForgetfulDisk, new_server: ServerFactory) -> None:
    """The disk's own writes and flushes from the start of one store on: the cut comes at the first, the second, ...

    In ``make test`` only every fifth.
    """
    server = _server(new_server, disk)
    kept = [make_instance(n, seed=70, size=50_000) for n in range(3)]
    disk.insert()
    async with server.running():
        await send_instances(server.port, kept)
    disk.remove()
    for operation in range(1, 200, 1 if SWEEP else 5):
        one = make_instance(1000 + operation, seed=70, size=50_000)
        disk.insert()
        server.start()
        disk.cut_after(operation, operation if operation % 2 else None)
        acknowledged = await _try_to_store(server, one.sop_instance_uid, one.data)
        reached = disk.state()["cut_at"] is not None
        if not reached:
            await asyncio.sleep(0.3)  # what happens off the hot path
            reached = disk.state()["cut_at"] is not None
        moment = disk.cut()
        server.kill()
        disk.remove()
        disk.insert()
        async with server.running():
            seen = await observe(server.port)
        assert {item.sop_instance_uid: item.digest for item in kept}.items() <= seen.content.items()
        survived = seen.content.get(one.sop_instance_uid)
        assert survived in (None, one.digest)
        if acknowledged is not None and acknowledged < moment:
            assert survived == one.digest, f"cut at operation {operation}: acknowledged and gone"
        if survived:
            kept.append(one)
        await server.tool("check", "--deep", "--data-dir", server.data_dir)
        disk.remove()
        if not reached:
            return


@pytest.mark.timeout(7200 if SWEEP else 300)
async def test_cut_at_each_write_of_a_delete(disk: ForgetfulDisk, new_server: ServerFactory) -> None:
    """A series of which some is not settled: after the cut it is whole or gone, and gone if the command had ended.

    In ``make test`` only every fortieth.
    """
    server = _server(new_server, disk)
    kept = [make_instance(n, seed=71, series=0, size=20_000) for n in range(3)]
    doomed = [make_instance(n, seed=71, series=1, size=20_000 * n) for n in range(1, 5)]
    promised = {item.sop_instance_uid: item.digest for item in doomed}
    words = ("delete", "--series", doomed[0].series_uid, "--data-dir", str(server.data_dir))
    for operation in range(1, 600, 1 if SWEEP else 40):
        disk.insert()
        server.start()
        await send_instances(server.port, [*kept, *doomed])
        server.kill()
        disk.cut_after(operation, operation if operation % 2 else None)
        await run(*server.command(*words), cwd=ROOT)
        reached = disk.state()["cut_at"] is not None
        disk.cut(operation if operation % 2 else None)
        disk.remove()
        disk.insert()
        async with server.running():
            seen = (await observe(server.port)).content
        assert {item.sop_instance_uid: item.digest for item in kept}.items() <= seen.items()
        rest = {uid: digest for uid, digest in seen.items() if uid in promised}
        assert len(seen) == len(kept) + len(rest)
        assert rest in ({}, promised), f"cut at operation {operation}"
        await server.tool("check", "--deep", "--data-dir", server.data_dir)
        disk.remove()
        if not reached:
            assert not rest, "deleted, and back after the cut"
            return
    raise AssertionError("a deletion has no end")


async def _try_to_store(server: Pacslite, uid: str, data: bytes) -> float | None:
    """When 0000 arrived, or None."""
    try:
        async with await Wire.associate(server.port, [Context(1, CT_IMAGE)]) as wire:
            answer = await wire.store(CT_IMAGE, uid, data)
            return time.monotonic() if answer.status == 0 else None
    except (AbortedError, RejectedError, OSError):
        return None
