"""The order of the system calls of one store, as the kernel saw it: the bytes are synced before the answer is sent."""

import asyncio
import re

import pytest

from tests.faults.checker import observe
from tests.faults.strace import Call, tracing
from tests.support.instances import make_instance
from tests.support.processes import Pacslite, ServerFactory
from tests.support.wire import CT_IMAGE, Context, Wire

SYNCS = ("fdatasync", "fsync", "syncfs")
INTO_JOURNAL = r"/journal>.*RWF_DSYNC"  # a write that returns when it is on the disk
SENDS = ("write", "writev", "sendto", "sendmsg")
OTHERS = ("pwrite64", "pwritev", "pwritev2", "rename", "renameat", "renameat2")


def _positions(calls: list[Call], names: tuple[str, ...], pattern: str) -> list[int]:
    return [at for at, call in enumerate(calls) if call.name in names and re.search(pattern, call.text)]


@pytest.mark.parametrize("journal_bytes", [0, 8 << 20], ids=["each-by-itself", "journal"])
async def test_synced_before_answered(new_server: ServerFactory, journal_bytes: int) -> None:
    server = new_server(storage={"journal_bytes": journal_bytes})
    async with server.running(), await Wire.associate(server.port, [Context(1, CT_IMAGE)]) as wire:
        await _prepared(server)
        for number in range(5):
            instance = make_instance(number, seed=81, size=600_000 if number % 2 else 3_000)
            with tracing(server.pid, calls=(*SYNCS, *SENDS, *OTHERS)) as trace:
                answer = await wire.store(CT_IMAGE, instance.sop_instance_uid, instance.data)
                assert answer.status == 0
            written = _positions(trace.calls, (*SENDS, *OTHERS), r"/incoming/")
            synced = _positions(trace.calls, SYNCS, r"/incoming|syncfs|/data0>")
            in_journal = _positions(trace.calls, ("pwritev2",), INTO_JOURNAL)
            assert bool(in_journal) == (journal_bytes > 0 and len(instance.data) < 256 << 10), trace.raw
            written += in_journal
            synced += in_journal
            answered = _positions(trace.calls, SENDS, r"<TCP")
            assert written, trace.raw
            assert synced, f"no sync of what was stored:\n{trace.raw}"
            assert answered, f"no answer seen:\n{trace.raw}"
            assert not any(trace.calls[at].failed for at in synced)
            assert max(written) <= max(synced) < min(answered), trace.raw


@pytest.mark.parametrize("journal_bytes", [0, 8 << 20], ids=["each-by-itself", "journal"])
async def test_one_sync_an_instance(new_server: ServerFactory, journal_bytes: int) -> None:
    """The disk is the limit: one sync on the way to an answer, not three.

    One more in all: the index's log is synced where it begins anew after a checkpoint.
    """
    server = new_server(storage={"journal_bytes": journal_bytes})
    async with server.running(), await Wire.associate(server.port, [Context(1, CT_IMAGE)]) as wire:
        await _prepared(server)
        instances = [make_instance(n, seed=82, size=100_000) for n in range(9)]
        await wire.store(CT_IMAGE, instances[0].sop_instance_uid, instances[0].data)
        with tracing(server.pid, calls=(*SYNCS, *SENDS, *OTHERS)) as trace:
            for instance in instances[1:]:
                await wire.store(CT_IMAGE, instance.sop_instance_uid, instance.data)
        answered = _positions(trace.calls, SENDS, r"<TCP")
        assert len(answered) >= 8
        calls = trace.calls[: max(answered)]
        before = _positions(calls, SYNCS, r"/incoming/") + _positions(calls, ("pwritev2",), INTO_JOURNAL)
        others = _positions(calls, SYNCS, r"index|/data0>")
        assert len(before) == 8, trace.raw
        assert len(others) <= 1, trace.raw


async def _prepared(server: Pacslite) -> None:
    """Wait for the journal, which nobody else has to wait for."""
    if server.settings["storage"]["journal_bytes"]:
        async with asyncio.timeout(10):
            while not (server.data_dir / "journal").exists():
                await asyncio.sleep(0.01)


async def test_index_is_rebuilt_after_the_loss_of_its_log(new_server: ServerFactory) -> None:
    """The index's log may be lost in a power cut: ``incoming/`` is the journal."""
    server = new_server()
    server.start()
    instances = [make_instance(n, seed=83, size=20_000) for n in range(40)]
    async with await Wire.associate(server.port, [Context(1, CT_IMAGE)]) as wire:
        for instance in instances:
            assert (await wire.store(CT_IMAGE, instance.sop_instance_uid, instance.data)).status == 0
    server.kill()
    for path in server.data_dir.glob("index.sqlite-*"):
        path.unlink()
    async with server.running():
        seen = await observe(server.port)
        assert seen.content == {instance.sop_instance_uid: instance.digest for instance in instances}
    await server.tool("check", "--deep", "--data-dir", server.data_dir)
