"""What is imported is what was written: a file of ours proves itself before it counts as stored."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from pacslite.cli.main import main
from tests.support.instances import make_instance
from tests.support.storing import archive_in, files_in, store


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A file that pacslite wrote, somewhere else."""
    async with archive_in(tmp_path / "one") as archive:
        await store(archive, make_instance(1, size=20_000))
    (path,) = (tmp_path / "one").rglob("*.dcm")
    return path.rename(tmp_path / "copy.dcm")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9000])


def _lengthened(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(100))


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("alter", "told"),
    [
        (_cut, "9000 bytes instead of 2"),
        (_lengthened, " bytes instead of 2"),
        (lambda path: _flip(path, 9000), "the digest in its header differs"),
        (lambda path: _flip(path, 3), "File Meta Information differs from its checksum"),
    ],
)
def test_an_altered_file_of_ours_fails(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], alter: Callable[[Path], None], told: str
) -> None:
    alter(file)
    code, output = imported(capsys, tmp_path, file)
    assert code == 1
    assert told in output
    assert "0 stored" in output
    assert "1 failed" in output
    assert files_in(tmp_path / "data") == []


def test_a_sound_file_of_ours_is_stored(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output = imported(capsys, tmp_path, file)
    assert (code, "1 stored" in output) == (0, True)


def test_a_file_that_another_program_has_written_anew_is_stored(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = dcmread(file)
    found.PatientName = "Another^Name"
    for tag in (0x00020100, 0x00020102):
        del found.file_meta[tag]
    found.save_as(file)
    code, output = imported(capsys, tmp_path, file)
    assert (code, "1 stored" in output) == (0, True)


@pytest.mark.parametrize("size", [20_000, 400_000])
def test_a_file_of_which_a_part_is_missing_fails_and_the_whole_one_is_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    """Had it been taken, the whole one would be there already."""
    instance = make_instance(1, size=size)
    data_set = tmp_path / "data set.dcm"
    data_set.write_bytes(instance.data)
    whole = dcmread(data_set, force=True)
    whole.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    whole.save_as(tmp_path / "whole.dcm", enforce_file_format=True)
    cut = tmp_path / "cut.dcm"
    cut.write_bytes((tmp_path / "whole.dcm").read_bytes()[:-7000])
    code, output = imported(capsys, tmp_path, cut)
    assert (code, "1 failed" in output) == (1, True)
    assert "goes 7000 bytes beyond the data set" in output
    assert files_in(tmp_path / "data") == []
    code, output = imported(capsys, tmp_path, tmp_path / "whole.dcm")
    assert (code, "1 stored" in output) == (0, True)


def imported(capsys: pytest.CaptureFixture[str], base: Path, file: Path) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        main(["import", str(file), "--data-dir", str(base / "data")])
    output = capsys.readouterr()
    return int(caught.value.code or 0), output.out + output.err


def test_a_pipe_is_passed_over_and_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SystemExit):
        main(["import", str(tmp_path / "pipe"), "--data-dir", str(tmp_path / "data")])
    assert capsys.readouterr().err == f"{tmp_path}/pipe: passed over: a pipe or device\n"
