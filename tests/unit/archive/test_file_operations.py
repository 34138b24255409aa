"""The calls that write: all bytes, in order, however they are cut and however little the system takes."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacslite.archive.instances.fileops import FileOperations

PIECES = st.lists(
    st.one_of(st.integers(0, 5), st.integers(0, 300_000)).map(lambda size: bytes(range(251)) * (size // 251 + 1)),
    max_size=6,
)


@given(pieces=PIECES, tiny=st.integers(0, 3000), takes=st.integers(1, 70_000))
def test_append_writes_every_byte_in_order(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], tiny: int, takes: int
) -> None:
    pieces = [*([b"ab"] * tiny), *pieces]
    path = tmp_path_factory.mktemp("append") / "file"
    calls: list[int] = []
    real = os.writev

    def writev(fd: int, buffers: Sequence[bytes]) -> int:
        calls.append(len(buffers))
        whole = b"".join(buffers)
        return real(fd, [whole[: max(takes, len(whole) - takes)]])  # less than was asked for

    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "writev", writev)
        FileOperations().append(fd, pieces)
    os.close(fd)
    assert path.read_bytes() == b"".join(pieces)
    assert max(calls, default=0) <= 1024


def test_append_hands_the_system_no_more_than_it_takes_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = os.writev

    def writev(fd: int, buffers: Sequence[bytes]) -> int:
        sizes.append(sum(map(len, buffers)))
        return real(fd, buffers)

    monkeypatch.setattr(os, "writev", writev)
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    FileOperations().append(fd, [b"h" * 400, bytes(131_060), bytes(300_000)])
    os.close(fd)
    assert sizes == [131_072, 131_072, 131_072, 431_460 - 3 * 131_072]


def test_another_file_system_is_no_part_of_this_one(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    here, below, elsewhere = (os.open(path, os.O_RDONLY) for path in (tmp_path, tmp_path / "below", "/proc"))
    operations = FileOperations()
    assert operations.is_same_mount(here, below)
    assert not operations.is_same_mount(here, elsewhere)
    for fd in (here, below, elsewhere):
        os.close(fd)
