"""The journal: whatever was made durable and not retired is there after a stop, whatever became of the files."""

import asyncio
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacslite.archive.index.writer import Entry
from pacslite.archive.instances.fileops import FileOperations
from pacslite.archive.instances.filesystem import FilesystemStore
from pacslite.archive.instances.journal import Journal, JournalEntry, JournalRecord
from pacslite.archive.instances.layout import incoming_name, instance_path
from pacslite.archive.keys import Level
from pacslite.archive.options import Durability
from pacslite.errors import DimseError
from tests.support.instances import make_instance
from tests.support.storing import FailingOperations, archive_in, image_of, read, store

SIZE = 64 * 4096
PLACE = instance_path("1.2", "1.2.3", "1.2.3.4")
NEIGHBOUR = instance_path("1.2", "1.2.3", "1.2.3.5")


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


def _contents(journal: Journal) -> list[tuple[int, bytes]]:
    return [(record.number, journal.read(record)) for record in journal.records()]


def _release_all(journal: Journal) -> None:
    for record in journal.records():
        journal.release(record)


ACTIONS: st.SearchStrategy[tuple[str, list[bytes]]] = st.one_of(
    st.tuples(st.just("append"), st.lists(st.binary(max_size=20_000), min_size=1, max_size=4)),
    st.tuples(st.just("retire"), st.just([])),
    st.tuples(st.just("cancel"), st.just([])),
    st.tuples(st.just("release"), st.just([])),
    st.tuples(st.just("stop"), st.just([])),
)


@settings(max_examples=60, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=40))
def test_what_is_live_is_there_after_a_stop(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, list[bytes]]]
) -> None:
    directory = os.open(tmp_path_factory.mktemp("journal"), os.O_RDONLY)
    journal = _make(directory)
    live: dict[int, tuple[JournalRecord, bytes]] = {}
    number = 0
    for action, contents in actions:
        if action == "append":
            numbers = range(number, number := number + len(contents))
            files = [
                JournalEntry(n, len(content), [content[:7], content[7:]])
                for n, content in zip(numbers, contents, strict=True)
            ]
            records = journal.append(files)
            if records is not None:
                live |= dict(zip(numbers, zip(records, contents, strict=True), strict=True))
        elif action == "cancel" and live:
            journal.cancel(live.popitem()[1][0])
        elif action == "release" and live:
            journal.release(live[min(live)][0])
        elif action == "retire":
            mark = journal.mark()
            journal.retire(mark)
            live = {n: each for n, each in live.items() if each[0].position >= mark}
        elif action == "stop":
            journal = _reopen(journal, directory)
            assert _contents(journal) == [(n, content) for n, (_, content) in live.items()]
    journal = _reopen(journal, directory)
    assert _contents(journal) == [(n, content) for n, (_, content) in live.items()]
    journal.close()
    os.close(directory)


def test_takes_as_much_as_fits_and_takes_again_when_retired(directory: int) -> None:
    journal = _make(directory)
    assert journal.is_empty
    block = [bytes(4096 - 64)]
    for lap in range(3):
        taken = 0
        while journal.append([JournalEntry(taken, len(block[0]), block)]) is not None:
            taken += 1
        assert taken == 62, lap
        assert journal.half_full
        journal.retire(journal.mark())
        assert journal.half_full, "its records are held"
        _release_all(journal)
        journal.retire(journal.mark())
        assert journal.is_empty
    assert journal.append([JournalEntry(0, SIZE, [bytes(SIZE)])]) is None
    journal.close()


def test_goes_on_behind_what_a_stop_left(directory: int) -> None:
    journal = _make(directory)
    for number in range(50):
        journal.append([JournalEntry(number, 3, [b"abc"])])
    _release_all(journal)
    journal.retire(journal.mark())
    for number in range(50, 90):
        journal.append([JournalEntry(number, 3, [b"def"])])
    journal = _reopen(journal, directory)
    for number in range(90, 130):
        if journal.append([JournalEntry(number, 3, [b"ghi"])]) is None:
            break
    assert number == 112
    assert _contents(journal) == [(n, b"def" if n < 90 else b"ghi") for n in range(50, 112)]
    journal.close()


@pytest.mark.parametrize("kind", ["unused", "emptied"])
def test_an_empty_one_is_not_searched(directory: int, kind: str) -> None:
    journal = _make(directory)
    if kind == "emptied":
        journal.append([JournalEntry(1, 3, [b"abc"])])
        _release_all(journal)
        journal.retire(journal.mark())
    journal = _reopen(journal, directory)
    assert journal.is_empty
    assert journal.append([JournalEntry(2, 3, [b"def"])]) is not None
    journal = _reopen(journal, directory)
    assert _contents(journal) == [(2, b"def")]
    journal.close()


def test_a_record_that_is_overwritten_is_not_read(directory: int) -> None:
    journal = _make(directory)
    (record,) = journal.append([JournalEntry(1, 3, [b"abc"])]) or []
    journal.release(record)
    journal.retire(journal.mark())
    with pytest.raises(FileNotFoundError):
        journal.read(record)
    journal.cancel(record)  # nor taken back
    journal.remove()
    with pytest.raises(FileNotFoundError):
        journal.read(record)


def test_no_two_wait_for_the_disk_at_once(directory: int) -> None:
    """Of two, the one would be told what the disk did not take of the other, and the other that all is well."""

    class Slow(FileOperations):
        waiting = most = 0

        def write_durably(self, fd: int, pieces: Sequence[bytes | bytearray], offset: int) -> None:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            time.sleep(0.001)
            super().write_durably(fd, pieces, offset)
            self.waiting -= 1

    operations = Slow()
    journal = _make(directory, operations)

    def use(number: int) -> None:
        for _ in range(5):
            (record,) = journal.append([JournalEntry(number, 3, [b"abc"])]) or []
            journal.cancel(record) if number % 2 else journal.release(record)
            journal.retire(journal.mark())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(4)))
    assert operations.most == 1
    journal.close()


def test_content_cannot_pass_for_a_record(directory: int) -> None:
    """A peer that knows the layout sends blocks that look like records, of this journal's neighbour and of itself."""
    journal = _make(directory)
    journal.append([JournalEntry(1, 3, [b"abc"])])
    record = Path(f"/proc/self/fd/{directory}/journal").read_bytes()[8192 : 8192 + 4096]
    forged = bytes(4096 - 64) + record * 3
    journal.append([JournalEntry(2, len(forged), [forged])])
    journal = _reopen(journal, directory)
    assert _contents(journal) == [(1, b"abc"), (2, forged)]
    journal.close()


@pytest.mark.parametrize("torn", [0, 1])
def test_a_torn_start_leaves_the_one_before(directory: int, torn: int) -> None:
    journal = _make(directory)
    for number in range(2 + torn):
        journal.append([JournalEntry(number, 3, [b"abc"])])
        _release_all(journal)
        journal.retire(journal.mark())
    journal.append([JournalEntry(9, 3, [b"xyz"])])
    fd = os.open("journal", os.O_RDWR, dir_fd=directory)
    newest = max((0, 4096), key=lambda at: os.pread(fd, 32, at)[24:])
    os.pwrite(fd, b"torn", newest + 30)
    os.close(fd)
    journal = _reopen(journal, directory)
    assert _contents(journal)[-1] == (9, b"xyz")
    journal.close()


def test_starts_that_were_torn_again_and_again_leave_the_last_whole_one(directory: int) -> None:
    class Tearing(FileOperations):
        tears = False

        def write_durably(self, fd: int, pieces: Sequence[bytes | bytearray], offset: int) -> None:
            if self.tears:
                super().write_durably(fd, [b"torn"], offset)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            super().write_durably(fd, pieces, offset)

    operations = Tearing()
    journal = _make(directory, operations)
    for number in range(2):
        journal.append([JournalEntry(number, 3, [b"abc"])])
    journal.release(journal.records()[0])
    operations.tears = True
    for _ in range(3):
        with pytest.raises(OSError, match="Input/output"):
            journal.retire(journal.mark())
    journal = _reopen(journal, directory)
    assert _contents(journal) == [(0, b"abc"), (1, b"abc")]
    journal.close()


def test_no_journal_where_none_is_whole(directory: int) -> None:
    assert Journal.open(FileOperations(), directory) is None
    fd = os.open("journal", os.O_CREAT | os.O_WRONLY, dir_fd=directory)
    os.write(fd, b"not all of it")
    os.close(fd)
    assert Journal.open(FileOperations(), directory) is None
    (aside,) = Path(f"/proc/self/fd/{directory}").iterdir()
    assert aside.name.endswith(".damaged")
    assert aside.read_bytes() == b"not all of it", "it may be the only copy of something"


@pytest.mark.parametrize("kept", [2, 9])
def test_one_that_is_read_in_part_only_is_an_error(directory: int, kept: int) -> None:
    """As with a bad block: a read ends before it and says nothing, and behind it are records too."""
    journal = _make(directory)
    records = journal.append([JournalEntry(number, 9000, [bytes(9000)]) for number in range(4)])
    assert records is not None
    os.truncate(f"/proc/self/fd/{directory}/journal", kept * 4096)
    with pytest.raises(OSError, match="shorter"):
        journal.records()
    with pytest.raises(OSError, match="shorter"):
        journal.read(records[2])


@pytest.mark.parametrize("durably", [True, False])
def test_what_a_failed_write_left_is_no_record(directory: int, durably: bool) -> None:
    """The disk says that it failed, and has all of it: the sender was told that it failed."""

    class Lying(FileOperations):
        lies = False

        def write_durably(self, fd: int, pieces: Sequence[bytes | bytearray], offset: int) -> None:
            super().write_durably(fd, pieces, offset)
            self._fail()

        def write_pieces(self, fd: int, pieces: Sequence[bytes | bytearray], offset: int) -> None:
            super().write_pieces(fd, pieces, offset)
            self._fail()

        def _fail(self) -> None:
            if self.lies:
                self.lies = False
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    operations = Lying()
    journal = _make(directory, operations)
    assert journal.append([JournalEntry(1, 3, [b"abc"])], durably=durably)
    operations.lies = True
    with pytest.raises(OSError, match="Input/output"):
        journal.append([JournalEntry(2, 3, [b"def"]), JournalEntry(3, 3, [b"ghi"])], durably=durably)
    assert not journal.holds_refused
    journal = _reopen(journal, directory)
    assert _contents(journal) == [(1, b"abc")]
    journal.close()


def test_one_that_cannot_be_made_leaves_nothing(directory: int) -> None:
    operations = FailingOperations(
        lambda name, count: errno.ENOSPC if name == "append" and count == 1 else 0, ["append"]
    )
    with pytest.raises(OSError, match="No space"):
        Journal.create(operations, directory, SIZE)
    assert os.listdir(directory) == []


def test_one_that_was_not_finished_is_removed(directory: int) -> None:
    """Whether another is made or not: there may be no room, and none wanted any more."""
    path = Path(f"/proc/self/fd/{directory}/journal.new")
    path.write_bytes(bytes(SIZE))
    assert Journal.open(FileOperations(), directory) is None
    assert os.listdir(directory) == []


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


@pytest.mark.parametrize("damage", ["", "gone", "empty", "torn", "whole"])
def test_files_come_back(make_store: Callable[..., FilesystemStore], tmp_path: Path, damage: str) -> None:
    """Whether they were in the journal only, or placed, and the power cut took some of that."""
    first = make_store()
    contents = {_put(first, bytes([n]) * 10_000): bytes([n]) * 10_000 for n in range(5)}
    assert first.must_sync
    if damage:
        places = [(name, PLACE._replace(name=f"1.{at}.dcm")) for at, name in enumerate(contents)]
        assert first.settle(places) == [None] * 5
        for name, place in places:
            assert first.holds(name)
            assert _content(first, name) == contents[name]
            path = tmp_path / "instances" / str(place)
            if damage == "gone":
                path.unlink()
            elif damage == "empty":
                os.truncate(path, 0)
            elif damage == "torn":
                path.write_bytes(b"?" * 10_000)
    second = make_store()
    assert second.incoming() == sorted(contents)
    assert {name: _content(second, name) for name in contents} == contents
    places = [(name, PLACE._replace(name=f"1.{at}.dcm")) for at, name in enumerate(contents)]
    assert second.settle(places) == [None] * 5
    for name, place in places:
        assert (tmp_path / "instances" / str(place)).read_bytes() == contents[name]
    second.sync_all()
    assert not second.must_sync
    assert make_store().incoming() == []


def test_what_was_synced_with_all_does_not_come_back(make_store: Callable[..., FilesystemStore]) -> None:
    first = make_store()
    kept, removed, settled = (_put(first, bytes([n]) * 5000) for n in range(3))
    first.remove_incoming(removed)
    assert first.settle([(settled, PLACE)]) == [None]
    assert first.holds(settled)
    first.sync_all()
    assert first.holds(settled), "a record before it is held"
    assert first.settle([(kept, NEIGHBOUR)]) == [None]
    first.sync_all()
    assert not first.must_sync
    assert not first.holds(settled)
    assert make_store().incoming() == []


@pytest.mark.parametrize("settled", [False, True])
def test_what_was_removed_does_not_come_back(make_store: Callable[..., FilesystemStore], settled: bool) -> None:
    first = make_store()
    name = _put(first, b"content")
    if settled:
        first.settle([(name, PLACE)])
        first.remove_settled(PLACE)
    first.remove_incoming(name)
    with pytest.raises(FileNotFoundError):
        first.open_incoming(name)
    assert make_store().incoming() == []


def test_what_was_discarded_does_not_come_back(make_store: Callable[..., FilesystemStore]) -> None:
    first = make_store()
    file = first.create(0)
    file.append([b"content"])
    assert first.sync([file]) == [None]
    file.discard()
    assert make_store().incoming() == []


def test_a_replaced_file_is_read_on(make_store: Callable[..., FilesystemStore]) -> None:
    first = make_store()
    first.settle([(_put(first, b"old"), PLACE)])
    fd = first.open_settled(PLACE)
    first.settle([(_put(first, b"newer"), PLACE)])
    assert os.pread(fd, 10, 0) == b"old"
    os.close(fd)
    fd = first.open_settled(PLACE)
    assert os.pread(fd, 10, 0) == b"newer"
    os.close(fd)
    assert first.incoming() == []


def test_a_file_that_cannot_be_placed_stays_readable(
    make_store: Callable[..., FilesystemStore], tmp_path: Path
) -> None:
    full = False
    operations = FailingOperations(lambda name, _: errno.ENOSPC if full and name == "copy" else 0, ["copy"])
    first = make_store(operations)
    name = _put(first, b"content")
    full = True
    (error,) = first.settle([(name, PLACE)])
    assert error is not None
    assert list(first.settled()) == []
    first.sync_all()
    assert _content(first, name) == b"content"
    full = False
    assert make_store().incoming() == [name]
    assert first.settle([(name, PLACE)]) == [None]


def test_full_journal_syncs_each_by_itself(make_store: Callable[..., FilesystemStore]) -> None:
    operations = FailingOperations(lambda *_: 0, ["sync", "write_durably"])
    first = make_store(operations)
    first.sync_all()
    made = dict(operations.counts)
    contents = {_put(first, bytes([n]) * 100_000): bytes([n]) * 100_000 for n in range(20)}
    assert first.is_pressed
    assert operations.counts["write_durably"] - made["write_durably"] == 10 + 1  # the first says that it is in use
    assert operations.counts["sync"] - made["sync"] == 10
    assert {name: _content(first, name) for name in contents} == contents
    first.settle([(name, PLACE._replace(name=f"1.{at}.dcm")) for at, name in enumerate(contents)])
    first.sync_all()
    assert not first.is_pressed


@pytest.mark.parametrize(("durability", "syncs_all"), [("commit", 1), ("none", 0)])
def test_less_durability_writes_the_journal_and_leaves_it_to_the_system(
    tmp_path: Path, durability: Durability, syncs_all: int
) -> None:
    operations = FailingOperations(lambda *_: 0, ["sync", "sync_filesystem", "write_durably", "write_pieces"])
    made = FilesystemStore(tmp_path, operations, journal_bytes=1 << 20, durability=durability)
    made.prepare()
    before = {"sync_filesystem": 0, "write_pieces": 0} | operations.counts
    contents = {_put(made, bytes([n]) * 100_000): bytes([n]) * 100_000 for n in range(20)}
    assert {name: _content(made, name) for name in contents} == contents
    assert operations.counts["write_pieces"] - before["write_pieces"] == 10  # the journal has no room for more
    assert operations.counts["sync"] == before["sync"]
    assert operations.counts["write_durably"] - before["write_durably"] == 1  # its start says that it is in use
    made.sync_all()
    assert operations.counts.get("sync_filesystem", 0) == before["sync_filesystem"] + syncs_all
    made.close()
    again = FilesystemStore(tmp_path)
    assert {name: _content(again, name) for name in again.incoming()} == contents
    again.close()


def test_broken_journal_is_left_when_its_files_are_safe(
    make_store: Callable[..., FilesystemStore], tmp_path: Path
) -> None:
    broken = False
    operations = FailingOperations(
        lambda name, _: errno.EIO if broken and name == "write_durably" else 0, ["sync", "write_durably"]
    )
    first = make_store(operations)
    before = _put(first, b"before")
    broken = True
    file = first.create(0)
    file.append([b"refused"])
    (error,) = first.sync([file])
    assert error is not None
    assert error.errno == errno.EIO
    file.discard()
    by_itself = _put(first, b"by itself")
    first.sync_all()
    assert _content(first, before) == b"before"
    assert first.settle([(before, PLACE)]) == [None]
    assert (tmp_path / "journal").exists()
    first.sync_all()
    assert not (tmp_path / "journal").exists()
    assert not first.must_sync
    broken = False
    assert make_store().incoming() == [by_itself]


@pytest.mark.parametrize("used", [False, True])
def test_one_of_another_size_takes_nothing_when_it_is_removed(tmp_path: Path, used: bool) -> None:
    """A thread that has just chosen it writes its files elsewhere; if it was quicker, the journal stays."""
    operations = FailingOperations(lambda *_: 0, ["unlink"])
    first = FilesystemStore(tmp_path, operations, journal_bytes=1 << 20)
    first.prepare()
    first.close()
    second = FilesystemStore(tmp_path, operations, journal_bytes=2 << 20)
    old = second._journaled
    assert old is not None
    if used:
        assert old.append([JournalEntry(1, 3, [b"abc"])], durably=True)
    unlink, taken = operations.unlink, []

    def append_and_unlink(directory: int, name: str) -> None:
        if name == "journal":
            taken.append(old.append([JournalEntry(2, 3, [b"abc"])], durably=True))
        unlink(directory, name)

    operations.unlink = append_and_unlink  # type: ignore[method-assign]
    second.prepare()
    assert taken == ([] if used else [False])
    assert second.incoming() == ([incoming_name(1)] if used else [])
    assert (tmp_path / "journal").stat().st_size == (1 << 20 if used else 2 << 20)
    second.close()


def test_journal_that_cannot_take_a_record_back_is_left(
    make_store: Callable[..., FilesystemStore], tmp_path: Path
) -> None:
    """Else the record would hold all that come after it, for as long as the process lives."""
    failing = False
    operations = FailingOperations(
        lambda name, _: errno.EIO if failing and name == "write_durably" else 0, ["write_durably"]
    )
    first = make_store(operations)
    kept, removed = _put(first, b"kept"), _put(first, b"removed")
    failing = True
    with pytest.raises(OSError, match="Input/output"):
        first.remove_incoming(removed)
    failing = False
    first.sync_all()
    assert (tmp_path / "journal").exists()
    assert _content(first, kept) == b"kept"
    assert first.settle([(kept, PLACE)]) == [None]
    first.sync_all()
    assert not first.must_sync
    assert not (tmp_path / "journal").exists()
    first.remove_incoming(removed)
    assert make_store().incoming() == []
    assert (tmp_path / "instances" / str(PLACE)).read_bytes() == b"kept"


def test_files_are_written_again_when_a_sync_failed(make_store: Callable[..., FilesystemStore], tmp_path: Path) -> None:
    """The kernel drops what it could not write, and says well the next time: the journal has it still."""
    failing = True
    operations = FailingOperations(
        lambda name, _: errno.EIO if failing and name == "sync_filesystem" else 0, ["sync_filesystem"]
    )
    first = make_store(operations)
    first.settle([(_put(first, b"content"), PLACE), (_put(first, b"removed"), NEIGHBOUR)])
    with pytest.raises(OSError, match="Input/output"):
        first.sync_all()
    assert first.must_sync
    (tmp_path / "instances" / str(PLACE)).write_bytes(b"???????")
    first.remove_settled(NEIGHBOUR)
    failing = False
    first.sync_all()
    assert (tmp_path / "instances" / str(PLACE)).read_bytes() == b"content"
    assert list(first.settled()) == [PLACE]
    assert not first.must_sync


async def test_who_asks_for_it_waits_for_no_reader_of_the_index(tmp_path: Path) -> None:
    """The index's log cannot go into the index while somebody reads: it is synced itself."""
    async with archive_in(tmp_path) as archive:
        with closing(sqlite3.connect(tmp_path / "index.sqlite")) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM instance").fetchone()
            await store(archive, make_instance(1))
            await archive.settle()
            assert archive.unsettled == 0


@pytest.mark.parametrize(("journal_bytes", "size"), [(1, 0), (8192, 0), (12_288, 0), (1_000_001, 999_424)])
async def test_a_journal_is_whole_blocks_or_none(tmp_path: Path, journal_bytes: int, size: int) -> None:
    made = set()
    for number in range(2):
        async with archive_in(tmp_path, journal_bytes=journal_bytes) as archive:
            await store(archive, make_instance(number))
            await archive.settle()
            assert archive.unsettled == 0
            if size:
                status = (tmp_path / "journal").stat()
                assert status.st_size == size
                made.add(status.st_ino)
            else:
                assert not (tmp_path / "journal").exists()
    assert len(made) == bool(size), "it is used again"


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


@pytest.mark.parametrize("duplicates", ["keep", "reject", "replace"])
async def test_an_unfinished_duplicate_takes_no_place(tmp_path: Path, duplicates: str) -> None:
    """Killed between the journal and the index's refusal: nobody was told that the second is stored."""
    old = make_instance(1)
    new = replace(old, data=old.data[:-2] + b"\1\2")
    data, image = tmp_path / "data", tmp_path / "image"
    async with archive_in(data, journal_bytes=1 << 20, duplicates=duplicates) as archive:
        archive._store.prepare()
        await store(archive, old)
        commit = archive._index.commit

        def stop_before(entries: Sequence[Entry], *, late: bool = False) -> list[DimseError | None]:
            image_of(data, image)
            return commit(entries, late=late)

        archive._index.commit = stop_before  # type: ignore[method-assign]
        await asyncio.gather(store(archive, new), return_exceptions=True)
    async with archive_in(image, duplicates=duplicates) as archive:
        assert archive.recovered.set_aside == 1
        assert read(archive, old.sop_instance_uid) == old.data
        assert (await archive.check(deep=True)).differences == []


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize(
    ("duplicates", "sender", "torn", "removed"),
    [
        ("keep", "SENDER", True, 1),
        ("keep", "ANOTHER_SENDER", False, 1),
        ("replace", "SENDER", True, 1),
        ("replace", "SENDER", False, 0),
        ("replace", "ANOTHER_SENDER", False, 0),
    ],
)
async def test_an_instance_that_is_repeated_is_not_lost(
    tmp_path: Path, settled: bool, duplicates: str, sender: str, torn: bool, removed: int
) -> None:
    """Killed while the journal takes the same data set once more: what comes after its header may not be there."""
    instance = make_instance(1, size=30_000)
    data, image = tmp_path / "data", tmp_path / "image"
    async with archive_in(data, journal_bytes=1 << 20, duplicates=duplicates) as archive:
        await store(archive, instance)
        if settled:
            await archive.settle()
        commit = archive._index.commit

        def stop_before(entries: Sequence[Entry], *, late: bool = False) -> list[DimseError | None]:
            if entries[0].replaces == (duplicates == "replace"):
                image_of(data, image)
            return commit(entries, late=late)

        archive._index.commit = stop_before  # type: ignore[method-assign]
        await store(archive, instance, source_ae_title=sender)
    with (image / "journal").open("r+b") as journal:
        content = journal.read()
        newest = max(at for at in range(0, len(content), 4096) if content.startswith(b"PLJREC", at))
        if torn:
            journal.seek(newest + 4096)
            journal.write(bytes(8192))
    async with archive_in(image, duplicates=duplicates) as archive:
        assert archive.recovered.removed == removed
        assert read(archive, instance.sop_instance_uid) == instance.data
        assert (await archive.check(deep=True)).differences == []
        await archive.settle()
        assert not archive._store.must_sync, "nothing is left in the journal"
        assert read(archive, instance.sop_instance_uid) == instance.data


async def test_resent_while_it_is_settled(tmp_path: Path) -> None:
    """A duplicate takes the place of what it repeats until the index refuses it; that may be settled meanwhile."""
    instance = make_instance(1)
    async with archive_in(tmp_path, journal_bytes=1 << 20) as archive:
        await store(archive, instance)
        commit, sync_all = archive._index.commit, archive._store.sync_all
        settling, refusing = threading.Event(), threading.Event()

        def refuse(entries: Sequence[Entry], *, late: bool = False) -> list[DimseError | None]:
            refusing.set()
            settling.wait(5)
            return commit(entries, late=late)

        def sync_when_refusing() -> None:
            refusing.wait(5)
            sync_all()

        archive._index.commit = refuse  # type: ignore[method-assign]
        archive._store.sync_all = sync_when_refusing  # type: ignore[method-assign]
        settled = asyncio.create_task(archive.settle())
        await asyncio.sleep(0.1)  # it is placed, and not synced
        stored = asyncio.create_task(store(archive, instance))
        await settled
        settling.set()
        assert (await stored).outcome == "duplicate"
        await archive.settle()
        assert archive.unsettled == 0
        assert archive._store.is_quick(1000), "nothing is stuck"
        assert read(archive, instance.sop_instance_uid) == instance.data
        assert (await archive.check(deep=True)).differences == []
