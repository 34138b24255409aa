"""A key that is configured later gets the values of what is stored by then, whatever happens meanwhile."""

import asyncio
import errno
import os
import random
import sqlite3
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pacslite.archive import extending
from pacslite.archive.archive import Archive
from pacslite.archive.extra import parse_extra_keys
from pacslite.archive.index.reader import IndexReader
from pacslite.archive.instances.filesystem import FilesystemStore
from pacslite.archive.instances.layout import InstancePath
from pacslite.archive.kept import encode_kept
from pacslite.archive.keys import Level
from pacslite.archive.options import StorageOptions
from pacslite.archive.query import QueryOptions
from pacslite.archive.reindex import reindex
from pacslite.archive.unsynced import mark_synced
from pacslite.dataset.scan import IMPLICIT_VR_LITTLE_ENDIAN, HeaderScanner
from tests.support.index import find, parse, uid
from tests.support.storing import EXPLICIT_LITTLE_ENDIAN, image_of, rows
from tests.support.wire import CT_IMAGE, encode_elements

CREATOR = "ACME HEADER"
PRIVATE = f"(0019,xx0C,{CREATOR}):LO@IMAGE"
ENTRIES = ["KVP", "PatientMotherBirthName", "Manufacturer", "ExposureTime@STUDY", PRIVATE]


def archive_with(directory: Path, entries: Sequence[str] | None = None, **options: Any) -> Archive:
    keys = None if entries is None else parse_extra_keys(entries)
    settings: dict[str, Any] = {"settle_seconds": 600.0, "min_free_bytes": 0, "durability": "commit"} | options
    return Archive(StorageOptions(data_dir=directory, **settings), extra_keys=keys)


def values_of(number: int) -> dict[str, str]:
    """Of instance ``number``: five instances a series, two series a study, three studies a patient."""
    return {
        "KVP": str(100 + number % 3),
        "PatientMotherBirthName": f"Mother^Of{number // 30}",
        "Manufacturer": f"Maker {number // 5 % 4}",
        "ExposureTime": str(number // 10 % 7),
        "private": f"value {number % 11}",
    }


def data_set(number: int, values: Mapping[str, str]) -> bytes:
    def text(value: str, pad: bytes = b" ") -> bytes:
        raw = value.encode("ascii")
        return raw + pad * (len(raw) % 2)

    return encode_elements(
        [
            (0x00080016, "UI", text(CT_IMAGE, b"\0")),
            (0x00080018, "UI", text(uid(3, number), b"\0")),
            (0x00080060, "CS", b"CT"),
            (0x00080070, "LO", text(values["Manufacturer"])),
            (0x00100020, "LO", text(f"P{number // 30}")),
            (0x00101060, "PN", text(values["PatientMotherBirthName"])),
            (0x00180060, "DS", text(values["KVP"])),
            (0x00181150, "IS", text(values["ExposureTime"])),
            (0x00190042, "LO", text(CREATOR)),
            (0x0019420C, "LO", text(values["private"])),
            (0x0020000D, "UI", text(uid(1, number // 10), b"\0")),
            (0x0020000E, "UI", text(uid(2, number // 5), b"\0")),
            (0x00200013, "IS", text(str(number))),
        ]
    )


async def store(archive: Archive, number: int, values: Mapping[str, str] | None = None) -> None:
    incoming = archive.begin(
        sop_class_uid=CT_IMAGE, sop_instance_uid=uid(3, number), transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN
    )
    incoming.write(memoryview(data_set(number, values or values_of(number))))
    await incoming.commit()


async def complete(archive: Archive, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not all(key.complete for key in archive.extra_keys):
            await asyncio.sleep(0.005)


async def ask(archive: Archive, level: str, keys: Mapping[str, str], wanted: str) -> set[str]:
    """What is found, by its UID; each once."""
    reader = IndexReader(archive.index, connections=1, read_values=archive.read_values)
    await reader.start()
    try:
        options = QueryOptions(extra_keys=archive.extra_keys)
        query = parse({**keys, wanted: ""}, level=level, model="patient", relational=True, options=options)
        assert not query.unsupported_keys
        answers = [answer[wanted] for answer in await find(reader, query)]
    finally:
        await reader.stop()
    assert len(answers) == len(set(answers))
    return set(answers)


async def assert_found(archive: Archive, numbers: Sequence[int]) -> None:
    """Every key finds what is stored, and nothing else."""
    for kvp in ("100", "101", "102"):
        expected = {uid(3, n) for n in numbers if values_of(n)["KVP"] == kvp}
        assert await ask(archive, "IMAGE", {"KVP": f"{kvp}.0"}, "SOPInstanceUID") == expected
    patients = {f"P{n // 30}" for n in numbers}
    assert await ask(archive, "PATIENT", {"PatientMotherBirthName": "mother^*"}, "PatientID") == patients
    assert await ask(archive, "PATIENT", {"PatientMotherBirthName": "mother^of1"}, "PatientID") == patients & {"P1"}
    series = {uid(2, n // 5) for n in numbers if values_of(n)["Manufacturer"] == "Maker 2"}
    assert await ask(archive, "SERIES", {"Manufacturer": "Maker 2"}, "SeriesInstanceUID") == series
    studies = {uid(1, n // 10) for n in numbers if values_of(n)["ExposureTime"] == "3"}
    assert await ask(archive, "STUDY", {"ExposureTime": "03"}, "StudyInstanceUID") == studies
    private = {uid(3, n) for n in numbers if values_of(n)["private"] == "value 7"}
    asked = {"0019,0010": CREATOR, "0019,100C": "value 7"}
    assert await ask(archive, "IMAGE", asked, "SOPInstanceUID") == private


def contents(directory: Path) -> set[tuple[Any, ...]]:
    """All values, by what they are of: ids and the keys' own numbers left out."""
    found: set[tuple[Any, ...]] = set()
    for level, table, name in (
        (0, "patient", "patient_id"),
        (1, "study", "study_instance_uid"),
        (2, "series", "series_instance_uid"),
        (3, "instance", "sop_instance_uid"),
    ):
        sql = f"SELECT tag, {name}, place, value, form FROM extra_value JOIN extra_key ON extra_key.id = key_id "
        sql += f"JOIN {table} ON {table}.id = owner WHERE level = ?"
        found |= set(rows(directory, sql, level))
    assert len(found) == rows(directory, "SELECT count(*) FROM extra_value")[0][0]
    return found


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    """150 instances that were stored before there were keys; some are settled."""
    async with archive_with(tmp_path / "data") as archive:
        for number in range(150):
            await store(archive, number)
    return tmp_path / "data"


async def test_what_was_stored_before_is_found(directory: Path) -> None:
    async with archive_with(directory, ENTRIES) as archive:
        await complete(archive)
        await assert_found(archive, range(150))


async def test_values_are_those_of_keys_that_were_always_there(directory: Path, tmp_path: Path) -> None:
    async with archive_with(tmp_path / "other", ENTRIES) as archive:
        assert all(key.complete for key in archive.extra_keys)  # nothing is to be read
        for number in range(150):
            await store(archive, number)
        await assert_found(archive, range(150))
    async with archive_with(directory, ENTRIES) as archive:
        await complete(archive)
    assert contents(directory) == contents(tmp_path / "other")
    assert len(contents(directory)) == 150 * 2 + 5 + 15 + 30


async def test_unsettled_files_are_read_too(tmp_path: Path) -> None:
    async with archive_with(tmp_path / "data") as archive:
        for number in range(60):
            await store(archive, number)
        image_of(tmp_path / "data", tmp_path / "image")
    async with archive_with(tmp_path / "image", ENTRIES) as archive:
        await complete(archive)
        await assert_found(archive, range(60))


async def test_queries_before_the_end(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They find the same, by what is kept of the headers or by reading them."""
    monkeypatch.setattr(extending, "_AT_ONCE", 3)
    monkeypatch.setattr(extending, "_LEAST_PAUSE", 600.0)
    async with archive_with(directory, ENTRIES) as archive:
        await asyncio.sleep(0.1)
        await assert_found(archive, range(150))
        await store(archive, 150)
        await assert_found(archive, range(151))
        await archive.delete(Level.STUDY, uid(1, 3))
        await assert_found(archive, [n for n in range(151) if n // 10 != 3])
        assert not any(key.complete for key in archive.extra_keys)


async def test_restart_goes_on_where_it_was(directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In order, and after a kill: no entity is read twice."""
    pages: list[int] = []
    read_values = extending.read_values

    def counted(*arguments: Any) -> Any:
        for values in read_values(*arguments):
            pages.append(values.owner)
            yield values

    monkeypatch.setattr(extending, "read_values", counted)
    monkeypatch.setattr(extending, "_AT_ONCE", 3)
    monkeypatch.setattr(extending, "_LEAST_PAUSE", 0.2)
    place = directory
    for number in range(6):
        async with archive_with(place, ["KVP"]) as archive:
            before = len(pages)
            while len(pages) == before:
                await asyncio.sleep(0.01)
            assert rows(place, "SELECT state FROM extra_key") == [("building",)]
            image = image_of(place, tmp_path / f"killed{number}")
        if number % 2:
            place = image
            (position,) = rows(place, "SELECT position FROM extra_key")[0]
            pages = [owner for owner in pages if owner <= position]  # what came later is not in the image
    monkeypatch.setattr(extending, "_LEAST_PAUSE", 0.0)
    async with archive_with(place, ["KVP"]) as archive:
        await complete(archive)
        assert sorted(pages) == list(range(1, 151))
        expected = {uid(3, n) for n in range(150) if n % 3 == 0}
        assert await ask(archive, "IMAGE", {"KVP": "100"}, "SOPInstanceUID") == expected


async def test_stores_replacements_and_deletions_meanwhile(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extending, "_AT_ONCE", 7)
    chance = random.Random(5)
    stored = set(range(150))
    changed: set[int] = set()
    async with archive_with(directory, ENTRIES, duplicates="replace") as archive:
        while not all(key.complete for key in archive.extra_keys):
            number = chance.randrange(300)
            if number in stored and chance.random() < 0.5:
                await archive.delete(Level.IMAGE, uid(3, number))
                stored.discard(number)
                changed.discard(number)
            elif number in stored:
                await store(archive, number, {**values_of(number), "KVP": "77"})
                changed.add(number)
            else:
                await store(archive, number)
                stored.add(number)
        assert changed
        for number in sorted(changed):  # and back
            assert uid(3, number) in await ask(archive, "IMAGE", {"KVP": "77"}, "SOPInstanceUID")
            await store(archive, number)
        await assert_found(archive, sorted(stored))
        assert (await archive.check(deep=True)).differences == []
    contents(directory)  # no value is left of what is gone


async def test_stores_do_not_wait(directory: Path) -> None:
    """While 150 headers are read, at the pace that is left to others, a store takes as long as ever."""
    async with archive_with(directory, ENTRIES) as archive:
        slowest = 0.0
        number = 1000
        while not all(key.complete for key in archive.extra_keys):
            began = time.monotonic()
            await store(archive, number)
            slowest = max(slowest, time.monotonic() - began)
            number += 1
        assert slowest < 2


async def test_deleting_leaves_no_value(directory: Path) -> None:
    async with archive_with(directory, ENTRIES) as archive:
        await complete(archive)
        await archive.delete(Level.SERIES, uid(2, 3))
        await archive.delete(Level.STUDY, uid(1, 4))
        await archive.delete(Level.PATIENT, "P2")
        left = [n for n in range(90) if n // 5 != 3 and n // 10 != 4 and n // 30 != 2] + list(range(90, 150))
        await assert_found(archive, left)
        for number in range(150):
            await archive.delete(Level.IMAGE, uid(3, number))
        assert rows(directory, "SELECT count(*) FROM extra_value") == [(0,)]


async def test_key_that_is_no_longer_configured_is_removed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extending, "_AT_ONCE", 10)
    async with archive_with(directory, ["KVP", "Manufacturer"]) as archive:
        await complete(archive)
    async with archive_with(directory, ["Manufacturer", "KVP@SERIES"]) as archive:
        assert {str(key) for key in archive.extra_keys} == {"KVP@SERIES", "Manufacturer@SERIES"}
        await complete(archive)
        series = {uid(2, n // 5) for n in range(0, 150, 5) if n % 3 == 1}
        assert await ask(archive, "SERIES", {"KVP": "101"}, "SeriesInstanceUID") == series
    assert rows(directory, "SELECT tag, level, state FROM extra_key ORDER BY tag") == [
        (0x00080070, 2, "complete"),
        (0x00180060, 2, "complete"),
    ]
    assert len(contents(directory)) == 30 + 30
    async with archive_with(directory) as archive:  # a command that was given no configuration
        assert len(list(archive.extra_keys)) == 2
        await store(archive, 200)
    async with archive_with(directory, []) as archive:
        assert not list(archive.extra_keys)
        async with asyncio.timeout(10):
            while rows(directory, "SELECT count(*) FROM extra_key") != [(0,)]:
                await asyncio.sleep(0.01)
    assert contents(directory) == set()


async def test_key_comes_back_while_it_is_being_removed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with archive_with(directory, ["KVP"]) as archive:
        await complete(archive)
    monkeypatch.setattr(extending, "_AT_ONCE", 5)
    monkeypatch.setattr(extending, "_LEAST_PAUSE", 600.0)
    async with archive_with(directory, []):
        await asyncio.sleep(0.1)
    assert rows(directory, "SELECT state FROM extra_key") == [("dropped",)]
    monkeypatch.setattr(extending, "_LEAST_PAUSE", 0.0)
    async with archive_with(directory, ["KVP"]) as archive:
        await complete(archive)
        expected = {uid(3, n) for n in range(150) if n % 3 == 0}
        assert await ask(archive, "IMAGE", {"KVP": "100"}, "SOPInstanceUID") == expected
    assert len(contents(directory)) == 150


async def test_file_that_cannot_be_read_stops_nothing(directory: Path) -> None:
    (path,) = directory.rglob(f"{uid(3, 7)}.dcm")
    path.write_bytes(b"no longer")
    mark_synced(directory)  # else a start would look at it
    async with archive_with(directory, ENTRIES, durability="full") as archive:
        await complete(archive)
        found = await ask(archive, "IMAGE", {"0019,0010": CREATOR, "0019,100C": "value*"}, "SOPInstanceUID")
        assert found == {uid(3, n) for n in range(150)} - {uid(3, 7)}
        assert len(await ask(archive, "IMAGE", {"KVP": "101"}, "SOPInstanceUID")) == 50  # is kept in the index


@pytest.mark.parametrize("error", [errno.EMFILE, errno.EIO])
async def test_files_that_cannot_be_opened_just_then_are_read_later(
    directory: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """A key without their values is not complete: queries would find too little, and nobody would look again."""
    monkeypatch.setattr(extending, "_RETRY_SECONDS", 0.02)
    tried = 0

    def open_settled(files: FilesystemStore, *arguments: Any) -> int:
        nonlocal tried
        tried += 1
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as broken:
        broken.setattr(FilesystemStore, "open_settled", open_settled)
        async with archive_with(directory, ENTRIES, durability="full") as archive:
            async with asyncio.timeout(10):
                while tried < 600:  # twice as many as are to be opened
                    await asyncio.sleep(0.01)
            assert [key.complete for key in archive.extra_keys if key.creator] == [False]
            broken.undo()
            await complete(archive)
            await assert_found(archive, range(150))


async def test_check_names_a_file_that_cannot_be_read_and_goes_on(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with archive_with(directory, ENTRIES) as archive:
        await complete(archive)

        def open_settled(files: FilesystemStore, path: InstancePath) -> int:
            if path.name == f"{uid(3, 7)}.dcm":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(files, path)

        real = FilesystemStore.open_settled
        monkeypatch.setattr(FilesystemStore, "open_settled", open_settled)
        (difference,) = (await archive.check(deep=True)).differences
        assert (difference.kind, difference.name) == ("damaged", uid(3, 7))


async def test_failing_index_is_tried_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extending, "_RETRY_SECONDS", 0.02)
    failures = iter([True, True])
    read_values = extending.read_values

    def failing(*arguments: Any) -> Any:
        if next(failures, False):
            raise sqlite3.OperationalError("disk I/O error")
        return read_values(*arguments)

    monkeypatch.setattr(extending, "read_values", failing)
    async with archive_with(directory, ENTRIES) as archive:
        await complete(archive)
        await assert_found(archive, range(150))


async def test_check_finds_and_mends_values(directory: Path) -> None:
    async with archive_with(directory, ENTRIES) as archive:
        await complete(archive)
        before = contents(directory)
        assert (await archive.check(deep=True)).differences == []
    with closing(sqlite3.connect(directory / "index.sqlite")) as connection:
        (key,) = connection.execute("SELECT id FROM extra_key WHERE tag = ?", (0x00180060,)).fetchone()
        connection.execute("UPDATE extra_value SET form = '1' WHERE key_id = ? AND owner = 5", (key,))
        connection.execute("DELETE FROM extra_value WHERE key_id = ? AND owner = 6", (key,))
        connection.execute("INSERT INTO extra_value VALUES (?, 4711, 0, '1', '1')", (key,))
        connection.commit()
    async with archive_with(directory) as archive:
        found = (await archive.check()).differences
        assert [(one.kind, one.name) for one in found] == [("keys", "KVP@IMAGE 4711")]
        found = (await archive.check(deep=True)).differences
        assert {one.name for one in found} == {"KVP@IMAGE 4711", uid(3, 4), uid(3, 5)}
        assert (await archive.check(deep=True, repair=True)).clean
        assert (await archive.check(deep=True)).differences == []
    assert contents(directory) == before


async def test_reindexing_keeps_the_keys(directory: Path) -> None:
    async with archive_with(directory, ENTRIES) as archive:
        await complete(archive)
    before = contents(directory)
    reindex(archive_with(directory).options)
    assert contents(directory) == before
    async with archive_with(directory, ENTRIES) as archive:
        assert all(key.complete for key in archive.extra_keys)
        await assert_found(archive, range(150))


async def test_index_of_the_first_revision_is_extended(directory: Path) -> None:
    with closing(sqlite3.connect(directory / "index.sqlite")) as connection:
        connection.executescript("DROP TABLE extra_key; DROP TABLE extra_value;")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
        connection.commit()
    async with archive_with(directory, ENTRIES) as archive:
        await complete(archive)
        await assert_found(archive, range(150))


def test_kept_values_are_read_in_the_encoding_that_they_have() -> None:
    """In implicit VR the length of the first one looks like a VR."""
    derivation = b"x" * int.from_bytes(b"ST", "little")
    elements = struct.pack("<HHI", 0x0008, 0x2111, len(derivation)) + derivation
    elements += struct.pack("<HHI", 0x0018, 0x0060, 4) + b"120 "
    scan = HeaderScanner(IMPLICIT_VR_LITTLE_ENDIAN, detect=False)
    scan.feed(memoryview(elements))
    scan.finish()
    (key,) = parse_extra_keys(["KVP"])
    ((row,),) = extending._rows_of_kept([key], encode_kept(scan, Level.IMAGE)).values()
    assert row.value == "120"
