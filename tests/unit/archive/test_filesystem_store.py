"""The store on a disk that does not write what it was given: nothing acknowledged is lost, nothing refused returns."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pacslite.archive.instances.filesystem import FilesystemStore
from pacslite.archive.instances.layout import InstancePath, instance_path
from tests.support.instances import Instance, make_instance
from tests.support.storing import FailingOperations, archive_in, read, store

PLACE = instance_path("1.2", "1.2.3", "1.2.3.4")
NEIGHBOUR = instance_path("1.2", "1.2.3", "1.2.3.5")
LARGE = 600_000  # no record of the journal


class Disk(FailingOperations):
    """Real calls; those named in ``failing`` fail."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        super().__init__(lambda name, _: errno.EIO if name in self.failing else 0, ["sync_filesystem", "unlink"])


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def files(tmp_path: Path, disk: Disk) -> Iterator[FilesystemStore]:
    made = FilesystemStore(tmp_path, disk, journal_bytes=1 << 20)
    made.prepare()
    yield made
    made.close()


def _put(files: FilesystemStore, content: bytes) -> str:
    file = files.create(0)
    file.append([content])
    assert files.sync([file]) == [None]
    file.close()
    return file.name


def _settle(files: FilesystemStore, content: bytes, path: InstancePath) -> None:
    assert files.settle([(_put(files, content), path)]) == [None]


def _content(files: FilesystemStore, path: InstancePath) -> bytes:
    fd = files.open_settled(path)
    try:
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


def _anew(old: Instance, number: int, *, size: int = 1000) -> Instance:
    """Another data set under the UID of ``old``."""
    new = make_instance(number, size=size)
    data = new.data.replace(new.sop_instance_uid.encode(), old.sop_instance_uid.encode())
    return replace(new, sop_instance_uid=old.sop_instance_uid, data=data)


def _fail_to_sync(files: FilesystemStore, disk: Disk) -> None:
    disk.failing = {"sync_filesystem"}
    with pytest.raises(OSError, match="Input/output"):
        files.sync_all()
    disk.failing = set()


# written again after a failed sync


def _rename_over(files: FilesystemStore) -> None:
    _settle(files, b"n" * LARGE, PLACE)


def _remove_and_rename(files: FilesystemStore) -> None:
    files.remove_settled(PLACE)
    _settle(files, b"n" * LARGE, PLACE)


def _set_aside_and_rename(files: FilesystemStore) -> None:
    files.set_aside(PLACE)
    _settle(files, b"n" * LARGE, PLACE)


def _take_back_and_rename(files: FilesystemStore) -> None:
    files.take_back(PLACE)
    _settle(files, b"n" * LARGE, PLACE)


@pytest.mark.parametrize("change", [_rename_over, _remove_and_rename, _set_aside_and_rename, _take_back_and_rename])
def test_what_came_in_its_place_is_not_written_over(
    files: FilesystemStore, disk: Disk, change: Callable[[FilesystemStore], None]
) -> None:
    _settle(files, b"old", PLACE)
    _fail_to_sync(files, disk)
    change(files)
    files.sync_all()
    assert _content(files, PLACE) == b"n" * LARGE
    assert not files.must_sync


def test_what_came_again_is_written_again(files: FilesystemStore, disk: Disk, tmp_path: Path) -> None:
    _settle(files, b"old", PLACE)
    _fail_to_sync(files, disk)
    files.remove_settled(PLACE)
    _settle(files, b"newer", PLACE)
    (tmp_path / "instances" / str(PLACE)).write_bytes(b"?????")
    files.sync_all()
    assert _content(files, PLACE) == b"newer"


def test_what_could_not_be_removed_is_written_again(files: FilesystemStore, disk: Disk, tmp_path: Path) -> None:
    _settle(files, b"content", PLACE)
    _fail_to_sync(files, disk)
    disk.failing = {"unlink"}
    with pytest.raises(OSError, match="Input/output"):
        files.remove_settled(PLACE)
    disk.failing = set()
    (tmp_path / "instances" / str(PLACE)).write_bytes(b"???????")
    files.sync_all()
    assert _content(files, PLACE) == b"content"


def test_what_lies_behind_a_record_that_waits_is_written_again(
    files: FilesystemStore, disk: Disk, tmp_path: Path
) -> None:
    """Its record is given up later, by a sync that knows no more that one has failed."""
    waits = _put(files, b"waits")
    _settle(files, b"content", PLACE)
    _fail_to_sync(files, disk)
    (tmp_path / "instances" / str(PLACE)).write_bytes(b"???????")
    files.sync_all()
    assert files.settle([(waits, NEIGHBOUR)]) == [None]
    files.sync_all()
    assert not files.must_sync
    assert _content(files, PLACE) == b"content"


async def test_a_large_replacement_stays_whole_after_a_failed_sync(tmp_path: Path, disk: Disk) -> None:
    old = make_instance(1)
    new = _anew(old, 2, size=LARGE)
    async with archive_in(tmp_path, operations=disk, journal_bytes=1 << 20, duplicates="replace") as archive:
        await store(archive, old)
        disk.failing = {"sync_filesystem"}
        await archive.settle()
        disk.failing = set()
        assert (await store(archive, new)).outcome == "replaced"
        await archive.settle()
        assert read(archive, new.sop_instance_uid) == new.data
        assert (await archive.check(deep=True)).differences == []
