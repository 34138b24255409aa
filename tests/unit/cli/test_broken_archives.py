"""Commands on archives that are half there: a line that says what is wrong and what to do, and no harm done."""

import json
from pathlib import Path

import pytest

from pacslite.cli.main import main
from tests.support.instances import make_instance
from tests.support.storing import archive_in, store


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
    assert ended(capsys, "db", "upgrade", "--data-dir", tmp_path)[0] == 0
    code, output = ended(capsys, "stats", "--data-dir", tmp_path, "--json")
    assert (code, json.loads(output)["instances"]) == (0, 0)
