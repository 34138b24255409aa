"""Associations that are kept for the next request: whom they may be in the way of."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from pacslite.net.ended import AssociationRejectedError
from pacslite.scu.contexts import presentation_contexts
from pacslite.scu.pool import Pool
from pacslite.scu.requestor import Address, Requestor, RequestorOptions
from tests.support.processes import free_port
from tests.support.storage_scp import StorageScp
from tests.support.wire import CT_IMAGE, EXPLICIT_LITTLE, SECONDARY_CAPTURE

CT = presentation_contexts([(CT_IMAGE, [EXPLICIT_LITTLE])])
OTHER = presentation_contexts([(SECONDARY_CAPTURE, [EXPLICIT_LITTLE])])


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool(Requestor(RequestorOptions()), reuse_seconds=30)
    yield pool
    await pool.close()


async def test_what_is_idle_is_used_again(pool: Pool) -> None:
    async with StorageScp(free_port()) as scp:
        address = Address("SCP", "127.0.0.1", scp.port)
        first = await pool.acquire(address, CT)
        pool.release(address, CT, first)
        assert await pool.acquire(address, CT) is first
        pool.release(address, CT, first)
        await pool.close()


async def test_what_is_idle_ends_before_other_contexts_are_proposed(pool: Pool) -> None:
    """The receiver takes one association at a time: our own idle one would be in the way for ``reuse_seconds``."""
    async with StorageScp(free_port(), at_once=1) as scp:
        address = Address("SCP", "127.0.0.1", scp.port)
        pool.release(address, CT, await pool.acquire(address, CT))
        pool.release(address, OTHER, await pool.acquire(address, OTHER))
        assert (scp.associations, scp.rejected, scp.open) == (2, 0, 1)
        await pool.close()


async def test_what_is_in_use_does_not_end(pool: Pool) -> None:
    async with StorageScp(free_port(), at_once=1) as scp:
        address = Address("SCP", "127.0.0.1", scp.port)
        used = await pool.acquire(address, CT)
        with pytest.raises(AssociationRejectedError):
            await pool.acquire(address, OTHER)
        assert used.over is None
        pool.release(address, CT, used)
        await pool.close()


async def test_what_is_idle_with_others_stays(pool: Pool) -> None:
    async with StorageScp(free_port()) as scp, StorageScp(free_port()) as another:
        pool.release(here := Address("SCP", "127.0.0.1", scp.port), CT, await pool.acquire(here, CT))
        pool.release(there := Address("SCP", "127.0.0.1", another.port), OTHER, await pool.acquire(there, OTHER))
        assert (scp.open, another.open) == (1, 1)
        await pool.close()


async def test_who_does_not_answer_a_release_is_not_waited_for_long(pool: Pool) -> None:
    async with StorageScp(free_port(), ignore_release=True) as scp:
        address = Address("SCP", "127.0.0.1", scp.port)
        pool.release(address, CT, await pool.acquire(address, CT))
        started = time.monotonic()
        pool.release(address, OTHER, await asyncio.wait_for(pool.acquire(address, OTHER), 5))
        pool.release(address, CT, await asyncio.wait_for(pool.acquire(address, CT), 5))
        assert 1.5 < time.monotonic() - started < 4
        await pool.close()
