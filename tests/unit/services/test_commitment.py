"""N-ACTION of Storage Commitment: kept before it is answered, and every wrong one answered with its status."""

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from pacslite.dimse.service import Invoker
from pacslite.errors import DimseError
from pacslite.scu.commitment import CommitmentReport, CommitmentRequest, Reference, decode_report
from pacslite.scu.reports import send_report
from pacslite.services.commitment import CommitmentService
from pacslite.upper_layer.negotiation import AcceptedContext
from tests.support.site import Site
from tests.support.wire import CT_IMAGE, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Context, Message, Wire, encode_elements

CLASS, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
SEQUENCE = 0x00081199


def uid(text: str) -> bytes:
    return text.encode("ascii") + b"\0" * (len(text) % 2)


def item(*elements: tuple[int, str, bytes]) -> bytes:
    encoded = encode_elements(elements)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(encoded)) + encoded


def reference(instance: str, sop_class: str = CT_IMAGE) -> bytes:
    return item((0x00081150, "UI", uid(sop_class)), (0x00081155, "UI", uid(instance)))


def action(*instances: str, transaction: str = "1.2.3") -> bytes:
    return encode_elements(
        [(0x00081195, "UI", uid(transaction)), (SEQUENCE, "SQ", b"".join(reference(one) for one in instances))]
    )


class Kept:
    """Takes requests, as the outbox does; ``refusal`` is what it says instead."""

    def __init__(self) -> None:
        self.accepted: list[tuple[CommitmentRequest, str]] = []
        self.called: list[str] = []
        self.begun: asyncio.Queue[tuple[int, Invoker, AcceptedContext]] = asyncio.Queue()
        self.refusal: DimseError | None = None

    async def accept(self, request: CommitmentRequest, ae_title: str, called_ae_title: str) -> int:
        if self.refusal is not None:
            raise self.refusal
        self.accepted.append((request, ae_title))
        self.called.append(called_ae_title)
        return len(self.accepted)

    def begin(self, number: int, invoker: Invoker, context: AcceptedContext) -> None:
        self.begun.put_nowait((number, invoker, context))


@asynccontextmanager
async def serving(kept: Kept, maximum: int = 10) -> AsyncIterator[int]:
    site = Site(services=(CommitmentService(kept, maximum_references=maximum),))
    await site.start()
    try:
        yield site.port
    finally:
        await site.stop()
    site.assert_clean()


async def ask(wire: Wire, data: bytes | None, **changes: bytes) -> Message:
    """An N-ACTION-RQ (PS3.7 §10.3.5.1), some of its elements changed."""
    command: dict[int, bytes] = {
        0x0003: uid(CLASS),
        0x0100: b"\x30\x01",
        0x0110: struct.pack("<H", wire.next_message_id()),
        0x1001: uid(INSTANCE),
        0x1008: b"\x01\0",
    }
    command |= {int(name[1:], 16): value for name, value in changes.items()}
    await wire.send(1, command, data)
    return await wire.receive()


async def test_request_is_kept_then_answered_then_begun() -> None:
    kept = Kept()
    async with serving(kept) as port, await Wire.associate(port, [Context(1, CLASS)], calling="CT01") as wire:
        answer = await ask(wire, action("1.2.4", "1.2.5", "1.2.4"))
        assert answer.number(0x0900) == 0
        assert answer.number(0x0100) == 0x8130
        assert answer.number(0x1008) == 1
        assert (answer.text(0x0002), answer.text(0x1000)) == (CLASS, INSTANCE)  # Affected, in a response
        assert answer.data is None
        wanted = CommitmentRequest("1.2.3", (Reference(CT_IMAGE, "1.2.4"), Reference(CT_IMAGE, "1.2.5")))
        assert kept.accepted == [(wanted, "CT01")]
        assert kept.called == ["PACSLITE"]
        assert (await kept.begun.get())[0] == 1


async def test_implicit_vr_too() -> None:
    kept = Kept()
    contexts = [Context(1, CLASS, (IMPLICIT_LITTLE,))]
    inner = struct.pack("<HHI", 8, 0x1150, 26) + uid(CT_IMAGE) + struct.pack("<HHI", 8, 0x1155, 6) + uid("1.2.4")
    sequence = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    data = struct.pack("<HHI", 8, 0x1195, 6) + uid("1.2.3") + struct.pack("<HHI", 8, 0x1199, len(sequence)) + sequence
    async with serving(kept) as port, await Wire.associate(port, contexts) as wire:
        assert (await ask(wire, data)).number(0x0900) == 0
        assert kept.accepted[0][0].references == (Reference(CT_IMAGE, "1.2.4"),)


@pytest.mark.parametrize(
    ("changes", "data", "status"),
    [
        ({"_1008": b"\x02\0"}, action("1.2.4"), 0x0123),  # no such action
        ({"_1001": uid("1.2.3.4")}, action("1.2.4"), 0x0112),  # not the well-known instance
        ({"_1001": uid(CLASS)}, action("1.2.4"), 0x0112),
        ({"_0003": uid(CT_IMAGE)}, action("1.2.4"), 0x0122),  # not the class of the presentation context
        ({}, None, 0x0115),  # no action information
        ({"_1008": b"\x02\0"}, None, 0x0123),
        ({}, b"", 0x0115),
        ({}, b"\x01\x02", 0x0115),
        ({}, action("1.2.4")[:-3] + b"\0", 0x0115),  # ends inside an element
        ({}, action(), 0x0115),  # nothing referenced
        ({}, encode_elements([(0x00081195, "UI", uid("1.2.3"))]), 0x0115),
        ({}, encode_elements([(SEQUENCE, "SQ", reference("1.2.4"))]), 0x0115),  # no Transaction UID
        ({}, action("1.2.4", transaction=""), 0x0115),
        ({}, action("1.2.4", transaction="1" * 66), 0x0115),
        ({}, action("1.2.4", ""), 0x0115),  # a reference without its UID
        ({}, action("1.2.4", "1.2\\1.3"), 0x0115),
        ({}, action(*(f"1.{n}" for n in range(11))), 0x0213),  # more than we take
        ({}, action(*(f"1.{n}" for n in range(900))), 0x0213),
        ({"_0100": b"\x10\x01"}, None, 0x0211),  # N-GET is no operation of this class
    ],
)
async def test_wrong_requests(changes: Mapping[str, bytes], data: bytes | None, status: int) -> None:
    kept = Kept()
    async with serving(kept) as port, await Wire.associate(port, [Context(1, CLASS)]) as wire:
        answer = await ask(wire, data, **changes)
        assert answer.number(0x0900) == status, answer.text(0x0902)
        assert answer.text(0x0902)  # says why
        assert kept.accepted == []
        assert (await ask(wire, action("1.2.4"))).number(0x0900) == 0  # the association goes on


async def test_what_cannot_be_kept_is_not_begun() -> None:
    kept = Kept()
    kept.refusal = DimseError("disk is full")
    async with serving(kept) as port, await Wire.associate(port, [Context(1, CLASS)]) as wire:
        answer = await ask(wire, action("1.2.4"))
        assert (answer.number(0x0900), answer.text(0x0902)) == (0x0110, "disk is full")
        assert kept.begun.empty()


async def test_report_on_the_association_of_the_request() -> None:
    kept = Kept()
    async with serving(kept) as port, await Wire.associate(port, [Context(1, CLASS)]) as wire:
        await ask(wire, action("1.2.4"))
        _, invoker, context = await kept.begun.get()
        report = CommitmentReport("1.2.3", (Reference(CT_IMAGE, "1.2.4"),))
        task = asyncio.create_task(send_report(invoker, context, report, "PACSLITE"))
        request = await wire.receive()
        assert request.number(0x0100) == 0x0100
        assert (request.text(0x0002), request.text(0x1000), request.number(0x1002)) == (CLASS, INSTANCE, 1)
        assert request.data is not None
        assert decode_report(request.data, EXPLICIT_LITTLE) == report
        response = {0x0002: uid(CLASS), 0x0100: b"\0\x81", 0x0120: request.command[0x0110], 0x0900: b"\x10\x01"}
        await wire.send(1, response)
        assert (await task).status == 0x0110


@pytest.mark.parametrize(("scu", "scp", "accepted"), [(1, 0, True), (0, 1, False), (1, 1, True)])
async def test_roles(scu: int, scp: int, accepted: bool) -> None:
    """Who asks is SCU: one that would be SCP only (to report) is at the wrong door."""
    body = struct.pack(">H", len(CLASS)) + CLASS.encode() + bytes((scu, scp))
    async with serving(Kept()) as port:
        items = struct.pack(">BxH", 0x54, len(body)) + body
        async with await Wire.associate(port, [Context(1, CLASS)], user_items=items) as wire:
            assert (1 in wire.accepted) is accepted
