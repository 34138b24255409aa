"""Sending what is queued: to a destination that refuses, aborts, is not there, or has it already."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pacslite.archive.archive import Archive
from pacslite.archive.keys import Level
from pacslite.archive.reference import InstanceRef
from pacslite.dataset.source import ReadBuffer
from pacslite.dimse.service import Invoker
from pacslite.net.timeouts import Timeouts
from pacslite.outbox.admin import drop, entries
from pacslite.outbox.database import Database
from pacslite.outbox.forwarding import Forwarder, ForwardOptions
from pacslite.outbox.lookup import IndexLookup
from pacslite.outbox.offload import Offload
from pacslite.outbox.queue import Arrival, Entry, Queue
from pacslite.outbox.retry import Retry
from pacslite.scu.contexts import ContextMap
from pacslite.scu.pool import Pool
from pacslite.scu.requestor import Address, Requestor, RequestorOptions
from pacslite.services.sending import InstanceSender
from tests.support.clock import Clock
from tests.support.instances import Instance, make_instance
from tests.support.peers import StoreScp
from tests.support.processes import free_port
from tests.support.storage_scp import Arrival as Received
from tests.support.storage_scp import StorageScp
from tests.support.storing import archive_in, reference, store
from tests.support.wire import Wire

CT, PRIVATE = b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.99999.1.4.1.1.2\0\0\0"


class Sending:
    """A forwarder over an archive that holds ``stored``, all of it queued for WS."""

    def __init__(self, archive: Archive, stored: Sequence[Instance], port: int, batch: int) -> None:
        self.archive = archive
        self.clock = Clock()
        self.queue = Queue(Database(archive.options.data_dir / "outbox.sqlite"), Retry(10, 100, 10_000), self.clock)
        self.lookup = IndexLookup(archive.index)
        self.offload = Offload("outbox")
        options = RequestorOptions(operations=4, timeouts=Timeouts(artim_seconds=2, dimse_seconds=5, connect_seconds=2))
        self.pool = Pool(Requestor(options), 0.2)
        self.forwarder = Forwarder(
            self.queue,
            self.lookup,
            self.offload,
            pool=self.pool,
            sender=InstanceSender(archive, 0, None, {}, None),
            address_of={"WS": Address("WS", "127.0.0.1", port)}.get,
            options=ForwardOptions(batch=batch, operations=4),
        )
        self.enqueue(stored)

    def enqueue(self, some: Sequence[Instance], to: str = "WS") -> None:
        digests = [reference(self.archive, one.sop_instance_uid).digest for one in some]
        self.queue.enqueue(
            [Arrival(to, one.sop_instance_uid, digest) for one, digest in zip(some, digests, strict=True)]
        )

    def listed(self, state: str) -> list[Entry]:
        return [entry for entry in entries(self.queue, finished=True) if entry.state == state]

    async def close(self) -> None:
        await self.pool.close()
        await self.offload.stop()
        self.lookup.close()
        self.queue.database.close()


@asynccontextmanager
async def sending(directory: Path, stored: Sequence[Instance], port: int, batch: int = 100) -> AsyncIterator[Sending]:
    async with archive_in(directory) as archive:
        for instance in stored:
            await store(archive, instance)
        one = Sending(archive, stored, port, batch)
        try:
            yield one
        finally:
            await one.close()


def instances(count: int, size: int = 3000) -> list[Instance]:
    return [make_instance(n, size=size) for n in range(count)]


def uids(some: Sequence[Instance]) -> list[str]:
    return [one.sop_instance_uid for one in some]


def received(scp: StorageScp) -> list[str]:
    return [one.sop_instance_uid for one in scp.received]


async def test_all_is_sent_once_in_order_byte_for_byte(tmp_path: Path) -> None:
    some = instances(25)
    async with StorageScp(free_port()) as scp, sending(tmp_path, some, scp.port, batch=10) as one:
        assert await one.forwarder.serve("WS")
        assert received(scp) == uids(some)
        assert [arrival.data for arrival in scp.received] == [instance.data for instance in some]
        assert scp.associations == 1  # batches share it
        assert [entry.subject for entry in one.listed("sent")] == uids(some)
        assert not await one.forwarder.serve("WS")


async def test_what_is_refused_is_sent_again_alone(tmp_path: Path) -> None:
    some = instances(6)
    refused = {some[1].sop_instance_uid, some[4].sop_instance_uid}

    def status(arrival: Received) -> int:
        return 0xA700 if arrival.sop_instance_uid in refused else 0

    async with StorageScp(free_port(), status=status) as scp, sending(tmp_path, some, scp.port) as one:
        assert await one.forwarder.serve("WS")
        assert {entry.subject for entry in one.listed("waiting")} == refused
        assert {entry.error for entry in one.listed("waiting")} == {"status A700"}
        refused.clear()
        one.clock.now += 10
        assert await one.forwarder.serve("WS")
        assert sorted(received(scp)) == sorted(uids(some))


@pytest.mark.parametrize("status", [0x0111, 0xB000, 0xB006, 0xB007])
async def test_the_receiver_has_it(tmp_path: Path, status: int) -> None:
    """Duplicate SOP Instance, and the warnings of PS3.4 §B.2.3, say that it is there."""
    async with (
        StorageScp(free_port(), status=lambda _: status) as scp,
        sending(tmp_path, instances(3), scp.port) as one,
    ):
        assert await one.forwarder.serve("WS")
        assert len(one.listed("sent")) == 3


@pytest.mark.parametrize("status", [0xFE00, 0xFF00, 0xFF01])
async def test_no_answer_to_a_store_is_no_success(tmp_path: Path, status: int) -> None:
    """PS3.4 §B.2.3 knows neither Cancel nor Pending: who says so may not have it."""
    some = instances(3)
    async with StorageScp(free_port(), status=lambda _: status) as scp, sending(tmp_path, some, scp.port) as one:
        assert not await one.forwarder.serve("WS")
        assert {entry.subject for entry in one.listed("waiting")} == set(uids(some))
        assert {entry.error for entry in one.listed("waiting")} == {f"status {status:04X}"}


class Faulty:
    """A sender with a fault that one instance shows."""

    def __init__(self, sender: InstanceSender, poison: str) -> None:
        self._sender, self._poison = sender, poison

    async def send(self, invoker: Invoker, contexts: ContextMap, instance: InstanceRef, buffer: ReadBuffer) -> int:
        if instance.sop_instance_uid == self._poison:
            raise RuntimeError("a fault of ours")
        return await self._sender.send(invoker, contexts, instance, buffer)


async def test_fault_of_ours_fails_one_instance(tmp_path: Path) -> None:
    some = instances(9)
    async with StorageScp(free_port()) as scp, sending(tmp_path, some, scp.port) as one:
        one.forwarder._sender = Faulty(InstanceSender(one.archive, 0, None, {}, None), some[2].sop_instance_uid)
        assert await one.forwarder.serve("WS")
        assert received(scp) == uids(some[:2] + some[3:])
        (entry,) = one.listed("waiting")
        assert (entry.subject, entry.attempts, entry.error) == (some[2].sop_instance_uid, 1, "a fault of ours")


async def test_destination_that_is_not_there_waits_as_a_whole(tmp_path: Path) -> None:
    some = instances(3)
    async with sending(tmp_path, some, free_port()) as one:
        assert not await one.forwarder.serve("WS")
        assert [(entry.attempts, entry.due) for entry in one.listed("waiting")] == [(0, one.clock.now + 10)] * 3
        assert all("refused" in str(entry.error) for entry in one.listed("waiting"))


async def test_destination_that_moves_while_it_is_tried_is_not_left_alone(tmp_path: Path) -> None:
    some, elsewhere = instances(3), free_port()
    async with sending(tmp_path, some, free_port()) as one, StorageScp(elsewhere) as scp:
        addresses = [Address("WS", "127.0.0.1", free_port())]
        one.forwarder._address_of = lambda _: addresses.pop() if len(addresses) > 1 else addresses[0]
        addresses.insert(0, Address("WS", "127.0.0.1", elsewhere))
        assert not await one.forwarder.serve("WS")
        assert [at for *_, at in one.queue.destinations()] == [one.clock.now]
        assert await one.forwarder.serve("WS")
        assert sorted(received(scp)) == uids(some)


async def test_destination_that_moves_while_it_is_sent_to_gets_the_rest_where_it_is_now(tmp_path: Path) -> None:
    some, here = instances(12), [Address("WS", "127.0.0.1", free_port())]

    def status(_: Received) -> int:
        here[:] = [Address("WS", "127.0.0.1", new.port)]
        return 0

    async with (
        StorageScp(here[0].port, status=status) as old,
        StorageScp(free_port()) as new,
        sending(tmp_path, some, old.port, batch=4) as one,
    ):
        one.forwarder._address_of = lambda _: here[0]
        assert await one.forwarder.serve("WS")
        assert received(old) == uids(some[:4])
        assert await one.forwarder.serve("WS")
        assert received(new) == uids(some[4:])


async def test_destination_that_is_not_configured(tmp_path: Path) -> None:
    some = instances(2)
    async with sending(tmp_path, some, free_port()) as one:
        one.enqueue(some, to="NOBODY")
        assert not await one.forwarder.serve("NOBODY")
        (error,) = {entry.error for entry in one.listed("waiting") if entry.destination == "NOBODY"}
        assert error is not None
        assert "[[remote]]" in error


async def test_destination_that_takes_nothing_is_left_alone(tmp_path: Path) -> None:
    """Five refusals in a row: its disk is full, say. The others are not even tried."""
    async with (
        StorageScp(free_port(), status=lambda _: 0xA700) as scp,
        sending(tmp_path, instances(20), scp.port) as one,
    ):
        assert not await one.forwarder.serve("WS")
        assert sum(entry.attempts for entry in one.listed("waiting")) == 5
        assert {one.clock.now + 10} == {entry.due for entry in one.listed("waiting")}


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0122])
async def test_instances_that_are_refused_hold_nobody_up(tmp_path: Path, status: int) -> None:
    """What the status says of the instance, it does not say of the destination."""
    some = instances(20)
    refused = set(uids(some[:15]))

    def answer(arrival: Received) -> int:
        return status if arrival.sop_instance_uid in refused else 0

    async with StorageScp(free_port(), status=answer) as scp, sending(tmp_path, some, scp.port) as one:
        assert await one.forwarder.serve("WS")
        assert received(scp) == uids(some[15:])
        assert {entry.subject for entry in one.listed("waiting")} == refused


async def test_sop_class_that_is_not_accepted_holds_nobody_up(tmp_path: Path) -> None:
    """DCMTK's storescp knows the standard's classes only."""
    private = [
        replace(one, data=one.data.replace(CT, PRIVATE), sop_class_uid="1.2.840.99999.1.4.1.1.2")
        for one in instances(8)
    ]
    known = make_instance(99, size=3000)
    peer = StoreScp(tmp_path / "received")
    peer.start()
    async with sending(tmp_path / "data", [*private, known], peer.port) as one:
        assert await one.forwarder.serve("WS")
        assert {entry.subject for entry in one.listed("waiting")} == set(uids(private))
        assert {entry.error for entry in one.listed("waiting")} == {"no presentation context accepted for it"}
    peer.stop()
    assert len(peer.files()) == 1


@pytest.mark.parametrize("window", [0, 4])
async def test_instance_that_ends_every_association_holds_nobody_up(tmp_path: Path, window: int) -> None:
    """Those neither that are outstanding with it, again and again at the same time."""
    some = instances(12)
    poison = some[3].sop_instance_uid

    def status(arrival: Received) -> int:
        if arrival.sop_instance_uid == poison:
            raise RuntimeError("the peer crashes")
        return 0

    async with StorageScp(free_port(), status=status, window=window) as scp, sending(tmp_path, some, scp.port) as one:
        for _ in range(6):
            await one.forwarder.serve("WS")
            one.clock.now += 20
        assert sorted(set(received(scp))) == sorted(set(uids(some)) - {poison})
        assert [entry.subject for entry in one.listed("waiting")] == [poison]


class Hasty(StorageScp):
    """Accepts associations and goes away at once."""

    async def _serve(self, wire: Wire) -> None:
        del wire


@pytest.mark.parametrize("kind", [Hasty, StorageScp])
async def test_destination_that_ends_every_association_is_left_alone(tmp_path: Path, kind: type[StorageScp]) -> None:
    def crash(arrival: Received) -> int:
        raise RuntimeError("the peer crashes")

    async with kind(free_port(), status=crash) as scp, sending(tmp_path, instances(20), scp.port) as one:
        async with asyncio.timeout(5):
            assert not await one.forwarder.serve("WS")
        assert scp.associations == 3
        assert {one.clock.now + 10} == {entry.due for entry in one.listed("waiting")}


async def test_deleted_and_replaced_instances_are_dropped(tmp_path: Path) -> None:
    some = instances(3)
    async with StorageScp(free_port()) as scp, sending(tmp_path, some, scp.port) as one:
        await one.archive.delete(Level.IMAGE, some[0].sop_instance_uid)
        one.queue.enqueue([Arrival("WS", some[1].sop_instance_uid, bytes(16))])
        assert await one.forwarder.serve("WS")
        assert received(scp) == uids(some[1:])
        assert [(entry.subject, entry.error) for entry in one.listed("dropped")] == [
            (some[0].sop_instance_uid, "no longer stored"),
            (some[1].sop_instance_uid, "replaced by a newer one"),
        ]


async def test_what_is_dropped_while_a_batch_is_sent_is_not_sent(tmp_path: Path) -> None:
    some = instances(10)

    async with sending(tmp_path, some, port := free_port()) as one:
        other = Queue(Database(tmp_path / "outbox.sqlite"))

        def status(arrival: Received) -> int:
            if arrival.sop_instance_uid == some[2].sop_instance_uid:
                drop(other, [entry.id for entry in entries(other) if entry.subject == some[7].sop_instance_uid])
            return 0

        async with StorageScp(port, status=status, delay=0.02) as scp:
            task = asyncio.create_task(one.forwarder.serve("WS"))
            while len(scp.received) < 3:
                await asyncio.sleep(0.005)
            await one.forwarder.forget_dropped()
            assert await task
            assert received(scp) == uids(some[:7] + some[8:])
        other.database.close()


async def test_what_cannot_be_written_down_is_not_sent_again_and_again(tmp_path: Path) -> None:
    some = instances(8)
    async with StorageScp(free_port()) as scp, sending(tmp_path, some, scp.port) as one:
        trouble = Database(tmp_path / "outbox.sqlite")
        trouble.connection.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON entry BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
        )
        for _ in range(3):
            with pytest.raises(sqlite3.Error):
                await one.forwarder.serve("WS")
        assert len(scp.received) == 8
        trouble.connection.execute("DROP TRIGGER full")
        trouble.close()
        assert not await one.forwarder.serve("WS")
        assert len(one.listed("sent")) == len(scp.received) == 8
