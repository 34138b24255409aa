"""Peers that vanish without a word: the cable is pulled, no FIN and no RST ever comes.

Whatever the association was about when it happened, a timer of ours or the system's ends it, and nothing of it stays.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from pacslite.net.sockets import tune
from pacslite.net.timeouts import Timeouts
from tests.support.exchange import identifier
from tests.support.instances import Instance, make_instance
from tests.support.networks import Cable, Network, launched
from tests.support.processes import Pacslite, ServerFactory
from tests.support.raw import accept_pdu, command, p_data, pdv, read_pdu
from tests.support.wire import (
    CT_IMAGE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    Context,
    Wire,
)

SECONDS = 1.0
CONTEXTS = [
    Context(1, VERIFICATION),
    Context(3, CT_IMAGE),
    Context(5, STUDY_ROOT_FIND),
    Context(7, STUDY_ROOT_MOVE),
    Context(9, STUDY_ROOT_GET),
]
MARK = b"VANISHED" * 64


async def associate(
    network: Network, address: tuple[str, int], contexts: Sequence[Context] = CONTEXTS, calling: str = "WIRE"
) -> Wire:
    return await Wire.associate(address[1], contexts, calling=calling, sock=await network.connect(address))


def connections(server: Pacslite) -> int:
    return server.descriptors()["socket:[N]"]


async def becomes(what: Callable[[], bool], seconds: float) -> None:
    for _ in range(int(seconds / 0.05)):
        if what():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not so after {seconds} s")


async def test_peers_that_vanish(new_server: ServerFactory, cable: Cable) -> None:
    here, there = cable.here, cable.there
    destination_port = 11_200
    server = new_server(
        timeouts={
            "artim_seconds": SECONDS, "dimse_seconds": SECONDS, "write_seconds": SECONDS, "connect_seconds": SECONDS,
            "keepalive_seconds": 1, "idle_seconds": 0,
        },
        access={"unknown_peers": "anybody"},
    )  # fmt: skip
    server.settings = {**server.settings, "[listener]": {"host": here.address, "port": server.port}}
    server.remotes = [{"ae_title": "FAR", "host": there.address, "port": destination_port}]
    server.prefix = here.prefix
    near, far = ("127.0.0.1", server.port), (here.address, server.port)
    series = [make_instance(n, seed=75, size=400_000) for n in range(20)]
    await launched(server)
    try:
        listener = await asyncio.to_thread(there.call, lambda: socket.create_server((there.address, destination_port)))
        asked, over = asyncio.Event(), asyncio.Event()
        destination = await asyncio.start_server(_never_answers(asked, over), sock=listener)
        healthy = await associate(here, near)
        for one in series:
            assert (await healthy.store(CT_IMAGE, one.sop_instance_uid, one.data)).status == 0
        before = connections(server)

        vanishing = await _all_kinds(there, far, series)
        mover = await associate(here, near, calling="MOVER")
        key = identifier("STUDY", StudyInstanceUID=series[0].study_uid)
        await mover.start_query(STUDY_ROOT_MOVE, key, destination="FAR")
        await asked.wait()
        assert connections(server) == before + len(vanishing) + 2
        await asyncio.to_thread(cable.pull)
        pulled = time.monotonic()

        final = [answer async for answer in mover.answers()][-1]  # it is told what has become of its instances
        assert (final.status, final.completed, final.failed) == (0xA702, 0, len(series))
        final = (await mover.move(STUDY_ROOT_MOVE, key, "FAR"))[-1]  # nobody is there any more
        assert (final.status, final.failed) == (0xA702, len(series))
        await mover.release()
        mover.close()
        await becomes(lambda: connections(server) <= before, 10)
        assert time.monotonic() - pulled < 10
        assert await healthy.echo() == 0  # all the while, idle and still there: it answers what it is asked
        text = server.text()
        for why in (
            "nothing heard for 1 s (ARTIM)",
            "nothing heard for 1 s in the middle of a message",
            "connection lost: Connection timed out",
        ):
            assert why in text, text[-5000:]
        await healthy.release()
        healthy.close()
        assert not [path for path in server.data_dir.rglob("*") if path.is_file() and MARK in path.read_bytes()]
        over.set()
        destination.close()
        for abandoned in vanishing:
            if isinstance(abandoned, Wire):
                abandoned.writer.transport.abort()
            else:
                abandoned.close()
        await asyncio.to_thread(server.stop)
    finally:
        server.kill()


@pytest.mark.parametrize("write_seconds", [0.5, 3600])
async def test_keep_alive_is_not_the_write_timers(cable: Cable, write_seconds: float) -> None:
    """Four probes, a second apart, after a second of silence: one that is lost ends nobody, and all of them do."""
    here, there = cable.here, cable.there
    listener = await asyncio.to_thread(there.call, lambda: socket.create_server((there.address, 11_200)))
    ours = await here.connect((there.address, 11_200))
    theirs, _ = await asyncio.to_thread(listener.accept)
    tune(ours, Timeouts(keepalive_seconds=1, write_seconds=write_seconds))
    await asyncio.to_thread(cable.pull)
    pulled = time.monotonic()
    with pytest.raises(TimeoutError, match="timed out"):
        async with asyncio.timeout(20):
            await asyncio.get_running_loop().sock_recv(ours, 1)
    assert 3.5 < time.monotonic() - pulled < 10
    for one in (ours, theirs, listener):
        one.close()


async def _all_kinds(there: Network, far: tuple[str, int], series: Sequence[Instance]) -> list[socket.socket | Wire]:
    """Associations of a far peer, each in another state."""
    silent = await there.connect(far)  # Sta2
    idle = await associate(there, far)
    half: list[Wire] = []
    for number, size in enumerate((1_000, 3_000_000)):  # in the middle of an instance
        wire = await associate(there, far)
        uid = f"1.2.826.0.1.3680043.8.498.75.{number}"
        wire.writer.write(p_data(pdv(3, 3, command(0x0001, sop_class=CT_IMAGE, sop_instance=uid, has_data=True))))
        await wire.send_part(3, make_instance(1, seed=76).data[:300] + MARK * (size // len(MARK)))
        half.append(wire)
    reader = await associate(there, far, [Context(1, STUDY_ROOT_GET), Context(3, CT_IMAGE, scp_role=True)])
    key = identifier("STUDY", StudyInstanceUID=series[0].study_uid)
    await reader.start_query(STUDY_ROOT_GET, key)
    assert (await reader.receive()).number(0x0100) == 0x0001  # a sub-operation, which it never answers
    return [silent, idle, *half, reader]


def _never_answers(
    asked: asyncio.Event, over: asyncio.Event
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """A destination that takes an association and the first words of an instance."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            _, request = await read_pdu(reader)
            writer.write(accept_pdu(request))
            await read_pdu(reader)
            asked.set()
            await over.wait()
        writer.transport.abort()

    return serve
