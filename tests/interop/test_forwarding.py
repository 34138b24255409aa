"""Forwarding: to DCMTK's storescp and dcmqrscp, to one that is down for a while, over kill -9: all arrives once."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from pydicom import dcmread

from pacslite.outbox.admin import drop
from pacslite.outbox.database import Database
from pacslite.outbox.queue import Queue
from tests.support.corpus import CorpusFile
from tests.support.exchange import send, send_instances
from tests.support.instances import Instance, make_instance
from tests.support.peers import QrScp, StoreScp
from tests.support.processes import Pacslite, ServerFactory, free_port
from tests.support.storage_scp import StorageScp
from tests.support.wire import CT_IMAGE, AbortedError, Context, Wire

OPERATIONS = 8  # C-STOREs outstanding, where the destination negotiates it
QUICK = {"retry_seconds": 0.2, "maximum_retry_seconds": 0.4}


def forwarding(
    new_server: ServerFactory, to: str, port: int, when: Mapping[str, str], outbox: Mapping[str, object] = QUICK
) -> Pacslite:
    """A server with one rule."""
    rule: dict[str, object] = {"to": to, **{f"when.{key}": value for key, value in when.items()}}
    server = new_server()
    server.settings = {"outbox": outbox, "[forward]": rule}
    server.remotes = [{"ae_title": to, "host": "127.0.0.1", "port": port}]
    return server


def instances(count: int, *, seed: int = 0, size: int = 10_000) -> list[Instance]:
    return [make_instance(n, seed=seed, study=n % 3, size=size) for n in range(count)]


def uids(some: Sequence[Instance]) -> list[str]:
    return sorted(one.sop_instance_uid for one in some)


async def eventually(count: int, scp: StorageScp) -> None:
    """Wait until so many have arrived, and a moment for those that would be too many."""
    async with asyncio.timeout(20):
        while len(scp.received) < count:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)


async def test_storescp_gets_what_the_rule_says(new_server: ServerFactory, tmp_path: Path) -> None:
    some = instances(12)
    peer = StoreScp(tmp_path / "received")
    peer.start()
    server = forwarding(new_server, peer.ae_title, peer.port, {"StudyID": "1", "calling_ae_title": "WI*"})
    async with server.running():
        await send_instances(server.port, some)
        wanted = [one for one in some if one.study_uid.endswith(".1")]
        async with asyncio.timeout(10):
            while len(peer.files()) < len(wanted):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
    peer.stop()
    assert sorted(path.name.partition(".")[2] for path in peer.files()) == uids(wanted)


async def test_dcmqrscp_gets_images_as_they_are_stored_or_decompressed(
    new_server: ServerFactory, tmp_path: Path, corpus_by_name: Mapping[str, CorpusFile]
) -> None:
    """Several SOP classes and transfer syntaxes, of which dcmqrscp takes the uncompressed ones."""
    names = ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "SC_rgb_rle.dcm")
    files = [corpus_by_name[name] for name in names]
    peer = QrScp(tmp_path / "qrscp", {})
    peer.start()
    server = forwarding(new_server, peer.ae_title, peer.port, {})
    async with server.running():
        assert {answer.status for answer in await send(server.port, files)} == {0}
        async with asyncio.timeout(10):
            while len(peer.files()) < len(files):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
    peer.stop()
    found = [dcmread(path) for path in peer.files()]
    assert sorted(one.SOPInstanceUID for one in found) == sorted(file.sop_instance_uid for file in files)
    assert not any(one.file_meta.TransferSyntaxUID.is_compressed for one in found)


async def test_destination_that_is_down_for_a_while(new_server: ServerFactory) -> None:
    """Nothing of it is felt by those who store; over a restart too everything arrives, once."""
    some, port = instances(30), free_port()
    server = forwarding(new_server, "LATE", port, {})
    async with server.running():
        await send_instances(server.port, some[:20])
        await asyncio.sleep(0.5)
    assert "destination deferred" in server.text()
    async with server.running():
        await send_instances(server.port, some[20:])
        async with StorageScp(port) as scp:
            await eventually(30, scp)
            assert sorted(one.sop_instance_uid for one in scp.received) == uids(some)
            data = {one.sop_instance_uid: one.data for one in some}
            assert all(one.data == data[one.sop_instance_uid] for one in scp.received)


async def test_kill_while_storing_and_forwarding(new_server: ServerFactory) -> None:
    """What was acknowledged arrives, whenever we are killed; twice only what was being sent at that moment."""
    port, dice = free_port(), random.Random(8)
    server = forwarding(new_server, "WS", port, {"Modality": "C?"})
    acknowledged: list[str] = []
    rounds = 3
    async with StorageScp(port, delay=0.004) as scp:
        for n in range(rounds):
            server.start()
            storing = asyncio.create_task(_store_on(server, instances(2000, seed=n, size=4000), acknowledged))
            async with asyncio.timeout(20):
                before, least = len(acknowledged), dice.randint(1, 150)
                while len(acknowledged) < before + least:
                    await asyncio.sleep(0.002)
            server.kill()
            await storing
        async with server.running():
            async with asyncio.timeout(20):
                while not set(acknowledged) <= {one.sop_instance_uid for one in scp.received}:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.3)
        counts = Counter(one.sop_instance_uid for one in scp.received)
        assert max(counts.values()) <= 2
        assert sum(count - 1 for count in counts.values()) <= rounds * OPERATIONS


async def test_kill_while_the_destination_is_down(new_server: ServerFactory) -> None:
    """Then nothing at all is sent twice."""
    port, some = free_port(), instances(40)
    server = forwarding(new_server, "WS", port, {})
    acknowledged: list[str] = []
    for part in (some[:20], some[20:]):
        server.start()
        await _store_on(server, part, acknowledged)
        server.kill()  # at once: hardly anything was enqueued
    assert sorted(acknowledged) == uids(some)
    async with StorageScp(port) as scp, server.running():
        await eventually(40, scp)
        assert sorted(one.sop_instance_uid for one in scp.received) == uids(some)


async def test_queue_on_the_command_line(new_server: ServerFactory) -> None:
    """A server that would wait for an hour is told to try now, and what is dropped does not go out."""
    some, port = instances(3), free_port()
    server = forwarding(new_server, "WS", port, {}, {"retry_seconds": 3600, "maximum_retry_seconds": 3600})
    where = ("--data-dir", server.data_dir)
    async with server.running():
        await send_instances(server.port, some)
        await asyncio.sleep(0.5)
        listed = await server.tool("queue", "list", "--json", *where)
        assert listed.output.count('"state": "waiting"') == 3
        first = min(some, key=lambda one: listed.output.index(f'"{one.sop_instance_uid}"'))
        other = Database(server.data_dir / "outbox.sqlite")
        assert drop(Queue(other), [1]) == 1
        other.close()
        async with StorageScp(port) as scp:
            assert "2 entries to be tried now" in await server.tool("queue", "retry", "--all", *where)
            await eventually(2, scp)
            assert sorted(one.sop_instance_uid for one in scp.received) == uids([one for one in some if one != first])


async def test_rules_are_read_again_on_sighup(new_server: ServerFactory) -> None:
    some, port = instances(6), free_port()
    server = forwarding(new_server, "WS", port, {"StudyID": "nothing"})
    async with StorageScp(port) as scp, server.running():
        await send_instances(server.port, some[:3])
        config = server.log.with_suffix(".toml")
        config.write_text(config.read_text().replace('"nothing"', '"*"'))
        server.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(5):
            while "configuration reloaded" not in server.text():
                await asyncio.sleep(0.02)
        await send_instances(server.port, some[3:])
        await eventually(3, scp)
        assert sorted(one.sop_instance_uid for one in scp.received) == uids(some[3:])


@pytest.mark.parametrize("how", ["reload", "restart"])
async def test_destination_that_was_not_where_it_was_configured(new_server: ServerFactory, how: str) -> None:
    """Mended and read again, it is tried at once; it was to be left alone for minutes."""
    some, wrong, right = instances(3), free_port(), free_port()
    server = forwarding(new_server, "WS", wrong, {}, {"retry_seconds": 600, "maximum_retry_seconds": 600})
    async with StorageScp(right) as scp, server.running():
        await send_instances(server.port, some)
        async with asyncio.timeout(5):
            while "destination deferred" not in server.text():
                await asyncio.sleep(0.02)
        if how == "reload":
            config = server.log.with_suffix(".toml")
            config.write_text(config.read_text().replace(str(wrong), str(right)))
            server.process.send_signal(signal.SIGHUP)
        else:
            await asyncio.to_thread(server.stop)
            server.remotes = [{"ae_title": "WS", "host": "127.0.0.1", "port": right}]
            server.start()
        await eventually(3, scp)
        assert sorted(one.sop_instance_uid for one in scp.received) == uids(some)


@pytest.mark.parametrize(
    ("table", "named"), [({"to": "NOBODY"}, "NOBODY"), ({"to": "WS", "when.Colour": "red"}, "Colour")]
)
async def test_rules_that_cannot_be(new_server: ServerFactory, table: Mapping[str, object], named: str) -> None:
    """The server does not start, and says which word is wrong."""
    server = new_server()
    server.settings = {"[forward]": table}
    server.remotes = [{"ae_title": "WS", "host": "127.0.0.1", "port": 11112}]
    server.launch()
    assert await asyncio.to_thread(server.process.wait, 20) == 2
    assert named in server.text()


async def _store_on(server: Pacslite, some: Sequence[Instance], acknowledged: list[str]) -> None:
    """Store on two associations until done, or until the server is gone; note what was acknowledged."""

    async def store(part: Sequence[Instance]) -> None:
        wire = await Wire.associate(server.port, [Context(1, CT_IMAGE)])
        try:
            for instance in part:
                answer = await wire.store(CT_IMAGE, instance.sop_instance_uid, instance.data)
                assert answer.status == 0
                acknowledged.append(instance.sop_instance_uid)
        finally:
            wire.close()

    outcomes = await asyncio.gather(*(store(part) for part in (some[::2], some[1::2])), return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, AbortedError | OSError) for outcome in outcomes), outcomes
