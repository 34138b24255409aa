"""The store on a disk that does not write what it was given: nothing acknowledged is lost, nothing refused returns."""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pacslite.archive.archive import ArchiveUnusable
from pacslite.archive.instances.filesystem import FilesystemStore
from pacslite.archive.instances.layout import InstancePath, instance_path
from pacslite.archive.outcome import StorageFailed
from tests.support.instances import Instance, make_instance
from tests.support.storing import FailingOperations, archive_in, image_of, read, store

PLACE = instance_path("1.2", "1.2.3", "1.2.3.4")
NEIGHBOUR = instance_path("1.2", "1.2.3", "1.2.3.5")
LARGE = 600_000  # no record of the journal


class Disk(FailingOperations):
    """Real calls; those named in ``failing`` fail.

    Of one that ``lies`` the next durable write is made and said to have failed; ``failing_then`` fail from then on.
    """

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.lies = False
        self.failing_then: set[str] = set()
        calls = ["sync_filesystem", "unlink", "write_durably"]
        super().__init__(lambda name, _: errno.EIO if name in self.failing else 0, calls)

    def write_durably(self, fd: int, pieces: Sequence[bytes | bytearray], offset: int) -> None:
        super().write_durably(fd, pieces, offset)
        if self.lies:
            self.lies = False
            self.failing |= self.failing_then
            raise OSError(errno.EIO, os.strerror(errno.EIO))


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


@pytest.mark.parametrize("name", ["incoming", "instances"])
async def test_a_part_that_is_a_mount_of_its_own_is_refused(tmp_path: Path, disk: Disk, name: str) -> None:
    """With a real one: tests/faults/test_mounts.py."""

    def is_same_mount(directory: int, other: int) -> bool:
        return Path(f"/proc/self/fd/{other}").readlink() != tmp_path / name

    disk.is_same_mount = is_same_mount  # type: ignore[method-assign]
    with pytest.raises(ArchiveUnusable, match=f"{tmp_path}: {name} is a mount of its own"):
        await archive_in(tmp_path, operations=disk).start()
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not [link for link in links if link.startswith(str(tmp_path))]
    async with archive_in(tmp_path) as archive:
        await store(archive, make_instance(1))


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


# refused, and in the journal for all that


def _refuse(files: FilesystemStore, disk: Disk, content: bytes) -> None:
    """The journal has it, its sender is told that it failed, and nothing can be written over it."""
    file = files.create(0)
    file.append([content])
    disk.lies, disk.failing_then = True, {"write_durably"}
    (error,) = files.sync([file])
    assert error is not None
    file.discard()
    disk.failing = set()


def test_nothing_is_settled_over_what_may_come_back(files: FilesystemStore, disk: Disk, tmp_path: Path) -> None:
    _settle(files, b"old", PLACE)
    pending = _put(files, b"pending")
    _refuse(files, disk, b"refused")
    new = _put(files, b"new")
    (error,) = files.settle([(new, PLACE)])
    assert error is not None, "a start would find the refused one beside it, and take that for the newer"
    assert files.settle([(pending, NEIGHBOUR)]) == [None]
    files.sync_all()
    assert not (tmp_path / "journal").exists()
    assert files.settle([(new, PLACE)]) == [None]
    assert [_content(files, path) for path in (PLACE, NEIGHBOUR)] == [b"new", b"pending"]


def test_a_failed_journal_is_left_only_when_it_is_gone(files: FilesystemStore, disk: Disk, tmp_path: Path) -> None:
    _settle(files, b"old", PLACE)
    _refuse(files, disk, b"refused")
    disk.failing = {"unlink"}
    with pytest.raises(OSError, match="Input/output"):
        files.sync_all()
    assert files.must_sync
    disk.failing = set()
    files.sync_all()
    assert not files.must_sync
    assert not (tmp_path / "journal").exists()


@pytest.mark.parametrize("stop", ["when it is refused", "when another has replaced it"])
async def test_a_refused_replacement_does_not_come_back(tmp_path: Path, disk: Disk, stop: str) -> None:
    old = make_instance(1)
    refused, new = _anew(old, 2), _anew(old, 3)
    data, image = tmp_path / "data", tmp_path / "image"
    async with archive_in(data, operations=disk, journal_bytes=1 << 20, duplicates="replace") as archive:
        await store(archive, old)
        await store(archive, old)  # what was replaced once is looked up: the next one's record says that it replaces
        await archive.settle()
        disk.lies = True
        with pytest.raises(StorageFailed):
            await store(archive, refused)
        if stop == "when it is refused":
            image_of(data, image)
        assert (await store(archive, new)).outcome == "replaced"
        sync_all = archive._store.sync_all

        def stop_before() -> None:
            if not image.exists():
                image_of(data, image)
            sync_all()

        archive._store.sync_all = stop_before  # type: ignore[method-assign]
        await archive.settle()
    async with archive_in(image, duplicates="replace") as archive:
        kept = old if stop == "when it is refused" else new
        assert read(archive, old.sop_instance_uid) == kept.data
        assert (await archive.check(deep=True)).differences == []
