"""Each call of a store fails in turn, once and from then on (SQLite's own method); no call is ever simply repeated."""

import asyncio
import errno
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from pacslite.archive.archive import Archive
from pacslite.archive.outcome import OutOfResources, StorageFailed
from pacslite.errors import DimseError
from tests.support.instances import Instance, make_instance
from tests.support.storing import (
    BrokenConnection,
    FailingOperations,
    archive_in,
    files_in,
    read,
    rows,
    sqlite_error,
    store,
)

CALLS = ["create", "append", "write_at", "sync"]
IN_JOURNAL = [*CALLS, "write_durably"]


def _open_files(directory: Path) -> list[str]:
    """Descriptors of instance files and directories; SQLite has its own ways with those of closed connections, and a
    journal that failed is closed for good.
    """
    paths = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            paths.append(str(link.readlink()))
    others = (str(directory / "index.sqlite"), str(directory / "journal"))
    return sorted(path for path in paths if path.startswith(str(directory)) and not path.startswith(others))


async def _visible_are_readable(archive: Archive, sent: list[Instance]) -> set[str]:
    visible = {uid for (uid,) in rows(archive.options.data_dir, "SELECT sop_instance_uid FROM instance")}
    for instance in sent:
        if instance.sop_instance_uid in visible:
            assert read(archive, instance.sop_instance_uid) == instance.data
    return visible


@pytest.mark.parametrize(("error", "refusal"), [(errno.EIO, StorageFailed), (errno.ENOSPC, OutOfResources)])
@pytest.mark.parametrize("size", [2000, 300_000], ids=["small", "streamed"])
@pytest.mark.parametrize(("call", "journal_bytes"), [*((c, 0) for c in CALLS), *((c, 1 << 20) for c in IN_JOURNAL)])
async def test_a_failing_call_is_told_and_leaves_nothing(
    tmp_path: Path, call: str, size: int, error: int, refusal: type[DimseError], journal_bytes: int
) -> None:
    failing_at = 0
    operations = FailingOperations(lambda name, count: error if name == call and count == failing_at else 0, IN_JOURNAL)
    async with archive_in(tmp_path, operations=operations, piece_bytes=65_536, journal_bytes=journal_bytes) as archive:
        archive._store.prepare()
        await store(archive, make_instance(0))
        descriptors = _open_files(tmp_path)
        for number in range(1, 20):
            failing_at = operations.counts.get(call, 0) + number
            reached = operations.counts.get(call, 0)
            instance = make_instance(number, size=size)
            (outcome,) = await asyncio.gather(store(archive, instance), return_exceptions=True)
            if not isinstance(outcome, BaseException):
                assert operations.counts.get(call, 0) - reached < number
                break
            assert isinstance(outcome, refusal)
            assert errno.errorcode[error] in str(outcome)
            assert await _visible_are_readable(archive, [instance]) == {make_instance(0).sop_instance_uid}
            failing_at = 0
            assert (await store(archive, instance)).outcome == "stored"
            await archive.delete(3, instance.sop_instance_uid)  # type: ignore[arg-type]
        else:
            pytest.fail("no end")
        failing_at = 0
        await asyncio.sleep(0)
        assert _open_files(tmp_path) == descriptors
        assert (await archive.check(deep=True)).differences == []
    assert len(files_in(tmp_path)) == 2 if call in operations.counts else 1


async def test_a_failed_sync_is_not_repeated_on_its_file(tmp_path: Path) -> None:
    """PostgreSQL's lesson of 2018: a second fsync may return 0 although the pages are gone."""
    operations = FailingOperations(lambda name, count: errno.EIO if (name, count) == ("sync", 1) else 0)
    synced: list[int] = []
    sync = operations.sync

    def record(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        sync(fd)

    operations.sync = record  # type: ignore[method-assign]
    instance = make_instance(1)
    async with archive_in(tmp_path, operations=operations) as archive:
        with pytest.raises(StorageFailed):
            await store(archive, instance)
        assert files_in(tmp_path) == []
        await store(archive, instance)
        assert read(archive, instance.sop_instance_uid) == instance.data
        (name,) = files_in(tmp_path)
        assert (tmp_path / name).stat().st_ino == synced[1]
    assert len(synced) == 2


async def test_disk_that_stays_full_refuses_and_then_recovers(tmp_path: Path) -> None:
    full = False
    operations = FailingOperations(lambda name, _: errno.ENOSPC if full and name in {"append", "create"} else 0)
    async with archive_in(tmp_path, operations=operations, piece_bytes=65_536) as archive:
        await store(archive, make_instance(0))
        full = True
        instances = [make_instance(n, size=100_000) for n in range(1, 17)]
        refused = await asyncio.gather(*(store(archive, each) for each in instances), return_exceptions=True)
        assert all(isinstance(each, OutOfResources) for each in refused)
        assert read(archive, make_instance(0).sop_instance_uid) == make_instance(0).data
        assert len(files_in(tmp_path)) == 1
        full = False
        stored = await asyncio.gather(*(store(archive, each) for each in instances))
        assert {each.outcome for each in stored} == {"stored"}


@pytest.mark.parametrize("mended", ["while it runs", "before the next start"])
async def test_files_that_cannot_be_settled_stay_readable(tmp_path: Path, mended: str) -> None:
    stuck = True
    operations = FailingOperations(lambda name, _: errno.EACCES if stuck and name == "rename" else 0)
    instances = [make_instance(n) for n in range(3)]
    async with archive_in(tmp_path, operations=operations) as archive:
        await asyncio.gather(*(store(archive, instance) for instance in instances))
        await archive.settle()
        assert all(read(archive, instance.sop_instance_uid) == instance.data for instance in instances)
        assert all(name.startswith("incoming/") for name in files_in(tmp_path))
        assert (await archive.check(deep=True)).differences == []
        if mended == "while it runs":
            stuck = False
            await archive.settle()
            assert archive.unsettled == 0
    stuck = False
    async with archive_in(tmp_path, operations=operations) as archive:
        await archive.settle()
        assert archive.unsettled == 0
        assert all(name.startswith("instances/") for name in files_in(tmp_path))
        assert all(read(archive, instance.sop_instance_uid) == instance.data for instance in instances)


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT", "UPDATE", "COMMIT"])
async def test_full_disk_under_the_index(tmp_path: Path, statement: str) -> None:
    instances = [make_instance(n, series=n) for n in range(6)]
    async with archive_in(tmp_path) as archive:
        await store(archive, make_instance(99))
        broken = BrokenConnection(archive._index._connections.writer, statement)
        archive._index._connections.writer = broken  # type: ignore[assignment]
        broken.error = sqlite_error(sqlite3.SQLITE_FULL, "database or disk is full")
        refused = await asyncio.gather(*(store(archive, each) for each in instances), return_exceptions=True)
        assert [getattr(each, "status", each) for each in refused] == [0xA700] * 6
        assert len(files_in(tmp_path)) == 1
        broken.error = None
        await asyncio.gather(*(store(archive, each) for each in instances))
        assert (await archive.check(deep=True)).differences == []


async def test_failed_index_is_opened_again_and_loses_nothing(tmp_path: Path) -> None:
    """Rows that a failed sync of the log may have lost come back from ``incoming``."""
    before = [make_instance(n, series=n) for n in range(4)]
    async with archive_in(tmp_path, settle_seconds=0.05) as archive:
        await asyncio.gather(*(store(archive, each) for each in before))
        broken = BrokenConnection(archive._index._connections.writer, "INSERT")
        archive._index._connections.writer = broken  # type: ignore[assignment]
        broken.error = sqlite_error(sqlite3.SQLITE_IOERR_FSYNC, "disk I/O error")
        with pytest.raises(DimseError) as raised:
            await store(archive, make_instance(50))
        assert raised.value.status == 0x0110
        for _ in range(100):
            if not archive._index.failed:
                break
            await asyncio.sleep(0.02)
        assert not archive._index.failed
        assert (await store(archive, make_instance(50))).outcome == "stored"
        assert (await archive.check(deep=True)).differences == []
        assert len(rows(tmp_path, "SELECT id FROM instance")) == 5


async def test_rows_lost_by_a_failed_sync_are_written_again(tmp_path: Path) -> None:
    instances = [make_instance(n) for n in range(3)]
    async with archive_in(tmp_path) as archive:
        await asyncio.gather(*(store(archive, each) for each in instances))
        with archive._index.transaction() as connection:  # what the disk forgot
            connection.execute("DELETE FROM instance WHERE id = 2")
            connection.execute("UPDATE series SET number_of_instances = 2")
        archive._index.fail("sync failed")
        with pytest.raises(DimseError):
            await store(archive, make_instance(50))
        await asyncio.to_thread(archive._recovery.revive)
        assert {uid for (uid,) in rows(tmp_path, "SELECT sop_instance_uid FROM instance")} == {
            instance.sop_instance_uid for instance in instances
        }
        assert all(read(archive, instance.sop_instance_uid) == instance.data for instance in instances)


async def test_unexpected_error_does_not_stop_the_others(tmp_path: Path) -> None:
    """A defect of ours in a disk thread is answered, logged, and over with its object."""
    spoilt = make_instance(1)

    class Operations(FailingOperations):
        made = 0

        def create(self, directory: int, name: str) -> int:
            self.made += 1
            if self.made == 3:
                raise RuntimeError("defect")
            return super().create(directory, name)

    operations = Operations(lambda *_: 0, ["unlink"])
    async with archive_in(tmp_path, operations=operations) as archive:
        instances = [make_instance(n) for n in range(10)]
        outcomes = await asyncio.gather(*(store(archive, each) for each in instances), return_exceptions=True)
        assert sum(isinstance(outcome, StorageFailed) for outcome in outcomes) == 1
        await store(archive, spoilt)
        assert (await archive.check(deep=True)).differences == []
