"""A really full disk, a disk without inodes, a read-only one: refused in the protocol's terms, and back by itself."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.checker import judge, observe
from tests.faults.loading import Load
from tests.support.disks import loop_disk
from tests.support.exchange import send_instances
from tests.support.instances import Instance, make_instance
from tests.support.processes import Pacslite, ServerFactory, need
from tests.support.wire import CT_IMAGE, VERIFICATION, Answer, Context, Wire

ALARMS = ["No space", "ENOSPC", "disk", "full", "Read-only", "EROFS", "rror", "storing refused"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with loop_disk(tmp_path, megabytes=96) as mounted:
        yield mounted


async def _store(server: Pacslite, instance: Instance) -> Answer:
    async with await Wire.associate(server.port, [Context(1, CT_IMAGE), Context(3, VERIFICATION)]) as wire:
        answer = await wire.store(CT_IMAGE, instance.sop_instance_uid, instance.data)
        assert await wire.echo() == 0
        return answer


async def _until_stored(server: Pacslite, instance: Instance, *, seconds: float) -> None:
    end = asyncio.get_running_loop().time() + seconds
    answer = await _store(server, instance)
    while answer.status and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.05)
        answer = await _store(server, instance)
    assert answer.status == 0, f"still {answer} after {seconds} s"


async def test_disk_full_under_sixteen_associations(
    small_disk: Path, new_server: ServerFactory, tmp_path: Path
) -> None:
    """A700 to each, queries go on, and with space again stores work within a second."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(48 << 20))
    server = new_server(small_disk / "data", storage={"min_free_bytes": 0})
    server.expected = ALARMS
    server.start()
    load = Load(tmp_path, server.port, 84, "--seconds", 6, "--size", 300_000, "--persist")
    history = await load.finish()
    refused = [status for attempt in history.attempts.values() for status in attempt.refusals]
    assert len(refused) >= 16
    assert set(refused) == {0xA700}
    seen = await observe(server.port)
    violations = judge(history, seen)
    assert not violations, "\n".join(violations[:20])
    ballast.unlink()
    await _until_stored(server, make_instance(1, seed=85, size=300_000), seconds=1)
    fresh = Load(tmp_path, server.port, 86, "--seconds", 1, "--size", 5_000, "--per", 3)
    history.merge(await fresh.finish())
    assert not any(attempt.refusals for attempt in history.attempts.values() if ".86." in attempt.uid)
    await asyncio.to_thread(server.stop)
    async with server.running():
        seen = await observe(server.port)
        seen.rows = [row for row in seen.rows if ".85." not in row[2]]
        seen.content = {uid: digest for uid, digest in seen.content.items() if ".85." not in uid}
        violations = [text for text in judge(history, seen) if ".85." not in text]
        assert not violations, "\n".join(violations[:20])
    await server.tool("check", "--deep", "--data-dir", server.data_dir)


async def test_killed_on_a_full_disk_with_a_journal(small_disk: Path, new_server: ServerFactory) -> None:
    """What the journal took could not be settled, before the kill and after it: it is there nevertheless."""
    server = new_server(small_disk / "data", storage={"min_free_bytes": 0, "journal_bytes": 4 << 20})
    server.expected = ALARMS
    server.start()
    await _until_stored(server, make_instance(0, seed=92, size=50_000), seconds=5)
    while not (server.data_dir / "journal").exists():
        await asyncio.sleep(0.05)
    ballast = small_disk / "ballast"
    state = os.statvfs(small_disk)
    ballast.write_bytes(bytes(state.f_bavail * state.f_frsize - (2 << 20)))
    instances = [make_instance(number, seed=93, size=50_000) for number in range(200)]
    kept = {}
    for instance in instances:
        answer = await _store(server, instance)
        assert answer.status in {0, 0xA700}
        if answer.status == 0:
            kept[instance.sop_instance_uid] = instance.digest
    assert 10 < len(kept) < len(instances)
    for full in (True, False):
        server.kill()
        if full:
            os.truncate(ballast, ballast.stat().st_size - (512 << 10))  # for the index; for ten files or so, too
        else:
            ballast.unlink()
        server.start()
        content = (await observe(server.port)).content
        assert {uid: digest for uid, digest in content.items() if ".93." in uid} == kept
    await _until_stored(server, instances[-1], seconds=2)
    await asyncio.to_thread(server.stop)
    await server.tool("check", "--deep", "--data-dir", server.data_dir)


async def test_free_space_floor(small_disk: Path, new_server: ServerFactory) -> None:
    """A700 before the disk is full, and the floor stays free."""
    floor = 40 << 20
    server = new_server(small_disk / "data", storage={"min_free_bytes": floor})
    server.expected = ALARMS
    async with server.running():
        for number in range(60):
            answer = await _store(server, make_instance(number, seed=87, size=1 << 20))
            if answer.status:
                break
        assert answer.status == 0xA700
        assert answer.comment
        state = os.statvfs(small_disk)
        free = state.f_bavail * state.f_frsize
        assert floor - (4 << 20) < free < floor + (4 << 20)
        (small_disk / "data" / "something").touch()
        assert len((await observe(server.port)).content) == number


async def test_quota(new_server: ServerFactory) -> None:
    server = new_server(storage={"max_bytes": 5 << 20})
    server.expected = ALARMS
    async with server.running():
        statuses = [(await _store(server, make_instance(number, seed=88, size=1 << 20))).status for number in range(8)]
        assert statuses[:4] == [0] * 4
        assert statuses[-1] == 0xA700


async def test_out_of_inodes(tmp_path: Path, new_server: ServerFactory) -> None:
    with loop_disk(tmp_path, megabytes=32, inodes=64) as mounted:
        server = new_server(mounted / "data", storage={"min_free_bytes": 0})
        server.expected = ALARMS
        async with server.running():
            statuses = [(await _store(server, make_instance(n, seed=89, size=1000))).status for n in range(300)]
            assert statuses[0] == 0
            assert statuses[-1] == 0xA700
            assert len((await observe(server.port)).content) == statuses.count(0)


async def test_disk_turns_read_only(small_disk: Path, new_server: ServerFactory) -> None:
    """What ext4 does after an error of the medium: stores are refused, queries and retrieves go on."""
    server = new_server(small_disk / "data", storage={"min_free_bytes": 0})
    server.expected = ALARMS
    server.start()
    before = [make_instance(number, seed=90) for number in range(5)]
    await send_instances(server.port, before)
    await asyncio.sleep(1)
    _make_read_only(small_disk)
    for number in (10, 11):
        answer = await _store(server, make_instance(number, seed=90, size=100_000))
        assert answer.status == 0x0110 or 0xA700 <= answer.status <= 0xA7FF, answer
        assert answer.comment
    assert (await observe(server.port)).content == {item.sop_instance_uid: item.digest for item in before}
    assert server.process.poll() is None
    server.kill()


def _make_read_only(mounted: Path) -> None:
    """By the kernel's own switch, since there are files open for writing."""
    device = subprocess.check_output([need("findmnt"), "-n", "-o", "SOURCE", str(mounted)], text=True).strip()
    switch = Path("/sys/fs/ext4") / Path(device).name / "trigger_fs_error"
    try:
        switch.write_text("1")
    except OSError as error:
        pytest.fail(f"{switch}: {error}: permit writing to /sys/fs/ext4 (root)", pytrace=False)
    with pytest.raises(OSError, match="Read-only"):
        (mounted / "probe").touch()


@pytest.mark.parametrize("folder", ["incoming", "instances"])
async def test_folder_that_may_not_be_written(small_disk: Path, new_server: ServerFactory, folder: str) -> None:
    """Refused with status and comment, or stored and settled later; the server lives, and needs no help afterwards."""
    server = new_server(small_disk / "data", storage={"min_free_bytes": 0})
    server.expected = ALARMS
    chattr = need("chattr")
    async with server.running():
        before = make_instance(1, seed=126)
        await send_instances(server.port, [before])
        while not list((server.data_dir / "instances").rglob("*.dcm")):
            await asyncio.sleep(0.05)
        subprocess.run([chattr, "+i", str(server.data_dir / folder)], check=True)  # root too: EPERM
        try:
            for size in (1_000, 300_000, 3_000_000):
                answer = await _store(server, make_instance(size, seed=126, study=1, size=size))
                if (
                    folder == "incoming" and size > 256 << 10
                ):  # smaller ones need it no more than the journal needs them
                    assert answer.status == 0x0110
                    assert "EPERM" in answer.comment
                else:
                    assert answer.status == 0
            await asyncio.sleep(1.5)
            seen = await observe(server.port)
            assert len(seen.content) == (2 if folder == "incoming" else 4)
        finally:
            subprocess.run([chattr, "-i", str(server.data_dir / folder)], check=True)
        assert (await _store(server, make_instance(2, seed=126))).status == 0
        for _ in range(100):
            if not list((server.data_dir / "incoming").glob("*.dcm")):
                break
            await asyncio.sleep(0.05)
        assert not list((server.data_dir / "incoming").glob("*.dcm"))
    await server.tool("check", "--deep", "--data-dir", server.data_dir)


async def test_start_on_a_read_only_disk_says_so(tmp_path: Path, new_server: ServerFactory) -> None:
    with loop_disk(tmp_path, megabytes=32) as mounted:
        subprocess.run([need("mount"), "-o", "remount,ro", str(mounted)], check=True)
        server = new_server(mounted / "data")
        server.launch()
        code = await asyncio.to_thread(server.process.wait, 10)
        assert code not in (0, -9)
        assert "Traceback" not in server.text()
        assert "ead-only" in server.text()
        assert str(mounted) in server.text()
