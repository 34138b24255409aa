"""Commands on archives that are half there: a line that says what is wrong and what to do, and no harm done."""

import errno
import json
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pacslite.archive.instances.filesystem import FilesystemStore
from pacslite.archive.instances.layout import InstancePath
from pacslite.cli.main import main
from tests.support.instances import make_instance
from tests.support.storing import archive_in, files_in, store


def ended(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(map(str, words)))
    output = capsys.readouterr()
    return int(caught.value.code or 0), output.out + output.err


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    """Three instances, settled."""
    async with archive_in(tmp_path) as archive:
        for number in range(3):
            await store(archive, make_instance(number))
    return tmp_path


@pytest.mark.parametrize("left", [None, b""])
def test_upgrading_makes_no_index_beside_instances(
    directory: Path, capsys: pytest.CaptureFixture[str], left: bytes | None
) -> None:
    """The next start would take it for a complete one."""
    for path in directory.glob("index.sqlite*"):
        path.unlink()
    if left is not None:
        (directory / "index.sqlite").write_bytes(left)
    code, output = ended(capsys, "db", "upgrade", "--data-dir", directory)
    assert (code, "run pacslite reindex" in output) == (1, True)
    assert ended(capsys, "reindex", "--data-dir", directory) == (0, "3 files, 3 indexed, 0 refused\n")
    assert ended(capsys, "db", "upgrade", "--data-dir", directory)[0] == 0


def test_stats_of_an_index_that_nobody_has_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "instances").mkdir()
    assert ended(capsys, "db", "upgrade", "--data-dir", tmp_path)[0] == 0
    code, output = ended(capsys, "stats", "--data-dir", tmp_path, "--json")
    assert (code, json.loads(output)["instances"]) == (0, 0)


@pytest.mark.parametrize(
    "command", [["stats"], ["db", "current"], ["db", "upgrade"], ["check"], ["delete", "--study", "1"]]
)
@pytest.mark.parametrize("left", [None, b"", b"no database" * 1000])
def test_a_broken_index_is_named_with_what_to_do(
    directory: Path, capsys: pytest.CaptureFixture[str], command: list[str], left: bytes | None
) -> None:
    for path in directory.glob("index.sqlite*"):
        path.unlink()
    if left is not None:
        (directory / "index.sqlite").write_bytes(left)
    code, output = ended(capsys, *command, "--data-dir", directory)
    assert code == 1
    assert str(directory) in output
    assert "run pacslite reindex" in output or (command == ["db", "current"] and not left)
    assert ended(capsys, "reindex", "--data-dir", directory)[0] == 0
    assert ended(capsys, "check", "--deep", "--data-dir", directory)[0] == 0


@pytest.mark.parametrize(
    "command",
    [["stats"], ["db", "current"], ["db", "upgrade"], ["check"], ["delete", "--study", "1"], ["reindex"]],
)
def test_an_index_that_is_no_file_is_to_be_moved_away(
    directory: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    index = directory / "index.sqlite"
    index.unlink()
    index.mkdir()
    (index / "something").touch()
    told = (1, f"pacslite: {index} is no file; move it away\n")
    assert ended(capsys, *command, "--data-dir", directory) == told


def test_a_data_directory_that_is_none_is_named_in_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "instances").touch()
    for data_dir, told in (("file", "file: File exists"), ("data", "data/instances: Not a directory")):
        code, output = ended(capsys, "import", "file", "--data-dir", data_dir)
        assert (code, output) == (1, f"pacslite: {tmp_path}/{told}\n")


@pytest.mark.parametrize("name", ["instances", "incoming"])
@pytest.mark.parametrize("command", [["check"], ["reindex"]])
def test_a_part_that_is_a_link_is_called_so(
    directory: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    name: str,
    command: list[str],
) -> None:
    """The whole directory may be one: then all in it moves together."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (directory / name).rename(elsewhere / name)
    (directory / name).symlink_to(elsewhere / name)
    code, output = ended(capsys, *command, "--data-dir", directory)
    assert (code, "a symbolic link" in output, name in output) == (1, True, True)
    (directory / name).unlink()
    (elsewhere / name).rename(directory / name)
    (elsewhere / "whole").symlink_to(directory)
    assert ended(capsys, *command, "--data-dir", elsewhere / "whole")[0] == 0


def test_check_of_a_damaged_index_touches_nothing(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows that a damaged index does not find would make sound files look like nobody's."""
    index = directory / "index.sqlite"
    with closing(sqlite3.connect(index)) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_instance_1'"
        ).fetchone()
    content = bytearray(index.read_bytes())
    content[(page - 1) * 4096 + 100 : page * 4096] = bytes(3996)
    index.write_bytes(content)
    before = files_in(directory)
    code, output = ended(capsys, "check", "--repair", "--deep", "--data-dir", directory)
    assert (code, "run pacslite reindex" in output) == (1, True)
    assert files_in(directory) == before
    assert ended(capsys, "reindex", "--data-dir", directory)[0] == 0
    assert ended(capsys, "check", "--deep", "--data-dir", directory)[0] == 0


def test_check_says_what_ended_it(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(FilesystemStore, "open_settled", fails)
    code, output = ended(capsys, "check", "--repair", "--data-dir", directory)
    assert code == 1
    assert re.search(r"given up: .*Too many open files: 'instances/\w\w/.*\.dcm'", output)
    code, output = ended(capsys, "reindex", "--data-dir", directory)
    assert code == 1
    assert re.search(r"given up: .*Too many open files: 'instances/.*\.dcm'; .* run pacslite reindex again", output)


def test_check_says_where_it_puts_files(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    next(directory.rglob("*.dcm")).write_bytes(b"no longer")
    code, output = ended(capsys, "check", "--repair", "--data-dir", directory)
    assert (code, f"set aside is in {directory / 'damaged'}" in output) == (0, True)


def test_a_check_that_is_given_up_says_what_it_has_done(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = make_instance(0).sop_instance_uid, make_instance(2).sop_instance_uid
    next(directory.rglob(f"{first}.dcm")).write_bytes(b"no longer")
    real = FilesystemStore.open_settled

    def fails(files: FilesystemStore, path: InstancePath) -> int:
        if path.name == f"{last}.dcm":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(files, path)

    monkeypatch.setattr(FilesystemStore, "open_settled", fails)
    code, output = ended(capsys, "check", "--repair", "--data-dir", directory)
    assert code == 1
    assert re.search(rf"^damaged: {first}: .* \(mended\)$", output, re.MULTILINE)
    assert "1 found, 1 mended by then" in output
