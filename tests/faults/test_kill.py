"""SIGKILL at random moments under the load of 16 associations: nothing acknowledged is lost, nothing is half there."""

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.checker import judge, observe
from tests.faults.history import History
from tests.faults.loading import Load
from tests.support.exchange import identifier
from tests.support.processes import ServerFactory
from tests.support.wire import STUDY_ROOT_FIND, Context, Wire

ROUNDS = int(os.environ.get("PACSLITE_TEST_KILL_ROUNDS", "30"))
SEED = int(os.environ.get("PACSLITE_TEST_SEED", "1"))
DEEP_CHECK_EVERY = 6


@pytest.mark.timeout(300 + 15 * ROUNDS)
async def test_sigkill_under_load(new_server: ServerFactory, tmp_path: Path) -> None:
    """After each kill: start below a second, the last round in full, the others by their counts; all at the end."""
    server = new_server()
    chance = random.Random(SEED)
    everything, fresh = History(), History()
    starts: list[float] = []
    first = 0.0
    for number in range(ROUNDS):
        launched = time.monotonic()
        server.start()
        if not number:
            first = time.monotonic() - launched  # of an empty archive: what this machine is like just now
        else:
            async with await Wire.associate(server.port, [Context(1, STUDY_ROOT_FIND)]) as wire:
                assert await wire.find(STUDY_ROOT_FIND, identifier("STUDY", StudyInstanceUID=""))
            starts.append(time.monotonic() - launched)
            seen = await observe(server.port, retrieve=fresh.studies())
            violations = judge(everything, seen)
            assert not violations, f"round {number}:\n" + "\n".join(violations[:20])
        if number and number % DEEP_CHECK_EVERY == 0:
            server.stop()
            await server.tool("check", "--deep", "--data-dir", server.data_dir)
            server.start()
        load = Load(tmp_path, server.port, number)
        await load.until_acknowledged()
        await asyncio.sleep(chance.random() * 0.8)
        server.kill()
        fresh = await load.finish()
        everything.merge(fresh)
    async with server.running():
        seen = await observe(server.port)
        violations = judge(everything, seen)
        assert not violations, "\n".join(violations[:20])
    await server.tool("check", "--deep", "--data-dir", server.data_dir, seconds=600)
    starts.sort()
    assert starts[len(starts) // 2] < max(1.0, 3 * first), (first, starts)
    assert starts[-1] < max(3.0, 9 * first), (first, starts)  # it may be busy with something else for once
    assert len(everything.acknowledged()) > 2 * ROUNDS, "too slow to show anything"


@pytest.mark.parametrize("durability", ["commit", "none"])
async def test_sigkill_with_less_durability(new_server: ServerFactory, tmp_path: Path, durability: str) -> None:
    """What ends the process alone takes nothing: the system still has what it was given."""
    server = new_server(storage={"durability": durability})
    everything = History()
    for number in range(max(3, ROUNDS // 30)):
        server.start()
        load = Load(tmp_path, server.port, number)
        await load.until_acknowledged(20)
        await asyncio.sleep(0.3)
        server.kill()
        everything.merge(await load.finish())
        async with server.running():
            violations = judge(everything, await observe(server.port))
            assert not violations, f"round {number}:\n" + "\n".join(violations[:20])
    await server.tool("check", "--deep", "--data-dir", server.data_dir)


async def test_stop_and_continue(new_server: ServerFactory, tmp_path: Path) -> None:
    """SIGSTOP for longer than a moment, then SIGCONT: all timers jump, no store is lost or refused."""
    server = new_server()
    async with server.running():
        load = Load(tmp_path, server.port, 900, "--seconds", 4, "--associations", 4)
        await load.until_acknowledged()
        for _ in range(2):
            os.kill(server.pid, signal.SIGSTOP)
            await asyncio.sleep(0.7)
            os.kill(server.pid, signal.SIGCONT)
            await asyncio.sleep(0.3)
        history = await load.finish()
        violations = judge(history, await observe(server.port))
        assert not violations, "\n".join(violations[:20])
        assert all(attempt.acknowledged for attempt in history.attempts.values())


async def test_sigterm_under_load_drains(new_server: ServerFactory, tmp_path: Path) -> None:
    """No new associations, running stores end, exit 0; every acknowledged instance is there at the next start."""
    server = new_server(timeouts={"drain_seconds": 5})
    server.start()
    load = Load(tmp_path, server.port, 901)
    await load.until_acknowledged(20)
    await asyncio.to_thread(server.stop, seconds=15)
    history = await load.finish()
    async with server.running():
        violations = judge(history, await observe(server.port))
        assert not violations, "\n".join(violations[:20])
