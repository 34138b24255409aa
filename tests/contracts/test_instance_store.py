"""What every place for instances must do: the suite each backend passes. To add a backend, add it to ``STORES``."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacslite.archive.instances.filesystem import FilesystemStore
from pacslite.archive.instances.layout import InstancePath, instance_path
from pacslite.archive.instances.protocol import InstanceStore

STORES: list[Callable[[Path], FilesystemStore]] = [FilesystemStore]
PLACE = instance_path("1.2", "1.2.3", "1.2.3.4")
NEIGHBOUR = instance_path("1.2", "1.2.3", "1.2.3.5")


@pytest.fixture(params=STORES, ids=lambda make: make.__name__)
def make(request: pytest.FixtureRequest) -> Callable[[Path], FilesystemStore]:
    found: Callable[[Path], FilesystemStore] = request.param
    return found


@pytest.fixture
def store(make: Callable[[Path], FilesystemStore], tmp_path: Path) -> Iterator[InstanceStore]:
    made = make(tmp_path)
    yield made
    made.close()


def _content(fd: int) -> bytes:
    try:
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


def _put(store: InstanceStore, content: bytes, path: InstancePath | None = None) -> str:
    file = store.create(0)
    file.append([content])
    file.sync()
    file.close()
    if path is not None:
        assert store.settle([(file.name, path)]) == [None]
    return file.name


def test_written_in_pieces_header_last(store: InstanceStore) -> None:
    file = store.create(6)
    assert file.size == 6
    file.append([b"one ", bytearray(b"two "), b""])
    file.begin_writeback()
    file.append([b"three"])
    assert file.size == 6 + 13
    file.write_header(b"header")
    file.sync()
    file.close()
    assert _content(store.open_incoming(file.name)) == b"headerone two three"


def test_many_pieces_and_large_ones(store: InstanceStore) -> None:
    file = store.create(0)
    file.append([bytes([n % 256]) for n in range(3000)])
    file.append([bytes(1 << 20)] * 40)
    file.sync()
    assert file.size == 3000 + (40 << 20)
    file.close()
    fd = store.open_incoming(file.name)
    assert os.fstat(fd).st_size == file.size
    assert _content(fd)[:3000] == bytes(n % 256 for n in range(3000))


def test_incoming_is_listed_oldest_first(store: InstanceStore) -> None:
    names = [_put(store, b"x") for _ in range(12)]
    assert store.incoming() == names
    assert len(set(names)) == 12


def test_names_are_not_used_again(make: Callable[[Path], FilesystemStore], tmp_path: Path) -> None:
    """A note of a removal names its file; a file that came later must not be taken for it."""
    first = make(tmp_path)
    names = {_put(first, b"x") for _ in range(3)}
    for name in names:
        first.remove_incoming(name)
    first.close()
    second = make(tmp_path)
    assert _put(second, b"x") not in names
    second.close()


def test_discarded_file_is_gone(store: InstanceStore) -> None:
    file = store.create(0)
    file.append([b"x"])
    file.discard()
    file.discard()  # twice is once
    file.close()
    assert store.incoming() == []
    with pytest.raises(FileNotFoundError):
        store.open_incoming(file.name)


def test_settled(store: InstanceStore) -> None:
    name = _put(store, b"one", PLACE)
    _put(store, b"two", NEIGHBOUR)
    assert store.incoming() == []
    with pytest.raises(FileNotFoundError):
        store.open_incoming(name)
    assert _content(store.open_settled(PLACE)) == b"one"
    assert sorted(store.settled()) == sorted([PLACE, NEIGHBOUR])


def test_settled_over_another_while_it_is_read(store: InstanceStore) -> None:
    _put(store, b"old", PLACE)
    fd = store.open_settled(PLACE)
    _put(store, b"new", PLACE)
    assert _content(fd) == b"old"
    assert _content(store.open_settled(PLACE)) == b"new"


def test_what_cannot_be_settled_stays(store: InstanceStore) -> None:
    name = _put(store, b"x")
    missing, fine = store.settle([("00000000000000000000.dcm", PLACE), (name, NEIGHBOUR)])
    assert isinstance(missing, FileNotFoundError)
    assert fine is None
    assert _content(store.open_settled(NEIGHBOUR)) == b"x"


def test_incoming_file_that_is_set_aside_is_not_lost(store: InstanceStore, tmp_path: Path) -> None:
    name = _put(store, b"one")
    aside = store.set_incoming_aside(name)
    assert store.incoming() == []
    with pytest.raises(FileNotFoundError):
        store.open_incoming(name)
    (kept,) = [path for path in tmp_path.rglob("*.dcm") if path.read_bytes() == b"one"]
    assert str(kept).endswith(aside)


def test_removal(store: InstanceStore) -> None:
    _put(store, b"one", PLACE)
    _put(store, b"two", NEIGHBOUR)
    name = _put(store, b"three")
    fd = store.open_settled(PLACE)
    for _ in range(2):  # what is not there is removed
        store.remove_settled(PLACE)
        store.remove_incoming(name)
    assert _content(fd) == b"one"
    assert list(store.settled()) == [NEIGHBOUR]
    assert store.incoming() == []
    with pytest.raises(FileNotFoundError):
        store.open_settled(PLACE)
    store.remove_settled(NEIGHBOUR)
    assert list(store.settled()) == []
    _put(store, b"again", PLACE)
    assert list(store.settled()) == [PLACE]


def test_taken_back_and_set_aside(store: InstanceStore) -> None:
    _put(store, b"one", PLACE)
    name = store.take_back(PLACE)
    assert store.incoming() == [name]
    assert _content(store.open_incoming(name)) == b"one"
    store.settle([(name, PLACE)])
    store.set_aside(PLACE)
    assert list(store.settled()) == []
    with pytest.raises(FileNotFoundError):
        store.set_aside(PLACE)


def test_durability_calls_and_space(store: InstanceStore) -> None:
    _put(store, b"x", PLACE)
    store.sync_names()
    store.sync_all()
    assert store.free_bytes() > 0
