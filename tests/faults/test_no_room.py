"""Commands where SQLite can make no file beside the index: a disk that is full, out of inodes, or read-only."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pacslite.cli.main import main
from tests.support.disks import loop_disk, mounted
from tests.support.instances import make_instance
from tests.support.storing import archive_in, store


def _ended(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(map(str, words)))
    output = capsys.readouterr()
    return int(caught.value.code or 0), output.out + output.err


async def _store_three(directory: Path) -> None:
    async with archive_in(directory) as archive:
        for number in range(3):
            await store(archive, make_instance(number))


@contextlib.contextmanager
def _full(directory: Path) -> Iterator[Path]:
    ballast = directory.parent / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    yield directory


@contextlib.contextmanager
def _without_inodes(directory: Path) -> Iterator[Path]:
    folder = directory.parent / "many"
    folder.mkdir()
    with contextlib.suppress(OSError):
        for number in range(1 << 16):
            (folder / str(number)).touch()
    yield directory


@contextlib.contextmanager
def _read_only(directory: Path) -> Iterator[Path]:
    backup = directory.parent / "backup"
    backup.mkdir()
    with mounted(backup, "--bind", directory), mounted(backup, "-o", "bind,ro", directory):
        yield backup


@pytest.mark.parametrize(
    ("lack", "told"),
    [(_full, "disk is full"), (_without_inodes, "disk is full"), (_read_only, "Read-only file system")],
)
def test_what_is_lacking_is_named_and_what_only_reads_goes_on(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    lack: Callable[[Path], AbstractContextManager[Path]],
    told: str,
) -> None:
    with loop_disk(tmp_path, megabytes=32, inodes=128) as disk:
        asyncio.run(_store_three(disk / "data"))
        with lack(disk / "data") as directory:
            assert _ended(capsys, "db", "current", "--data-dir", directory)[0] == 0
            code, output = _ended(capsys, "stats", "--json", "--data-dir", directory)
            assert (code, json.loads(output)["instances"]) == (0, 3)
            for command in (["check"], ["delete", "--study", "1.2"], ["reindex"]):
                code, output = _ended(capsys, *command, "--data-dir", directory)
                assert (code, told in output) == (1, True), output
