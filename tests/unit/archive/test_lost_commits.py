"""The index loses commits while the archive serves: what was acknowledged is indexed again as it was, and stays."""

import asyncio
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pacslite.archive.archive import Archive
from tests.support.instances import make_instance
from tests.support.storing import FailingOperations, archive_in, files_in, image_of, read, rows, store


@contextmanager
def _losing_commits(archive: Archive) -> Iterator[None]:
    """What is committed within is lost with the notes of it, as by a log that could not be written."""
    columns = "digest, data_set_offset, data_set_length"
    before = rows(archive.options.data_dir, f"SELECT {columns}, sop_instance_uid FROM instance")
    yield
    with archive._index.transaction() as connection:
        connection.executemany(
            "UPDATE instance SET digest = ?, data_set_offset = ?, data_set_length = ? WHERE sop_instance_uid = ?",
            before,
        )
        connection.execute("UPDATE totals SET bytes = (SELECT total(data_set_offset + data_set_length) FROM instance)")
        connection.execute("DELETE FROM deleted_file")
    archive._index.fail("sync failed")


@pytest.mark.parametrize("size", [2000, 600_000], ids=["journaled", "file"])
@pytest.mark.parametrize("settled", [False, True])
async def test_a_replaced_unsettled_file_does_not_come_back(tmp_path: Path, size: int, settled: bool) -> None:
    """The note of its removal was lost with the row of what replaced it."""
    first, old, new = make_instance(1, size=900), make_instance(1, size=size), make_instance(1, size=3000)
    live = tmp_path / "live"
    async with archive_in(live, journal_bytes=1 << 20, duplicates="replace") as archive:
        if settled:
            await store(archive, first)
            await archive.settle()
        await store(archive, old)
        with _losing_commits(archive):
            await store(archive, new)
        await asyncio.to_thread(archive._recovery.revive)
        assert read(archive, new.sop_instance_uid) == new.data
        await archive.settle()
        assert (await archive.check(deep=True)).differences == []
        assert archive._store.incoming() == []
        assert not archive._store.must_sync, "nothing is left in the journal"
        image_of(live, tmp_path / "image")
    for directory in (live, tmp_path / "image"):
        async with archive_in(directory, duplicates="replace") as archive:
            assert read(archive, new.sop_instance_uid) == new.data
        assert len(files_in(directory)) == 1


async def test_what_was_replaced_is_remembered_until_it_is_gone(tmp_path: Path) -> None:
    async with archive_in(tmp_path, journal_bytes=1 << 20, duplicates="replace") as archive:
        for size in range(2000, 2010):
            await store(archive, make_instance(1, size=size))
        uid = make_instance(1).sop_instance_uid
        assert len(archive._settler.superseded(uid)) == 9
        await archive.settle()
        assert archive._settler.superseded(uid) == []
        assert archive._settler._superseded == {}


async def test_the_same_data_set_from_another_sender_is_indexed_again(tmp_path: Path) -> None:
    """Its header is longer: the lost row said where the data set begins."""
    instance = make_instance(1)
    async with archive_in(tmp_path, duplicates="replace") as archive:
        await store(archive, instance, source_ae_title="A")
        await archive.settle()
        with _losing_commits(archive):
            await store(archive, instance, source_ae_title="LONGER_TITLE")
        await asyncio.to_thread(archive._recovery.revive)
        await archive.settle()
        assert (await archive.check(deep=True)).differences == []
        assert read(archive, instance.sop_instance_uid) == instance.data


async def test_a_file_that_cannot_be_read_does_not_keep_the_index_closed(tmp_path: Path) -> None:
    bad = ""
    operations = FailingOperations(lambda *_: 0)
    open_file = operations.open_file

    def open_others(directory: int, name: str) -> int:
        if name == bad:
            raise OSError(errno.EIO, "Input/output error")
        return open_file(directory, name)

    operations.open_file = open_others  # type: ignore[method-assign]
    async with archive_in(tmp_path, operations=operations) as archive:
        await store(archive, make_instance(1))
        bad = archive._store.incoming()[0]
        archive._index.fail("sync failed")
        await asyncio.to_thread(archive._recovery.revive)
        assert (await store(archive, make_instance(2))).outcome == "stored"
        bad = ""
        await archive.settle()
        assert read(archive, make_instance(1).sop_instance_uid) == make_instance(1).data
