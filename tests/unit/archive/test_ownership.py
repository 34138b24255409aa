"""What is in the data directory is its owner's, whoever runs the command that makes it, and nobody else reads it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacslite.archive.archive import ArchiveUnusable
from pacslite.archive.reindex import reindex
from pacslite.outbox.database import Database
from tests.support.instances import make_instance
from tests.support.privileges import NOBODY, unprivileged
from tests.support.storing import archive_in, store

INDEX = ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm")


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Root's tests run on somebody else's directory, others on their own."""
    if os.geteuid() == 0:
        os.chown(tmp_path, NOBODY, NOBODY)
    return tmp_path


def _look_at_all_in(directory: Path) -> set[str]:
    of = directory.stat()
    for path in directory.rglob("*"):
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (of.st_uid, of.st_gid), path
        assert not found.st_mode & 0o027, path
    return {path.name for path in directory.iterdir()}


async def test_all_that_is_made_is_the_owners_and_private(directory: Path) -> None:
    async with archive_in(directory, durability="none", journal_bytes=1 << 20) as archive:
        for number, size in enumerate((1_000, 1_000, 600_000)):
            await store(archive, make_instance(number, size=size))
        assert {*INDEX, "journal", "lock", "unsynced", "incoming", "instances"} <= _look_at_all_in(directory)
    next(directory.rglob("*.dcm")).write_bytes(b"no longer")
    async with archive_in(directory) as archive:
        await archive.check(repair=True)
    reindex(archive.options)
    outbox = Database(directory / "outbox.sqlite")
    assert {"damaged", "index.sqlite", "outbox.sqlite", "outbox.sqlite-wal"} <= _look_at_all_in(directory)
    outbox.close()


async def test_an_index_that_others_may_read_is_shut_at_a_start(tmp_path: Path) -> None:
    """Earlier versions left that to the umask."""
    async with archive_in(tmp_path):
        pass
    for name in INDEX:
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o664)
    async with archive_in(tmp_path):
        assert [(tmp_path / name).stat().st_mode & 0o777 for name in INDEX] == [0o660] * 3


@pytest.mark.parametrize("mode", [0o440, 0])
async def test_an_index_that_is_not_ours_to_write_says_what_mends_it(mode: int) -> None:
    with tempfile.TemporaryDirectory() as made:
        async with archive_in(Path(made)):
            pass
        if os.geteuid() == 0:
            for path in (Path(made), *Path(made).rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        (Path(made) / "index.sqlite").chmod(mode)
        with (
            unprivileged(),
            pytest.raises(ArchiveUnusable, match="; its owner has to be the user that runs"),
        ):
            await archive_in(Path(made)).start()
