"""A data directory of which a part is mounted: files could not be moved there, and the sync of one is not for both."""

from pathlib import Path

import pytest

from pacslite.archive.archive import ArchiveUnusable
from tests.support.disks import mounted
from tests.support.instances import make_instance
from tests.support.storing import archive_in, store


@pytest.mark.parametrize("kind", ["another file system", "the same file system"])
@pytest.mark.parametrize("name", ["incoming", "instances"])
async def test_a_start_refuses_a_mount_in_the_data_directory(tmp_path: Path, name: str, kind: str) -> None:
    data, part, elsewhere = tmp_path / "data", tmp_path / "data" / name, tmp_path / "elsewhere"
    part.mkdir(parents=True)
    elsewhere.mkdir()
    words = ("--bind", elsewhere) if kind == "the same file system" else ("-t", "tmpfs", "none")
    with mounted(part, *words):
        with pytest.raises(ArchiveUnusable, match=f"{data}: {name} is a mount of its own"):
            await archive_in(data).start()
        assert list(part.iterdir()) == []


async def test_a_data_directory_may_be_a_mount(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with mounted(data, "-t", "tmpfs", "none"):
        async with archive_in(data, journal_bytes=1 << 20) as archive:
            assert (await store(archive, make_instance(1))).outcome == "stored"
