"""Short of ``full`` a power cut may leave rows whose files are gone or torn: none of them stays, and no other goes."""

import asyncio
import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pacslite.archive.instances.layout import instance_path
from pacslite.archive.keys import Level
from pacslite.archive.reindex import reindex
from pacslite.archive.unsynced import is_marked_unsynced
from pacslite.dataset.meta import encode_file_meta
from tests.support.instances import Instance, make_instance
from tests.support.storing import (
    EXPLICIT_LITTLE_ENDIAN,
    FailingOperations,
    archive_in,
    files_in,
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


_COMMIT: dict[str, Any] = {"durability": "commit", "duplicates": "replace", "uid_conflict": "replace"}


def _cut(live: Path, image: Path, lost: Instance) -> Path:
    """A power cut: rows and all else came to the disk, the file of ``lost`` did not."""
    image_of(live, image)
    (file,) = (path for path in (image / "incoming").glob("*.dcm") if path.read_bytes().endswith(lost.data))
    file.unlink()
    return image


@pytest.mark.parametrize("study", [0, 1], ids=["in-place", "relocated"])
@pytest.mark.parametrize("settled", [False, True])
async def test_what_was_replaced_is_there_again_if_what_replaced_it_is_lost(
    tmp_path: Path, study: int, settled: bool
) -> None:
    """A cut takes the last seconds, not what was there for months: however many were stored since."""
    old, new = make_instance(1), make_instance(1, size=3000)
    if study:
        other = make_instance(2, study=study, size=3000)
        data = other.data.replace(other.sop_instance_uid.encode(), old.sop_instance_uid.encode())
        new = replace(other, sop_instance_uid=old.sop_instance_uid, data=data)
    others = [make_instance(n, series=1, size=300) for n in range(10, 300)]
    async with archive_in(tmp_path / "live", **_COMMIT) as archive:
        await store(archive, old)
        if settled:
            await asyncio.gather(*(store(archive, instance) for instance in others))
            await archive.settle()
        assert (await store(archive, new)).outcome == "replaced"
        image = _cut(tmp_path / "live", tmp_path / "image", new)
    async with archive_in(image, **_COMMIT) as archive:
        assert (archive.recovered.restored, archive.recovered.dropped) == (1, 0)
        assert read(archive, old.sop_instance_uid) == old.data
        assert (await archive.check(deep=True)).differences == []
        await archive.settle()
        assert read(archive, old.sop_instance_uid) == old.data
        assert (await archive.check(deep=True)).differences == []
        assert archive._index.notes() == []


async def test_the_newest_of_several_that_is_left_is_restored(tmp_path: Path) -> None:
    first, second, third = (make_instance(1, size=size) for size in (2000, 3000, 4000))
    async with archive_in(tmp_path / "live", **_COMMIT) as archive:
        await store(archive, first)
        await archive.settle()
        await store(archive, second)
        await store(archive, third)
        image = _cut(tmp_path / "live", tmp_path / "image", third)
        both = _cut(image, tmp_path / "both", second)
    for directory, left in ((image, second), (both, first)):
        async with archive_in(directory, **_COMMIT) as archive:
            assert read(archive, first.sop_instance_uid) == left.data
            assert (await archive.check(deep=True)).differences == []
        assert len(files_in(directory)) == 1


async def test_what_was_deleted_is_not_restored(tmp_path: Path) -> None:
    """Stored, replaced, deleted, stored anew and lost by a cut before the files of the deletion were removed."""
    first, second, third = (make_instance(1, size=size) for size in (2000, 3000, 4000))
    stuck = False
    operations = FailingOperations(lambda name, _: errno.EIO if stuck and name == "unlink" else 0)
    async with archive_in(tmp_path / "live", operations=operations, **_COMMIT) as archive:
        await store(archive, first)
        await store(archive, second)
        stuck = True
        carry_out, archive._settler.carry_out_notes = archive._settler.carry_out_notes, lambda: None  # type: ignore[method-assign]
        await archive.delete(Level.IMAGE, first.sop_instance_uid)
        await store(archive, third)
        image = _cut(tmp_path / "live", tmp_path / "image", third)
        archive._settler.carry_out_notes = carry_out  # type: ignore[method-assign]
        stuck = False
    assert len(files_in(image)) == 2
    async with archive_in(image, **_COMMIT) as archive:
        assert archive.recovered.dropped == 1
        assert (await archive.totals()).instances == 0
    assert files_in(image) == []


async def test_what_was_replaced_goes_after_what_replaced_it_is_synced(tmp_path: Path) -> None:
    """Else a cut could take both."""
    calls: list[str] = []

    def remember(name: str, _: int) -> int:
        calls.append(name)
        return 0

    operations = FailingOperations(remember, ["unlink", "sync_filesystem"])
    async with archive_in(tmp_path, operations=operations, **_COMMIT) as archive:
        await store(archive, make_instance(1, size=2000))
        await store(archive, make_instance(1, size=3000))
        calls.clear()
        archive._settler.carry_out_notes()
        assert calls == ["sync_filesystem", "unlink", "sync_filesystem"]
