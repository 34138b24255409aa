"""Folders that are walked: each once, and nothing in them is passed over without a word."""

import os
import tempfile
from pathlib import Path

from pacslite.folders import files_below
from tests.support.privileges import unprivileged


def below(folder: Path, *, hidden: bool = True) -> list[str]:
    return [str(path.relative_to(folder)) for path in files_below([folder], hidden=hidden)]


def test_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("b/c/d", "b/.e", "b/f", "a", "g"):
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "h")  # who opened it would wait
    assert below(tmp_path) == ["a", "b/.e", "b/c/d", "b/f", "g"]
    assert below(tmp_path, hidden=False) == ["a", "b/c/d", "b/f", "g"]
    assert list(files_below([tmp_path / "b/.e"], hidden=False)) == [tmp_path / "b/.e"]  # named outright
    assert list(files_below([tmp_path / "h"])) == [tmp_path / "h"]


def test_links_are_followed_and_each_folder_is_walked_once(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "file").touch()
    (inside / "out").symlink_to(outside)
    (outside / "back").symlink_to(inside)
    (inside / "again").symlink_to(outside)
    assert below(inside) == ["again/file", "file"]
    assert list(files_below([inside, inside])) == [inside / "again/file", inside / "file"]


def test_what_cannot_be_looked_into_is_given_itself(tmp_path: Path) -> None:
    """Who opens it is told why."""
    for name in ("loop", "nowhere"):
        (tmp_path / name).symlink_to(name)
    (tmp_path / "nowhere").unlink()
    (tmp_path / "nowhere").symlink_to("gone")
    assert below(tmp_path) == ["loop", "nowhere"]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "file").touch()
        (folder / "shut" / "deeper").mkdir(parents=True)
        folder.chmod(0o755)
        (folder / "shut").chmod(0)
        with unprivileged():
            assert below(folder) == ["file", "shut"]
        (folder / "shut").chmod(0o744)  # names, and nothing behind them
        with unprivileged():
            assert below(folder) == ["file", "shut/deeper"]
