"""What storage commitment promises of an instance, and the Failure Reason of what it cannot promise."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pacslite.archive.archive import Archive
from pacslite.archive.keys import Level
from pacslite.outbox.verification import Verifier
from pacslite.scu.commitment import Reference
from tests.support.instances import Instance, make_instance
from tests.support.storing import archive_in, files_in, store
from tests.support.wire import CT_IMAGE, SECONDARY_CAPTURE

Change = Callable[[Path], None]


def flip(at: int) -> Change:
    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    return change


async def failures(archive: Archive, *references: Reference) -> dict[Reference, int]:
    verifier = Verifier(archive.index, archive.open)
    try:
        return await verifier.failures(references)
    finally:
        await verifier.stop()


def reference(instance: Instance, sop_class: str = CT_IMAGE) -> Reference:
    return Reference(sop_class, instance.sop_instance_uid)


@pytest.mark.parametrize("durability", ["full", "none"])
async def test_many_sound_instances_and_some_that_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    monkeypatch.setattr("pacslite.archive.disk._CALM_SECONDS", 600)  # with "none" the last rows are late
    some = [make_instance(n, size=2_500_000 if n == 7 else 100) for n in range(120)]
    async with archive_in(tmp_path, durability=durability) as archive:
        for instance in some[:110]:
            await store(archive, instance)
        wanted = [reference(one, SECONDARY_CAPTURE if n == 5 else CT_IMAGE) for n, one in enumerate(some)]
        expected = {wanted[5]: 0x0119, **dict.fromkeys(wanted[110:], 0x0112)}
        assert await failures(archive, *wanted) == expected


@pytest.mark.parametrize("is_settled", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        flip(-1),  # the last byte
        flip(1000),  # in the data set
        Path.unlink,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-2]),
        lambda path: path.write_bytes(b"not DICOM" * 500),
    ],
)
async def test_damaged_file(tmp_path: Path, change: Change, is_settled: bool) -> None:
    instance = make_instance(1, size=5000)
    async with archive_in(tmp_path) as archive:
        await store(archive, instance)
        if not is_settled:
            change(next(path for path in (tmp_path / "incoming").iterdir() if path.stat().st_size > 5000))
            assert await failures(archive, reference(instance)) == {reference(instance): 0x0110}
            return
    (name,) = files_in(tmp_path)
    change(tmp_path / name)
    async with archive_in(tmp_path) as archive:
        assert await failures(archive, reference(instance)) == {reference(instance): 0x0110}


async def test_deleted_instance(tmp_path: Path) -> None:
    instance = make_instance(1)
    async with archive_in(tmp_path) as archive:
        await store(archive, instance)
        assert await failures(archive, reference(instance)) == {}
        await archive.delete(Level.IMAGE, instance.sop_instance_uid)
        assert await failures(archive, reference(instance)) == {reference(instance): 0x0112}
