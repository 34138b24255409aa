"""Every file call of one store fails in turn, and in turn is the process's last: SQLite's own method.

A failure is answered with a status, never with silence; the next store works; nothing leaks; a failed instance is not
visible and can be sent again.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import pytest

from tests.faults.checker import observe
from tests.faults.strace import tracing
from tests.support.instances import Instance, make_instance
from tests.support.processes import Pacslite, ServerFactory
from tests.support.wire import CT_IMAGE, VERIFICATION, AbortedError, Answer, Context, Wire

SOAK = int(os.environ.get("PACSLITE_TEST_KILL_ROUNDS", "30")) > 30
# Calls that touch files only: what a socket shares (write, writev) is not among them
SYNCS = ("fdatasync", "fsync", "syncfs")
WRITES = ("pwrite64", "pwritev", "pwritev2")
NAMES = ("openat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat")
SIZES = ("ftruncate", "fallocate")
FAILURES = [(SYNCS, "EIO"), (WRITES, "ENOSPC"), (WRITES, "EIO"), (NAMES, "EIO"), (NAMES, "EMFILE"), (SIZES, "EIO")]
CONTEXTS = [Context(1, CT_IMAGE), Context(3, VERIFICATION)]
LIMIT = 60  # a store that needs more calls of one kind than this is a defect of its own


@dataclass
class Archive:
    """The server of one sweep, and what it has promised to keep."""

    server: Pacslite
    numbers: Iterator[int]
    promised: dict[str, str]

    def next(self) -> Instance:
        """A new series each time: directories must be made."""
        number = next(self.numbers)
        return make_instance(number, seed=80, study=number % 3, series=number, size=70_000)

    async def store(self, instance: Instance) -> Answer | None:
        """None if the association did not live through it."""
        try:
            async with await Wire.associate(self.server.port, CONTEXTS) as wire:
                answer = await asyncio.wait_for(wire.store(CT_IMAGE, instance.sop_instance_uid, instance.data), 20)
                assert await wire.echo() == 0
        except (AbortedError, OSError):
            return None
        if answer.status == 0:
            self.promised[instance.sop_instance_uid] = instance.digest
        return answer

    async def must_store(self, instance: Instance) -> None:
        answer = await self.store(instance)
        assert answer is not None
        assert answer.status == 0, answer

    async def check(self) -> None:
        seen = await observe(self.server.port)
        assert seen.content == self.promised


@pytest.fixture
def archive(new_server: ServerFactory, calls: Sequence[str]) -> Archive:
    """Its stores write into a journal, or make files and sync them: whichever has those calls."""
    journal_bytes = 1 << 20 if calls == WRITES else 0
    return Archive(new_server(storage={"min_free_bytes": 0, "journal_bytes": journal_bytes}), count(), {})


@pytest.mark.parametrize(("calls", "error"), FAILURES, ids=lambda value: value if isinstance(value, str) else value[0])
@pytest.mark.parametrize("ever_after", [False, True], ids=["once", "from-then-on"])
async def test_each_call_of_a_store_fails(archive: Archive, calls: Sequence[str], error: str, ever_after: bool) -> None:
    server = archive.server
    server.expected = ["EIO", "ENOSPC", "EMFILE", "rror", "disk", "No space", "Too many"]
    server.start()
    for _ in range(3):
        await archive.must_store(archive.next())
    descriptors = server.descriptors()
    refused = 0
    step = 1 if SOAK or calls != WRITES else 3  # of SQLite's many writes
    for number in range(1, LIMIT, step):
        instance = archive.next()
        with tracing(
            server.pid, calls=calls, inject=f"error={error}:when={number}{'+' if ever_after else ''}"
        ) as trace:
            answer = await archive.store(instance)
            await asyncio.sleep(0.02)
        assert answer is not None, f"the association ended: {trace.raw}"
        if answer.status:
            refused += 1
            assert answer.status == 0x0110 or 0xA700 <= answer.status <= 0xA7FF, answer
            assert answer.comment
        await _recovers(archive)
        if answer.status:
            await archive.must_store(instance)  # the same one, once more
        if not trace.injected:
            break
    else:
        raise AssertionError(f"{LIMIT} calls of {calls} in one store")
    await archive.check()
    await asyncio.sleep(0.3)
    leaked = server.descriptors() - descriptors
    assert leaked.total() <= 2, leaked
    await asyncio.to_thread(server.stop)
    await server.tool("check", "--deep", "--data-dir", server.data_dir)
    async with server.running():
        await archive.check()
    assert refused or calls == SIZES


async def _recovers(archive: Archive) -> None:
    """The next store works, within a second, by itself."""
    for _ in range(20):
        instance = archive.next()
        answer = await archive.store(instance)
        if answer is not None and answer.status == 0:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"no store works any more: {answer}\n{archive.server.text()[-3000:]}")


@pytest.mark.parametrize("disturbance", ["error=EIO", "signal=KILL"])
@pytest.mark.parametrize("calls", [SYNCS, WRITES, NAMES], ids=lambda calls: calls[0])
@pytest.mark.timeout(1200 if SOAK else 300)
async def test_each_call_of_a_replacement(new_server: ServerFactory, calls: Sequence[str], disturbance: str) -> None:
    """A refused one leaves the old bytes, one that was cut off the old ones or the new ones; settled or not."""
    archive = Archive(new_server(storage={"min_free_bytes": 0, "duplicates": "replace"}), count(), {})
    server = archive.server
    server.expected = ["EIO", "rror", "disk"]
    server.start()
    await archive.must_store(archive.next())
    for number in range(1, LIMIT, 1 if SOAK or calls == SYNCS else 3):
        new = make_instance(0, seed=80, size=50_000 + 1_000 * number)
        old = archive.promised[new.sop_instance_uid]
        if number % 2:
            await asyncio.sleep(1.2)  # the old one is settled, else it is in ``incoming``
        with tracing(server.pid, calls=calls, inject=f"{disturbance}:when={number}") as trace:
            answer = await archive.store(new)
            await asyncio.sleep(0.02)
        if server.process.poll() is not None:
            server.start()
        await _recovers(archive)
        seen = (await observe(server.port)).content
        if answer is None and seen[new.sop_instance_uid] == new.digest:
            archive.promised[new.sop_instance_uid] = new.digest
        assert seen == archive.promised, f"{answer} at call {number} of {calls}, was {old}\n{trace.raw}"
        await archive.must_store(new)
        if not trace.injected and answer is not None:
            break
    else:
        raise AssertionError(f"{LIMIT} calls of {calls} in one replacement")
    await asyncio.to_thread(server.stop)
    await server.tool("check", "--deep", "--data-dir", server.data_dir)


@pytest.mark.parametrize("calls", [SYNCS, WRITES, NAMES], ids=lambda calls: calls[0])
@pytest.mark.timeout(1200 if SOAK else 300)
async def test_killed_at_each_call_of_a_store(archive: Archive, calls: Sequence[str]) -> None:
    """Each call in turn is the last: at the next start the instance is whole or not there, and all others are."""
    server = archive.server
    server.start()
    for _ in range(3):
        await archive.must_store(archive.next())
    for number in range(1, LIMIT, 1 if SOAK or calls == SYNCS else 3):
        instance = archive.next()
        with tracing(server.pid, calls=calls, inject=f"signal=KILL:when={number}") as trace:
            answer = await archive.store(instance)
            await asyncio.sleep(0.02)
        died = server.process.poll() is not None
        if died:
            server.start()
        seen = await observe(server.port)
        if answer is None and instance.sop_instance_uid in seen.content:
            archive.promised[instance.sop_instance_uid] = instance.digest  # it was finished, only not told
        assert seen.content == archive.promised, f"killed at call {number} of {calls}\n{trace.raw}"
        await archive.must_store(instance)
        if not died:
            break
    else:
        raise AssertionError(f"{LIMIT} calls of {calls} in one store")
    await asyncio.to_thread(server.stop)
    await server.tool("check", "--deep", "--data-dir", server.data_dir)
