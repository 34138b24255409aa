"""The check names each difference between index and files, in both directions, and mends it; the index is rebuilt."""

import asyncio
import dataclasses
import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from pydicom import dcmread

from pacslite.archive.archive import Archive
from pacslite.archive.keys import Level
from pacslite.archive.reindex import IndexIncomplete, reindex
from tests.support.instances import Instance, make_instance
from tests.support.processes import need
from tests.support.storing import archive_in, files_in, read, rows, store

INSTANCES = [make_instance(n, study=n % 2, series=n % 3, size=900 + n) for n in range(12)]
TARGET = INSTANCES[5]


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    """An archive that was stopped in order."""
    async with archive_in(tmp_path) as archive:
        await asyncio.gather(*(store(archive, instance) for instance in INSTANCES))
    return tmp_path


def _path(directory: Path, instance: Instance) -> Path:
    (path,) = directory.rglob(f"{instance.sop_instance_uid}.dcm")
    return path


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def _write(directory: Path, *statements: str) -> None:
    with closing(sqlite3.connect(directory / "index.sqlite")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def _row_gone(directory: Path) -> None:
    _write(directory, f"DELETE FROM instance WHERE sop_instance_uid = '{TARGET.sop_instance_uid}'")


def _of_another_program(path: Path) -> None:
    """Written anew, without our digest."""
    found = dcmread(path)
    for element in list(found.file_meta):
        if element.tag in {0x00020100, 0x00020102}:
            del found.file_meta[element.tag]
    found.save_as(path, enforce_file_format=True)


def _copied(directory: Path) -> None:
    path = _path(directory, TARGET)
    other = path.parent.with_name("1.2.3")
    other.mkdir()
    shutil.copy(path, other / path.name)


def _copied_as(directory: Path, name: bytes) -> None:
    path = _path(directory, TARGET)
    shutil.copy(path, path.with_name(os.fsdecode(name)))


def _misplaced(directory: Path) -> None:
    """Somebody has moved a file, and its row is gone."""
    _copied(directory)
    for path in directory.rglob(f"{TARGET.sop_instance_uid}.dcm"):
        if path.parent.name != "1.2.3":
            path.unlink()
    _row_gone(directory)


@pytest.mark.parametrize(
    ("spoil", "deep", "kinds", "left"),
    [
        (lambda _: None, True, set(), 12),
        (lambda d: _path(d, TARGET).unlink(), False, {"missing"}, 11),
        (lambda d: _path(d, TARGET).write_bytes(b""), False, {"damaged"}, 11),
        (lambda d: _flip(_path(d, TARGET), -5), True, {"damaged"}, 11),
        (lambda d: _flip(_path(d, TARGET), 200), True, {"damaged"}, 11),  # in the header
        (lambda d: _flip(_path(d, TARGET), 3), True, {"damaged"}, 11),  # in the preamble
        (_row_gone, False, {"orphan", "counts"}, 12),
        (_copied, False, {"surplus"}, 12),
        (_misplaced, False, {"orphan", "counts"}, 12),
        (lambda d: (_path(d, TARGET).parent / "notes.txt").write_text("x"), False, {"foreign"}, 12),
        (lambda d: (_path(d, TARGET).parent / "1.2.dcm").symlink_to("/etc/passwd"), False, {"foreign"}, 12),
        (lambda d: (_path(d, TARGET).parent / "1.2.dcm").mkdir(), False, {"foreign"}, 12),
        (lambda d: os.mkfifo(_path(d, TARGET).parent / "1.2.dcm"), False, {"foreign"}, 12),
        (lambda d: _copied_as(d, b"\xff\xe4.dcm"), True, {"surplus"}, 12),  # no UTF-8
        (lambda d: _copied_as(d, b"n" * 255), True, {"surplus"}, 12),  # no room for a number before it
        (lambda d: _write(d, "UPDATE series SET number_of_instances = 7 WHERE id = 1"), False, {"counts"}, 12),
        (lambda d: _write(d, "UPDATE totals SET bytes = 1"), False, {"counts"}, 12),
        (lambda d: _write(d, "UPDATE study SET modalities = 'MR' WHERE id = 2"), True, {"counts"}, 12),
    ],
)
async def test_difference_is_named_and_mended(
    directory: Path, spoil: Callable[[Path], object], deep: bool, kinds: set[str], left: int
) -> None:
    spoil(directory)
    async with archive_in(directory) as archive:
        report = await archive.check(deep=deep)
        assert {difference.kind for difference in report.differences} == kinds
        assert report.clean is not bool(kinds)
        named = {"missing", "damaged", "orphan", "surplus"} & kinds
        assert all(TARGET.sop_instance_uid in d.name + d.detail for d in report.differences if d.kind in named)
        mended = await archive.check(deep=deep, repair=True)
        assert mended.clean
        again = await archive.check(deep=True)
        assert again.differences == []
        assert (again.instances, (await archive.totals()).instances) == (left, left)
        await store(archive, TARGET)  # what was lost can be sent again
        for instance in INSTANCES:
            assert read(archive, instance.sop_instance_uid) == instance.data
        assert (await archive.check(deep=True)).differences == []


def _hashed(instance: Instance) -> Instance:
    """The same under a UID that is no file name: the name is a hash of it."""
    uid = "A" + instance.sop_instance_uid[1:]
    data = instance.data.replace(instance.sop_instance_uid.encode(), uid.encode())
    return dataclasses.replace(instance, sop_instance_uid=uid, data=data)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("spoil", "kinds"),
    [
        (lambda _: None, []),
        (_of_another_program, []),
        (lambda path: _flip(path, 3), ["damaged"]),
        (lambda path: _flip(path, 129), ["damaged", "foreign"]),  # nothing says whose it is
        (lambda path: path.write_bytes(b""), ["damaged", "foreign"]),
        (lambda path: shutil.copy(path, path.with_name(path.name.replace("x-", "x-a"))), ["surplus"]),
    ],
)
async def test_a_file_whose_name_is_a_hash_is_known_by_what_it_holds(
    tmp_path: Path, spoil: Callable[[Path], object], kinds: list[str], deep: bool
) -> None:
    odd = _hashed(TARGET)
    async with archive_in(tmp_path) as archive:
        await store(archive, odd)
    (path,) = tmp_path.rglob("x-*.dcm")
    spoil(path)
    if not kinds:
        assert reindex(archive_in(tmp_path).options).indexed == 1
    async with archive_in(tmp_path) as archive:
        report = await archive.check(deep=deep)
        assert [difference.kind for difference in report.differences] == kinds
        mended = await archive.check(deep=deep, repair=True)
        assert mended.clean
        assert [difference.kind for difference in mended.differences] == kinds[:1]
        assert (await archive.check(deep=True)).differences == []
        assert path.exists() is ("damaged" not in kinds)


async def test_damaged_files_are_kept_aside(directory: Path) -> None:
    _flip(_path(directory, TARGET), -5)
    damaged = _path(directory, TARGET).read_bytes()
    async with archive_in(directory) as archive:
        await archive.check(deep=True, repair=True)
    (path,) = (directory / "damaged").iterdir()
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("place", ["journal", "incoming"])
async def test_damaged_files_on_their_way_are_kept_aside_too(tmp_path: Path, place: str) -> None:
    async with archive_in(tmp_path, settle_seconds=3600, journal_bytes=(1 << 20) * (place == "journal")) as archive:
        await store(archive, TARGET)
        assert archive.unsettled == 1
        (path,) = [tmp_path / "journal"] if place == "journal" else (tmp_path / "incoming").iterdir()
        _flip(path, path.read_bytes().index(TARGET.data) + len(TARGET.data) - 5)
        report = await archive.check(deep=True, repair=True)
        assert [(each.kind, each.mended) for each in report.differences] == [("damaged", True)]
        again = await archive.check(deep=True)
        assert (again.instances, again.files, again.differences) == (0, 0, [])
    (kept,) = (tmp_path / "damaged").iterdir()
    assert kept.stat().st_size > len(TARGET.data)


async def test_deep_check_names_every_flipped_byte(directory: Path) -> None:
    chance = random.Random(3)
    spoilt = chance.sample(INSTANCES, 8)
    for instance in spoilt:
        path = _path(directory, instance)
        _flip(path, chance.randrange(path.stat().st_size))
    async with archive_in(directory) as archive:
        report = await archive.check(deep=True)
    assert {difference.name for difference in report.differences} == {i.sop_instance_uid for i in spoilt}


async def test_check_beside_stores_and_deletions(tmp_path: Path) -> None:
    """An archive in use has no differences."""
    async with archive_in(tmp_path, settle_seconds=0.01, settle_files=5) as archive:
        ended = False

        async def work() -> None:
            number = 0
            while not ended:
                number += 1
                instance = make_instance(number % 40, series=number % 3, size=500)
                await store(archive, instance)
                if number % 7 == 0:
                    await archive.delete(2, instance.series_uid)  # type: ignore[arg-type]

        workers = [asyncio.create_task(work()) for _ in range(3)]
        for _ in range(8):
            assert (await archive.check(deep=True)).differences == []
        ended = True
        await asyncio.gather(*workers)


async def test_report_and_progress(directory: Path) -> None:
    steps: list[tuple[int, int]] = []
    async with archive_in(directory) as archive:
        report = await archive.check(deep=True, progress=lambda done, total: steps.append((done, total)))
    assert steps
    assert all(done <= total for done, total in steps)
    found = report.as_json()
    assert (found["instances"], found["files"], found["clean"], found["differences"]) == (12, 12, True, [])


def _index_of(directory: Path) -> dict[str, list[tuple[object, ...]]]:
    columns = {
        "patient": "patient_id, patient_name, patient_name_key, number_of_studies, number_of_series, "
        "number_of_instances, hex(attributes)",
        "study": "study_instance_uid, modalities, sop_classes, number_of_series, number_of_instances, hex(attributes)",
        "series": "series_instance_uid, modality, series_number_key, number_of_instances, hex(attributes)",
        "instance": "sop_instance_uid, instance_number_key, data_set_offset, data_set_length, hex(digest), "
        "source_ae_title, transfer_syntax_uid, hex(attributes)",
        "totals": "patients, studies, series, instances, bytes",
    }
    return {table: sorted(rows(directory, f"SELECT {names} FROM {table}")) for table, names in columns.items()}


async def test_reindexed_is_as_indexed(directory: Path) -> None:
    before = _index_of(directory)
    done = reindex(archive_in(directory).options)
    assert (done.files, done.indexed, done.refused) == (12, 12, [])
    assert _index_of(directory) == before


@pytest.mark.parametrize("left", [None, b"", b"no database" * 1000])
async def test_no_start_without_an_index(directory: Path, left: bytes | None) -> None:
    for path in directory.glob("index.sqlite*"):
        path.unlink()
    if left is not None:
        (directory / "index.sqlite").write_bytes(left)
    with pytest.raises(IndexIncomplete, match="pacslite reindex"):
        await archive_in(directory).start()
    reindex(archive_in(directory).options)
    async with archive_in(directory) as archive:
        assert (await archive.check(deep=True)).differences == []


async def test_interrupted_reindexing_is_finished(directory: Path) -> None:
    before = _index_of(directory)

    class Interrupted(Exception):
        pass

    def interrupt(_done: int, _total: int) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        reindex(archive_in(directory).options, interrupt)
    with pytest.raises(IndexIncomplete, match="interrupted"):
        await archive_in(directory).start()
    done = reindex(archive_in(directory).options)
    assert done.resumed == 12
    assert _index_of(directory) == before
    async with archive_in(directory):
        pass


async def test_reindexing_takes_files_of_others_and_refuses_broken_ones(directory: Path) -> None:
    _of_another_program(_path(directory, TARGET))
    broken = _path(directory, INSTANCES[0])
    broken.write_bytes(broken.read_bytes()[:300])
    pipe = broken.with_name("1.2.dcm")
    os.mkfifo(pipe)
    odd = broken.with_name(os.fsdecode(b"\xff\xe4.dcm"))  # no UTF-8
    shutil.copy(_path(directory, TARGET), odd)
    done = reindex(archive_in(directory).options)
    assert (done.indexed, len(done.refused)) == (11, 3)
    assert {name.rpartition("/")[2] for name, _ in done.refused} == {broken.name, pipe.name, odd.name}
    pipe.unlink()
    odd.unlink()
    async with archive_in(directory) as archive:
        assert read(archive, TARGET.sop_instance_uid)
        report = await archive.check(deep=True)
        assert [difference.kind for difference in report.differences] == ["foreign"]


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("as_link", [False, True])
async def test_what_lies_where_no_instance_can_be_is_named(
    directory: Path, tmp_path_factory: pytest.TempPathFactory, depth: int, as_link: bool
) -> None:
    """A backup that was put back without its folders, a study that was moved to another disk: nobody looks there."""
    path = _path(directory, TARGET)
    above = path.parents[3 - depth]
    if as_link:
        above = path.parents[2 - depth]
        elsewhere = tmp_path_factory.mktemp("elsewhere") / "moved"
        above.rename(elsewhere)
        above.symlink_to(elsewhere)
        misplaced = above
    else:
        misplaced = above / "copy.dcm"
        path.rename(misplaced)
    name = str(misplaced.relative_to(directory))
    done = reindex(archive_in(directory).options)
    assert [each for each, _ in done.refused] == [name]
    async with archive_in(directory) as archive:
        for repair in (False, True):
            report = await archive.check(deep=True, repair=repair)
            assert [(each.kind, each.name, each.mended) for each in report.differences] == [("foreign", name, False)]


async def test_reindexing_leaves_incoming_to_the_next_start(tmp_path: Path) -> None:
    async with archive_in(tmp_path / "live") as archive:
        await asyncio.gather(*(store(archive, instance) for instance in INSTANCES[:6]))
        await archive.settle()
        await asyncio.gather(*(store(archive, instance) for instance in INSTANCES[6:]))
        shutil.copytree(tmp_path / "live", tmp_path / "image")
    reindex(archive_in(tmp_path / "image").options)
    async with archive_in(tmp_path / "image") as archive:
        assert archive.recovered.indexed == 6
        assert len(files_in(tmp_path / "image")) == 12
        assert (await archive.check(deep=True)).differences == []


@pytest.mark.parametrize("journal_bytes", [0, 1 << 20])
async def test_a_copy_of_a_running_archive_has_what_was_stored_before_it(tmp_path: Path, journal_bytes: int) -> None:
    """As the README says: ``journal`` and ``incoming`` first, then ``instances``, however long that takes."""
    live, copy = tmp_path / "live", tmp_path / "copy"
    copy.mkdir()
    async with archive_in(live, journal_bytes=journal_bytes) as archive:
        await asyncio.gather(*(store(archive, instance) for instance in INSTANCES[:4]))
        await archive.settle()
        await asyncio.gather(*(store(archive, instance) for instance in INSTANCES[4:8]))
        if journal_bytes:
            shutil.copy(live / "journal", copy)
        shutil.copytree(live / "incoming", copy / "incoming")
        await archive.settle()
        await asyncio.gather(*(store(archive, instance) for instance in INSTANCES[8:10]))
        await archive.settle()
        await asyncio.gather(*(store(archive, instance) for instance in INSTANCES[10:]))
        shutil.copytree(live / "instances", copy / "instances")
    assert reindex(archive_in(copy).options).indexed == 10
    async with archive_in(copy, journal_bytes=journal_bytes) as archive:
        for instance in INSTANCES[:10]:
            assert read(archive, instance.sop_instance_uid) == instance.data
        await archive.settle()
        assert (await archive.check(deep=True)).differences == []
    assert list((copy / "incoming").iterdir()) == []
    assert not (copy / "damaged").exists()


async def test_reindexing_indexes_nothing_that_is_deleted(directory: Path) -> None:
    """The file could not be removed, and still cannot: neither it nor a later start or repair brings it back."""
    path = _path(directory, TARGET)
    _make_immutable(path, "+i")
    try:
        async with archive_in(directory) as archive:
            await archive.delete(Level.IMAGE, TARGET.sop_instance_uid)
        assert path.exists()
        for _ in range(2):
            assert reindex(archive.options).indexed == len(INSTANCES) - 1
        async with archive_in(directory) as archive:
            assert (await archive.check(deep=True, repair=True)).differences == []
            assert rows(directory, "SELECT count(*) FROM instance") == [(len(INSTANCES) - 1,)]
    finally:
        _make_immutable(path, "-i")
    async with archive_in(directory):
        assert not path.exists()


def _make_immutable(path: Path, mode: str) -> None:
    """As an administrator can; root is refused too."""
    subprocess.run([need("chattr"), mode, str(path)], check=True)


async def test_running_archive_is_not_reindexed(directory: Path) -> None:
    async with archive_in(directory) as archive:
        with pytest.raises(Exception, match="in use"):
            await asyncio.to_thread(reindex, archive.options)
        assert isinstance(archive, Archive)
