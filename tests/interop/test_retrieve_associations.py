"""How many associations a C-MOVE opens with a destination, and that the next one uses them again."""

import asyncio
import time
from collections.abc import Mapping, Sequence

import pytest

from tests.support.exchange import identifier, send_instances
from tests.support.instances import Instance, make_instance
from tests.support.processes import Pacslite
from tests.support.storage_scp import StorageScp
from tests.support.wire import STUDY_ROOT_MOVE, Answer, Context, Message, Wire

PARALLEL = 3
REUSE_SECONDS = 1.0


@pytest.fixture(scope="module")
def settings() -> Mapping[str, Mapping[str, object]]:
    return {"retrieve": {"parallel_associations": PARALLEL, "reuse_seconds": REUSE_SECONDS, "pending_seconds": 0.1}}


@pytest.fixture(scope="module")
def series(server: Pacslite) -> Sequence[Instance]:
    instances = [make_instance(number, seed=34, size=1_000) for number in range(30)]
    asyncio.run(send_instances(server.port, instances))
    return instances


async def move(server: Pacslite, series: Sequence[Instance]) -> list[Answer]:
    async with await Wire.associate(server.port, [Context(1, STUDY_ROOT_MOVE)]) as wire:
        key = identifier("STUDY", StudyInstanceUID=series[0].study_uid)
        return await wire.move(STUDY_ROOT_MOVE, key, "STORESCP")


async def test_a_move_shares_its_instances_out_and_the_next_needs_no_new_association(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    async with StorageScp(destinations["STORESCP"], delay=0.02) as scp:
        for moves in (1, 2):
            *pending, final = await move(server, series)
            assert (final.status, final.completed) == (0, len(series))
            assert len(scp.received) == moves * len(series)
            assert scp.associations == PARALLEL
            assert len(pending) >= 2, "told at the start, and again while it takes time"
        assert {one.sop_instance_uid for one in scp.received} == {one.sop_instance_uid for one in series}
        await asyncio.sleep(REUSE_SECONDS + 0.5)
        await move(server, series)
        assert scp.associations == 2 * PARALLEL, "what was idle for so long has been released"


@pytest.mark.parametrize("at_once", [1, 2])
async def test_a_destination_of_fewer_associations_takes_all_on_those(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int], at_once: int
) -> None:
    async with StorageScp(destinations["STORESCP"], delay=0.02, at_once=at_once) as scp:
        started = time.monotonic()
        final = (await move(server, series))[-1]
        assert (final.status, final.completed) == (0, len(series))
        assert (scp.associations, len(scp.received)) == (at_once, len(series))
        assert scp.rejected
        assert time.monotonic() - started < 3, "nobody waits for a place that is not needed any more"


async def test_an_association_that_is_lost_and_refused_leaves_the_rest_to_the_others(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    class Shrinking(StorageScp):
        """Takes three associations, aborts the last one, and then takes two only."""

        async def take(self, wire: Wire, message: Message) -> None:
            if self.associations == PARALLEL and not self._at_once:
                self._at_once = PARALLEL - 1
                await wire.abort()
            else:
                await super().take(wire, message)

    async with Shrinking(destinations["STORESCP"], delay=0.02) as scp:
        final = (await move(server, series))[-1]
        assert (final.status, final.completed) == (0, len(series))
        assert scp.rejected


async def test_a_destination_that_takes_no_association_fails_everything(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    final = (await move(server, series))[-1]
    assert (final.status, final.completed, final.failed) == (0xA702, 0, len(series))


class OneHangs(StorageScp):
    """The second association never answers."""

    async def _serve(self, wire: Wire) -> None:
        if self.associations == 2:
            await asyncio.sleep(60)
        await super()._serve(wire)


async def test_a_cancelled_move_does_not_abort_what_another_has_taken(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    """What it has given back is aborted with what hangs no more, two seconds after the C-CANCEL."""
    async with (
        OneHangs(destinations["STORESCP"], delay=0.15) as scp,
        await Wire.associate(server.port, [Context(1, STUDY_ROOT_MOVE)]) as wire,
    ):
        key = identifier("STUDY", StudyInstanceUID=series[0].study_uid)
        message_id = await wire.start_query(STUDY_ROOT_MOVE, key, destination="STORESCP")
        await asyncio.sleep(0.5)
        await wire.cancel(STUDY_ROOT_MOVE, message_id)
        await asyncio.sleep(0.5)
        second = asyncio.create_task(move(server, series))  # takes longer than until then
        cancelled = [answer async for answer in wire.answers()][-1]
        assert (cancelled.status, cancelled.failed) == (0xFE00, 1)
        final = (await second)[-1]
        assert (final.status, final.completed) == (0, len(series))
        assert scp.associations == PARALLEL + 1, "it has taken the two that were given back"
