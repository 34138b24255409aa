"""Reports on new associations: when the AE that asked is left alone."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from pacslite.net.ended import ConnectFailed
from pacslite.outbox.admin import drop, entries
from pacslite.outbox.commitments import CommitmentOptions, Commitments
from pacslite.outbox.database import Database
from pacslite.outbox.offload import Offload
from pacslite.outbox.queue import Queue
from pacslite.outbox.transactions import Transactions
from pacslite.outbox.verification import Verifier
from pacslite.scu.commitment import CommitmentRequest, Reference
from pacslite.scu.requestor import Address, Requestor, RequestorOptions
from tests.support.clock import Clock
from tests.support.processes import free_port
from tests.support.storage_scp import StorageScp
from tests.support.wire import Message, Wire


class Unreachable:
    """A requestor that reaches nobody; the configuration is read again meanwhile."""

    def __init__(self, address: Address, then: Address) -> None:
        self.address, self._then = address, then

    async def associate(self, *_: object, **__: object) -> Any:
        self.address = self._then
        raise ConnectFailed("nobody is there")


@pytest.mark.parametrize(("then", "deferred"), [(104, True), (105, False)])
async def test_ae_that_moves_while_it_is_tried_is_not_left_alone(tmp_path: Path, then: int, deferred: bool) -> None:
    queue, offload = Queue(Database(tmp_path / "outbox.sqlite"), clock=lambda: 1000.0), Offload("outbox")
    transactions = Transactions(queue)
    requestor = Unreachable(Address("CT01", "127.0.0.1", 104), Address("CT01", "127.0.0.1", then))
    commitments = Commitments(
        queue,
        transactions,
        offload,
        verifier=cast("Verifier", None),
        requestor=cast("Requestor", requestor),
        address_of=lambda _: requestor.address,
        verified=lambda: None,
        options=CommitmentOptions(),
    )
    found = transactions.get(transactions.accept(CommitmentRequest("1.2.3", (Reference("1.2.1", "1.2.4"),)), "CT01"))
    assert found is not None
    transactions.verified(found[0], {})
    assert not await commitments.serve("CT01")
    assert [at > 1000 for *_, at in queue.destinations()] == [deferred]
    await offload.stop()
    queue.database.close()


class NothingIsThere:
    """A verifier of an empty archive; the clock is set back while it looks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.looked = 0

    async def failures(self, references: Sequence[Reference]) -> dict[Reference, int]:
        self.looked += 1
        self._clock.now -= 86_400
        return dict.fromkeys(references, 0x0112)

    async def stop(self) -> None:
        pass


async def test_grace_ends_though_the_clock_is_set_back(tmp_path: Path) -> None:
    clock, offload, verified = Clock(), Offload("outbox"), asyncio.Event()
    queue = Queue(Database(tmp_path / "outbox.sqlite"), clock=clock)
    transactions, verifier = Transactions(queue), NothingIsThere(clock)
    commitments = Commitments(
        queue,
        transactions,
        offload,
        verifier=cast("Verifier", verifier),
        requestor=cast("Requestor", None),
        address_of=lambda _: None,
        verified=verified.set,
        options=CommitmentOptions(grace_seconds=0.5),
    )
    number = transactions.accept(CommitmentRequest("1.2.3", (Reference("1.2.1", "1.2.4"),)), "CT01")
    await commitments.resume()
    async with asyncio.timeout(5):
        await verified.wait()
    assert verifier.looked > 1
    found = transactions.get(number)
    assert found is not None
    assert found[1] is not None
    assert [one.reason for one in found[1].failed] == [0x0112]
    await commitments.stop()
    await offload.stop()
    queue.database.close()


class ReportScp(StorageScp):
    """Takes reports; ``reported`` has the message IDs."""

    def __init__(self, port: int, then: Callable[[], object] = lambda: None) -> None:
        super().__init__(port)
        self.reported = 0
        self._then = then

    async def take(self, wire: Wire, message: Message) -> None:
        self.reported += 1
        self._then()
        answer = {0x0100: b"\0\x81", 0x0120: message.command[0x0110], 0x0900: b"\0\0", 0x1002: b"\1\0"}
        await wire.send(message.context_id, answer)


@asynccontextmanager
async def reporting(path: Path, count: int, address_of: Callable[[str], Address]) -> AsyncIterator[Commitments]:
    """With so many requests of CT01 that are verified and not reported."""
    queue, offload = Queue(Database(path / "outbox.sqlite")), Offload("outbox")
    transactions = Transactions(queue)
    for number in range(count):
        request = CommitmentRequest(f"1.2.3.{number}", (Reference("1.2.1", "1.2.4"),))
        found = transactions.get(transactions.accept(request, "CT01"))
        assert found is not None
        transactions.verified(found[0], {})
    try:
        yield Commitments(
            queue,
            transactions,
            offload,
            verifier=cast("Verifier", None),
            requestor=Requestor(RequestorOptions()),
            address_of=address_of,
            verified=lambda: None,
            options=CommitmentOptions(),
        )
    finally:
        await offload.stop()
        queue.database.close()


async def test_what_is_dropped_while_others_are_reported_is_not(tmp_path: Path) -> None:
    other = Queue(Database(tmp_path / "outbox.sqlite"))
    scp = ReportScp(free_port(), lambda: drop(other))
    async with scp, reporting(tmp_path, 5, lambda _: Address("CT01", "127.0.0.1", scp.port)) as commitments:
        assert await commitments.serve("CT01")
        assert scp.reported == 1
    assert [entry.state for entry in entries(other, finished=True)].count("dropped") == 4
    other.database.close()


async def test_ae_that_moves_while_it_is_reported_to_gets_the_rest_where_it_is_now(tmp_path: Path) -> None:
    here = [Address("CT01", "127.0.0.1", free_port())]
    new = ReportScp(free_port())
    moved = Address("CT01", "127.0.0.1", new.port)
    async with (
        new,
        ReportScp(here[0].port, lambda: here.__setitem__(0, moved)) as old,
        reporting(tmp_path, 50, lambda _: here[0]) as commitments,
    ):
        assert await commitments.serve("CT01")
        assert await commitments.serve("CT01")
        assert 0 < old.reported < 50
        assert old.reported + new.reported == 50
