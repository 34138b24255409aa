"""The journal: whatever was made durable and not retired is there after a stop, whatever became of the files."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacslite.archive.instances.fileops import FileOperations
from pacslite.archive.instances.filesystem import FilesystemStore
from pacslite.archive.instances.journal import Journal
from pacslite.archive.instances.layout import instance_path
from pacslite.archive.keys import Level
from tests.support.instances import make_instance
from tests.support.storing import FailingOperations, archive_in, image_of, read, store

SIZE = 64 * 4096
PLACE = instance_path("1.2", "1.2.3", "1.2.3.4")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def _make(directory: int, operations: FileOperations | None = None) -> Journal:
    with suppress(FileNotFoundError):
        os.unlink("journal", dir_fd=directory)
    return Journal.create(operations or FileOperations(), directory, SIZE)


def _reopen(journal: Journal, directory: int) -> Journal:
    journal.close()
    opened = Journal.open(FileOperations(), directory)
    assert opened is not None
    return opened


ACTIONS: st.SearchStrategy[tuple[str, list[bytes]]] = st.one_of(
    st.tuples(st.just("append"), st.lists(st.binary(max_size=20_000), min_size=1, max_size=4)),
    st.tuples(st.just("retire"), st.just([])),
    st.tuples(st.just("cancel"), st.just([])),
    st.tuples(st.just("stop"), st.just([])),
)


@settings(max_examples=60, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=40))
def test_what_is_live_is_there_after_a_stop(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, list[bytes]]]
) -> None:
    directory = os.open(tmp_path_factory.mktemp("journal"), os.O_RDONLY)
    journal = _make(directory)
    live: dict[int, tuple[int, bytes]] = {}
    number = 0
    for action, contents in actions:
        if action == "append":
            numbers = range(number, number := number + len(contents))
            files = [
                (n, len(content), [content[:7], content[7:]]) for n, content in zip(numbers, contents, strict=True)
            ]
            positions = journal.append(files)
            if positions is not None:
                live |= dict(zip(numbers, zip(positions, contents, strict=True), strict=True))
        elif action == "cancel" and live:
            journal.cancel(live.popitem()[1][0])
        elif action == "retire":
            journal.retire(journal.mark())
            live.clear()
        elif action == "stop":
            journal = _reopen(journal, directory)
            assert list(journal.records()) == [(n, content) for n, (_, content) in live.items()]
            journal.retire(journal.mark())
            live.clear()
    journal = _reopen(journal, directory)
    assert list(journal.records()) == [(n, content) for n, (_, content) in live.items()]
    journal.close()
    os.close(directory)


def test_takes_as_much_as_fits_and_takes_again_when_retired(directory: int) -> None:
    journal = _make(directory)
    assert journal.is_empty
    block = [bytes(4096 - 64)]
    for lap in range(3):
        taken = 0
        while journal.append([(taken, len(block[0]), block)]) is not None:
            taken += 1
        assert taken == 62, lap
        assert journal.half_full
        journal.retire(journal.mark())
        assert journal.is_empty
    assert journal.append([(0, SIZE, [bytes(SIZE)])]) is None
    journal.close()


def test_no_room_before_what_a_stop_left_is_retired(directory: int) -> None:
    journal = _make(directory)
    journal.append([(1, 3, [b"abc"])])
    journal = _reopen(journal, directory)
    assert journal.append([(2, 3, [b"def"])]) is None
    assert list(journal.records()) == [(1, b"abc")]
    journal.retire(journal.mark())
    assert journal.append([(2, 3, [b"def"])]) is not None
    journal.close()


def test_content_cannot_pass_for_a_record(directory: int) -> None:
    """A peer that knows the layout sends blocks that look like records, of this journal's neighbour and of itself."""
    journal = _make(directory)
    journal.append([(1, 3, [b"abc"])])
    record = Path(f"/proc/self/fd/{directory}/journal").read_bytes()[8192 : 8192 + 4096]
    forged = bytes(4096 - 64) + record * 3
    journal.append([(2, len(forged), [forged])])
    journal = _reopen(journal, directory)
    assert list(journal.records()) == [(1, b"abc"), (2, forged)]
    journal.close()


@pytest.mark.parametrize("torn", [0, 1])
def test_a_torn_start_leaves_the_one_before(directory: int, torn: int) -> None:
    journal = _make(directory)
    for number in range(2 + torn):
        journal.append([(number, 3, [b"abc"])])
        journal.retire(journal.mark())
    journal.append([(9, 3, [b"xyz"])])
    fd = os.open("journal", os.O_RDWR, dir_fd=directory)
    newest = max((0, 4096), key=lambda at: os.pread(fd, 32, at)[24:])
    os.pwrite(fd, b"torn", newest + 30)
    os.close(fd)
    journal = _reopen(journal, directory)
    assert list(journal.records())[-1] == (9, b"xyz")
    journal.close()


def test_no_journal_where_none_is_whole(directory: int) -> None:
    assert Journal.open(FileOperations(), directory) is None
    os.close(os.open("journal", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    assert Journal.open(FileOperations(), directory) is None


# in the store


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[..., FilesystemStore]]:
    stores: list[FilesystemStore] = []

    def make(operations: FileOperations | None = None) -> FilesystemStore:
        made = FilesystemStore(tmp_path, operations, journal_bytes=1 << 20)
        made.prepare()
        stores.append(made)
        return made

    yield make
    for each in stores:
        each.close()


def _put(store: FilesystemStore, content: bytes) -> str:
    file = store.create(0)
    file.append([content])
    assert store.sync([file]) == [None]
    file.close()
    return file.name


def _content(store: FilesystemStore, name: str) -> bytes:
    fd = store.open_incoming(name)
    try:
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


@pytest.mark.parametrize("damage", ["gone", "empty", "torn", "whole"])
def test_files_come_back(make_store: Callable[..., FilesystemStore], tmp_path: Path, damage: str) -> None:
    first = make_store()
    contents = {_put(first, bytes([n]) * 10_000): bytes([n]) * 10_000 for n in range(5)}
    assert first.must_sync
    for name in contents:
        path = tmp_path / "incoming" / name
        if damage == "gone":
            path.unlink()
        elif damage == "empty":
            os.truncate(path, 0)
        elif damage == "torn":
            path.write_bytes(b"?" * 10_000)
    second = make_store()
    assert second.incoming() == sorted(contents)
    assert {name: _content(second, name) for name in contents} == contents
    assert not second.must_sync


def test_what_was_synced_with_all_does_not_come_back(
    make_store: Callable[..., FilesystemStore], tmp_path: Path
) -> None:
    first = make_store()
    kept, removed, settled = (_put(first, bytes([n]) * 5000) for n in range(3))
    first.remove_incoming(removed)
    first.sync_all()
    assert not first.must_sync
    assert first.settle([(settled, PLACE)]) == [None]
    assert make_store().incoming() == [kept]


def test_what_was_discarded_does_not_come_back(make_store: Callable[..., FilesystemStore]) -> None:
    first = make_store()
    file = first.create(0)
    file.append([b"content"])
    assert first.sync([file]) == [None]
    file.discard()
    assert make_store().incoming() == []


def test_full_journal_syncs_each_by_itself(make_store: Callable[..., FilesystemStore], tmp_path: Path) -> None:
    operations = FailingOperations(lambda *_: 0, ["sync", "write_durably"])
    first = make_store(operations)
    made = dict(operations.counts)
    contents = {_put(first, bytes([n]) * 100_000): bytes([n]) * 100_000 for n in range(20)}
    assert first.is_pressed
    assert operations.counts["write_durably"] - made["write_durably"] == 10
    assert operations.counts["sync"] - made["sync"] == 10
    first.sync_all()
    assert not first.is_pressed
    assert {name: _content(first, name) for name in contents} == contents


def test_broken_journal_is_left_when_its_files_are_safe(
    make_store: Callable[..., FilesystemStore], tmp_path: Path
) -> None:
    broken = False
    operations = FailingOperations(
        lambda name, _: errno.EIO if broken and name == "write_durably" else 0, ["sync", "write_durably"]
    )
    first = make_store(operations)
    names = [_put(first, b"before")]
    broken = True
    file = first.create(0)
    file.append([b"refused"])
    (error,) = first.sync([file])
    assert error is not None
    assert error.errno == errno.EIO
    file.discard()
    names.append(_put(first, b"by itself"))
    assert (tmp_path / "journal").exists()
    first.sync_all()
    assert not (tmp_path / "journal").exists()
    assert not first.must_sync
    broken = False
    assert make_store().incoming() == names


def test_files_are_written_again_when_a_sync_failed(make_store: Callable[..., FilesystemStore], tmp_path: Path) -> None:
    """The kernel drops what it could not write, and says well the next time: the journal has it still."""
    failing = True
    operations = FailingOperations(
        lambda name, _: errno.EIO if failing and name == "sync_filesystem" else 0, ["sync_filesystem"]
    )
    first = make_store(operations)
    lost, gone = _put(first, b"content"), _put(first, b"removed")
    with pytest.raises(OSError, match="Input/output"):
        first.sync_all()
    assert first.must_sync
    first.remove_incoming(gone)
    (tmp_path / "incoming" / lost).write_bytes(b"???????")
    failing = False
    first.sync_all()
    assert _content(first, lost) == b"content"
    assert first.incoming() == [lost]
    assert not first.must_sync


async def test_deleted_and_replaced_instances_stay_so(tmp_path: Path) -> None:
    """The journal still has their bytes when the process ends."""
    old = make_instance(1)
    new = replace(old, data=old.data[:-2] + b"\1\2")
    other = make_instance(2)
    data, image = tmp_path / "data", tmp_path / "image"
    async with archive_in(data, journal_bytes=1 << 20, duplicates="replace") as archive:
        archive._store.prepare()
        for instance in (old, other, make_instance(3)):
            await store(archive, instance)
        await store(archive, new)
        await archive.delete(Level.IMAGE, other.sop_instance_uid)
        image_of(data, image)
    async with archive_in(image, duplicates="replace") as archive:
        assert read(archive, old.sop_instance_uid) == new.data
        assert (await archive.totals()).instances == 2
        assert (await archive.check(deep=True)).differences == []
