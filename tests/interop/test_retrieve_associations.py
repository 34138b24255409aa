"""How many associations a C-MOVE opens with a destination, and that the next one uses them again."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from tests.support.exchange import identifier, send_instances
from tests.support.instances import Instance, make_instance
from tests.support.processes import Pacslite
from tests.support.storage_scp import StorageScp
from tests.support.wire import STUDY_ROOT_MOVE, Answer, Context, Wire

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
