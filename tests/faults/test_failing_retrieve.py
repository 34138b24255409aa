"""Every file call of a C-GET and of a C-MOVE fails in turn, once and from then on (SQLite's own method).

An instance that cannot be read is a failed sub-operation, told with its UID; what is received is what was sent; the
association lives, but where a data set can be neither ended nor taken back; the next retrieve is whole, nothing leaks.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import pytest

from tests.faults.strace import tracing
from tests.support.exchange import decode_identifier, identifier, send_instances
from tests.support.instances import Instance, make_instance
from tests.support.processes import Pacslite, ServerFactory, free_port
from tests.support.storage_scp import StorageScp
from tests.support.wire import (
    CT_IMAGE,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    AbortedError,
    Answer,
    Context,
    Wire,
)

SOAK = int(os.environ.get("PACSLITE_TEST_KILL_ROUNDS", "30")) > 30
OPENS, READS = ("openat",), ("pread64", "preadv", "preadv2")
LIMIT = 120
INDEX_UNREADABLE = 0xC001


@dataclass
class Outcome:
    """What a retrieve ended with: no answer if its association did not live; what arrived, by UID."""

    answer: Answer | None
    received: dict[str, bytes]

    @property
    def failed_uids(self) -> set[str]:
        assert self.answer is not None
        if not self.answer.identifier:
            return set()
        uids = decode_identifier(self.answer.identifier).FailedSOPInstanceUIDList
        return {uids} if isinstance(uids, str) else set(uids)


async def _get(server: Pacslite, study_uid: str) -> Outcome:
    received: dict[str, bytes] = {}
    contexts = [Context(1, STUDY_ROOT_GET), Context(3, CT_IMAGE, scp_role=True), Context(5, VERIFICATION)]
    async with await Wire.associate(server.port, contexts) as wire:
        await wire.start_query(STUDY_ROOT_GET, identifier("STUDY", StudyInstanceUID=study_uid))
        try:
            while True:
                message = await asyncio.wait_for(wire.receive(), 20)
                if message.number(0x0100) == 0x0001:
                    assert message.data is not None
                    received[message.text(0x1000)] = message.data
                    await wire.answer_store(message, 0)
                elif (answer := Answer.of(message)).status != 0xFF00:
                    break
            assert await wire.echo() == 0
        except AbortedError:
            wire.close()
            return Outcome(None, received)
    return Outcome(answer, received)


async def _move(server: Pacslite, study_uid: str) -> Outcome:
    async with (
        StorageScp(int(str(server.remotes[0]["port"]))) as scp,
        await Wire.associate(server.port, [Context(1, STUDY_ROOT_MOVE), Context(5, VERIFICATION)]) as wire,
    ):
        key = identifier("STUDY", StudyInstanceUID=study_uid)
        answers = await asyncio.wait_for(wire.move(STUDY_ROOT_MOVE, key, "SINK"), 20)
        assert await wire.echo() == 0
        return Outcome(answers[-1], {arrival.sop_instance_uid: arrival.data for arrival in scp.received})


def _judge(outcome: Outcome, instances: Sequence[Instance]) -> None:
    """The answer's numbers are what happened, whatever that was."""
    sent = {instance.sop_instance_uid: instance.data for instance in instances}
    assert outcome.received.items() <= sent.items()
    answer = outcome.answer
    if answer is None:
        return
    if answer.status == INDEX_UNREADABLE:
        assert not outcome.received
        assert answer.comment
        return
    missing = sent.keys() - outcome.received.keys()
    assert answer.completed == len(outcome.received)
    assert (answer.failed, outcome.failed_uids) == (len(missing), missing)
    assert answer.status == (0x0000 if not missing else 0xB000 if outcome.received else 0xA702)
    assert bool(answer.comment) == bool(missing)


@pytest.fixture
def server(new_server: ServerFactory) -> Pacslite:
    server = new_server(retrieve={"reuse_seconds": 0})
    server.remotes = [{"ae_title": "SINK", "host": "127.0.0.1", "port": free_port()}]
    server.expected = ["EIO", "EMFILE", "rror"]
    return server


@pytest.mark.parametrize("ever_after", [False, True], ids=["once", "from-then-on"])
@pytest.mark.parametrize(("calls", "error"), [(OPENS, "EIO"), (OPENS, "EMFILE"), (READS, "EIO")])
@pytest.mark.parametrize("retrieve", [_get, _move], ids=["get", "move"])
@pytest.mark.timeout(600 if SOAK else 300)
async def test_each_call_of_a_retrieve_fails(
    server: Pacslite,
    retrieve: Callable[[Pacslite, str], Awaitable[Outcome]],
    calls: Sequence[str],
    error: str,
    ever_after: bool,
) -> None:
    instances = [make_instance(n, seed=120, series=n % 2, size=60_000) for n in range(4)]
    async with server.running():
        await send_instances(server.port, instances)
        await asyncio.sleep(1.5)  # settled
        _judge(await retrieve(server, instances[0].study_uid), instances)  # what is imported and connected once, is
        descriptors = server.descriptors()
        partial = 0
        for number in range(1, LIMIT, 1 if SOAK or not ever_after else 2):
            with tracing(
                server.pid, calls=calls, inject=f"error={error}:when={number}{'+' if ever_after else ''}"
            ) as trace:
                outcome = await retrieve(server, instances[0].study_uid)
            assert outcome.answer is not None, f"the association ended: {trace.raw}"
            _judge(outcome, instances)
            partial += 0 < len(outcome.received) < len(instances)
            again = await retrieve(server, instances[0].study_uid)
            assert again.answer is not None
            assert again.answer.status == 0, f"after {outcome}: {again}"
            _judge(again, instances)
            if not trace.injected:
                break
        else:
            raise AssertionError(f"{LIMIT} calls of {calls} in one retrieve")
        assert partial, "no instance failed alone"
        await asyncio.sleep(0.2)
        leaked = server.descriptors() - descriptors
        assert leaked.total() <= 2, leaked
    await server.tool("check", "--deep", "--data-dir", server.data_dir)


@pytest.mark.parametrize("retrieve", [_get, _move], ids=["get", "move"])
async def test_read_error_in_the_middle_of_a_data_set(
    server: Pacslite, retrieve: Callable[[Pacslite, str], Awaitable[Outcome]]
) -> None:
    """What was begun cannot be ended: that association is aborted. A C-MOVE goes on on another one."""
    instances = [make_instance(n, seed=121, size=2_500_000) for n in range(3)]
    ended = partial = 0
    async with server.running():
        await send_instances(server.port, instances)
        await asyncio.sleep(1.5)
        for number in range(1, LIMIT):
            with tracing(server.pid, calls=READS, inject=f"error=EIO:when={number}") as trace:
                outcome = await retrieve(server, instances[0].study_uid)
            _judge(outcome, instances)
            ended += outcome.answer is None
            partial += 0 < len(outcome.received) < len(instances)
            if not trace.injected:
                break
        again = await retrieve(server, instances[0].study_uid)
        assert again.answer is not None
        assert again.answer.status == 0
    assert partial
    assert (ended > 0) == (retrieve is _get)


@pytest.mark.parametrize("damage", ["gone", "empty", "torn"])
@pytest.mark.parametrize("retrieve", [_get, _move], ids=["get", "move"])
async def test_damaged_file_fails_alone(
    server: Pacslite, retrieve: Callable[[Pacslite, str], Awaitable[Outcome]], damage: str
) -> None:
    instances = [make_instance(n, seed=122, size=2_500_000) for n in range(3)]
    async with server.running():
        await send_instances(server.port, instances)
    (path,) = server.data_dir.rglob(f"{instances[1].sop_instance_uid}.dcm")
    if damage == "gone":
        path.unlink()
    else:
        os.truncate(path, 0 if damage == "empty" else 2_000_000)
    async with server.running():
        outcome = await retrieve(server, instances[0].study_uid)
        _judge(outcome, instances)
        assert outcome.answer is not None
        assert outcome.failed_uids == {instances[1].sop_instance_uid}


@pytest.mark.timeout(600 if SOAK else 300)
async def test_index_that_cannot_be_read(server: Pacslite) -> None:
    """Just after a start, when none of it is in a cache: each read fails in turn, with all that follow."""
    instances = [make_instance(n, seed=123, series=n % 2, size=20_000) for n in range(4)]
    async with server.running():
        await send_instances(server.port, instances)
    statuses = set()
    for number in range(1, LIMIT, 1 if SOAK else 3):
        async with server.running():
            await asyncio.sleep(0.1)
            with tracing(server.pid, calls=READS, inject=f"error=EIO:when={number}+") as trace:
                outcome = await _get(server, instances[0].study_uid)
            _judge(outcome, instances)
            assert outcome.answer is not None
            statuses.add(outcome.answer.status)
            again = await _get(server, instances[0].study_uid)
            assert again.answer is not None
            assert again.answer.status == 0, f"after {outcome}: {again}"
        if not trace.injected:
            break
    else:
        raise AssertionError(f"{LIMIT} reads in one retrieve")
    assert INDEX_UNREADABLE in statuses
