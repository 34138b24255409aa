"""Every file call of a checkpoint and of the settling behind it fails in turn, and in turn is the last one.

What was acknowledged stays found, readable and whole all along; the index, if it has failed, is opened again without
anybody's help; then all is settled. A failed sync is never simply repeated.
"""

import asyncio
import os
from collections.abc import Sequence
from itertools import count

import pytest

from tests.faults.checker import observe
from tests.faults.strace import Trace, tracing
from tests.support.instances import make_instance
from tests.support.processes import Pacslite, ServerFactory
from tests.support.wire import CT_IMAGE, Answer, Context, Wire

SOAK = int(os.environ.get("PACSLITE_TEST_KILL_ROUNDS", "30")) > 30
SYNCS = ("fdatasync", "fsync", "syncfs")
WRITES = ("pwrite64", "pwritev2", "ftruncate")
NAMES = ("mkdirat", "renameat", "renameat2", "rename", "unlinkat")
COPIES = ("openat", "copy_file_range")
CALLS = (*SYNCS, *WRITES, *NAMES, *COPIES)
LIMIT = 200
STORED = 3  # instances a round, each in a series of its own: directories must be made


class _Archive:
    """A running server, and what it has promised to keep."""

    def __init__(self, server: Pacslite) -> None:
        self.server = server
        self.promised: dict[str, str] = {}
        self._numbers = count()

    async def store(self) -> Answer:
        number = next(self._numbers)
        instance = make_instance(number, seed=125, study=number % 2, series=number, size=3_000)
        async with await Wire.associate(self.server.port, [Context(1, CT_IMAGE)]) as wire:
            answer = await wire.store(CT_IMAGE, instance.sop_instance_uid, instance.data)
        if answer.status == 0:
            self.promised[instance.sop_instance_uid] = instance.digest
        return answer

    def unsettled(self) -> int:
        """Instances whose files are not in their place: in the journal, or in ``incoming``."""
        return len(self.promised) - len(list((self.server.data_dir / "instances").rglob("*.dcm")))

    async def until_settled(self, seconds: float) -> bool:
        """Or the server has ended."""
        end = asyncio.get_running_loop().time() + seconds
        while self.unsettled():
            if asyncio.get_running_loop().time() > end or self.server.process.poll() is not None:
                return False
            await asyncio.sleep(0.02)
        return True

    async def disturbed_settling(self, calls: Sequence[str], inject: str) -> Trace:
        """Store, and disturb what the server then does by itself."""
        for _ in range(50):
            assert await self.until_settled(10)
            await asyncio.sleep(0.05)  # the log is begun anew behind it
            for _ in range(STORED):
                assert (await self.store()).status == 0
            with tracing(self.server.pid, calls=CALLS, inject=inject, inject_into=calls) as trace:
                if self.unsettled() < STORED:
                    continue  # it was quicker than we
                await self.until_settled(2.5)
                await asyncio.sleep(0.1)
            return trace
        raise AssertionError("always settled at once")

    async def check(self) -> None:
        assert (await observe(self.server.port)).content == self.promised


@pytest.fixture
def journal_bytes() -> int:
    return 1 << 20


@pytest.fixture
def archive(new_server: ServerFactory, journal_bytes: int) -> _Archive:
    server = new_server(storage={"min_free_bytes": 0, "journal_bytes": journal_bytes})
    server.expected = ["EIO", "ENOSPC", "rror", "disk", "No space"]
    server.start()
    return _Archive(server)


@pytest.mark.parametrize("journal_bytes", [0, 1 << 20], ids=["each-by-itself", "journal"])
async def test_index_is_synced_before_files_are_settled(archive: _Archive, journal_bytes: int) -> None:
    """The log, then the index that it goes into; only then a file leaves what the index can be rebuilt from.

    That is ``incoming``; or the journal, from which a record goes when its file is in its place and synced.
    """
    trace = await archive.disturbed_settling((), "")
    synced, written, settled, all_synced, retired = [], [], [], [], []
    for at, call in enumerate(trace.calls):
        name = call.text.partition("<")[2].partition(">")[0].rpartition("/")[2]
        if call.name in SYNCS and name.startswith("index.sqlite"):
            synced.append((at, name))
        elif call.name in WRITES and name == "index.sqlite":
            written.append(at)
        elif "/instances/" in call.text and (call.name.startswith("rename") or call.name == "copy_file_range"):
            settled.append(at)
        elif call.name == "syncfs":
            all_synced.append(at)
        elif call.name == "pwritev2" and name == "journal":
            retired.append(at)
    assert len(settled) == STORED, trace.raw
    before = [(at, name) for at, name in synced if at < settled[0]]
    assert before[0][1] == "index.sqlite-wal", trace.raw
    assert before[-1][1] == "index.sqlite", trace.raw
    assert before[0][0] < min(written) < max(at for at in written if at < settled[0]) < before[-1][0], trace.raw
    if journal_bytes:
        assert max(settled) < all_synced[0] < retired[0], trace.raw
    else:
        assert not all_synced
    await asyncio.to_thread(archive.server.stop)


@pytest.mark.timeout(1800 if SOAK else 300)
@pytest.mark.parametrize("ever_after", [False, True], ids=["once", "from-then-on"])
@pytest.mark.parametrize(
    ("calls", "error"),
    [(SYNCS, "EIO"), (WRITES, "EIO"), (WRITES, "ENOSPC"), (NAMES, "EIO")],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
async def test_each_call_of_settling_fails(
    archive: _Archive, calls: Sequence[str], error: str, ever_after: bool
) -> None:
    injected = 0
    for number in range(1, LIMIT, 1 if SOAK else 2 if calls == SYNCS else 16):
        inject = f"error={error}:when={number}{'+' if ever_after else ''}"
        trace = await archive.disturbed_settling(calls, inject)
        await archive.check()
        assert await archive.until_settled(5), f"not settled after call {number}\n{trace.raw}"
        assert (await archive.store()).status == 0
        _assert_no_sync_is_repeated(trace)
        injected += trace.injected
        if not trace.injected:
            break
    else:
        raise AssertionError(f"{LIMIT} of {calls} in one settling")
    assert injected
    await archive.check()
    await asyncio.to_thread(archive.server.stop)
    await archive.server.tool("check", "--deep", "--data-dir", archive.server.data_dir)


def _assert_no_sync_is_repeated(trace: Trace) -> None:
    """PostgreSQL's lesson of 2018: a file whose sync failed is written again before a later sync of it counts.

    The index's log is not: all of it goes into the index, and that is synced, before a file is settled again.
    """
    failed: set[str] = set()
    for call in trace.calls:
        name = call.text.partition("<")[2].partition(">")[0].rpartition("/")[2]
        if call.name in ("fdatasync", "fsync"):
            if call.failed:
                failed.add(name)
            elif name == "index.sqlite":
                assert name not in failed, f"{name} was synced again\n{trace.raw}"
                failed.discard("index.sqlite-wal")
            elif name != "index.sqlite-wal":
                assert name not in failed, f"{name} was synced again\n{trace.raw}"
        elif call.name in WRITES and not call.failed:
            failed.discard(name)
        elif call.name.startswith("rename") and not call.failed:
            assert "index.sqlite-wal" not in failed, f"settled on the word of a log that failed\n{trace.raw}"


@pytest.mark.timeout(1800 if SOAK else 300)
@pytest.mark.parametrize("calls", [SYNCS, WRITES, NAMES], ids=lambda calls: calls[0])
async def test_killed_at_each_call_of_settling(archive: _Archive, calls: Sequence[str]) -> None:
    for number in range(1, LIMIT, 1 if SOAK else 2 if calls == SYNCS else 16):
        trace = await archive.disturbed_settling(calls, f"signal=KILL:when={number}")
        died = archive.server.process.poll() is not None
        if died:
            archive.server.start()
        await archive.check()
        if not died:
            break
        assert await archive.until_settled(5), f"not settled after call {number}\n{trace.raw}"
    else:
        raise AssertionError(f"{LIMIT} of {calls} in one settling")
    await asyncio.to_thread(archive.server.stop)
    await archive.server.tool("check", "--deep", "--data-dir", archive.server.data_dir)
