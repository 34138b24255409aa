"""What goes wrong while the index is built anew costs time, and no instance."""

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pacslite.archive import reindex as module
from pacslite.archive.index.writer import IndexWriter
from pacslite.archive.instances.filesystem import FilesystemStore
from pacslite.archive.keys import Level
from pacslite.archive.reindex import IndexIncomplete, ReindexAborted, reindex
from tests.support.instances import make_instance
from tests.support.storing import archive_in, files_in, image_of, rows, sqlite_error, store

COUNT = 20


@pytest.fixture
async def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive that was stopped in order; a run takes its files in several groups."""
    monkeypatch.setattr(module, "_GROUP", 4)
    async with archive_in(tmp_path) as archive:
        for number in range(COUNT):
            await store(archive, make_instance(number))
    return tmp_path


async def assert_whole(directory: Path) -> None:
    async with archive_in(directory) as archive:
        assert (await archive.totals()).instances == COUNT
        assert (await archive.check(deep=True)).differences == []


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (sqlite3.SQLITE_FULL, "disk is full"),
        (sqlite3.SQLITE_IOERR, "disk I/O error"),
        (sqlite3.SQLITE_CANTOPEN, "unable to open database file"),
    ],
)
async def test_rows_that_are_not_taken_end_the_run(
    directory: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    text: str,
) -> None:
    """An index without them must not take the place of one that has them."""
    groups = 0

    def commit(index: IndexWriter, *arguments: Any) -> Any:
        nonlocal groups
        groups += 1
        if groups > 2:
            raise sqlite_error(code, text)
        return real(index, *arguments)

    real = IndexWriter._commit
    with monkeypatch.context() as broken:
        broken.setattr(IndexWriter, "_commit", commit)
        with pytest.raises(ReindexAborted, match=rf"{text}.* run pacslite reindex again, or remove index\.sqlite\.new"):
            reindex(archive_in(directory).options)
    with pytest.raises(IndexIncomplete):
        await archive_in(directory).start()
    old = image_of(directory, tmp_path_factory.mktemp("old") / "data")
    (old / "index.sqlite.new").unlink()  # as the message says
    await assert_whole(old)
    done = reindex(archive_in(directory).options)
    assert (done.resumed, done.indexed, done.refused) == (8, COUNT - 8, [])
    await assert_whole(directory)


async def test_a_log_that_is_not_taken_in_is_kept(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are in it, and nowhere else: on a full disk checkpoints fail too."""
    others: list[sqlite3.Connection] = []

    def hold(_done: int, _total: int) -> None:
        others.append(sqlite3.connect(directory / "index.sqlite.new"))  # SQLite empties the log with the last one
        others[-1].execute("SELECT count(*) FROM instance").fetchone()

    with monkeypatch.context() as broken:
        broken.setattr(IndexWriter, "checkpoint", lambda _: False)
        broken.setattr(IndexWriter, "close", lambda index: index._connections.close())
        with pytest.raises(ReindexAborted, match=r"index\.sqlite\.new-wal"):
            reindex(archive_in(directory).options, hold)
    for other in others:
        other.close()
    assert reindex(archive_in(directory).options).resumed == COUNT
    await assert_whole(directory)


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOMEM, errno.EACCES])
async def test_files_that_cannot_be_opened_just_then_end_the_run(
    directory: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    opened = 0

    def open_settled(files: FilesystemStore, *arguments: Any) -> int:
        nonlocal opened
        opened += 1
        if opened > 10:
            raise OSError(error, os.strerror(error))
        return real(files, *arguments)

    real = FilesystemStore.open_settled
    with monkeypatch.context() as broken:
        broken.setattr(FilesystemStore, "open_settled", open_settled)
        with pytest.raises(ReindexAborted, match=os.strerror(error)):
            reindex(archive_in(directory).options)
    assert reindex(archive_in(directory).options).refused == []
    await assert_whole(directory)


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_directories_that_cannot_be_listed_end_the_run(
    directory: Path, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    """Taken for empty ones they would leave an index without what is in them."""
    (series,) = {path.parent for path in directory.rglob("*.dcm")}
    closed = str(Path(*series.relative_to(directory / "instances").parts[: depth + 1]))
    real = os.open

    def refuse(path: Any, *arguments: Any, **more: Any) -> int:
        if path == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, *arguments, **more)

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", refuse)
        with pytest.raises(ReindexAborted, match="Permission denied"):
            reindex(archive_in(directory).options)
    assert reindex(archive_in(directory).options).indexed == COUNT
    await assert_whole(directory)


@pytest.mark.parametrize(
    "error",
    [
        sqlite_error(sqlite3.SQLITE_FULL, "disk is full"),
        sqlite_error(sqlite3.SQLITE_IOERR_SHMSIZE, "disk I/O error"),  # no room beside it
    ],
)
async def test_an_old_index_that_cannot_be_read_just_then_ends_the_run(
    directory: Path, monkeypatch: pytest.MonkeyPatch, error: sqlite3.Error
) -> None:
    """It notes deletions whose files are still to go: without it they would come back."""

    def refuse(*_: object) -> None:
        raise error

    deleted = make_instance(3)
    with monkeypatch.context() as broken:
        broken.setattr(FilesystemStore, "remove_settled", _fails)
        async with archive_in(directory) as archive:
            await archive.delete(Level.IMAGE, deleted.sop_instance_uid)
    with monkeypatch.context() as broken:
        broken.setattr(IndexWriter, "notes", refuse)
        with pytest.raises(ReindexAborted, match=rf"index\.sqlite: {error}"):
            reindex(archive_in(directory).options)
    assert reindex(archive_in(directory).options).indexed == COUNT - 1


def _fails(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


async def test_a_run_knows_what_one_before_it_indexed_under_hashed_names(directory: Path) -> None:
    """Such a name does not tell the UID."""
    like = make_instance(COUNT)
    uid = "A" + like.sop_instance_uid[1:]
    data = like.data.replace(like.sop_instance_uid.encode(), uid.encode())
    odd = replace(like, sop_instance_uid=uid, data=data)
    async with archive_in(directory) as archive:
        await store(archive, odd)

    def interrupt(done: int, _total: int) -> None:
        if done == COUNT + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reindex(archive_in(directory).options, interrupt)
    done = reindex(archive_in(directory).options)
    assert (done.files, done.indexed, done.resumed, done.refused) == (COUNT + 1, 0, COUNT + 1, [])


@pytest.mark.parametrize("part", ["all", "a page"])
async def test_a_damaged_index_of_an_interrupted_run_is_begun_anew(
    directory: Path, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        reindex(archive_in(directory).options, _interrupt)
    left = directory / "index.sqlite.new"
    content = bytearray(left.read_bytes())
    content[slice(None) if part == "all" else slice(8192, 40960)] = bytes(len(content) if part == "all" else 32768)
    left.write_bytes(content)
    done = reindex(archive_in(directory).options)
    assert (done.indexed, done.resumed, done.refused) == (COUNT, 0, [])
    assert "damaged: begun anew" in caplog.text
    await assert_whole(directory)


@pytest.mark.parametrize("is_damaged", [False, True])
async def test_old_index_says_when_instances_were_received(directory: Path, is_damaged: bool) -> None:
    """As far as it can be read: else the files' times do."""
    path = directory / "index.sqlite"
    with closing(sqlite3.connect(path)) as old:
        old.execute("UPDATE instance SET received_at = 1000")
        old.commit()
        (size,) = old.execute("PRAGMA page_size").fetchone()
        (page,) = old.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_instance_1'"
        ).fetchone()
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if is_damaged:
        with path.open("r+b") as file:
            file.seek((page - 1) * size)
            file.write(b"\xff" * size)
    for file_name in files_in(directory):
        os.utime(directory / file_name, (2000, 2000))
    assert reindex(archive_in(directory).options).indexed == COUNT
    assert rows(directory, "SELECT DISTINCT received_at FROM instance") == [(2000 if is_damaged else 1000,)]
    await assert_whole(directory)


def _interrupt(_done: int, _total: int) -> None:
    raise KeyboardInterrupt


def _replace_file(path: Path) -> None:
    """Another data set of the same length, with a header of its own."""
    path.write_bytes(path.with_name("other").read_bytes())


@pytest.mark.parametrize("happens", [Path.unlink, lambda path: path.write_bytes(b""), _replace_file])
async def test_files_that_change_while_a_run_is_interrupted(
    directory: Path, tmp_path_factory: pytest.TempPathFactory, happens: Callable[[Path], object]
) -> None:
    """The index is that of the files that are there at the end, whatever the run before has seen."""
    (path,) = directory.rglob(f"{make_instance(10).sop_instance_uid}.dcm")
    other = tmp_path_factory.mktemp("other")
    async with archive_in(other) as archive:
        await store(archive, make_instance(10, salt="other"))

    class Interrupted(Exception):
        pass

    def interrupt(done: int, _total: int) -> None:
        if done >= COUNT // 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        reindex(archive_in(directory).options, interrupt)
    (replacement,) = other.rglob(path.name)
    replacement.rename(path.with_name("other"))
    happens(path)
    path.with_name("other").unlink()
    done = reindex(archive_in(directory).options)
    assert done.resumed == 0
    left = len(files_in(directory)) - len(done.refused)
    assert rows(directory, "SELECT count(*) FROM instance") == [(left,)]
    async with archive_in(directory) as archive:
        assert {difference.kind for difference in (await archive.check(deep=True)).differences} <= {"foreign"}
