"""A server in a container with half a processor must know that it has no two."""

import os
from pathlib import Path

import pytest

from pacslite.processors import processors


def test_here() -> None:
    assert 0 < processors() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("group", "quotas", "most"),
    [
        ("0::/\n", {"": "50000 100000\n"}, 0.5),
        ("0::/\n", {"": "max 100000\n"}, None),
        ("0::/system.slice/pacslite.service\n", {"system.slice/pacslite.service": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"a": "10000 100000", "a/b": "max 100000"}, 0.1),  # what it is in has less
        ("1:cpu:/old\n0::/a\n", {"a": "20000 100000"}, 0.2),
        ("1:cpu:/old\n", {}, None),
        ("0::/a\n", {"a": "noise"}, None),
        ("0::/a\n", {"a": "1 0"}, None),
        ("0::/gone\n", {}, None),
    ],
)
def test_a_quota(tmp_path: Path, group: str, quotas: dict[str, str], most: float | None) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(group)
    for name, text in quotas.items():
        folder = tmp_path / "sys/fs/cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(text)
    assert processors(tmp_path) == (len(os.sched_getaffinity(0)) if most is None else pytest.approx(most))


def test_without_control_groups(tmp_path: Path) -> None:
    assert processors(tmp_path) == len(os.sched_getaffinity(0))
