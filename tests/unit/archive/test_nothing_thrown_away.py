"""A start, a check and a reindexing remove no sound file that may be somebody's only copy."""

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from pacslite.archive.archive import Archive
from pacslite.archive.delete import Deleted
from pacslite.archive.instances.layout import InstancePath
from pacslite.archive.keys import Level
from pacslite.archive.reindex import reindex
from pacslite.archive.settle import Unsettled
from tests.support.instances import make_instance
from tests.support.storing import FailingOperations, archive_in, image_of, read, store

OLD, NEW = make_instance(1, size=2000), make_instance(1, size=3000)


def _set_aside(directory: Path) -> list[bytes]:
    """Content of the files."""
    return [path.read_bytes() for path in sorted(directory.glob("damaged/*.dcm"))]


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
