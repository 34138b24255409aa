"""A start, a check and a reindexing remove no sound file that may be somebody's only copy."""

import asyncio
import contextlib
import errno
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import xxhash

from pacslite.archive.archive import Archive
from pacslite.archive.check import CheckAborted
from pacslite.archive.delete import Deleted
from pacslite.archive.index.failures import IndexFull
from pacslite.archive.index.writer import Entry
from pacslite.archive.instances.header import encode_header
from pacslite.archive.instances.layout import InstancePath
from pacslite.archive.keys import Level
from pacslite.archive.reindex import reindex
from pacslite.archive.settle import Unsettled
from pacslite.errors import DimseError
from tests.support.instances import make_instance
from tests.support.storing import (
    EXPLICIT_LITTLE_ENDIAN,
    FailingOperations,
    archive_in,
    files_in,
    image_of,
    read,
    store,
)
from tests.support.wire import CT_IMAGE

OLD, NEW = make_instance(1, size=2000), make_instance(1, size=3000)


def _set_aside(directory: Path) -> list[bytes]:
    """Content of the files."""
    return [path.read_bytes() for path in sorted(directory.glob("damaged/*.dcm"))]


def _stop_before_commit(archive: Archive, image: Path) -> None:
    """Killed before the index takes what comes next, ``image`` is what is left."""
    commit = archive._index.commit

    def stop_before(entries: Sequence[Entry], *, late: bool = False) -> list[DimseError | None]:
        if not image.exists():
            image_of(archive.options.data_dir, image)
        return commit(entries, late=late)

    archive._index.commit = stop_before  # type: ignore[method-assign]


async def test_stored_again_before_the_deleted_file_could_be_removed_and_reindexed(tmp_path: Path) -> None:
    """What lies at the place of the new one is not the new one."""
    failing = False
    operations = FailingOperations(lambda name, _: errno.EIO if failing and name == "unlink" else 0)
    async with archive_in(tmp_path / "live", operations=operations, journal_bytes=1 << 20) as archive:
        await store(archive, OLD)
        await archive.settle()
        failing = True
        await archive.delete(Level.IMAGE, OLD.sop_instance_uid)
        failing = False
        await store(archive, NEW)
        image = image_of(tmp_path / "live", tmp_path / "image")
    reindex(archive_in(image).options)
    async with archive_in(image) as archive:
        assert read(archive, NEW.sop_instance_uid) == NEW.data


async def _deleting(archive: Archive, image: Path) -> None:
    """A kill between the removal of the rows and of the files, just when the same UID was stored anew."""
    loop = asyncio.get_running_loop()
    deleter: Any = archive._deleter
    remove_rows, unlink = deleter._remove_rows, deleter._unlink

    def remove_once(level: Level, uid: str, deleted: Deleted) -> object:
        return [] if deleted.instances else remove_rows(level, uid, deleted)

    def killed(path: InstancePath, unsettled: Unsettled | None) -> None:
        asyncio.run_coroutine_threadsafe(store(archive, NEW), loop).result(10)
        image_of(archive.options.data_dir, image)
        unlink(path, unsettled)

    deleter._remove_rows, deleter._unlink = remove_once, killed
    await archive.delete(Level.IMAGE, OLD.sop_instance_uid)


@pytest.mark.parametrize("lost", [False, True], ids=["reindexed", "index-lost"])
async def test_stored_again_killed_within_the_deletion_and_reindexed(tmp_path: Path, lost: bool) -> None:
    """Without the index nobody knows which of the two was deleted: both are kept."""
    image = tmp_path / "image"
    async with archive_in(tmp_path / "live", journal_bytes=1 << 20) as archive:
        await store(archive, OLD)
        await archive.settle()
        await _deleting(archive, image)
    if lost:
        for path in image.glob("index.sqlite*"):
            path.unlink()
    reindex(archive_in(image).options)
    async with archive_in(image) as archive:
        assert read(archive, NEW.sop_instance_uid) == (OLD if lost else NEW).data
        assert archive.recovered.set_aside == lost
    assert [content.endswith(NEW.data) for content in _set_aside(image)] == [True] * lost


async def test_what_cannot_be_set_aside_stays_for_the_next_start(tmp_path: Path) -> None:
    image = tmp_path / "image"
    async with archive_in(tmp_path / "live", journal_bytes=1 << 20) as archive:
        await store(archive, OLD)
        await archive.settle()
        await _deleting(archive, image)
    for path in image.glob("index.sqlite*"):
        path.unlink()
    reindex(archive_in(image).options)
    operations = FailingOperations(lambda *_: errno.ENOSPC, ["create"])
    async with archive_in(image, operations=operations, journal_bytes=None) as archive:
        assert read(archive, OLD.sop_instance_uid) == OLD.data
        assert archive.recovered.set_aside == 0
    async with archive_in(image) as archive:
        assert read(archive, OLD.sop_instance_uid) == OLD.data
        assert archive.recovered.set_aside == 1
    (aside,) = _set_aside(image)
    assert aside.endswith(NEW.data)


async def test_a_duplicate_of_a_file_that_is_gone_is_kept(tmp_path: Path) -> None:
    """Killed before the index refused it; meanwhile somebody removed the file that it repeats."""
    image = tmp_path / "image"
    async with archive_in(tmp_path / "live", journal_bytes=1 << 20) as archive:
        await store(archive, OLD)
        await archive.settle()
        _stop_before_commit(archive, image)
        await store(archive, OLD, source_ae_title="ANOTHER_SENDER")
    for path in image.rglob("instances/**/*.dcm"):
        path.unlink()
    async with archive_in(image) as archive:
        assert archive.recovered.indexed == 1
        assert read(archive, OLD.sop_instance_uid) == OLD.data


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        (5_000, {"journal_bytes": 1 << 14}),  # has no room
        (261_700, {"journal_bytes": 1 << 20}),  # small enough for the journal, if there were no header
        (5_000, {"journal_bytes": 0, "durability": "none"}),
        (400_000, {"journal_bytes": 1 << 20, "durability": "none"}),
    ],
)
async def test_a_duplicate_that_was_cut_off_takes_no_place(
    tmp_path: Path, size: int, options: Mapping[str, Any], settled: bool
) -> None:
    """Killed before it is refused, with a file of its own: which of the two its sender was told of is known."""
    image = tmp_path / "image"
    repeated = make_instance(1, size=size)
    async with archive_in(tmp_path / "live", **options) as archive:
        await store(archive, OLD)
        if settled:
            await archive.settle()
        _stop_before_commit(archive, image)
        stored = await store(archive, repeated)
        assert stored.outcome == "duplicate"
    for _ in range(2):
        async with archive_in(image, **options) as archive:
            assert read(archive, OLD.sop_instance_uid) == OLD.data
    assert (await _checked(image)) == []


async def _checked(directory: Path) -> list[Any]:
    async with archive_in(directory) as archive:
        return (await archive.check(deep=True)).differences


@pytest.mark.parametrize("table", ["series", "study", "patient"])
@pytest.mark.parametrize("settled", [False, True], ids=["start", "check"])
async def test_a_file_whose_row_hangs_in_the_air_is_kept(tmp_path: Path, table: str, settled: bool) -> None:
    """The row is found by nobody, and nobody else can have its UID."""
    image = tmp_path / "image"
    async with archive_in(tmp_path / "live") as archive:
        await store(archive, OLD)
        if settled:
            await archive.settle()
        with archive._index.transaction() as connection:
            connection.execute(f"DELETE FROM {table}")
        image_of(tmp_path / "live", image)
    async with archive_in(image) as archive:
        await archive.check(repair=True)
        assert read(archive, OLD.sop_instance_uid) == OLD.data
        await archive.settle()
    assert len(list(image.rglob(f"instances/**/{OLD.sop_instance_uid}.dcm"))) == 1


async def test_a_new_instance_of_a_study_that_hangs_in_the_air_is_kept(tmp_path: Path) -> None:
    other, image = make_instance(2), tmp_path / "image"
    async with archive_in(tmp_path / "live") as archive:
        await store(archive, other)
        with archive._index.transaction() as connection:
            connection.execute("DELETE FROM instance")
            connection.execute("DELETE FROM patient")
        image_of(tmp_path / "live", image)
    async with archive_in(image) as archive:
        assert archive.recovered.set_aside == 1
    (aside,) = _set_aside(image)
    assert aside.endswith(other.data)


def _forget_all(archive: Archive) -> None:
    with archive._index.transaction() as connection:
        for table in ("instance", "series", "study", "patient"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("UPDATE totals SET patients = 0, studies = 0, series = 0, instances = 0, bytes = 0")


async def test_what_is_stored_while_an_orphan_is_adopted_stays(tmp_path: Path) -> None:
    async with archive_in(tmp_path) as archive:
        await store(archive, OLD)
        await archive.settle()
        _forget_all(archive)
        adopt, loop = archive._recovery.adopt, asyncio.get_running_loop()

        def store_before(path: InstancePath) -> None:
            asyncio.run_coroutine_threadsafe(store(archive, NEW), loop).result(10)
            adopt(path)

        archive._recovery.adopt = store_before  # type: ignore[method-assign]
        assert [each.kind for each in (await archive.check(repair=True)).differences] == ["orphan"]
        await archive.settle()
        assert read(archive, NEW.sop_instance_uid) == NEW.data
        assert (await archive.check(deep=True)).differences == []
    (aside,) = _set_aside(tmp_path)
    assert aside.endswith(OLD.data)


async def test_an_orphan_can_be_read_as_soon_as_it_is_seen(tmp_path: Path) -> None:
    async with archive_in(tmp_path) as archive:
        await store(archive, OLD)
        await archive.settle()
        _forget_all(archive)
        commit = archive._index.commit
        seen: list[bytes] = []

        def read_after(entries: Sequence[Entry], *, late: bool = False) -> list[DimseError | None]:
            outcomes = commit(entries, late=late)
            seen.append(read(archive, OLD.sop_instance_uid))
            return outcomes

        archive._index.commit = read_after  # type: ignore[method-assign]
        await archive.check(repair=True)
        assert seen == [OLD.data]


async def test_an_orphan_that_the_index_has_no_room_for_stays_where_it_is(tmp_path: Path) -> None:
    async with archive_in(tmp_path) as archive:
        await store(archive, OLD)
        await archive.settle()
        _forget_all(archive)
        before, commit = files_in(tmp_path), archive._index.commit
        archive._index.commit = lambda entries, *, late=False: [IndexFull("no room")] * len(entries)  # type: ignore[method-assign]
        with pytest.raises(CheckAborted, match="no room"):
            await archive.check(repair=True)
        assert files_in(tmp_path) == before
        archive._index.commit = commit  # type: ignore[method-assign]
        assert (await archive.check(repair=True)).clean
        assert read(archive, OLD.sop_instance_uid) == OLD.data


UNREADABLE = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\x08\0\x05\0CS\x04\0ABCD" * 40  # an element where items belong


def _put_unreadable(path: Path) -> tuple[bytes, int]:
    """In the place of a file of ours: what another version could read. Gives digest and size."""
    digest = xxhash.xxh3_128_digest(UNREADABLE)
    header = encode_header(
        sop_class_uid=CT_IMAGE,
        sop_instance_uid=OLD.sop_instance_uid,
        transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
        source_ae_title="SENDER",
        data_set_length=len(UNREADABLE),
        digest=digest,
        is_new=False,
    )
    path.write_bytes(header + UNREADABLE)
    return digest, len(header)


@pytest.mark.parametrize("settled", [False, True], ids=["alone", "replaces"])
@pytest.mark.parametrize("durability", ["full", "none"])
@pytest.mark.parametrize("known", [False, True])
async def test_a_sound_file_that_cannot_be_read_is_not_removed(
    tmp_path: Path, known: bool, durability: str, settled: bool
) -> None:
    """Another version read it, and acknowledged it: if its row is there, it stays that row's, else it is set aside."""
    options: dict[str, Any] = {"journal_bytes": 0, "durability": durability, "duplicates": "replace"}
    image = tmp_path / "image"
    async with archive_in(tmp_path / "live", **options) as archive:
        await store(archive, OLD)
        if settled:
            await archive.settle()
            await store(archive, NEW)
        assert read(archive, OLD.sop_instance_uid)  # whoever reads has the rows written
        image_of(tmp_path / "live", image)
    (incoming,) = image.glob("incoming/*.dcm")
    digest, offset = _put_unreadable(incoming)
    content = incoming.read_bytes()
    if known:
        with contextlib.closing(sqlite3.connect(image / "index.sqlite")) as index, index:
            index.execute(
                "UPDATE instance SET digest = ?, data_set_offset = ?, data_set_length = ?",
                (digest, offset, len(UNREADABLE)),
            )
    async with archive_in(image, **options) as archive:
        assert archive.recovered.removed == 0
        assert archive.recovered.set_aside == (not known)
        await archive.settle()
        if known:
            assert read(archive, OLD.sop_instance_uid) == UNREADABLE
    if not known:
        assert _set_aside(image) == [content]
