"""What goes in comes out: bytes, keys, places; and what must not go in leaves nothing."""

import asyncio
import dataclasses
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread

from pacslite.archive.options import StorageOptions
from pacslite.archive.outcome import StorageFailed, Stored
from pacslite.archive.record import DataSetMismatch
from pacslite.dataset.scan import DataSetError
from pacslite.errors import DimseError
from tests.support.instances import Instance, make_instance
from tests.support.storing import archive_in, begin, files_in, read, rows, store
from tests.support.wire import CT_IMAGE, encode_elements

pytestmark = pytest.mark.usefixtures("each_way")


@pytest.mark.parametrize("size", [100, 70_000, 3_000_000])
async def test_bytes_are_the_received_ones(tmp_path: Path, size: int) -> None:
    instance = make_instance(1, size=size)
    async with archive_in(tmp_path) as archive:
        stored = await store(archive, instance)
        assert (stored.status, stored.outcome, stored.size) == (0, "stored", len(instance.data))
        assert read(archive, instance.sop_instance_uid) == instance.data  # still in incoming
    async with archive_in(tmp_path) as archive:
        assert read(archive, instance.sop_instance_uid) == instance.data  # settled


async def test_file_is_read_by_any_tool(tmp_path: Path) -> None:
    """PS3.10 §7.1: preamble, prefix, File Meta Information; the data set follows."""
    instance = make_instance(1, size=100)
    async with archive_in(tmp_path) as archive:
        await store(archive, instance)
    (name,) = files_in(tmp_path)
    prefix = hashlib.sha256(instance.study_uid.encode()).hexdigest()[:2]
    assert name == f"instances/{prefix}/{instance.study_uid}/{instance.series_uid}/{instance.sop_instance_uid}.dcm"
    with (tmp_path / name).open("rb") as file:
        assert file.read(128) == bytes(128)
    found = dcmread(tmp_path / name)
    assert found.file_meta.MediaStorageSOPClassUID == CT_IMAGE
    assert found.file_meta.MediaStorageSOPInstanceUID == found.SOPInstanceUID == instance.sop_instance_uid
    assert found.file_meta.SourceApplicationEntityTitle == "SENDER"
    assert found.PatientID == instance.patient_id


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(1, 200_000), max_size=12),
    piece=st.sampled_from([4096, 65_536, 1 << 20]),
    size=st.sampled_from([0, 3000, 150_000, 700_000]),
)
async def test_cuts_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], piece: int, size: int
) -> None:
    directory = tmp_path_factory.mktemp("archive")
    instance = make_instance(1, size=size)
    async with archive_in(directory, piece_bytes=piece, pressed_piece_bytes=4096) as archive:
        incoming, at = begin(archive, instance), 0
        for cut in [*cuts, len(instance.data)]:
            incoming.write(memoryview(instance.data)[at : at + cut])
            at += cut
            await asyncio.sleep(0)
        await incoming.commit()
        assert read(archive, instance.sop_instance_uid) == instance.data
        report = await archive.check(deep=True)
        assert report.differences == []


async def test_view_is_not_kept(tmp_path: Path) -> None:
    """A fragment is valid during the call only: the receive buffer is used again."""
    instance = make_instance(1, size=50_000)
    async with archive_in(tmp_path) as archive:
        incoming = begin(archive, instance)
        buffer = bytearray(20_000)
        for at in range(0, len(instance.data), len(buffer)):
            part = instance.data[at : at + len(buffer)]
            buffer[: len(part)] = part
            incoming.write(memoryview(buffer)[: len(part)])
            buffer[:] = bytes(len(buffer))
        await incoming.commit()
        assert read(archive, instance.sop_instance_uid) == instance.data


def _with_uid(instance: Instance, tag: int, value: bytes) -> Instance:
    """The same instance with another value of an element, which must be as long."""
    start = instance.data.index(tag.to_bytes(4, "little")[2:] + tag.to_bytes(4, "little")[:2] + b"UI") + 8
    data = instance.data[:start] + value + instance.data[start + len(value) :]
    return Instance(instance.patient_id, instance.study_uid, instance.series_uid, instance.sop_instance_uid, data)


def _cut_fragments(instance: Instance) -> Instance:
    """Encapsulated, and the last fragment is not all there."""
    at = instance.data.index(b"\xe0\x7f\x10\x00OW") + 4
    item = b"\xfe\xff\x00\xe0"
    fragments = (
        item + bytes(4) + item + (9000).to_bytes(4, "little") + bytes(9000) + item + b"\x00\x10\0\0" + bytes(4000)
    )
    return dataclasses.replace(instance, data=instance.data[:at] + b"OB\0\0\xff\xff\xff\xff" + fragments)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda i: _with_uid(i, 0x00080018, b"9.9"), DataSetMismatch),  # another SOP Instance UID
        (lambda i: _with_uid(i, 0x00080016, b"9.9"), DataSetMismatch),
        (lambda i: Instance("", "", "", i.sop_instance_uid, b""), DataSetMismatch),  # no data set at all
        (lambda i: Instance("", "", "", i.sop_instance_uid, i.data[:-1]), DataSetError),  # in the pixel data
        (_cut_fragments, DataSetError),
        (lambda i: Instance("", "", "", i.sop_instance_uid, i.data[:151]), DataSetError),  # inside the header
        (lambda i: Instance("", "", "", i.sop_instance_uid, b"GET / HTTP/1.1\r\n\r\n" * 9), DataSetError),
        (lambda i: _with_uid(i, 0x0020000D, b"\xff\xfe"), DataSetError),  # a UID that is no text
    ],
)
@pytest.mark.parametrize("piece", [4096, 1 << 20])
async def test_what_is_refused_leaves_nothing(tmp_path: Path, spoil, error, piece) -> None:  # type: ignore[no-untyped-def]
    instance = spoil(make_instance(1, size=20_000))
    async with archive_in(tmp_path, piece_bytes=piece, pressed_piece_bytes=4096) as archive:
        with pytest.raises(error) as raised:
            await store(archive, instance)
        assert str(raised.value)
        assert raised.value.status in {0xA900, 0xC000}
        assert (await archive.totals()).instances == 0
        await store(archive, make_instance(2))  # and the next one works
    assert len(files_in(tmp_path)) == 1


async def test_abort_leaves_nothing(tmp_path: Path) -> None:
    instance = make_instance(1, size=300_000)
    async with archive_in(tmp_path, piece_bytes=65_536) as archive:
        for written in (0, 1000, 100_000, len(instance.data)):
            incoming = begin(archive, instance)
            incoming.write(memoryview(instance.data)[:written])
            incoming.abort()
            with pytest.raises(StorageFailed):
                await incoming.commit()
        incoming = begin(archive, instance)
        incoming.write(memoryview(instance.data))
        await incoming.commit()
        incoming.abort()  # too late, and harmless
        assert read(archive, instance.sop_instance_uid) == instance.data
    assert len(files_in(tmp_path)) == 1


async def test_sender_that_leaves_while_it_is_stored(tmp_path: Path) -> None:
    """Its task is cancelled: the instance is stored or not, whole."""
    async with archive_in(tmp_path) as archive:
        tasks = [asyncio.create_task(store(archive, make_instance(n, size=5000))) for n in range(20)]
        await asyncio.sleep(0.005)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task, number in zip(tasks, range(20), strict=True):
            if not task.cancelled():
                assert read(archive, make_instance(number, size=5000).sop_instance_uid)
    async with archive_in(tmp_path) as archive:
        assert (await archive.check(deep=True)).differences == []


UIDS = [
    "..",
    ".",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "1.2/../3",
    "x" * 200,
    "1 2",
    "-rf",
    "~",
    "1.2.3\\4",
    "..1",
]


@pytest.mark.parametrize("uid", UIDS)
@pytest.mark.parametrize("where", ["study", "series", "instance"])
async def test_no_uid_leaves_the_root(tmp_path: Path, uid: str, where: str) -> None:
    plain = {"study": "1.2.3", "series": "1.2.3.4", "instance": "1.2.3.4.5"} | {where: uid}
    even = {name: value.encode() + b"\0" * (len(value) % 2) for name, value in plain.items()}
    data = encode_elements(
        [
            (0x00080016, "UI", CT_IMAGE.encode() + b"\0" * (len(CT_IMAGE) % 2)),
            (0x00080018, "UI", even["instance"]),
            (0x0020000D, "UI", even["study"]),
            (0x0020000E, "UI", even["series"]),
        ]
    )
    root = tmp_path / "deep" / "data"
    instance = Instance("", plain["study"], plain["series"], plain["instance"], data)
    async with archive_in(root) as archive:
        await store(archive, instance)
        assert read(archive, plain["instance"]) == data
    async with archive_in(root) as archive:
        assert read(archive, plain["instance"]) == data
        assert (await archive.check(deep=True)).differences == []
    (file,) = (path for path in tmp_path.rglob("*") if path.suffix == ".dcm")
    assert file.resolve().is_relative_to(root / "instances")
    assert len(file.relative_to(root / "instances").parts) == 4


@pytest.mark.parametrize("uid", ["", "1.2\n3", "1.2\x00", "1.2é", "1" * 300])
async def test_uid_that_is_no_text_is_refused_at_once(tmp_path: Path, uid: str) -> None:
    async with archive_in(tmp_path) as archive:
        with pytest.raises(DimseError) as raised:
            begin(archive, make_instance(1), sop_instance_uid=uid)
        assert raised.value.status in {0xA900, 0xC000}


async def test_planted_links_are_not_followed(tmp_path: Path) -> None:
    """A symbolic link in the tree: the instance stays in ``incoming``, readable; nothing is written elsewhere."""
    root, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    elsewhere.mkdir()
    instance = make_instance(1)
    async with archive_in(root) as archive:
        prefix = hashlib.sha256(instance.study_uid.encode()).hexdigest()[:2]
        (root / "instances" / prefix).symlink_to(elsewhere, target_is_directory=True)
        await store(archive, instance)
    assert not list(elsewhere.iterdir())
    (root / "instances" / prefix).unlink()
    async with archive_in(root) as archive:
        assert read(archive, instance.sop_instance_uid) == instance.data


async def test_instances_without_study_and_series_are_kept(tmp_path: Path) -> None:
    """Objects outside the patient's information model have neither; they get derived UIDs in the index only."""
    data = encode_elements(
        [(0x00080016, "UI", CT_IMAGE.encode() + b"\0" * (len(CT_IMAGE) % 2)), (0x00080018, "UI", b"1.2.3.77")]
    )
    instance = Instance("", "", "", "1.2.3.77", data)
    async with archive_in(tmp_path) as archive:
        stored = await store(archive, instance)
        assert stored.study_instance_uid.startswith("2.25.")
        assert len(stored.study_instance_uid) <= 64
        assert read(archive, "1.2.3.77") == data
        again = await store(archive, instance)
        assert (again.outcome, again.study_instance_uid) == ("duplicate", stored.study_instance_uid)


async def test_keys_are_in_their_columns(tmp_path: Path) -> None:
    instance = make_instance(7, seed=3, study=2, series=4)
    async with archive_in(tmp_path) as archive:
        await store(archive, instance)
        ((name, folded, birth, studies, series, images),) = rows(
            tmp_path,
            "SELECT patient_name, patient_name_key, patient_birth_date_key, number_of_studies, number_of_series, "
            "number_of_instances FROM patient",
        )
        assert (name, birth, studies, series, images) == ("Load^Number3x2", "19600229", 1, 1, 1)
        assert folded == folded.lower()
        ((date, time, modalities, classes),) = rows(
            tmp_path, "SELECT study_date_key, study_time_key, modalities, sop_classes FROM study"
        )
        assert (date, time, modalities, classes) == ("20240131", "101500.000000", "CT", CT_IMAGE)
        ((number, key, source, length),) = rows(
            tmp_path, "SELECT instance_number, instance_number_key, source_ae_title, data_set_length FROM instance"
        )
        assert (number, key, source, length) == ("7", 7, "SENDER", len(instance.data))


async def test_hooks_hear_of_what_is_stored(tmp_path: Path) -> None:
    heard: list[str] = []

    def fail(_: Stored) -> None:
        raise RuntimeError("a stranger's mistake is not the sender's")

    async with archive_in(tmp_path) as archive:
        archive.on_stored.append(lambda stored: heard.append(stored.outcome))
        archive.on_stored.append(fail)
        for _ in range(2):
            await store(archive, make_instance(1))
    assert heard == ["stored", "duplicate"]


async def test_second_archive_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    async with archive_in(tmp_path):
        with pytest.raises(Exception, match=f"in use by process {os.getpid()}"):
            await archive_in(tmp_path).start()
    async with archive_in(tmp_path):
        pass


@pytest.mark.parametrize("durability", ["full", "commit", "none"])
async def test_each_durability_keeps_what_an_orderly_stop_leaves(tmp_path: Path, durability: str) -> None:
    instances = [make_instance(n, size=3000) for n in range(30)]
    async with archive_in(tmp_path, durability=durability) as archive:
        await asyncio.gather(*(store(archive, instance) for instance in instances))
    async with archive_in(tmp_path, durability=durability) as archive:
        assert all(read(archive, instance.sop_instance_uid) == instance.data for instance in instances)


def test_defaults_are_the_safe_ones(tmp_path: Path) -> None:
    options = StorageOptions(data_dir=tmp_path)
    assert (options.durability, options.duplicates, options.uid_conflict) == ("full", "keep", "reject")


@pytest.mark.parametrize("piece", [4096, 1 << 20])
async def test_file_meta_in_a_data_set_is_not_part_of_it(tmp_path: Path, piece: int) -> None:
    """Some devices send group 0002 along (PS3.10 §7.1: it is of files): a file that had it twice would be none."""
    plain = make_instance(1, size=9000)
    group = encode_elements([(0x00020010, "UI", b"1.2.840.10008.1.2.1\0"), (0x00020013, "SH", b"DEVICE")])
    sent = Instance(plain.patient_id, plain.study_uid, plain.series_uid, plain.sop_instance_uid, group + plain.data)
    async with archive_in(tmp_path, piece_bytes=piece, pressed_piece_bytes=4096) as archive:
        stored = await store(archive, sent)
        assert stored.size == len(plain.data)
        assert read(archive, plain.sop_instance_uid) == plain.data
        assert (await archive.check(deep=True)).differences == []
    (name,) = files_in(tmp_path)
    assert dcmread(tmp_path / name).SOPInstanceUID == plain.sop_instance_uid
