"""What peers do not take, added up; and the transport's limits that follow from it."""

import asyncio
from dataclasses import dataclass
from typing import cast

from pacslite.net.sending import Sending
from tests.support.raw import command, p_data, pdv
from tests.support.site import Finder, MakeSite
from tests.support.wire import STUDY_ROOT_FIND, Context, Wire

CONTEXTS = [Context(5, STUDY_ROOT_FIND)]


@dataclass(eq=False)
class Sender:
    unsent: int


async def test_what_was_taken_counts_no_more() -> None:
    sending = Sending(asyncio.get_running_loop(), 100)
    one, other, gone = Sender(60), Sender(60), Sender(1000)
    for sender in (one, other, gone):
        sending.add(sender)
    sending.discard(gone)
    assert sending.pressed
    one.unsent = 0
    assert sending.pressed  # not looked at again at once
    await asyncio.sleep(0.03)
    assert not sending.pressed
    one.unsent = 60  # and not added again
    await asyncio.sleep(0.03)
    assert not sending.pressed


async def test_peers_that_do_not_read_hold_less_when_they_are_many(make_site: MakeSite) -> None:
    """The first may hold a megabyte each, the others an eighth of it; who reads is answered to the end."""
    finder = Finder(count=400, size=60_000)
    site = make_site(services=[finder], sending_bytes=3_000_000)
    await site.start()
    stopped = [await Wire.associate(site.port, CONTEXTS) for _ in range(12)]
    find = p_data(pdv(5, 3, command(0x0020, sop_class=STUDY_ROOT_FIND, has_data=True)), pdv(5, 2, b""))
    for wire in stopped:
        cast("asyncio.Transport", wire.writer.transport).pause_reading()
        wire.writer.write(find)
        await asyncio.sleep(0.05)
    unsent = [connection._outflow.unsent for connection in site.listener._connections]
    assert len(unsent) == 12
    assert 3_000_000 < sum(unsent) < 3_000_000 + 1_200_000 + 12 * 130_000
    assert sum(one > 200_000 for one in unsent) <= 4
    assert all(unsent)
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        await wire.start_query(STUDY_ROOT_FIND, b"")
        assert [answer.status async for answer in wire.answers()] == [0xFF00] * 400 + [0]
    for wire in stopped:
        wire.writer.transport.abort()
    for _ in range(200):
        if not site.listener.connections:
            break
        await asyncio.sleep(0.01)
