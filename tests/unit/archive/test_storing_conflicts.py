"""The same instance, study or patient from several senders, and deletion and retrieval among them."""

import asyncio
import dataclasses
import itertools
import os
import random
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from pacslite.archive.archive import Archive
from pacslite.archive.delete import Deleted
from pacslite.archive.index.writer import Entry, PatientConflict
from pacslite.archive.instances.journaled import JOURNALED_BYTES
from pacslite.archive.instances.layout import InstancePath
from pacslite.archive.instances.protocol import InstanceFile
from pacslite.archive.keys import Level
from pacslite.archive.outcome import DuplicateInstance, Stored
from pacslite.archive.reindex import reindex
from pacslite.archive.settle import Unsettled
from pacslite.errors import DimseError
from tests.support.instances import Instance, make_instance
from tests.support.storing import (
    DEFAULTS,
    archive_in,
    begin,
    files_in,
    image_of,
    read,
    reference,
    rows,
    sqlite_error,
    store,
)
from tests.support.wire import CT_IMAGE

pytestmark = pytest.mark.usefixtures("each_way")

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"


async def _clean(archive: Archive) -> None:
    assert (await archive.check(deep=True)).differences == []


async def _store_all(archive: Archive, instances: Sequence[Instance]) -> list[Stored]:
    return await asyncio.gather(*(store(archive, instance) for instance in instances))


def _elsewhere(instance: Instance, study: int) -> Instance:
    """The same SOP Instance UID with other content, in another study."""
    other = make_instance(1, seed=9, study=study, size=900)
    assert len(other.sop_instance_uid) == len(instance.sop_instance_uid)
    data = other.data.replace(other.sop_instance_uid.encode(), instance.sop_instance_uid.encode())
    return Instance(other.patient_id, other.study_uid, other.series_uid, instance.sop_instance_uid, data)


async def test_first_objects_of_a_patient_from_sixteen_senders(tmp_path: Path) -> None:
    instances = [make_instance(n, series=n % 3, size=3000) for n in range(16)]
    async with archive_in(tmp_path) as archive:
        await _store_all(archive, instances)
        assert rows(tmp_path, "SELECT number_of_studies, number_of_series, number_of_instances FROM patient") == [
            (1, 3, 16)
        ]
        await archive.settle()
        assert await archive.totals() == (1, 1, 3, 16, sum(p.stat().st_size for p in tmp_path.rglob("*.dcm")))
        await _clean(archive)


@pytest.mark.parametrize("size", [2000, 400_000])
async def test_one_instance_from_two_senders_at_once(tmp_path: Path, size: int) -> None:
    instance = make_instance(1, size=size)
    async with archive_in(tmp_path, piece_bytes=65_536) as archive:
        outcomes = sorted(stored.outcome for stored in await _store_all(archive, [instance] * 5))
        assert outcomes == ["duplicate"] * 4 + ["stored"]
        await _clean(archive)
    assert len(files_in(tmp_path)) == 1


async def test_second_sender_goes_on_if_the_first_fails(tmp_path: Path) -> None:
    good = make_instance(1, size=2000)
    torn = Instance(good.patient_id, good.study_uid, good.series_uid, good.sop_instance_uid, good.data[:60])
    async with archive_in(tmp_path) as archive:
        first, second = await asyncio.gather(store(archive, torn), store(archive, good), return_exceptions=True)
        assert isinstance(first, DimseError)
        assert isinstance(second, Stored)
        assert second.outcome == "stored"
        assert read(archive, good.sop_instance_uid) == good.data


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(("policy", "winner"), [("keep", 0), ("replace", 1), ("reject", 0)])
async def test_duplicate(tmp_path: Path, policy: str, winner: int, restart: bool) -> None:
    first, second = (make_instance(1, size=size) for size in (2000, 3000))
    archive = archive_in(tmp_path, duplicates=policy)
    await archive.start()
    await store(archive, first)
    if restart:  # the first one is settled then, else it is in incoming
        await archive.stop()
        archive = archive_in(tmp_path, duplicates=policy)
        await archive.start()
    if policy == "reject":
        with pytest.raises(DuplicateInstance):
            await store(archive, second)
    else:
        stored = await store(archive, second)
        assert stored.outcome == {"keep": "duplicate", "replace": "replaced"}[policy]
    assert read(archive, first.sop_instance_uid) == (first, second)[winner].data
    await _clean(archive)
    await archive.stop()
    assert len(files_in(tmp_path)) == 1
    async with archive_in(tmp_path) as archive:
        assert read(archive, first.sop_instance_uid) == (first, second)[winner].data
        await _clean(archive)


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("length", [3000, JOURNALED_BYTES - 100])  # of the other with its header: too long a file
@pytest.mark.parametrize("sender", ["SENDER", "S", "ANOTHER OF LONG"])  # whose header is as long, shorter, longer
@pytest.mark.parametrize("same", [True, False])
async def test_readers_beside_a_duplicate_that_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sender: str, length: int, same: bool, settled: bool
) -> None:
    """At the moment when the index is asked, and refuses it: who opens the instance then gets what is stored."""
    size = length - len(make_instance(1, size=0).data)
    first = make_instance(1, size=size)
    other = first if same else dataclasses.replace(first, data=first.data[:-1] + b"!")
    async with archive_in(tmp_path) as archive:
        await store(archive, first)
        if settled:
            await archive.settle()
        opened: list[InstanceFile] = []
        commit = archive._index.commit

        def ask(entries: Sequence[Entry], *, late: bool = False) -> list[DimseError | None]:
            opened.append(archive.open(reference(archive, first.sop_instance_uid)))
            return commit(entries, late=late)

        monkeypatch.setattr(archive._index, "commit", ask)
        assert (await store(archive, other, source_ae_title=sender)).outcome == "duplicate"
        assert bool(opened) is bool(DEFAULTS.journal_bytes)  # else it was looked up, and not even written
        for file in opened:
            assert os.pread(file.fd, file.data_set_length, file.data_set_offset) == first.data
            os.close(file.fd)
        await _clean(archive)


async def test_kept_duplicate_is_not_written(tmp_path: Path) -> None:
    instance = make_instance(1)
    async with archive_in(tmp_path) as archive:
        await store(archive, instance)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")}
        await store(archive, instance)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")} == before


async def test_replaced_again_and_again(tmp_path: Path) -> None:
    """Unsettled, settled, several in one group: the last acknowledged one stays, also after a kill."""
    chance = random.Random(5)
    versions = [make_instance(1, size=1000 + n) for n in range(20)]
    async with archive_in(tmp_path, duplicates="replace") as archive:
        for version in versions:
            await store(archive, version)
            if chance.random() < 0.3:
                await archive.settle()
            assert read(archive, version.sop_instance_uid) == version.data
        await _clean(archive)
    assert len(files_in(tmp_path)) == 1


def _reclassified(instance: Instance, sop_class_uid: str) -> Instance:
    data = instance.data.replace(CT_IMAGE.encode() + b"\0", sop_class_uid.encode() + b"\0")
    return dataclasses.replace(instance, sop_class_uid=sop_class_uid, data=data)


async def test_a_study_has_the_sop_classes_that_its_instances_have_now(tmp_path: Path) -> None:
    """Whatever a replacement takes away, another may have, or bring back: what comes with it in one commit too."""
    ct = [make_instance(n, series=n % 2, size=900) for n in range(12)]
    mr = [_reclassified(instance, MR_IMAGE) for instance in ct]
    async with archive_in(tmp_path, duplicates="replace") as archive:
        for group, classes in (
            (ct[:1], CT_IMAGE),
            (mr[:1], MR_IMAGE),
            (ct[2:3], f"{CT_IMAGE}\\{MR_IMAGE}"),
            ([mr[2], *ct[4:]], f"{CT_IMAGE}\\{MR_IMAGE}"),
            (ct[:4], CT_IMAGE),
            (mr, MR_IMAGE),
            (ct[1:2], f"{CT_IMAGE}\\{MR_IMAGE}"),
        ):
            await _store_all(archive, group)
            archive.index.catch_up()
            assert rows(tmp_path, "SELECT sop_classes FROM study") == [(classes,)]
        await _clean(archive)


async def test_reader_finishes_with_the_old_bytes(tmp_path: Path) -> None:
    old, new = (make_instance(1, size=size) for size in (5000, 6000))
    async with archive_in(tmp_path, duplicates="replace") as archive:
        for settle in (False, True):
            await store(archive, old)
            file = archive.open(reference(archive, old.sop_instance_uid))
            await store(archive, new)
            if settle:
                await archive.settle()
            assert os.pread(file.fd, file.data_set_length, file.data_set_offset) == old.data
            os.close(file.fd)
            assert read(archive, old.sop_instance_uid) == new.data


async def test_reference_that_is_older_than_the_file(tmp_path: Path) -> None:
    """A plan was made before the instance was replaced: what is opened is described as it is."""
    old, new = (make_instance(1, size=size) for size in (5000, 6000))
    async with archive_in(tmp_path, duplicates="replace") as archive:
        await store(archive, old)
        planned = reference(archive, old.sop_instance_uid)
        await store(archive, new, source_ae_title="ANOTHER_SENDER")  # a longer header: another offset
        file = archive.open(planned)
        assert os.pread(file.fd, file.data_set_length, file.data_set_offset) == new.data
        os.close(file.fd)


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("conflict", ["reject", "keep", "replace"])
async def test_instance_in_another_study(tmp_path: Path, conflict: str, settled: bool) -> None:
    first = make_instance(1, seed=9, study=1)
    second = _elsewhere(first, study=2)
    async with archive_in(tmp_path, uid_conflict=conflict) as archive:
        await _store_all(archive, [first, make_instance(2, seed=9, study=2)])
        if settled:
            await archive.settle()
        if conflict == "reject":
            with pytest.raises(DuplicateInstance):
                await store(archive, second)
        else:
            await store(archive, second)
        winner = second if conflict == "replace" else first
        assert read(archive, first.sop_instance_uid) == winner.data
        assert reference(archive, first.sop_instance_uid).study_instance_uid == winner.study_uid
        await _clean(archive)
        if conflict == "replace":  # and back again, before anything is settled
            await store(archive, first)
            assert read(archive, first.sop_instance_uid) == first.data
    assert len(files_in(tmp_path)) == 2
    async with archive_in(tmp_path) as archive:
        await _clean(archive)


@pytest.mark.parametrize("duplicates", ["keep", "replace", "reject"])
async def test_uid_in_another_study_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, duplicates: str
) -> None:
    """Whatever is done with duplicates: two instances with one UID are somebody's mistake."""
    first = make_instance(1, seed=9, study=1)
    async with archive_in(tmp_path, duplicates=duplicates) as archive:
        await store(archive, first)
        with pytest.raises(DuplicateInstance, match="another series"):
            await store(archive, _elsewhere(first, study=2))
    assert [record.getMessage() for record in caplog.records].count("SOP Instance UID in another series") == 1


async def test_study_under_another_patient(tmp_path: Path) -> None:
    first = make_instance(1, patient=1)
    second = make_instance(2, patient=2)  # same study and series
    async with archive_in(tmp_path / "keep") as archive:
        await _store_all(archive, [first, second])
        assert len(rows(tmp_path / "keep", "SELECT id FROM patient")) == 1
        assert len(rows(tmp_path / "keep", "SELECT id FROM study")) == 1
        await _clean(archive)
    async with archive_in(tmp_path / "reject", patient_conflict="reject") as archive:
        await store(archive, first)
        with pytest.raises(PatientConflict) as raised:
            await store(archive, second)
        assert raised.value.status == 0xC001
        await store(archive, make_instance(3, patient=1))
        await _clean(archive)
    assert len(files_in(tmp_path / "reject")) == 2


async def test_refused_replacement_from_another_study_leaves_what_is_stored(tmp_path: Path) -> None:
    first, second = make_instance(1, seed=9, study=1), make_instance(2, seed=9, study=2, series=4)
    moved = _elsewhere(first, study=2)
    stranger = dataclasses.replace(
        moved, data=moved.data.replace(moved.patient_id.encode(), b"X" * len(moved.patient_id))
    )
    async with archive_in(tmp_path, uid_conflict="replace", patient_conflict="reject") as archive:
        await _store_all(archive, [first, second])
        with pytest.raises(PatientConflict):
            await store(archive, stranger)
        for instance in (first, second):
            assert read(archive, instance.sop_instance_uid) == instance.data
        await archive.settle()
        await _clean(archive)
    assert len(files_in(tmp_path)) == 2


@pytest.mark.parametrize("lost", ["log", "index", "row"])
async def test_study_under_another_patient_outlasts_the_wish_to_reject_it(tmp_path: Path, lost: str) -> None:
    """What was acknowledged is indexed again after a power cut, by a reindexing and by a repair."""
    both = [make_instance(n, patient=n) for n in (1, 2)]
    async with archive_in(tmp_path / "live") as archive:
        for instance in both:
            await store(archive, instance)
        if lost != "log":
            await archive.settle()
        image = image_of(tmp_path / "live", tmp_path / "image")
    if lost == "log":
        for path in image.glob("index.sqlite-*"):
            path.unlink()
    elif lost == "index":
        assert reindex(archive_in(image, patient_conflict="reject").options).refused == []
    async with archive_in(image, patient_conflict="reject") as archive:
        if lost == "row":
            with archive._index.transaction() as connection:
                connection.execute("DELETE FROM instance WHERE sop_instance_uid = ?", (both[1].sop_instance_uid,))
            await archive.check(repair=True)
        assert [read(archive, instance.sop_instance_uid) for instance in both] == [instance.data for instance in both]
        with pytest.raises(PatientConflict):
            await store(archive, make_instance(3, patient=2))
        await _clean(archive)
    assert len(files_in(image)) == 2


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("level", list(Level))
async def test_delete(tmp_path: Path, level: Level, settled: bool) -> None:
    instances = [make_instance(n, study=n % 2, series=n % 4, patient=0, size=800) for n in range(12)]
    target = instances[0]
    keys = {
        Level.PATIENT: target.patient_id,
        Level.STUDY: target.study_uid,
        Level.SERIES: target.series_uid,
        Level.IMAGE: target.sop_instance_uid,
    }
    owned = [(i.patient_id, i.study_uid, i.series_uid, i.sop_instance_uid)[level] == keys[level] for i in instances]
    gone = [instance for instance, own in zip(instances, owned, strict=True) if own]
    async with archive_in(tmp_path) as archive:
        await _store_all(archive, instances)
        if settled:
            await archive.settle()
        assert (await archive.delete(level, "1.2.3")).instances == 0
        file = archive.open(reference(archive, target.sop_instance_uid))
        deleted = await archive.delete(level, keys[level])
        assert deleted.instances == len(gone)
        assert os.pread(file.fd, file.data_set_length, file.data_set_offset) == target.data
        os.close(file.fd)
        await _clean(archive)
        assert (await archive.totals()).instances == len(instances) - len(gone)
        await store(archive, target)  # and anew
        assert read(archive, target.sop_instance_uid) == target.data
    assert len(files_in(tmp_path)) == len(instances) - len(gone) + 1
    assert not rows(tmp_path, "SELECT * FROM deleted_file")
    empty = [path for path in (tmp_path / "instances").rglob("*") if path.is_dir() and not list(path.iterdir())]
    assert not empty


async def test_storing_deleting_reading_and_settling_at_once(tmp_path: Path) -> None:
    """Whatever the order: no error but "not there", no orphan, counts right, bytes right."""
    chance = random.Random(11)
    instances = [make_instance(n, study=n % 3, series=n % 5, size=600 + 37 * n) for n in range(40)]
    async with archive_in(tmp_path, duplicates="replace", settle_files=7, settle_seconds=0.01) as archive:

        async def act(turn: int) -> None:
            for _ in range(25):
                instance = chance.choice(instances)
                match (turn + chance.randrange(2)) % 4:
                    case 0 | 1:
                        assert (await store(archive, instance)).status == 0
                    case 2:
                        level, uid = chance.choice(
                            [(Level.IMAGE, instance.sop_instance_uid), (Level.STUDY, instance.study_uid)]
                        )
                        await archive.delete(level, uid)
                    case _:
                        with suppress(StopIteration, FileNotFoundError):
                            assert read(archive, instance.sop_instance_uid) == instance.data
                await asyncio.sleep(0)

        await asyncio.gather(*(act(turn) for turn in range(8)))
        await _clean(archive)
        visible = {uid for (uid,) in rows(tmp_path, "SELECT sop_instance_uid FROM instance")}
        for instance in instances:
            if instance.sop_instance_uid in visible:
                assert read(archive, instance.sop_instance_uid) == instance.data
    assert len(files_in(tmp_path)) == len(visible)
    async with archive_in(tmp_path) as archive:
        await _clean(archive)


async def test_delete_while_the_object_arrives(tmp_path: Path) -> None:
    instance = make_instance(2, size=400_000)
    async with archive_in(tmp_path, piece_bytes=65_536) as archive:
        await store(archive, make_instance(1))
        incoming = begin(archive, instance)
        incoming.write(memoryview(instance.data)[:200_000])
        await archive.delete(Level.STUDY, instance.study_uid)
        incoming.write(memoryview(instance.data)[200_000:])
        assert (await incoming.commit()).outcome == "stored"
        assert read(archive, instance.sop_instance_uid) == instance.data
        await _clean(archive)


@pytest.mark.parametrize("settled", [False, True])
async def test_kept_instance_is_read_while_others_come_under_its_uid(tmp_path: Path, settled: bool) -> None:
    """Nobody is given the bytes of a duplicate that is about to be refused; what is new is read at once."""
    kept = make_instance(1, size=2000)
    async with archive_in(tmp_path) as archive:
        await store(archive, kept)
        if settled:
            await archive.settle()
        planned = reference(archive, kept.sop_instance_uid)
        ended = False
        others = 0

        def look() -> None:
            nonlocal others
            while not ended:
                file = archive.open(planned)
                others += os.pread(file.fd, file.data_set_length, file.data_set_offset) != kept.data
                os.close(file.fd)

        looking = asyncio.create_task(asyncio.to_thread(look))
        for number in range(150):
            new = make_instance(2, seed=number, size=100)  # after it a duplicate is taken for new, too, at first
            await _store_all(archive, [make_instance(1, size=3000 + 2 * number), new])
            assert read(archive, new.sop_instance_uid) == new.data
            archive._ingest._sealer._doubted = 0
        ended = True
        await looking
        assert not others
        await _clean(archive)


async def test_quota_counts_what_a_deletion_took_that_then_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with archive_in(tmp_path) as archive:
        await _store_all(archive, [make_instance(n, size=100) for n in range(300)])
        remove_rows, calls = archive._deleter._remove_rows, itertools.count()

        def fail_once(level: Level, uid: str, deleted: Deleted) -> list[tuple[InstancePath, Unsettled | None]]:
            if next(calls) == 1:
                raise sqlite_error(sqlite3.SQLITE_FULL, "database or disk is full")
            return remove_rows(level, uid, deleted)

        monkeypatch.setattr(archive._deleter, "_remove_rows", fail_once)
        with pytest.raises(sqlite3.OperationalError):
            await archive.delete(Level.STUDY, make_instance(0).study_uid)
        totals = await archive.totals()
        assert totals.instances == 44
        assert archive._space.stored_bytes == totals.bytes


async def test_quota_of_a_replacement_whose_predecessor_is_deleted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (make_instance(1, size=size) for size in (5000, 9000))
    async with archive_in(tmp_path, duplicates="replace") as archive:
        await store(archive, old)
        archive._ingest._sealer._doubted = 1  # it is looked up
        commit = archive._index.commit

        def delete_before(entries: Sequence[Entry], *, late: bool = False) -> list[DimseError | None]:
            archive._space.removed(archive._deleter.delete(Level.IMAGE, old.sop_instance_uid).bytes)
            return commit(entries, late=late)

        monkeypatch.setattr(archive._index, "commit", delete_before)
        assert (await store(archive, new)).outcome == "stored"
        assert archive._space.stored_bytes == (await archive.totals()).bytes
        assert read(archive, new.sop_instance_uid) == new.data
        await _clean(archive)
