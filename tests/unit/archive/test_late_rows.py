"""Rows that follow their answers: nobody can tell, whoever asks and whatever fails meanwhile."""

import asyncio
import dataclasses
import random
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pacslite.archive.archive import Archive
from pacslite.archive.index.failures import IndexFailure, IndexFull
from pacslite.archive.index.reader import IndexReader
from pacslite.archive.keys import Level
from pacslite.archive.query import QueryOptions, parse_retrieve
from tests.support.index import IMPLICIT, encode, find, parse
from tests.support.instances import make_instance
from tests.support.storing import BrokenConnection, archive_in, files_in, image_of, read, rows, sqlite_error, store
from tests.support.wire import encode_elements

ALL = FIRST, SECOND, THIRD = [make_instance(n, size=2000 + 400_000 * (n == 2)) for n in range(3)]
EXTRA = make_instance(999)


@pytest.fixture(autouse=True)
def never_calm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "calm" not in request.node.name:
        monkeypatch.setattr("pacslite.archive.disk._CALM_SECONDS", 600)


def _archive(directory: Path, **options: Any) -> Archive:
    return archive_in(directory, durability="none", journal_bytes=1 << 20, **options)


def _late(archive: Archive) -> int:
    return len(archive._index._late)


def _in_index(archive: Archive) -> int:
    """Rows, as somebody sees them who asks nobody to write what is late."""
    return int(rows(archive.options.data_dir, "SELECT count(*) FROM instance")[0][0])


async def _store_all(archive: Archive) -> None:
    """The first of a series makes its row at once; the others are late, one of them with a file of its own."""
    for instance in ALL:
        await store(archive, instance)
    assert (_late(archive), _in_index(archive)) == (2, 1)


async def _reader(archive: Archive) -> IndexReader:
    reader = IndexReader(archive.index, connections=1)
    await reader.start()
    return reader


async def _find(archive: Archive) -> None:
    reader = await _reader(archive)
    try:
        asked = {"StudyInstanceUID": FIRST.study_uid, "NumberOfStudyRelatedInstances": ""}
        (answer,) = await find(reader, parse(asked))
        assert int(answer["NumberOfStudyRelatedInstances"]) == 3
    finally:
        await reader.stop()


async def _retrieve(archive: Archive) -> None:
    reader = await _reader(archive)
    try:
        identifier = encode({"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": FIRST.series_uid}, IMPLICIT)
        request = parse_retrieve(
            identifier, model="study", transfer_syntax_uid=IMPLICIT, relational=True, options=QueryOptions()
        )
        assert [one.sop_instance_uid for one in await reader.plan(request)] == [one.sop_instance_uid for one in ALL]
    finally:
        await reader.stop()


async def _send_again(archive: Archive) -> None:
    assert [(await store(archive, instance)).outcome for instance in ALL] == ["duplicate"] * 3


async def _delete_one(archive: Archive) -> None:
    assert (await archive.delete(Level.IMAGE, SECOND.sop_instance_uid)).instances == 1
    assert (await archive.totals()).instances == 2
    assert (await store(archive, SECOND)).outcome == "stored"


async def _delete_study(archive: Archive) -> None:
    assert (await archive.delete(Level.STUDY, FIRST.study_uid)).instances == 3
    assert files_in(archive.options.data_dir) == []
    for instance in ALL:
        assert (await store(archive, instance)).outcome == "stored"


async def _count(archive: Archive) -> None:
    assert (await archive.totals())[:4] == (1, 1, 1, 3)


async def _check(archive: Archive) -> None:
    report = await archive.check(deep=True)
    assert (report.differences, report.instances) == ([], 3)


async def _settle(archive: Archive) -> None:
    await archive.settle()
    assert archive.unsettled == 0


async def _begin_another_series(archive: Archive) -> None:
    await store(archive, make_instance(1, series=5))
    await archive.delete(Level.SERIES, make_instance(1, series=5).series_uid)


async def _revive(archive: Archive) -> None:
    archive._index.fail("sync failed")
    with pytest.raises(IndexFailure):
        await store(archive, EXTRA)
    await asyncio.to_thread(archive._recovery.revive)


@pytest.mark.parametrize(
    "ask",
    [
        _find,
        _retrieve,
        _send_again,
        _delete_one,
        _delete_study,
        _count,
        _check,
        _settle,
        _begin_another_series,
        _revive,
    ],
)
async def test_nobody_can_tell(tmp_path: Path, ask: Callable[[Archive], Awaitable[None]]) -> None:
    async with _archive(tmp_path) as archive:
        await _store_all(archive)
        await ask(archive)
        for instance in ALL:
            assert read(archive, instance.sop_instance_uid) == instance.data
        assert (await archive.check(deep=True)).differences == []
    assert _counted(tmp_path) == 3
    assert len(files_in(tmp_path / "instances")) == 3


def _counted(directory: Path) -> int:
    """Instances, all counts being the same."""
    text = "SELECT number_of_instances FROM {}"
    counts = {rows(directory, text.format(table))[0][0] for table in ("patient", "study", "series")}
    counts |= set(rows(directory, "SELECT count(*) FROM instance")[0])
    (count,) = counts | set(rows(directory, "SELECT instances FROM totals")[0])
    return int(count)


@pytest.mark.parametrize("duplicates", ["reject", "replace"])
async def test_policies_hold_for_what_is_late(tmp_path: Path, duplicates: str) -> None:
    async with _archive(tmp_path, duplicates=duplicates) as archive:
        await _store_all(archive)
        other = make_instance(1, size=3000)
        if duplicates == "reject":
            with pytest.raises(Exception, match="stored already"):
                await store(archive, other)
        else:
            assert (await store(archive, other)).outcome == "replaced"
        expected = SECOND if duplicates == "reject" else other
        assert read(archive, SECOND.sop_instance_uid) == expected.data
        assert (await archive.check(deep=True)).differences == []
    assert _counted(tmp_path) == 3


async def test_what_is_late_outlives_a_kill(tmp_path: Path) -> None:
    async with _archive(tmp_path / "live") as archive:
        await _store_all(archive)
        image = image_of(tmp_path / "live", tmp_path / "image")
    async with _archive(image) as archive:
        assert archive.recovered.indexed == 2
        for instance in ALL:
            assert read(archive, instance.sop_instance_uid) == instance.data
        assert (await archive.check(deep=True)).differences == []
    assert _counted(image) == 3


async def test_written_when_it_is_calm(tmp_path: Path) -> None:
    async with _archive(tmp_path) as archive:
        for instance in ALL:
            await store(archive, instance)
        for _ in range(500):
            if _in_index(archive) == 3:
                break
            await asyncio.sleep(0.01)
        assert (_in_index(archive), _late(archive)) == (3, 0)


async def test_written_when_there_are_many(tmp_path: Path) -> None:
    async with _archive(tmp_path) as archive:
        most = 0
        for number in range(100):
            await store(archive, make_instance(number))
            with archive._index.lock:  # they may just be written
                most = max(most, _late(archive))
                assert _in_index(archive) + _late(archive) == number + 1
        assert 20 < most < 40
    assert _counted(tmp_path) == 100


@pytest.mark.parametrize("durability", ["full", "commit"])
async def test_nothing_is_late_where_more_is_promised(tmp_path: Path, durability: str) -> None:
    async with archive_in(tmp_path, durability=durability, journal_bytes=1 << 20) as archive:
        for number in range(5):
            await store(archive, make_instance(number))
            assert _in_index(archive) == number + 1


async def test_what_is_streamed_is_not_late(tmp_path: Path) -> None:
    """Its thread has no calm moments."""
    async with _archive(tmp_path, piece_bytes=65_536) as archive:
        for number in range(3):
            await store(archive, make_instance(number, size=300_000))
            assert (_late(archive), _in_index(archive)) == (0, number + 1)


async def _store_until_refused(archive: Archive) -> int:
    for number in range(10, 210):
        try:
            await store(archive, make_instance(number))
        except IndexFull:
            return number - 10
    pytest.fail("there is always room")


async def test_no_room_for_what_is_late(tmp_path: Path) -> None:
    """Nothing else is taken then; what was acknowledged is there as soon as there is room."""
    async with _archive(tmp_path) as archive:
        await _store_all(archive)
        writer = archive._index._connections.writer
        (pages,) = writer.execute("PRAGMA page_count").fetchone()
        writer.execute(f"PRAGMA max_page_count = {pages}")
        acknowledged = len(ALL) + await _store_until_refused(archive)
        before = _late(archive)
        for _ in range(3):
            with pytest.raises(IndexFull):
                await store(archive, EXTRA)
            with pytest.raises(IndexFull):
                await archive.settle()
            archive.index.catch_up()
            assert _late(archive) == before
        assert not archive._index.failed
        writer.execute("PRAGMA max_page_count = 1000000")
        assert (await store(archive, EXTRA)).outcome == "stored"
        assert (await archive.totals()).instances == acknowledged + 1
        for instance in ALL:
            assert read(archive, instance.sop_instance_uid) == instance.data
        assert (await archive.check(deep=True)).differences == []


async def test_index_fails_when_it_is_told_what_is_late(tmp_path: Path) -> None:
    async with _archive(tmp_path) as archive:
        await _store_all(archive)
        connections = archive._index._connections
        broken = BrokenConnection(connections.writer, "INSERT INTO instance")
        broken.error = sqlite_error(sqlite3.SQLITE_IOERR_WRITE, "disk I/O error")
        connections.writer = broken  # type: ignore[assignment]
        archive.index.catch_up()
        assert archive._index.failed
        assert _late(archive) == 2
        await asyncio.to_thread(archive._recovery.revive)
        assert (_late(archive), _in_index(archive)) == (0, 3)
        for instance in ALL:
            assert read(archive, instance.sop_instance_uid) == instance.data
        assert (await store(archive, EXTRA)).outcome == "stored"
    assert _counted(tmp_path) == 4


async def test_large_rows_are_not_late(tmp_path: Path) -> None:
    """Their memory would be in no budget."""
    async with _archive(tmp_path) as archive:
        for number, (size, late) in enumerate([(10, 0), (10, 1), (60_000, 0), (10, 1)]):
            instance = make_instance(number)
            header, pixels, rest = instance.data.partition(b"\xe0\x7f\x10\x00OW")
            comments = encode_elements([(0x00204000, "LT", random.Random(number).randbytes(size // 2).hex().encode())])
            await store(archive, dataclasses.replace(instance, data=header + comments + pixels + rest))
            assert _late(archive) == late
