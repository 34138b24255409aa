"""Unclean stops: what was acknowledged is there, half a file is nowhere, whatever was not synced is lost or torn."""

import asyncio
import errno
import os
import random
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pacslite.archive.archive import Archive, ArchiveUnusable
from pacslite.archive.keys import Level
from tests.support.instances import Instance, make_instance
from tests.support.storing import FailingOperations, archive_in, begin, files_in, image_of, read, rows, store


async def _store_all(archive: Archive, instances: Sequence[Instance]) -> None:
    await asyncio.gather(*(store(archive, instance) for instance in instances))


async def _judge(directory: Path, expected: dict[str, bytes]) -> Archive:
    """Start on what was left; everything expected is there, nothing else. Gives the stopped archive."""
    async with archive_in(directory) as archive:
        assert {uid for (uid,) in rows(directory, "SELECT sop_instance_uid FROM instance")} == set(expected)
        assert all(read(archive, uid) == data for uid, data in expected.items())
        assert (await archive.check(deep=True)).differences == []
        await archive.settle()
        assert archive.unsettled == 0
        assert (await archive.check(deep=True)).differences == []
    assert len(files_in(directory)) == len(expected)
    return archive


def _failing(name: str) -> None:
    raise OSError(errno.EIO, "Input/output error")


def _lose_log(directory: Path) -> None:
    """A power cut may take all of the index that was not synced."""
    for path in directory.glob("index.sqlite-*"):
        path.unlink()


@pytest.mark.parametrize("lost", [False, True], ids=["killed", "log-lost"])
async def test_everything_acknowledged_is_there_again(tmp_path: Path, lost: bool) -> None:
    instances = [make_instance(n, study=n % 2, series=n % 3, size=700 * n) for n in range(20)]
    async with archive_in(tmp_path / "live", piece_bytes=4096) as archive:
        await _store_all(archive, instances[:8])
        await archive.settle()
        await _store_all(archive, instances[8:])
        image = image_of(tmp_path / "live", tmp_path / "image")
    if lost:
        _lose_log(image)
    archive = await _judge(image, {instance.sop_instance_uid: instance.data for instance in instances})
    assert archive.recovered.settled + archive.recovered.indexed == 12
    if lost:
        assert archive.recovered.indexed == 12


async def test_work_is_proportional_to_what_was_in_flight(tmp_path: Path) -> None:
    """Settled files are not looked at: here they could not even be read."""
    async with archive_in(tmp_path / "live") as archive:
        await _store_all(archive, [make_instance(n, size=500) for n in range(10)])
        await archive.settle()
        await store(archive, make_instance(11, size=500))
        image = image_of(tmp_path / "live", tmp_path / "image")
    for path in (image / "instances").rglob("*.dcm"):
        path.write_bytes(b"")
    async with archive_in(image) as archive:
        assert (archive.recovered.settled, archive.recovered.indexed, archive.recovered.removed) == (1, 0, 0)
        assert archive.unsettled == 1, "nobody waits until its file is in its place"


async def test_half_an_object_is_nowhere(tmp_path: Path) -> None:
    whole, half = make_instance(1), make_instance(2, size=400_000)
    async with archive_in(tmp_path / "live", piece_bytes=65_536) as archive:
        await store(archive, whole)
        incoming = begin(archive, half)
        incoming.write(memoryview(half.data)[:300_000])
        while not any(path.stat().st_size > 200_000 for path in (tmp_path / "live" / "incoming").iterdir()):
            await asyncio.sleep(0.001)
        image = image_of(tmp_path / "live", tmp_path / "image")
        incoming.abort()
    archive = await _judge(image, {whole.sop_instance_uid: whole.data})
    assert archive.recovered.removed == 1


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory as a kill leaves it, with twelve instances in ``incoming`` and an empty index."""
    directory = tmp_path_factory.mktemp("journal")

    async def make() -> None:
        async with archive_in(directory / "live") as archive:
            await _store_all(archive, JOURNAL)
            _lose_log(image_of(directory / "live", directory / "image"))

    asyncio.run(make())
    return directory / "image"


JOURNAL = [make_instance(n, series=n % 2, size=900 + 100 * n) for n in range(12)]


@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_what_was_not_synced_may_be_lost_or_torn(journal: Path, data: st.DataObject) -> None:
    """Any damage to files whose sender was not answered: the others are there, these are whole or gone."""
    directory = journal.with_name("case")
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(journal, directory)
    expected = {instance.sop_instance_uid: instance.data for instance in JOURNAL}
    for path in sorted((directory / "incoming").iterdir()):
        content = path.read_bytes()
        uid = next(uid for uid, body in expected.items() if content.endswith(body))
        match data.draw(st.sampled_from(["whole", "gone", "short", "long", "hole", "bit", "empty"])):
            case "gone":
                path.unlink()
            case "short":
                path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
            case "hole":  # the length came to disk, a block of the content did not
                start = data.draw(st.integers(0, len(content) - 2))
                end = data.draw(st.integers(start + 1, len(content)))
                torn = content[:start] + bytes(end - start) + content[end:]
                path.write_bytes(torn)
                if torn == content:
                    continue
            case "bit":
                at = data.draw(st.integers(0, len(content) * 8 - 1))
                spoilt = bytearray(content)
                spoilt[at // 8] ^= 1 << at % 8
                path.write_bytes(spoilt)
            case "empty":
                path.write_bytes(b"")
            case _:
                continue
        del expected[uid]

    async def judge() -> None:
        async with archive_in(directory) as archive:
            found = {uid for (uid,) in rows(directory, "SELECT sop_instance_uid FROM instance")}
            originals = {instance.sop_instance_uid: instance.data for instance in JOURNAL}
            assert found <= set(expected)
            assert all(read(archive, uid) == originals[uid] for uid in found)
            assert (await archive.check(deep=True)).differences == []
        assert len(files_in(directory)) == len(found)

    asyncio.run(judge())


@pytest.mark.parametrize("name", ["1.dcm", "20240131.dcm", "image.dcm", "notes.txt"])
async def test_what_others_put_into_incoming_is_not_touched(tmp_path: Path, name: str) -> None:
    path = tmp_path / "incoming" / name
    path.parent.mkdir()
    path.write_bytes(b"not of ours")
    async with archive_in(tmp_path) as archive:
        await store(archive, make_instance(1))
    assert path.read_bytes() == b"not of ours"


async def test_killed_in_the_middle_of_settling(tmp_path: Path) -> None:
    instances = [make_instance(n, size=600) for n in range(9)]
    async with archive_in(tmp_path / "live") as archive:
        await _store_all(archive, instances)
        image = image_of(tmp_path / "live", tmp_path / "image")
        await archive.settle()
    live = tmp_path / "live" / "instances"
    for number, path in enumerate(sorted((image / "incoming").iterdir())):
        if number % 2:
            uid = next(i.sop_instance_uid for i in instances if path.read_bytes().endswith(i.data))
            (settled,) = live.rglob(f"{uid}.dcm")
            place = image / "instances" / settled.relative_to(live)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
    await _judge(image, {instance.sop_instance_uid: instance.data for instance in instances})


@pytest.mark.parametrize("lost", [False, True], ids=["killed", "log-lost"])
@pytest.mark.parametrize("settled", [False, True])
async def test_replaced_instance_after_a_kill(tmp_path: Path, settled: bool, lost: bool) -> None:
    old, new = make_instance(1, size=2000), make_instance(1, size=3000)
    async with archive_in(tmp_path / "live", duplicates="replace") as archive:
        await store(archive, old)
        if settled:
            await archive.settle()
        await store(archive, new)
        image = image_of(tmp_path / "live", tmp_path / "image")
    if lost:
        _lose_log(image)
    await _judge(image, {new.sop_instance_uid: new.data})


@pytest.mark.parametrize("journal_bytes", [0, 2 << 20])
async def test_another_size_of_the_journal_holds_after_a_kill_too(tmp_path: Path, journal_bytes: int) -> None:
    """Not before what the old one has is in its place, and no start later."""
    instance = make_instance(1)
    async with archive_in(tmp_path / "live", journal_bytes=1 << 20) as archive:
        await store(archive, instance)
        image = image_of(tmp_path / "live", tmp_path / "image")
    journal = image / "journal"
    async with archive_in(image, journal_bytes=journal_bytes, settle_seconds=0.01):
        async with asyncio.timeout(10):
            while (journal.stat().st_size if journal.exists() else 0) != journal_bytes:
                await asyncio.sleep(0.01)
    await _judge(image, {instance.sop_instance_uid: instance.data})


@pytest.mark.parametrize("size", [3000, 400_000])
@pytest.mark.parametrize("journal_bytes", [0, 1 << 20])
async def test_replacement_is_settled_after_its_row_is_safe(tmp_path: Path, size: int, journal_bytes: int) -> None:
    """Also if nothing else was stored: a power cut may take the log, but not the row of a file in its place."""
    old, new = make_instance(1, size=2000), make_instance(1, size=size)
    async with archive_in(tmp_path / "live", duplicates="replace", journal_bytes=journal_bytes) as archive:
        await store(archive, old)
        await archive.settle()
        await store(archive, new)
        await archive.settle()
        image = image_of(tmp_path / "live", tmp_path / "image")
    _lose_log(image)
    await _judge(image, {new.sop_instance_uid: new.data})


async def test_a_large_instance_that_is_replaced_by_itself_is_not_lost(tmp_path: Path) -> None:
    """The header of the second file came to disk, what follows it did not."""
    instance = make_instance(1, size=400_000)
    async with archive_in(tmp_path / "live", duplicates="replace") as archive:
        await store(archive, instance)
        await archive.settle()
        await store(archive, instance)
        image = image_of(tmp_path / "live", tmp_path / "image")
    (second,) = (image / "incoming").iterdir()
    with second.open("r+b") as file:
        file.seek(200_000)
        file.write(bytes(4096))
    await _judge(image, {instance.sop_instance_uid: instance.data})


async def test_durability_commit_loses_nothing_to_a_kill_on_a_full_disk(tmp_path: Path) -> None:
    """What is in the journal cannot be settled by the next start, and is no row without a file nevertheless."""
    instance = make_instance(1)
    async with archive_in(tmp_path / "live", durability="commit", journal_bytes=1 << 20) as archive:
        await store(archive, instance)
        image = image_of(tmp_path / "live", tmp_path / "image")
    full = True
    calls = ("create", "make_directory", "copy")
    operations = FailingOperations(lambda *_: errno.ENOSPC if full else 0, calls)
    async with archive_in(image, durability="commit", operations=operations) as archive:
        assert archive.recovered.dropped == 0
        assert read(archive, instance.sop_instance_uid) == instance.data
        full = False
    await _judge(image, {instance.sop_instance_uid: instance.data})


@pytest.mark.parametrize("settled", [False, True])
async def test_deleted_instance_does_not_come_back(tmp_path: Path, settled: bool) -> None:
    """Its rows were gone for good before its files were touched: a kill between the two, and the files are there."""
    gone, kept = make_instance(1, size=2000), make_instance(2, study=1, size=2000)
    stuck = False
    operations = FailingOperations(lambda name, _: errno.EIO if stuck and name == "unlink" else 0)
    async with archive_in(tmp_path / "live", operations=operations) as archive:
        await _store_all(archive, [gone, kept])
        if settled:
            await archive.settle()
        before = image_of(tmp_path / "live", tmp_path / "before")
        stuck = True
        await archive.delete(Level.STUDY, gone.study_uid)
        after = image_of(tmp_path / "live", tmp_path / "after")
    assert files_in(before) == files_in(after)
    archive = await _judge(after, {kept.sop_instance_uid: kept.data})
    assert archive.recovered.deletions


async def test_stored_again_while_its_deletion_is_synced(tmp_path: Path) -> None:
    """The cut may bring back the row of the one before: what took its place is not answered until it cannot."""
    old, new = make_instance(1, size=2000), make_instance(1, size=3000)
    acknowledged: dict[str, bytes] = {}
    loop = asyncio.get_running_loop()

    async def again() -> None:
        await store(archive, new)
        acknowledged[new.sop_instance_uid] = new.data

    async with archive_in(tmp_path / "live", journal_bytes=1 << 20) as archive:
        await store(archive, old)
        await archive.settle()
        sync = archive._index.sync

        def slowly() -> None:
            archive._index.sync = sync  # type: ignore[method-assign]
            storing.append(asyncio.run_coroutine_threadsafe(again(), loop))
            wait(storing, timeout=0.5)
            promised.update(acknowledged)
            _lose_log(image_of(tmp_path / "live", tmp_path / "image"))
            sync()

        storing: list[Future[None]] = []
        promised: dict[str, bytes] = {}
        archive._index.sync = slowly  # type: ignore[method-assign]
        await archive.delete(Level.IMAGE, old.sop_instance_uid)
        await asyncio.wrap_future(storing[0])
    async with archive_in(tmp_path / "image") as archive:
        assert all(read(archive, uid) == data for uid, data in promised.items())
        assert (await archive.check(deep=True)).differences == []


async def test_a_file_that_cannot_be_removed_keeps_no_other(tmp_path: Path) -> None:
    """Made immutable, for one: what was deleted or replaced after it goes, from the journal too."""
    stuck, deleted, replaced = (make_instance(n, study=n) for n in range(3))
    immutable = True
    operations = FailingOperations(lambda *_: 0)

    def unlink(directory: int, name: str) -> None:
        if immutable and name == f"{stuck.sop_instance_uid}.dcm":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        os.unlink(name, dir_fd=directory)

    operations.unlink = unlink  # type: ignore[method-assign]
    options: dict[str, Any] = {"journal_bytes": 1 << 20, "duplicates": "replace", "operations": operations}
    async with archive_in(tmp_path / "live", **options) as archive:
        await _store_all(archive, [stuck])
        await archive.settle()
        await archive.settle()
        await archive.delete(Level.IMAGE, stuck.sop_instance_uid)
        await _store_all(archive, [deleted, replaced])
        remove, archive._store.remove_incoming = archive._store.remove_incoming, _failing  # type: ignore[method-assign]
        await archive.delete(Level.IMAGE, deleted.sop_instance_uid)
        archive._store.remove_incoming = remove  # type: ignore[method-assign]
        await store(archive, replaced)
        image = image_of(tmp_path / "live", tmp_path / "image")
        await archive.settle()
        await archive.settle()
        assert not archive._store.must_sync, "nothing is left in the journal"
    async with archive_in(image, **options) as archive:
        assert {uid for (uid,) in rows(image, "SELECT sop_instance_uid FROM instance")} == {replaced.sop_instance_uid}
        assert len(archive._index.notes()) == 1
        immutable = False
    await _judge(image, {replaced.sop_instance_uid: replaced.data})


class _Unreadable(FailingOperations):
    """One file cannot be opened, by an errno."""

    def __init__(self, error: int) -> None:
        super().__init__(lambda *_: 0)
        self.error = error
        self.name = ""

    def open_file(self, directory: int, name: str) -> int:
        if name == self.name:
            raise OSError(self.error, os.strerror(self.error))
        return super().open_file(directory, name)


@pytest.mark.parametrize("what", ["sector", "link", "directory"])
async def test_a_file_that_cannot_be_read_keeps_no_other(tmp_path: Path, what: str) -> None:
    instances = [make_instance(n) for n in range(3)]
    async with archive_in(tmp_path / "live") as archive:
        await _store_all(archive, instances)
        image = image_of(tmp_path / "live", tmp_path / "image")
    bad = min((image / "incoming").iterdir())
    lost = next(instance for instance in instances if bad.read_bytes().endswith(instance.data))
    content = bad.with_name("elsewhere")
    operations = _Unreadable(errno.EIO)
    if what == "sector":
        operations.name = bad.name
    else:
        bad.rename(content)
        bad.symlink_to(content) if what == "link" else bad.mkdir()
    async with archive_in(image, operations=operations) as archive:
        for instance in instances:
            if instance is not lost:
                assert read(archive, instance.sop_instance_uid) == instance.data
    assert os.path.lexists(bad), "it is not touched"
    if what == "sector":
        await _judge(image, {instance.sop_instance_uid: instance.data for instance in instances})


async def test_without_descriptors_no_archive_starts(tmp_path: Path) -> None:
    """Nothing is known of the files then."""
    async with archive_in(tmp_path / "live") as archive:
        await store(archive, make_instance(1))
        image = image_of(tmp_path / "live", tmp_path / "image")
    operations = _Unreadable(errno.EMFILE)
    (bad,) = (image / "incoming").iterdir()
    operations.name = bad.name
    with pytest.raises(ArchiveUnusable, match="Too many open files"):
        await archive_in(image, operations=operations).start()
    await _judge(image, {make_instance(1).sop_instance_uid: make_instance(1).data})


async def test_seeded_histories(tmp_path: Path) -> None:
    """Stores, replacements, deletions, settling, and a kill after each: the acknowledged state, each time."""
    chance = random.Random(23)
    state: dict[str, bytes] = {}
    directory = tmp_path / "live"
    async with archive_in(directory, duplicates="replace") as archive:
        for step in range(40):
            instance = make_instance(chance.randrange(6), study=chance.randrange(2), size=500 + step)
            match chance.randrange(8):
                case 0:
                    await archive.delete(Level.STUDY, instance.study_uid)
                    state = {uid: d for uid, d in state.items() if not uid.startswith(instance.study_uid + ".")}
                case 1:
                    await archive.settle()
                case _:
                    await store(archive, instance)
                    state[instance.sop_instance_uid] = instance.data
            if step % 4 == 0:
                image = image_of(directory, tmp_path / f"image{step}")
                await _judge(image, state)
                shutil.rmtree(image)
