"""C-MOVE against destinations that misbehave: what is counted, said and listed (PS3.4 §C.4.2.1.4, Table C.4-2)."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pytest

from tests.support.exchange import decode_identifier, identifier, send_instances
from tests.support.instances import Instance, make_instance
from tests.support.processes import Pacslite
from tests.support.storage_scp import StorageScp
from tests.support.wire import CT_IMAGE, STUDY_ROOT_MOVE, Answer, Context, Message, Wire

COUNT = 6
DESTINATION = "PYNETDICOM"  # a configured title and port; who listens there is the test's own


@pytest.fixture(scope="module")
def settings() -> Mapping[str, Mapping[str, object]]:
    return {"timeouts": {"dimse_seconds": 1, "connect_seconds": 1, "artim_seconds": 3}}


@pytest.fixture(scope="module")
def series(server: Pacslite) -> Sequence[Instance]:
    instances = [make_instance(number, seed=31, size=200_000) for number in range(COUNT)]
    asyncio.run(send_instances(server.port, instances))
    return instances


Act = Callable[[Wire, Message], Awaitable[None]]


class Scripted(StorageScp):
    """Does ``act`` instead of answering the ``at``-th C-STORE request, counted over all associations from 0."""

    def __init__(self, port: int, act: Act, at: Sequence[int]) -> None:
        super().__init__(port)
        self._act, self._at, self._count = act, at, 0

    async def _serve(self, wire: Wire) -> None:
        while (message := await wire.receive_or_release()) is not None:
            number, self._count = self._count, self._count + 1
            if number in self._at:
                await self._act(wire, message)
            else:
                await wire.answer_store(message, 0)


def status(value: int) -> Act:
    async def act(wire: Wire, message: Message) -> None:
        await wire.answer_store(message, value)

    return act


async def abort(wire: Wire, _: Message) -> None:
    await wire.abort()


async def stay_silent(_wire: Wire, _: Message) -> None:
    await asyncio.sleep(0)


async def move(server: Pacslite, series: Sequence[Instance], to: str = DESTINATION) -> list[Answer]:
    async with await Wire.associate(server.port, [Context(1, STUDY_ROOT_MOVE)]) as wire:
        return await wire.move(STUDY_ROOT_MOVE, identifier("STUDY", StudyInstanceUID=series[0].study_uid), to)


@dataclass(frozen=True)
class Outcome:
    """The final response: status, completed, failed, warning; which instances failed; a word of the comment."""

    status: int
    completed: int
    failed: int = 0
    warning: int = 0
    failed_numbers: tuple[int, ...] = ()
    comment: str = ""


ALL = tuple(range(COUNT))
OUTCOMES = [
    ("takes everything", status(0), (), Outcome(0x0000, COUNT)),
    ("coerces one", status(0xB000), (2,), Outcome(0xB000, COUNT - 1, warning=1)),
    ("warns of all", status(0xB007), ALL, Outcome(0xB000, 0, warning=COUNT)),
    ("is full at one", status(0xA700), (3,), Outcome(0xB000, COUNT - 1, 1, 0, (3,), "status A700")),
    ("refuses all", status(0xC001), ALL, Outcome(0xA702, 0, COUNT, 0, ALL, f"{COUNT} x status C001")),
    ("refuses all but one", status(0x0122), ALL[1:], Outcome(0xB000, 1, COUNT - 1, 0, ALL[1:], "status 0122")),
    ("aborts once", abort, (2,), Outcome(0x0000, COUNT)),
    ("aborts at the first", abort, (0, 1), Outcome(0xB000, COUNT - 1, 1, 0, (0,), "aborted by the peer")),
    ("aborts in the middle", abort, (2, 3), Outcome(0xB000, COUNT - 1, 1, 0, (2,), "aborted by the peer")),
    ("aborts at the last", abort, (COUNT - 1, COUNT), Outcome(0xB000, COUNT - 1, 1, 0, (COUNT - 1,), "aborted")),
    ("does not answer one", stay_silent, (1,), Outcome(0xB000, COUNT - 1, 1, 0, (1,), "no response within 1 s")),
]


@pytest.mark.parametrize(("act", "at", "expected"), [row[1:] for row in OUTCOMES], ids=[row[0] for row in OUTCOMES])
async def test_destination(
    server: Pacslite,
    series: Sequence[Instance],
    destinations: Mapping[str, int],
    act: Act,
    at: Sequence[int],
    expected: Outcome,
) -> None:
    async with Scripted(destinations[DESTINATION], act, at):
        *pending, final = await move(server, series)
    uids: tuple[str, ...] = ()
    if final.identifier:
        value = decode_identifier(final.identifier).FailedSOPInstanceUIDList
        uids = (value,) if isinstance(value, str) else tuple(value)
    assert expected.comment in final.comment
    numbers = tuple(int(uid.rsplit(".", 1)[1]) for uid in uids)
    assert final.completed is not None
    assert final.failed is not None
    assert final.warning is not None
    assert Outcome(final.status, final.completed, final.failed, final.warning, numbers, expected.comment) == expected
    assert final.remaining is None, "a final response other than Cancel has no Number of Remaining Sub-operations"
    assert pending, "the first pending response comes before the first sub-operation"
    for answer in pending:
        assert answer.status == 0xFF00
        assert answer.identifier is None
        counts = (answer.remaining, answer.completed, answer.failed, answer.warning)
        assert sum(count for count in counts if count is not None) == COUNT
        assert None not in counts


async def test_nobody_listens(server: Pacslite, series: Sequence[Instance]) -> None:
    final = (await move(server, series, "NOBODY"))[-1]
    assert (final.status, final.completed, final.failed) == (0xA702, 0, COUNT)
    assert "refused" in final.comment


async def test_the_association_is_rejected(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    async def reject(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(6)
        writer.write(b"\x03\0\0\0\0\x04\0\1\1\7")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(reject, "127.0.0.1", destinations[DESTINATION]):
        final = (await move(server, series))[-1]
    assert (final.status, final.failed) == (0xA702, COUNT)
    assert "called AE title not recognized" in server.text()


async def test_a_destination_that_never_speaks_costs_its_time_limit(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", destinations[DESTINATION]):
        final = (await move(server, series))[-1]
    assert (final.status, final.failed) == (0xA702, COUNT)


async def test_nothing_matches(server: Pacslite, series: Sequence[Instance]) -> None:
    """A single 0000 with zeros (PS3.4 §C.4.2.1.4)."""
    nobody = [replace(series[0], study_uid="1.2.3.4.5.6.7")]
    (*pending, final) = await move(server, nobody)
    assert (final.status, final.completed, final.failed, final.warning) == (0, 0, 0, 0)
    assert final.identifier is None
    assert len(pending) <= 1


@pytest.mark.parametrize("after", [0, 3, COUNT - 1])
async def test_cancel_at_the_first_middle_and_last(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int], after: int
) -> None:
    """Those before it are done, what was being sent may end, the rest remains: FE00 (Table C.4-2)."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait(wire: Wire, message: Message) -> None:
        reached.set()
        await go_on.wait()
        await wire.answer_store(message, 0)

    async with (
        Scripted(destinations[DESTINATION], wait, (after,)),
        await Wire.associate(server.port, [Context(1, STUDY_ROOT_MOVE)]) as wire,
    ):
        keys = identifier("STUDY", StudyInstanceUID=series[0].study_uid)
        message_id = await wire.start_query(STUDY_ROOT_MOVE, keys, destination=DESTINATION)
        await asyncio.wait_for(reached.wait(), 10)
        await wire.cancel(STUDY_ROOT_MOVE, message_id)
        await asyncio.sleep(0.05)
        go_on.set()
        final = [answer async for answer in wire.answers()][-1]
    assert final.completed == after + 1
    if after == COUNT - 1:  # nothing remained to be cancelled
        assert final.status == 0
    else:
        assert (final.status, final.remaining) == (0xFE00, COUNT - after - 1)


async def test_cancel_does_not_wait_for_a_destination_that_hangs(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    reached = asyncio.Event()

    async def hang(_wire: Wire, _: Message) -> None:
        reached.set()

    async with (
        Scripted(destinations[DESTINATION], hang, (0,)),
        await Wire.associate(server.port, [Context(1, STUDY_ROOT_MOVE)]) as wire,
    ):
        keys = identifier("STUDY", StudyInstanceUID=series[0].study_uid)
        message_id = await wire.start_query(STUDY_ROOT_MOVE, keys, destination=DESTINATION)
        await asyncio.wait_for(reached.wait(), 10)
        await wire.cancel(STUDY_ROOT_MOVE, message_id)
        final = [answer async for answer in wire.answers()][-1]
    assert (final.status, final.failed, final.remaining) == (0xFE00, 1, COUNT - 1)


async def test_cancel_does_not_wait_for_a_destination_that_is_still_asked_for_an_association(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    """It is busy, and we pause before we ask again."""
    async with (
        StorageScp(destinations[DESTINATION], at_once=1) as scp,
        await Wire.associate(scp.port, [Context(1, CT_IMAGE)]),
        await Wire.associate(server.port, [Context(1, STUDY_ROOT_MOVE)]) as wire,
    ):
        keys = identifier("STUDY", StudyInstanceUID=series[0].study_uid)
        message_id = await wire.start_query(STUDY_ROOT_MOVE, keys, destination=DESTINATION)
        while not scp.rejected:
            await asyncio.sleep(0.02)
        started = time.monotonic()
        await wire.cancel(STUDY_ROOT_MOVE, message_id)
        final = [answer async for answer in wire.answers()][-1]
        assert time.monotonic() - started < 2
        rejected = scp.rejected
        await asyncio.sleep(1)
        assert scp.rejected == rejected, "it is asked no more"
    assert (final.status, final.failed, final.remaining) == (0xFE00, 0, COUNT)


async def test_cancel_does_not_wait_for_a_destination_that_does_not_answer_our_request_for_an_association(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended.set()
        writer.close()

    async with (
        await asyncio.start_server(listen, "127.0.0.1", destinations[DESTINATION]),
        await Wire.associate(server.port, [Context(1, STUDY_ROOT_MOVE)]) as wire,
    ):
        keys = identifier("STUDY", StudyInstanceUID=series[0].study_uid)
        message_id = await wire.start_query(STUDY_ROOT_MOVE, keys, destination=DESTINATION)
        await asyncio.wait_for(asked.wait(), 10)
        started = time.monotonic()
        await wire.cancel(STUDY_ROOT_MOVE, message_id)
        final = [answer async for answer in wire.answers()][-1]
        assert time.monotonic() - started < 2  # our ARTIM, of three seconds here, does not matter
        await asyncio.wait_for(ended.wait(), 2)
    assert (final.status, final.failed, final.remaining) == (0xFE00, 0, COUNT)


async def test_the_move_originator_is_named(
    server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    async with StorageScp(destinations[DESTINATION]) as scp:
        await move(server, series)
    assert {(one.move_originator, one.move_message_id) for one in scp.received} == {("WIRE", 1)}
    assert [one.data for one in scp.received] == [instance.data for instance in series]


class Choosy(StorageScp):
    """Answers no presentation context of some SOP classes: not accepted (PS3.8 §9.3.3.2). Counts what it is offered."""

    def __init__(self, port: int, refused: Sequence[str] = ()) -> None:
        super().__init__(port)
        self._refused = refused
        self.offered: list[int] = []

    async def _associate(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        header = await reader.readexactly(6)
        body = await reader.readexactly(int.from_bytes(header[2:], "big"))
        kept, at = body[:68], 68
        count = 0
        while at < len(body):
            end = at + 4 + int.from_bytes(body[at + 2 : at + 4], "big")
            item = body[at:end]
            count += item[0] == 0x20
            if item[0] != 0x20 or not any(uid.encode() in item for uid in self._refused):
                kept += item
            at = end
        self.offered.append(count)
        again = asyncio.StreamReader(limit=4 << 20)
        again.feed_data(header[:2] + len(kept).to_bytes(4, "big") + kept)
        asyncio.create_task(_pour(reader, again)).add_done_callback(lambda task: task.exception())
        await super()._associate(again, writer)


async def _pour(source: asyncio.StreamReader, target: asyncio.StreamReader) -> None:
    while data := await source.read(65_536):
        target.feed_data(data)
    target.feed_eof()


def of_class(number: int, seed: int) -> Instance:
    """A slice that says it is of a private SOP class, as long as CT Image Storage's UID, so that it fits."""
    uid = f"1.2.826.0.1.368004.8.{number:04d}"
    assert len(uid) == len(CT_IMAGE)
    instance = make_instance(number, seed=seed, size=64)
    return replace(instance, data=instance.data.replace(CT_IMAGE.encode(), uid.encode()), sop_class_uid=uid)


async def store_all(server: Pacslite, instances: Sequence[Instance]) -> None:
    for start in range(0, len(instances), 100):
        part = instances[start : start + 100]
        contexts = [Context(2 * at + 1, one.sop_class_uid) for at, one in enumerate(part)]
        async with await Wire.associate(server.port, contexts) as wire:
            for context, one in zip(contexts, part, strict=True):
                answer = await wire.store(
                    one.sop_class_uid, one.sop_instance_uid, one.data, context_id=context.context_id
                )
                assert answer.status == 0, answer


async def test_a_refused_context_costs_its_own_instances(server: Pacslite, destinations: Mapping[str, int]) -> None:
    instances = [of_class(1000 + number, seed=32) for number in range(4)]
    await store_all(server, instances)
    async with Choosy(destinations[DESTINATION], refused=[instances[2].sop_class_uid]) as scp:
        final = (await move(server, instances))[-1]
    assert (final.status, final.completed, final.failed, final.warning) == (0xB000, 3, 1, 0)
    assert final.identifier is not None
    assert decode_identifier(final.identifier).FailedSOPInstanceUIDList == instances[2].sop_instance_uid
    assert "no presentation context" in final.comment
    assert len(scp.received) == 3


async def test_more_pairs_than_an_association_can_carry_take_several(
    server: Pacslite, destinations: Mapping[str, int]
) -> None:
    """PS3.8 §9.3.2.2: context IDs are odd and end at 255, so that an association has 128 at most."""
    instances = [of_class(2000 + number, seed=33) for number in range(150)]
    await store_all(server, instances)
    async with Choosy(destinations[DESTINATION]) as scp:
        final = (await move(server, instances))[-1]
    assert (final.status, final.completed) == (0, 150)
    assert {one.sop_class_uid for one in scp.received} == {one.sop_class_uid for one in instances}
    assert len(scp.offered) >= 3
    assert max(scp.offered) <= 128
