"""Short of ``full`` a power cut may leave rows whose files are gone or torn: none of them stays, and no other goes."""

import asyncio
import errno
from pathlib import Path

import pytest

from pacslite.archive.instances.layout import instance_path
from pacslite.archive.reindex import reindex
from pacslite.archive.unsynced import is_marked_unsynced
from pacslite.dataset.meta import encode_file_meta
from tests.support.instances import Instance, make_instance
from tests.support.storing import (
    EXPLICIT_LITTLE_ENDIAN,
    FailingOperations,
    archive_in,
    image_of,
    read,
    rows,
    store,
)


@pytest.mark.parametrize("durability", ["commit", "none"])
async def test_rows_that_outlived_their_files_are_dropped(tmp_path: Path, durability: str) -> None:
    """Files were not synced: whole or gone, but never visible and not to be had."""
    instances = [make_instance(n, series=n % 2, size=700) for n in range(12)]
    async with archive_in(tmp_path / "live", durability=durability) as archive:
        await asyncio.gather(*(store(archive, instance) for instance in instances[:6]))
        await archive.settle()
        await asyncio.gather(*(store(archive, instance) for instance in instances[6:]))
        image = image_of(tmp_path / "live", tmp_path / "image")
    lost = [instances[1], instances[3], instances[7], instances[9]]
    for instance, damage in zip(lost, (b"", None, b"", None), strict=True):
        (path,) = (p for p in image.rglob("*.dcm") if p.read_bytes().endswith(instance.data))
        path.unlink() if damage is None else path.write_bytes(damage)
    kept = [instance for instance in instances if instance not in lost]
    async with archive_in(image, durability=durability) as archive:
        found = {uid for (uid,) in rows(image, "SELECT sop_instance_uid FROM instance")}
        assert found == {instance.sop_instance_uid for instance in kept}
        assert all(read(archive, instance.sop_instance_uid) == instance.data for instance in kept)
        await store(archive, lost[0])
        report = await archive.check(deep=True, repair=True)
        assert {difference.kind for difference in report.differences} <= {"surplus", "foreign"}


def _put(directory: Path, instance: Instance) -> Path:
    """A file as another program writes it."""
    path = (
        directory / "instances" / str(instance_path(instance.study_uid, instance.series_uid, instance.sop_instance_uid))
    )
    path.parent.mkdir(parents=True)
    meta = encode_file_meta(
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=instance.sop_instance_uid,
        transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
        source_ae_title="ELSEWHERE",
        private=b"",
    )
    path.write_bytes(meta + instance.data)
    return path


@pytest.mark.parametrize("durability", ["full", "commit", "none"])
async def test_reindexed_files_of_others_stay(tmp_path: Path, durability: str) -> None:
    """They have no digest of ours; the row has."""
    instance = make_instance(1)
    path = _put(tmp_path, instance)
    assert reindex(archive_in(tmp_path).options).indexed == 1
    async with archive_in(tmp_path, durability=durability) as archive:
        assert archive.recovered.dropped == 0
        assert read(archive, instance.sop_instance_uid) == instance.data
    if durability != "full":
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
        async with archive_in(tmp_path, durability=durability) as archive:
            assert archive.recovered.dropped == 1


@pytest.mark.parametrize("error", [errno.EMFILE, errno.EIO, errno.EACCES])
async def test_rows_of_files_that_cannot_be_opened_stay(tmp_path: Path, error: int) -> None:
    """Without descriptors, for one: nothing is known of the file."""
    instance = make_instance(1)
    async with archive_in(tmp_path, durability="commit") as archive:
        await store(archive, instance)
    operations = FailingOperations(lambda *_: error if failing else 0, ["open_file"])
    failing = True
    async with archive_in(tmp_path, durability="commit", operations=operations) as archive:
        failing = False
        assert archive.recovered.dropped == 0
        assert read(archive, instance.sop_instance_uid) == instance.data


@pytest.mark.parametrize("durability", ["commit", "none"])
@pytest.mark.parametrize("torn", [False, True])
async def test_full_does_not_trust_what_ran_with_less_before(tmp_path: Path, durability: str, torn: bool) -> None:
    """A power cut took the newer file, or what was in it; the row came to the disk."""
    kept, lost = make_instance(1), make_instance(2, size=600_000)
    async with archive_in(tmp_path / "live", durability=durability) as archive:
        await store(archive, kept)
        await archive.settle()
        await store(archive, lost)
        archive.index.catch_up()
        image = image_of(tmp_path / "live", tmp_path / "image")
    (file,) = (image / "incoming").glob("*.dcm")
    if torn:
        file.write_bytes(file.read_bytes()[:8192].ljust(file.stat().st_size, b"\0"))
    else:
        file.unlink()
    async with archive_in(image, durability="full") as archive:
        assert archive.recovered.dropped == 1
        await archive.settle()
        assert (await archive.check(deep=True)).differences == []
        assert read(archive, kept.sop_instance_uid) == kept.data
        assert (await store(archive, lost)).outcome == "stored"
        image_of(image, tmp_path / "full")
    async with archive_in(tmp_path / "full", durability="full") as archive:
        assert archive.recovered.settled, "rows are trusted again"


async def test_a_run_with_full_leaves_no_mark(tmp_path: Path) -> None:
    async with archive_in(tmp_path):
        assert not is_marked_unsynced(tmp_path)
    async with archive_in(tmp_path, durability="commit"):
        assert is_marked_unsynced(tmp_path)
    assert is_marked_unsynced(tmp_path), "a stop does not sync everything"
    async with archive_in(tmp_path):
        assert not is_marked_unsynced(tmp_path)
