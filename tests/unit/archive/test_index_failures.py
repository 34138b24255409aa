"""The index fails, and while it is opened again something else fails too: nothing is lost, and it works again."""

import asyncio
import errno
import os
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pacslite.archive.archive import Archive
from pacslite.archive.index.failures import IndexFailure, IndexFull
from pacslite.archive.index.writer import Entry, IndexWriter
from pacslite.archive.keys import Level
from pacslite.archive.options import StorageOptions
from pacslite.archive.record import make_record
from pacslite.dataset.scan import scan_header
from pacslite.errors import DimseError, PacsliteError
from tests.support.index import make_index
from tests.support.instances import Instance, make_instance
from tests.support.storing import (
    EXPLICIT_LITTLE_ENDIAN,
    BrokenConnection,
    archive_in,
    files_in,
    read,
    reference,
    rows,
    sqlite_error,
    store,
)


@contextmanager
def _descriptors_below(number: int) -> Iterator[None]:
    """Whatever is opened from now on and would get this number or a higher one is refused: EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _until_it_works(archive: Archive) -> None:
    for _ in range(250):
        if not archive._index.failed:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"the index is not opened again: {archive._index.failed}")


async def test_index_is_opened_again_whatever_fails_meanwhile(tmp_path: Path) -> None:
    """Each of the files that reopening opens cannot be opened in turn; descriptors of others are left alone."""
    instances = [make_instance(n) for n in range(3)]
    async with archive_in(tmp_path) as archive:
        await asyncio.gather(*(store(archive, each) for each in instances))
        archive._index.fail("sync failed")
        others: list[int] = []
        failures = 0
        for allowed in range(3, 3 + len(os.listdir("/proc/self/fd")) + 20):  # noqa: PTH208
            try:
                with _descriptors_below(allowed):
                    archive._recovery.revive()
                break
            except (OSError, sqlite3.Error):
                failures += 1
                assert archive._index.failed
                if len(others) < 6:
                    others.append(os.open("/dev/null", os.O_RDONLY))  # takes a number that was closed
        assert failures > 3
        assert not archive._index.failed
        for fd in others:
            os.close(fd)  # EBADF if it was taken for ours
        assert (await store(archive, make_instance(9))).outcome == "stored"
        assert all(read(archive, instance.sop_instance_uid) == instance.data for instance in instances)
        assert (await archive.check(deep=True)).differences == []


async def test_index_works_again_by_itself_when_descriptors_do(tmp_path: Path) -> None:
    async with archive_in(tmp_path, settle_seconds=0.02) as archive:
        await store(archive, make_instance(1))
        with _descriptors_below(3):
            archive._index.fail("sync failed")
            await asyncio.sleep(0.2)
            assert archive._index.failed
        await _until_it_works(archive)
        assert (await store(archive, make_instance(2))).outcome == "stored"
        assert (await archive.check(deep=True)).differences == []


@pytest.mark.parametrize("damage", ["torn", "gone"])
async def test_damaged_file_does_not_keep_the_index_closed(tmp_path: Path, damage: str) -> None:
    """An acknowledged file that is not settled yet was damaged from outside: the others are served."""
    async with archive_in(tmp_path, settle_seconds=0.02, settle_files=1_000_000) as archive:
        archive._index.fail("sync failed")
        await _until_it_works(archive)
        with archive._settler.lock:  # nothing is settled meanwhile
            await store(archive, make_instance(1))
            await store(archive, make_instance(2))
            (first, _) = sorted((tmp_path / "incoming").glob("*.dcm"))
            if damage == "gone":
                first.unlink()
            else:
                os.truncate(first, 100)
            archive._index.fail("sync failed")
        await _until_it_works(archive)
        assert read(archive, make_instance(2).sop_instance_uid) == make_instance(2).data
        assert (await store(archive, make_instance(3))).outcome == "stored"
        (difference,) = (await archive.check(deep=True)).differences
        assert difference.name == make_instance(1).sop_instance_uid


async def test_index_that_forgot_that_an_instance_moved_is_told_again(tmp_path: Path) -> None:
    """A sync of the log failed: what was in it may be gone, and the row is where it was before."""
    old, stays, study = make_instance(1, study=1), make_instance(2, study=1), make_instance(3, study=2)
    data = study.data.replace(study.sop_instance_uid.encode(), old.sop_instance_uid.encode())
    new = replace(study, sop_instance_uid=old.sop_instance_uid, data=data)
    async with archive_in(tmp_path, uid_conflict="replace") as archive:
        for instance in (old, stays, study):
            await store(archive, instance)
        await archive.settle()
        await store(archive, new)
        with archive._index.transaction() as connection:
            connection.execute(
                "UPDATE instance SET digest = x'00', series_fk = "
                "(SELECT series_fk FROM instance WHERE sop_instance_uid = ?) WHERE sop_instance_uid = ?",
                (stays.sop_instance_uid, new.sop_instance_uid),
            )
        archive._index.fail("sync failed")
        archive._recovery.revive()
        assert reference(archive, new.sop_instance_uid).study_instance_uid == new.study_uid
        assert read(archive, new.sop_instance_uid) == new.data
        await archive.settle()
    assert len(files_in(tmp_path)) == 3


async def test_nothing_is_settled_on_the_word_of_a_sync_after_one_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel drops what it could not write, and says well the next time."""
    failures = iter([errno.EIO])
    sync = os.fdatasync

    def fail_once(fd: int) -> None:
        for number in failures:
            raise OSError(number, os.strerror(number))
        sync(fd)

    async with archive_in(tmp_path) as archive:
        with closing(sqlite3.connect(tmp_path / "index.sqlite")) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM instance").fetchone()
            await store(archive, make_instance(1))
            with monkeypatch.context() as patch:
                patch.setattr("pacslite.archive.index.connections.os.fdatasync", fail_once)
                with pytest.raises(OSError, match="Input/output error"):
                    await archive.settle()
                with pytest.raises(IndexFailure, match="Input/output error"):
                    await archive.settle()
            assert archive.unsettled == 1
        archive._settler._wanted.set()
        await _until_it_works(archive)
        await archive.settle()
        assert archive.unsettled == 0


async def test_nobody_settles_while_the_index_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening, go_on = threading.Event(), threading.Event()
    async with archive_in(tmp_path, settle_seconds=0.01) as archive:
        reopen = archive._index.reopen

        def wait_and_reopen() -> None:
            opening.set()
            go_on.wait(10)
            reopen()

        monkeypatch.setattr(archive._index, "reopen", wait_and_reopen)
        archive._index.fail("once")
        assert await asyncio.to_thread(opening.wait, 10)
        assert archive._settler._round.locked(), "its connections may be in use"
        asked = asyncio.create_task(archive.settle())
        await asyncio.sleep(0.05)
        assert not asked.done()
        go_on.set()
        await asked


async def test_failed_checkpoint_settles_nothing(tmp_path: Path) -> None:
    """No room for the checkpoint: nothing is settled then, nor the next time, until it has been taken."""
    async with archive_in(tmp_path) as archive:
        await store(archive, make_instance(1))
        connections = archive._index._connections
        broken = BrokenConnection(connections.checkpointer, "PRAGMA wal_checkpoint")
        connections.checkpointer = broken  # type: ignore[assignment]
        broken.error = sqlite_error(sqlite3.SQLITE_FULL, "database or disk is full")
        for _ in range(2):
            with pytest.raises(sqlite3.OperationalError):
                await archive.settle()
            assert [name.partition("/")[0] for name in files_in(tmp_path)] == ["incoming"]
        broken.error = None
        await archive.settle()
        assert [name.partition("/")[0] for name in files_in(tmp_path)] == ["instances"]


# Byte 121 is what SQLite locks for a checkpoint: as sqlite3's shell does, or a backup that follows the log
_CHECKPOINT_OF_ANOTHER = """
import fcntl, sys
with open(sys.argv[1], "r+b") as shared:
    fcntl.lockf(shared, fcntl.LOCK_EX, 1, 121)
    print("ready", flush=True)
    sys.stdin.readline()
"""


async def test_checkpoint_of_another_process_is_not_ours(tmp_path: Path) -> None:
    """What is in the log alone is not settled, or a power cut would leave files that nobody finds."""
    async with archive_in(tmp_path) as archive:
        await store(archive, make_instance(1))
        await archive.settle()
        index_shm = archive.index.path.with_name("index.sqlite-shm")
        with subprocess.Popen(
            [sys.executable, "-c", _CHECKPOINT_OF_ANOTHER, str(index_shm)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
            await store(archive, make_instance(2))
            assert not archive._index.checkpoint()
            assert not archive._index.checkpoint(), "nor the next time"
            other.communicate("\n")
        assert archive._index.checkpoint()


def test_reader_at_the_start_keeps_what_a_killed_process_left_in_the_log(tmp_path: Path) -> None:
    """A backup has the index open since before the last store: nothing of that is settled, and the start goes on."""
    path = make_index(tmp_path, [])
    options = StorageOptions(data_dir=tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        killed = IndexWriter(path, options)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM instance").fetchone() == (0,)
        assert killed.commit([_entry(make_instance(1))]) == [None]
        killed._connections.close()  # and takes nothing into the index, since there is a reader
        began = time.monotonic()
        writer = IndexWriter(path, options)
        try:
            writer.cleanse()
            assert time.monotonic() - began < 10
            assert not writer.checkpoint(), "rows of the log count as safe"
            reader.execute("ROLLBACK")
            assert writer.checkpoint()
        finally:
            writer.close()


@pytest.mark.parametrize("settled", [False, True])
async def test_deletion_whose_sync_fails(tmp_path: Path, settled: bool) -> None:
    """The index fails with it, as after any failed sync; the deletion is finished when it works again."""
    kept, gone = make_instance(1, series=1), make_instance(2, series=2)
    async with archive_in(tmp_path) as archive:
        await asyncio.gather(store(archive, kept), store(archive, gone))
        if settled:
            await archive.settle()
        archive._index._connections.log.close()  # who syncs it is told of an error
        with pytest.raises(OSError, match="log is closed"):
            await archive.delete(Level.IMAGE, gone.sop_instance_uid)
        assert archive._index.failed
        archive._recovery.revive()
        await archive.settle()
        assert rows(tmp_path, "SELECT sop_instance_uid FROM instance") == [(kept.sop_instance_uid,)]
        assert len(files_in(tmp_path)) == 1
        assert read(archive, kept.sop_instance_uid) == kept.data
        assert (await archive.check(deep=True)).differences == []


def _entry(instance: Instance) -> Entry:
    record = make_record(
        scan_header(instance.data, EXPLICIT_LITTLE_ENDIAN),
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=instance.sop_instance_uid,
        transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
        source_ae_title="TEST",
    )
    record.digest = bytes(16)
    return Entry(record)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_large_group_is_taken_whole_or_not(tmp_path: Path, after: int) -> None:
    """Its rows need several statements: a disk that is full at the second leaves no row of the first."""
    path = make_index(tmp_path, [])
    writer = IndexWriter(path, StorageOptions(data_dir=tmp_path))
    try:
        assert writer.commit([_entry(make_instance(0))]) == [None]
        broken = BrokenConnection(writer._connections.writer, "INSERT INTO instance", after=after)
        writer._connections.writer = broken  # type: ignore[assignment]
        broken.error = sqlite_error(sqlite3.SQLITE_FULL, "database or disk is full")
        group = [_entry(make_instance(n, size=100)) for n in range(1, 151)]
        outcomes: list[DimseError | None] = writer.commit(group)
        assert all(isinstance(outcome, IndexFull) for outcome in outcomes)
        assert writer.totals().instances == 1
        broken.error = None
        assert writer.commit(group) == [None] * 150
        assert writer.totals().instances == 151
    finally:
        writer.close()
    assert rows(tmp_path, "SELECT count(*) FROM instance") == [(151,)]


@pytest.mark.parametrize("start", [4096, 60_000])
async def test_damaged_index_says_what_mends_it(tmp_path: Path, start: int) -> None:
    """Wherever it is damaged: before its schema can be read, or after."""
    async with archive_in(tmp_path) as archive:
        await asyncio.gather(*(store(archive, make_instance(n)) for n in range(50)))
    content = bytearray((tmp_path / "index.sqlite").read_bytes())
    content[start:] = b"\xff" * (len(content) - start)
    (tmp_path / "index.sqlite").write_bytes(content)
    with pytest.raises(PacsliteError, match="run pacslite reindex"):
        await archive_in(tmp_path).start()
