"""The directories below ``instances/``, while the disk refuses to open them."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacslite.archive.instances.fileops import FileOperations
from pacslite.archive.instances.layout import instance_path
from pacslite.archive.instances.tree import InstanceTree
from tests.support.storing import FailingOperations

PLACE = instance_path("1.2", "1.2.3", "1.2.3.4")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("failing_at", range(1, 4))
def test_what_cannot_be_opened_leaves_no_descriptor(root: int, failing_at: int) -> None:
    os.close(InstanceTree(FileOperations(), root).open_directory(PLACE, make=True))
    operations = FailingOperations(lambda _, count: errno.EIO if count == failing_at else 0, ["open_directory"])
    tree = InstanceTree(operations, root)
    before = _descriptors()
    tree.remove_empty(PLACE)  # opens two components, then one
    assert _descriptors() == before
    operations.counts.clear()
    with pytest.raises(OSError, match="Input/output"):
        tree.open_directory(PLACE, make=True)
    assert _descriptors() == before
