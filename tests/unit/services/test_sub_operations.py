"""Counting C-STORE sub-operations (PS3.4 §C.4.2.1.4, Tables C.4-2 and C.4-3)."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacslite.archive.reference import InstanceRef
from pacslite.dataset.decode import Attribute, decode_identifier
from pacslite.dimse.command import CommandSet, Tag
from pacslite.dimse.messages import CommandField, Message, request_command
from pacslite.dimse.service import Invoker, Peer, ReadFlow, Request
from pacslite.dimse.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    STUDY_ROOT_MOVE,
)
from pacslite.services.sub_operations import PendingPolicy, SubOperationFailed, SubOperations
from pacslite.upper_layer.negotiation import AcceptedContext

COUNTERS = (
    Tag.NUMBER_OF_REMAINING_SUBOPERATIONS,
    Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS,
    Tag.NUMBER_OF_FAILED_SUBOPERATIONS,
    Tag.NUMBER_OF_WARNING_SUBOPERATIONS,
)


@dataclass
class Responses:
    """A Reply that keeps what it was given."""

    sent: list[tuple[int, bytes | None, str, CommandSet]] = field(default_factory=list)

    async def __call__(
        self,
        status: int,
        data_set: bytes | None = None,
        *,
        comment: str = "",
        offending: Sequence[int] = (),
        extra: CommandSet | None = None,
    ) -> None:
        self.sent.append((status, data_set, comment, dict(extra or {})))

    async def batch(self, status: int, data_sets: Sequence[bytes]) -> None:
        raise AssertionError("sub-operations have no batches")


def make_request(syntax: str = IMPLICIT_VR_LITTLE_ENDIAN) -> Request:
    message = Message(
        request_command(CommandField.C_MOVE_RQ, 1, sop_class_uid=STUDY_ROOT_MOVE),
        AcceptedContext(1, STUDY_ROOT_MOVE, syntax),
    )
    peer = Peer("1", "WS", "PACSLITE", "127.0.0.1", frozenset({"move"}))
    nothing = cast("Any", None)  # counting needs neither a connection nor its flow
    return Request(message, peer, cast("ReadFlow", nothing), cast("Invoker", nothing))


def instance(number: int) -> InstanceRef:
    return InstanceRef("1.2.3", f"1.2.3.{number}", IMPLICIT_VR_LITTLE_ENDIAN, "1.2.4", "1.2.5", 0, 10, b"")


async def perform(
    outcomes: Sequence[int | None],
    policy: PendingPolicy,
    *,
    outstanding: int = 1,
    syntax: str = IMPLICIT_VR_LITTLE_ENDIAN,
) -> list[tuple[int, bytes | None, str, CommandSet]]:
    """Run sub-operations with these statuses; None is one that could not be sent."""
    responses = Responses()
    operations = SubOperations(make_request(syntax), responses, len(outcomes), policy)

    async def send(one: InstanceRef) -> int:
        await asyncio.sleep(0)
        status = outcomes[int(one.sop_instance_uid.rsplit(".", 1)[1])]
        if status is None:
            raise SubOperationFailed("no presentation context accepted for it")
        return status

    async with operations.reporting():
        await operations.perform(deque(instance(number) for number in range(len(outcomes))), send, outstanding)
    await operations.finish()
    return responses.sent


@given(
    outcomes=st.lists(st.sampled_from([0x0000, 0xB000, 0xB006, 0x0107, 0xA700, 0xC000, 0x0124, None]), max_size=30),
    outstanding=st.integers(1, 8),
)
async def test_counters_add_up_and_the_final_status_follows(outcomes: list[int | None], outstanding: int) -> None:
    *pending, (status, identifier, comment, counters) = await perform(
        outcomes, PendingPolicy(seconds=60, count=3), outstanding=outstanding
    )
    completed = outcomes.count(0)
    warning = sum(one in {0xB000, 0xB006, 0x0107} for one in outcomes)
    failed = len(outcomes) - completed - warning
    assert [counters.get(tag) for tag in COUNTERS] == [None, completed, failed, warning]
    expected = 0xB000
    if not failed and not warning:
        expected = 0x0000
    elif failed == len(outcomes):
        expected = 0xA702
    assert status == expected
    assert (identifier is not None) == bool(failed)
    assert bool(comment) == bool(failed)
    for one_status, data_set, _, counts in pending:
        assert (one_status, data_set) == (0xFF00, None)
        assert sum(cast("int", counts[tag]) for tag in COUNTERS) == len(outcomes)


async def test_the_first_pending_response_precedes_the_first_sub_operation() -> None:
    (status, _, _, counts), *_ = await perform([0] * 3, PendingPolicy())
    assert (status, counts[Tag.NUMBER_OF_REMAINING_SUBOPERATIONS]) == (0xFF00, 3)


async def test_more_than_a_counter_can_say_are_performed_all_the_same() -> None:
    """US ends at 65,535 (PS3.7 Table E.1-1); what is sent does not."""
    responses = await perform([0] * 70_000, PendingPolicy(seconds=60, count=20_000))
    status, _, _, counters = responses[-1]
    assert (status, counters[Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS]) == (0, 65_535)
    assert responses[0][3][Tag.NUMBER_OF_REMAINING_SUBOPERATIONS] == 65_535


@pytest.mark.parametrize("syntax", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN])
async def test_a_long_list_of_failed_uids_is_whole(syntax: str) -> None:
    """PS3.5 §6.2.2: in explicit VR a UI of over 64 KiB goes as UN."""
    responses = await perform([None] * 9_000, PendingPolicy(seconds=60, count=100_000), syntax=syntax)
    identifier = responses[-1][1]
    assert identifier is not None
    assert identifier[:4] == b"\x08\0\x58\0"
    if syntax == EXPLICIT_VR_LITTLE_ENDIAN:
        assert identifier[4:6] == b"UN"
    assert identifier[-(sum(len(f"1.2.3.{number}") + 1 for number in range(9_000)) & ~1) :].count(b"\\") == 8_999


@pytest.mark.parametrize(
    "syntax",
    [
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    ],
)
async def test_what_failed_is_named_in_the_syntax_of_the_request(syntax: str) -> None:
    identifier = (await perform([0, None, None], PendingPolicy(), syntax=syntax))[-1][1]
    assert identifier is not None
    decoded = decode_identifier(identifier, syntax, detect=False)
    assert decoded == {0x00080058: Attribute("UI", b"1.2.3.1\\1.2.3.2\0")}


async def test_what_remains_is_told_after_a_cancel() -> None:
    request, responses = make_request(), Responses()
    operations = SubOperations(request, responses, 5, PendingPolicy())

    async def send(one: InstanceRef) -> int:
        if one.sop_instance_uid.endswith(".1"):
            request.cancel()
        return 0

    await operations.perform(deque(instance(number) for number in range(5)), send)
    await operations.finish()
    status, identifier, _, counters = responses.sent[-1]
    assert (status, identifier) == (0xFE00, None)
    assert [counters[tag] for tag in COUNTERS] == [3, 2, 0, 0]


@pytest.mark.parametrize(("go_on", "sent"), [(False, 1), (True, 4)])
async def test_a_requestor_that_vanishes_ends_the_move_unless_configured(go_on: bool, sent: int) -> None:
    request = make_request()
    operations = SubOperations(request, Responses(), 4, PendingPolicy(without_requestor=go_on))

    async def send(_: InstanceRef) -> int:
        request.abandon()
        return 0

    await operations.perform(deque(instance(number) for number in range(4)), send)
    assert operations.completed == sent


async def test_what_was_cancelled_stays_so_when_the_requestor_vanishes() -> None:
    """It is the end of the association that may be without consequence, not C-CANCEL (PS3.7 §9.3.2.3)."""
    request, responses = make_request(), Responses()
    operations = SubOperations(request, responses, 4, PendingPolicy(without_requestor=True))

    async def send(_: InstanceRef) -> int:
        request.cancel()
        request.abandon()
        return 0

    await operations.perform(deque(instance(number) for number in range(4)), send)
    await operations.finish()
    assert (operations.completed, responses.sent[-1][0]) == (1, 0xFE00)


async def test_a_fault_of_ours_ends_all_of_them() -> None:
    """The request is answered then: nothing may go on behind its final response."""
    operations = SubOperations(make_request(), Responses(), 9, PendingPolicy())
    waiting = deque(instance(number) for number in range(9))

    async def send(one: InstanceRef) -> int:
        await asyncio.sleep(0)
        if one.sop_instance_uid.endswith(".2"):
            raise RuntimeError("a fault")
        await asyncio.sleep(0)
        return 0

    with pytest.raises(ExceptionGroup):
        await operations.perform(waiting, send, 3)
    left = len(waiting)
    await asyncio.sleep(0.01)
    assert len(waiting) == left > 0
