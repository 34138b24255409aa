"""C-MOVE to destinations that lose associations: everything arrives as it is stored, but what the receiver fails at."""

import asyncio
import math
from collections.abc import Mapping, Sequence

import pytest

from tests.support.exchange import identifier, send_instances
from tests.support.instances import Instance, digest_of, make_instance
from tests.support.processes import Pacslite
from tests.support.storage_scp import StorageScp
from tests.support.wire import CT_IMAGE, STUDY_ROOT_MOVE, Answer, Context, Message, Wire

DESTINATION = "PYNETDICOM"  # a configured title and port; who listens there is the test's own
WINDOW = 8
COUNT = 30


@pytest.fixture(scope="module")
def settings() -> Mapping[str, Mapping[str, object]]:
    return {"retrieve": {"reuse_seconds": 0.2, "operations": WINDOW}}


@pytest.fixture(scope="module")
def series(server: Pacslite) -> Sequence[Instance]:
    """Slices of more than one piece of what is read at once."""
    instances = [make_instance(number, seed=41, size=5 << 20) for number in range(COUNT)]
    asyncio.run(send_instances(server.port, instances))
    return instances


async def move(server: Pacslite, series: Sequence[Instance]) -> Answer:
    async with await Wire.associate(server.port, [Context(1, STUDY_ROOT_MOVE)]) as wire:
        keys = identifier("STUDY", StudyInstanceUID=series[0].study_uid)
        return (await wire.move(STUDY_ROOT_MOVE, keys, DESTINATION))[-1]


class Losing(StorageScp):
    """Aborts an association instead of answering another instance after ``after`` of them, if ``times`` are left."""

    def __init__(self, port: int, *, after: int, times: int, window: int = 0, at_once: int = 0) -> None:
        super().__init__(port, window=window, at_once=at_once)
        self._after, self._times = after, times

    async def _serve(self, wire: Wire) -> None:
        for _ in range(self._after if self._times else 1 << 30):
            message = await wire.receive_or_release()
            if message is None:
                return
            await self.take(wire, message)
        self._times -= 1
        await wire.receive()
        await self.lose(wire)
        await asyncio.sleep(0.3 if self._at_once else 0)  # until the place is free again

    async def lose(self, wire: Wire) -> None:
        await wire.abort()


class Stopping(Losing):
    """Listens no more once it has lost an association: nothing is lost to it twice."""

    def __init__(self, port: int, *, after: int) -> None:
        super().__init__(port, after=after, times=1)
        self.stopped = asyncio.Event()

    async def lose(self, wire: Wire) -> None:
        assert self._server is not None
        self._server.close()
        await wire.abort()
        self.stopped.set()


async def test_several_that_lose_an_association_open_one_and_send_what_is_stored(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    async with Losing(destinations[DESTINATION], after=2, times=1, window=WINDOW) as scp:
        final = await move(server, series)
        stored = {one.sop_instance_uid: one.digest for one in series}
        for one in scp.received:
            assert digest_of(one.data) == stored[one.sop_instance_uid]
        assert set(stored) == {one.sop_instance_uid for one in scp.received}
        assert (final.status, final.completed, scp.associations) == (0, COUNT, 2)
        await asyncio.sleep(0.5)
        assert scp.open == 0, "an association was opened and forgotten"


async def test_losses_are_counted_in_a_row(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    """A receiver that ends each association after some instances takes all others."""
    async with Losing(destinations[DESTINATION], after=4, times=99) as scp:
        final = await move(server, series)
    assert (final.status, final.completed) == (0, COUNT)
    assert scp.associations == math.ceil(COUNT / 4)
    assert len(scp.received) == COUNT


async def test_what_a_receiver_fails_at_is_tried_twice(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    fatal = series[7].sop_instance_uid

    class Failing(StorageScp):
        async def take(self, wire: Wire, message: Message) -> None:
            if message.text(0x1000) == fatal:
                return await wire.abort()
            return await super().take(wire, message)

    async with Failing(destinations[DESTINATION]) as scp:
        final = await move(server, series)
    assert (final.status, final.completed, final.failed) == (0xB000, COUNT - 1, 1)
    assert scp.associations == 3


async def test_a_receiver_may_start_again(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    """For a moment nobody listens; at first that would end the C-MOVE at once."""
    async with Stopping(destinations[DESTINATION], after=4) as first:
        moving = asyncio.create_task(move(server, series))
        await first.stopped.wait()
    await asyncio.sleep(0.6)
    async with StorageScp(destinations[DESTINATION]) as second:
        final = await moving
    assert (final.status, final.completed) == (0, COUNT)
    assert len(first.received) + len(second.received) == COUNT


async def test_a_receiver_behind_a_forwarder_may_start_again(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    """The forwarder takes connections, and ends each at once until there is somebody to pass it on to."""
    port = destinations[DESTINATION]
    ended = 0

    async def end(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal ended
        ended += 1
        writer.close()

    async with Stopping(port, after=4) as first:
        moving = asyncio.create_task(move(server, series))
        await first.stopped.wait()
    async with await asyncio.start_server(end, "127.0.0.1", port):
        while ended < 2:
            await asyncio.sleep(0.01)
    async with StorageScp(port):
        final = await moving
    assert (final.status, final.completed) == (0, COUNT)


async def test_a_destination_that_loses_every_association_is_given_up(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    async with Losing(destinations[DESTINATION], after=0, times=99) as scp:
        final = await move(server, series)
    assert (final.status, final.failed, scp.associations) == (0xA702, COUNT, 4)
    assert "lost 4 times" in final.comment


async def test_a_transient_rejection_is_waited_out(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    """Its one place is free again a moment after it has lost the association (2/3/2 until then, PS3.8 §9.3.4)."""
    async with Losing(destinations[DESTINATION], after=4, times=1, at_once=1) as scp:
        final = await move(server, series)
    assert (final.status, final.completed) == (0, COUNT)
    assert scp.rejected


async def test_a_destination_that_is_busy_for_long_is_given_up(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    async with (
        StorageScp(destinations[DESTINATION], at_once=1) as scp,
        await Wire.associate(scp.port, [Context(1, CT_IMAGE)]),
    ):
        final = await move(server, series)
    assert (final.status, final.failed) == (0xA702, COUNT)
    assert "local limit exceeded" in server.text()
    assert scp.rejected > 1


@pytest.mark.parametrize("window", [0, WINDOW])
async def test_an_idle_association_that_ends_as_it_is_used_again_costs_nothing(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int], window: int
) -> None:
    """Its end, and the first C-STORE of the next C-MOVE, cross on the way."""
    async with Losing(destinations[DESTINATION], after=COUNT, times=1, window=window) as scp:
        for _ in range(2):
            final = await move(server, series)
            assert (final.status, final.completed) == (0, COUNT)
    assert scp.associations == 2
