"""What a sender was told last is what a start after a power cut believes: refusals, and the order of replacements."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.checker import observe
from tests.support.disks import ForgetfulDisk
from tests.support.instances import Instance, make_instance
from tests.support.processes import Pacslite, ServerFactory
from tests.support.wire import CT_IMAGE, Context, Wire

CONTEXTS = [Context(1, CT_IMAGE)]
FIRST = make_instance(1, size=30_000)


def _in_another_study(instance: Instance, *, size: int) -> Instance:
    """The same SOP Instance UID."""
    other = make_instance(1, size=size, study=2)
    data = other.data.replace(other.sop_instance_uid.encode(), instance.sop_instance_uid.encode())
    return replace(other, sop_instance_uid=instance.sop_instance_uid, data=data)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[ForgetfulDisk]:
    disk = ForgetfulDisk(tmp_path / "power", "ext4", megabytes=400)
    disk.insert()
    yield disk
    disk.destroy()


async def _settled(server: Pacslite) -> None:
    """A stop settles everything; what comes next is all that is under way."""
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)


async def _cut(disk: ForgetfulDisk, server: Pacslite) -> Mapping[str, str]:
    """What is found after it."""
    disk.cut()
    server.kill()
    disk.remove()
    disk.insert()
    async with server.running():
        content = (await observe(server.port)).content
    await server.tool("check", "--deep", "--data-dir", server.data_dir)
    return content


@pytest.mark.parametrize(
    ("second", "options", "status"),
    [
        (make_instance(1, size=50_000), {"journal_bytes": 16_384}, 0x0000),  # the journal has no room
        (make_instance(1, size=50_000), {"journal_bytes": 16_384, "duplicates": "reject"}, 0x0111),
        (make_instance(1, size=261_700), {"duplicates": "reject"}, 0x0111),  # its data set would fit, without a header
        (_in_another_study(FIRST, size=261_700), {}, 0x0111),
        (make_instance(2, size=500_000, patient=7), {"patient_conflict": "reject"}, 0xC001),
    ],
    ids=["kept", "rejected", "rejected-of-256-KiB", "of-another-study", "of-another-patient"],
)
async def test_what_was_not_taken_does_not_come_back(
    disk: ForgetfulDisk, new_server: ServerFactory, second: Instance, options: Mapping[str, object], status: int
) -> None:
    """Its file was synced before the index refused it, and is gone as durably before anybody is told."""
    storage: dict[str, object] = {"min_free_bytes": 0, "journal_bytes": 8 << 20, **options}
    server = new_server(disk.mounted / "data", storage=storage)
    server.start()
    async with await Wire.associate(server.port, CONTEXTS) as wire:
        assert (await wire.store(CT_IMAGE, FIRST.sop_instance_uid, FIRST.data)).status == 0
    await _settled(server)
    async with await Wire.associate(server.port, CONTEXTS) as wire:
        assert (await wire.store(CT_IMAGE, second.sop_instance_uid, second.data)).status == status
    assert await _cut(disk, server) == {FIRST.sop_instance_uid: FIRST.digest}


@pytest.mark.parametrize("size", [2_000, 400_000], ids=["journal", "file"])
async def test_the_last_answer_counts_whichever_began_first(
    disk: ForgetfulDisk, new_server: ServerFactory, size: int
) -> None:
    """A large object begins, another of its UID comes and is answered, and the large one replaces that."""
    other, large = make_instance(1, size=size), make_instance(1, size=6_000_000)
    storage = {"min_free_bytes": 0, "journal_bytes": 8 << 20, "duplicates": "replace"}
    server = new_server(disk.mounted / "data", storage=storage)
    server.start()
    async with await Wire.associate(server.port, CONTEXTS) as wire:
        assert (await wire.store(CT_IMAGE, FIRST.sop_instance_uid, FIRST.data)).status == 0
    await _settled(server)
    async with await Wire.associate(server.port, CONTEXTS) as slow, await Wire.associate(server.port, CONTEXTS) as wire:
        await slow.begin_store(CT_IMAGE, large.sop_instance_uid)
        await slow.send_part(1, large.data[:4_000_000])
        while not list((server.data_dir / "incoming").glob("*.dcm")):
            await asyncio.sleep(0.01)
        assert (await wire.store(CT_IMAGE, other.sop_instance_uid, other.data)).status == 0
        await slow.send_rest(1, large.data[4_000_000:])
        assert (await slow.receive()).number(0x0900) == 0
    assert await _cut(disk, server) == {large.sop_instance_uid: large.digest}
