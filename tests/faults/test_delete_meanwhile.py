"""Deletion beside everything else: readers get an instance whole or are told that it failed, writers get their answer,
and nothing is left behind.

The server runs in this process: its archive deletes, as a service of its own would.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pacslite.app import Server
from pacslite.archive.archive import Archive
from pacslite.archive.keys import Level
from pacslite.config import load
from tests.faults.checker import observe
from tests.support.exchange import decode_identifier, fetch, identifier, query, send_instances
from tests.support.instances import Instance, make_instance
from tests.support.processes import free_port, to_toml
from tests.support.storage_scp import StorageScp
from tests.support.wire import (
    CT_IMAGE,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    Answer,
    Context,
    Received,
    Wire,
)

ROUNDS = int(os.environ.get("PACSLITE_TEST_KILL_ROUNDS", "30"))
LEVELS = [Level.STUDY, Level.SERIES, Level.IMAGE]


class Running:
    """A server on this loop, and its archive."""

    def __init__(self, server: Server, sink_port: int) -> None:
        assert server._backend is not None
        self.archive: Archive = server._backend._archive
        self.data_dir = self.archive.options.data_dir
        self.port = server.ports[0]
        self.sink_port = sink_port

    async def delete(self, level: Level, instance: Instance) -> int:
        uid = (instance.patient_id, instance.study_uid, instance.series_uid, instance.sop_instance_uid)[level]
        return (await self.archive.delete(level, uid)).instances

    async def assert_sound(self) -> set[str]:
        """Index and files agree, now and when all is settled; gives what is there."""
        for _ in range(2):
            assert (await self.archive.check(deep=True)).differences == []
            await self.archive.settle()
        seen = await observe(self.port)
        assert {row[2] for row in seen.rows} == seen.content.keys()
        assert len(list(self.data_dir.rglob("*.dcm"))) == len(seen.content)
        folders = [path for path in (self.data_dir / "instances").rglob("*") if path.is_dir()]
        assert all(list(path.iterdir()) for path in folders), "empty directories"
        return set(seen.content)


@asynccontextmanager
async def running(folder: Path, **storage: object) -> AsyncIterator[Running]:
    sink_port = free_port()
    settings: Mapping[str, Mapping[str, object]] = {
        "server": {"host": "127.0.0.1", "port": 0, "ae_title": "PACSLITE", "data_dir": folder / "data"},
        "storage": {"min_free_bytes": 0, **storage},
        "retrieve": {"reuse_seconds": 0},
    }
    config = folder / "pacslite.toml"
    config.write_text(to_toml(settings, [{"ae_title": "SINK", "host": "127.0.0.1", "port": sink_port}]))
    server = Server(load(config, environ={}).settings)
    await server.start()
    try:
        yield Running(server, sink_port)
    finally:
        await server.stop()


def _failed_uids(answer: Answer) -> set[str]:
    if not answer.identifier:
        return set()
    uids = decode_identifier(answer.identifier).FailedSOPInstanceUIDList
    return {uids} if isinstance(uids, str) else set(uids)


def _judge(answer: Answer, received: Mapping[str, bytes], instances: Sequence[Instance], gone: set[str]) -> None:
    """Each is received whole or told as failed, and only what was deleted may fail."""
    sent = {instance.sop_instance_uid: instance.data for instance in instances}
    assert received.items() <= sent.items()
    missing = sent.keys() - received.keys()
    assert missing <= gone
    assert (answer.completed, answer.failed, answer.warning) == (len(received), len(missing), 0)
    assert _failed_uids(answer) == missing
    assert answer.status == (0x0000 if not missing else 0xB000 if received else 0xA702)


def _below(level: Level, instances: Sequence[Instance], one: Instance) -> set[str]:
    """What a deletion takes."""
    key: Callable[[Instance], str] = {
        Level.STUDY: lambda instance: instance.study_uid,
        Level.SERIES: lambda instance: instance.series_uid,
        Level.IMAGE: lambda instance: instance.sop_instance_uid,
    }[level]
    return {instance.sop_instance_uid for instance in instances if key(instance) == key(one)}


@pytest.mark.parametrize("settled", [False, True], ids=["unsettled", "settled"])
@pytest.mark.parametrize("after", [0, 1, 9])
@pytest.mark.parametrize("level", LEVELS)
async def test_delete_during_a_get(tmp_path: Path, level: Level, after: int, settled: bool) -> None:
    """When ``after`` instances have been received: what waits in sockets comes, what is not opened yet fails."""
    instances = [make_instance(n, seed=130, series=n % 2, size=300_000) for n in range(24)]
    victim = instances[-1]
    async with running(tmp_path) as server:
        await send_instances(server.port, instances)
        if settled:
            await server.archive.settle()
        received: dict[str, bytes] = {}
        contexts = [Context(1, STUDY_ROOT_GET), Context(3, CT_IMAGE, scp_role=True), Context(5, VERIFICATION)]
        async with await Wire.associate(server.port, contexts) as wire:
            await wire.start_query(STUDY_ROOT_GET, identifier("STUDY", StudyInstanceUID=victim.study_uid))
            while True:
                message = await wire.receive()
                if message.number(0x0100) != 0x0001:
                    answer = Answer.of(message)
                    if answer.status != 0xFF00:
                        break
                    continue
                if len(received) == after:
                    assert await server.delete(level, victim) == len(_below(level, instances, victim))
                assert message.data is not None
                received[message.text(0x1000)] = message.data
                await wire.answer_store(message, 0)
            assert await wire.echo() == 0
        gone = _below(level, instances, victim)
        _judge(answer, received, instances, gone)
        assert len(received) < len(instances)
        assert await server.assert_sound() == {one.sop_instance_uid for one in instances} - gone


@pytest.mark.parametrize("level", LEVELS)
async def test_delete_during_a_move(tmp_path: Path, level: Level) -> None:
    instances = [make_instance(n, seed=131, series=n % 2, size=100_000) for n in range(40)]
    victim = instances[-1]
    gone = _below(level, instances, victim)
    async with running(tmp_path) as server, StorageScp(server.sink_port, delay=0.01) as scp:
        await send_instances(server.port, instances)
        async with await Wire.associate(server.port, [Context(1, STUDY_ROOT_MOVE), Context(3, VERIFICATION)]) as wire:
            key = identifier("STUDY", StudyInstanceUID=victim.study_uid)
            moving = asyncio.create_task(wire.move(STUDY_ROOT_MOVE, key, "SINK"))
            while len(scp.received) < 5:
                await asyncio.sleep(0.005)
            assert await server.delete(level, victim) == len(gone)
            answer = (await moving)[-1]
            assert await wire.echo() == 0
        _judge(answer, {one.sop_instance_uid: one.data for one in scp.received}, instances, gone)
        assert answer.failed
        assert await server.assert_sound() == {one.sop_instance_uid for one in instances} - gone


@pytest.mark.parametrize("level", LEVELS)
async def test_delete_of_what_is_being_sent(tmp_path: Path, level: Level) -> None:
    """It was opened, and part of it is on its way: the reader gets the rest too."""
    big = make_instance(1, seed=132, size=24_000_000)
    async with running(tmp_path) as server:
        await send_instances(server.port, [big])
        await server.archive.settle()
        contexts = [Context(1, STUDY_ROOT_GET), Context(3, CT_IMAGE, scp_role=True)]
        async with await Wire.associate(server.port, contexts) as wire:
            await wire.start_query(STUDY_ROOT_GET, identifier("STUDY", StudyInstanceUID=big.study_uid))
            await asyncio.sleep(0.2)  # buffers are full, nothing was read
            assert await server.delete(level, big) == 1
            assert not list(server.data_dir.rglob("*.dcm"))
            received, answer = await wire.rest_of_get()
            assert [one.data for one in received] == [big.data]
            assert (answer.status, answer.completed) == (0, 1)
        assert await server.assert_sound() == set()


@pytest.mark.parametrize("size", [2_000, 3_000_000], ids=["small", "streamed"])
@pytest.mark.parametrize("level", LEVELS)
async def test_delete_while_an_instance_arrives(tmp_path: Path, level: Level, size: int) -> None:
    """Its study, its series, or the instance itself, of which it is a duplicate: it is acknowledged and there."""
    before, instance = (make_instance(n, seed=133, size=size) for n in range(2))
    async with running(tmp_path, duplicates="replace") as server:
        await send_instances(server.port, [before, instance])
        async with await Wire.associate(server.port, [Context(1, CT_IMAGE)]) as wire:
            command = {
                0x0002: CT_IMAGE.encode() + b"\0",
                0x0100: b"\1\0",
                0x0110: b"\1\0",
                0x0700: b"\0\0",
                0x0800: b"\1\0",
                0x1000: _padded(instance.sop_instance_uid),
            }
            await wire.send(1, command)
            await wire.send_part(1, instance.data[: size // 2])
            await asyncio.sleep(0.05)
            assert await server.delete(level, instance) == (1 if level is Level.IMAGE else 2)
            await wire.send_rest(1, instance.data[size // 2 :])
            assert Answer.of(await wire.receive()).status == 0
        left = {instance.sop_instance_uid} | ({before.sop_instance_uid} if level is Level.IMAGE else set())
        assert await server.assert_sound() == left


def _padded(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


@pytest.mark.timeout(300 + 5 * ROUNDS)
@pytest.mark.parametrize("duplicates", ["keep", "replace"])
async def test_everything_at_once(tmp_path: Path, duplicates: str) -> None:
    """Round after round four senders store one study, two delete of it, two fetch it and one lists it.

    Each answer is a success; a C-GET may name failed instances; what comes is whole. After the round what was not
    deleted is there, and what is stored after the last deletion is.
    """
    chance = random.Random(7)
    instances = [make_instance(n, seed=134, series=n % 3, size=1_000 + 9_000 * (n % 4)) for n in range(24)]
    contents = {one.sop_instance_uid: one.data for one in instances}
    key = identifier("STUDY", StudyInstanceUID=instances[0].study_uid)
    images = identifier(
        "IMAGE", StudyInstanceUID=instances[0].study_uid, SeriesInstanceUID=instances[0].series_uid, SOPInstanceUID=""
    )
    received: list[Received] = []

    async def send(server: Running) -> None:
        await send_instances(server.port, chance.sample(instances, 12))

    async def delete(server: Running) -> None:
        for _ in range(3):
            await asyncio.sleep(chance.random() * 0.02)
            await server.delete(chance.choice(LEVELS), chance.choice(instances))

    async def get(server: Running) -> None:
        some, answer = await fetch(server.port, key, [Context(3, CT_IMAGE, scp_role=True)])
        assert answer.status in (0x0000, 0xB000, 0xA702)
        assert answer.completed == len(some)
        assert answer.failed == len(_failed_uids(answer))
        received.extend(some)

    async def find(server: Running) -> None:
        uids = [str(one.SOPInstanceUID) for one in await query(server.port, images)]
        assert len(uids) == len(set(uids)) or duplicates == "replace"  # which may be met again on a later page
        assert set(uids) <= contents.keys()

    async with running(tmp_path, duplicates=duplicates) as server:
        for _ in range(ROUNDS // 3):
            async with asyncio.TaskGroup() as group:
                for work in (*[send] * 4, *[delete] * 2, *[get] * 2, *[find] * 3):
                    group.create_task(work(server))
            await server.assert_sound()
        await send_instances(server.port, instances)
        assert await server.assert_sound() == contents.keys()
        await get(server)
    assert len(received) >= len(contents)
    assert all(one.data == contents[one.sop_instance_uid] for one in received)
