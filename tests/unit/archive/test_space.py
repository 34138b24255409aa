"""Refused before the disk is full, taken up again without help; what is there stays readable."""

import asyncio
from pathlib import Path
from typing import Literal

import pytest

from pacslite.archive.instances.fileops import FileOperations
from pacslite.archive.keys import Level
from pacslite.archive.outcome import OutOfResources
from pacslite.archive.space import LOOK_SECONDS
from tests.support.instances import make_instance
from tests.support.storing import archive_in, begin, files_in, read, store


class _Disk(FileOperations):
    def __init__(self) -> None:
        self.free = 1 << 30

    def free_bytes(self, fd: int) -> int:
        del fd
        return self.free


async def test_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("pacslite.archive.space.monotonic", lambda: now)
    disk = _Disk()
    async with archive_in(tmp_path, operations=disk, min_free_bytes=500_000) as archive:
        await store(archive, make_instance(1))
        disk.free = 499_999
        await store(archive, make_instance(2))  # looked at once a second
        now += LOOK_SECONDS
        with pytest.raises(OutOfResources) as raised:
            begin(archive, make_instance(3))
        assert raised.value.status == 0xA700
        assert "min_free_bytes" in str(raised.value)
        assert read(archive, make_instance(1).sop_instance_uid) == make_instance(1).data
        disk.free = 1 << 30
        now += LOOK_SECONDS
        await store(archive, make_instance(3))


async def test_floor_counts_what_was_taken_since_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacslite.archive.space.monotonic", lambda: 1000.0)
    disk = _Disk()
    disk.free = 1_000_000
    async with archive_in(tmp_path, operations=disk, min_free_bytes=500_000) as archive:
        for number in range(5):
            await store(archive, make_instance(number, size=100_000))
        with pytest.raises(OutOfResources):
            begin(archive, make_instance(9))


@pytest.mark.parametrize("limit", [{"min_free_bytes": 500_000}, {"max_bytes": 1_000_000}], ids=["floor", "quota"])
async def test_large_object_does_not_run_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: dict[str, int]
) -> None:
    """There was room when it began; when there is none its rest is dropped, and nothing of it stays."""
    monkeypatch.setattr("pacslite.archive.space.monotonic", lambda: 1000.0)
    disk = _Disk()
    disk.free = 1_500_000
    async with archive_in(tmp_path, operations=disk, piece_bytes=65_536, **limit) as archive:
        await store(archive, make_instance(1, size=300_000))
        incoming = begin(archive, make_instance(2, size=50_000_000))
        data = memoryview(make_instance(2, size=50_000_000).data)
        most = 0
        for at in range(0, len(data), 65_536):
            incoming.write(data[at : at + 65_536])
            await asyncio.sleep(0)
            most = max(most, sum(path.stat().st_size for path in tmp_path.rglob("*.dcm")))
        with pytest.raises(OutOfResources):
            await incoming.commit()
        assert most < 1_600_000
        assert len(files_in(tmp_path)) == 1
        assert archive._budget.used == 0


@pytest.mark.parametrize("duplicates", ["keep", "replace"])
async def test_what_is_counted_for_the_quota_is_what_is_there(
    tmp_path: Path, duplicates: Literal["keep", "replace"]
) -> None:
    """Files with their headers, however small, and what has grown or shrunk in a place."""
    async with archive_in(tmp_path, duplicates=duplicates, journal_bytes=1 << 20) as archive:
        archive._store.prepare()
        for number, size in enumerate((2_000, 300_000, 5_000)):
            await store(archive, make_instance(number, size=size))
        for number, size in enumerate((4_000, 2_000, 5_000)):
            await store(archive, make_instance(number, size=size))
        await archive.delete(Level.IMAGE, make_instance(2).sop_instance_uid)
        assert archive._space.stored_bytes == (await archive.totals()).bytes
        await archive.settle()
        assert archive._space.stored_bytes == sum(path.stat().st_size for path in tmp_path.rglob("*.dcm"))


async def test_quota(tmp_path: Path) -> None:
    async with archive_in(tmp_path, max_bytes=30_000) as archive:
        for number in range(3):
            await store(archive, make_instance(number, size=10_000))
        with pytest.raises(OutOfResources, match="max_bytes"):
            begin(archive, make_instance(9))
    async with archive_in(tmp_path, max_bytes=30_000) as archive:  # known again after a restart
        with pytest.raises(OutOfResources, match="max_bytes"):
            begin(archive, make_instance(9))
        await archive.delete(Level.IMAGE, make_instance(0).sop_instance_uid)
        await store(archive, make_instance(9, size=5_000))
