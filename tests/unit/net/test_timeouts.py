"""Every time limit is its own (PS3.8 §9.1.4 note, §9.1.5): each test sets one short, the others out of the way."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from pacslite.dimse.messages import CommandField, Message, request_command
from pacslite.dimse.service import Request
from pacslite.net.connection import Connection
from pacslite.net.ended import ConnectFailed, DimseTimeout
from pacslite.net.requestor import associate
from pacslite.net.timeouts import Timeouts
from pacslite.upper_layer.items import PresentationContext
from pacslite.upper_layer.pdu import AAssociateRQ
from tests.support.raw import (
    RELEASE_RQ,
    ScriptedAcceptor,
    accept_pdu,
    command,
    p_data,
    pdv,
    read_pdu,
    read_to_end,
)
from tests.support.site import Finder, Getter, MakeSite, Sink, Site
from tests.support.wire import (
    CT_IMAGE,
    EXPLICIT_LITTLE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    VERIFICATION,
    AbortedError,
    Context,
    Wire,
    associate_request,
)

SHORT = 0.15
CONTEXTS = [Context(1, VERIFICATION), Context(3, CT_IMAGE), Context(5, STUDY_ROOT_FIND)]


def only(**limits: float) -> Timeouts:
    """These limits short; the others as long as a test never takes."""
    others = dict.fromkeys(
        ("artim_seconds", "idle_seconds", "write_seconds", "dimse_seconds", "connect_seconds", "tls_handshake_seconds"),
        30.0,
    )
    return Timeouts(**(others | limits))


@contextmanager
def takes(least: float, most: float = 5.0) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert least - 0.02 <= time.monotonic() - started < most


def stop_reading(wire: Wire) -> None:
    transport = cast("asyncio.Transport", wire.writer.transport)
    transport.pause_reading()


async def started(make_site: MakeSite, timeouts: Timeouts, **options: object) -> Site:
    site = make_site(timeouts=timeouts, **options)
    await site.start()
    return site


# ARTIM


async def test_artim_ends_a_connection_that_never_associates(make_site: MakeSite) -> None:
    """AE-5 starts it; AA-2 closes without a word."""
    site = await started(make_site, only(artim_seconds=SHORT))
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    with takes(SHORT):
        assert await read_to_end(reader) == b""
    writer.close()


async def test_artim_is_not_put_off_by_slow_bytes(make_site: MakeSite) -> None:
    site = await started(make_site, only(artim_seconds=2 * SHORT))
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    request = associate_request(CONTEXTS, "PACSLITE", "SLOW", 16384)

    async def drip() -> None:
        for byte in request:
            writer.write(bytes((byte,)))
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    with takes(2 * SHORT):
        assert await read_to_end(reader) == b""
    dripping.cancel()
    writer.close()


async def test_artim_waits_for_the_close_after_a_rejection_release_or_abort(make_site: MakeSite) -> None:
    """Sta13."""
    site = await started(make_site, only(artim_seconds=SHORT))
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(associate_request(CONTEXTS, "OTHER", "WIRE", 16384))
    with takes(SHORT):
        assert (await read_to_end(reader))[:1] == b"\x03"
    writer.close()
    for last_words, answer in ((RELEASE_RQ, b"\x06"), (b"\x09\0\0\0\0\x04\0\0\0\0", b"\x07")):
        wire = await Wire.associate(site.port, CONTEXTS)
        wire.writer.write(last_words)
        with takes(SHORT):
            assert (await read_to_end(wire.reader))[:1] == answer
        wire.close()


async def test_artim_does_not_supervise_an_association(make_site: MakeSite) -> None:
    site = await started(make_site, only(artim_seconds=SHORT))
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        await asyncio.sleep(2 * SHORT)
        assert await wire.echo() == 0


async def test_artim_is_running_anew_for_each_state(make_site: MakeSite) -> None:
    """A release long after the beginning has its whole time."""
    site = await started(make_site, only(artim_seconds=2 * SHORT))
    wire = await Wire.associate(site.port, CONTEXTS)
    await asyncio.sleep(SHORT)
    wire.writer.write(RELEASE_RQ)
    with takes(2 * SHORT):
        await read_to_end(wire.reader)
    wire.close()


# idle


async def test_an_idle_association_is_aborted(make_site: MakeSite) -> None:
    site = await started(make_site, only(idle_seconds=SHORT))
    wire = await Wire.associate(site.port, CONTEXTS)
    with takes(SHORT), pytest.raises(AbortedError) as caught:
        await wire.receive()
    assert caught.value.source == 0
    wire.close()


async def test_what_is_asked_now_and_then_is_not_idle(make_site: MakeSite) -> None:
    site = await started(make_site, only(idle_seconds=2 * SHORT))
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        for _ in range(4):
            await asyncio.sleep(SHORT)
            assert await wire.echo() == 0


async def test_a_long_operation_is_not_idle_and_idleness_begins_after_it(make_site: MakeSite) -> None:
    site = await started(make_site, only(idle_seconds=2 * SHORT))
    site.storage.go = asyncio.Event()
    wire = await Wire.associate(site.port, CONTEXTS)
    storing = asyncio.create_task(wire.store(CT_IMAGE, "1.2.3", b"abcd"))
    await asyncio.sleep(3 * SHORT)
    site.storage.go.set()
    assert (await storing).status == 0
    with takes(2 * SHORT), pytest.raises(AbortedError):
        await wire.receive()
    wire.close()


async def test_no_limit_is_none(make_site: MakeSite) -> None:
    site = await started(make_site, only(idle_seconds=0, dimse_seconds=0, write_seconds=0))
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        await asyncio.sleep(SHORT)
        assert await wire.echo() == 0


# the rest of a message


async def test_a_message_that_is_not_finished_ends_the_association(make_site: MakeSite) -> None:
    site = await started(make_site, only(dimse_seconds=SHORT))
    wire = await Wire.associate(site.port, CONTEXTS)
    store = command(0x0001, sop_class=CT_IMAGE, sop_instance="1.2.3", has_data=True)
    wire.writer.write(p_data(pdv(3, 3, store), pdv(3, 0, b"abcd")))
    with takes(SHORT), pytest.raises(AbortedError):
        await wire.receive()
    wire.close()
    assert site.storage.sinks[0].aborted


async def test_a_slow_message_is_waited_for_as_long_as_it_comes(make_site: MakeSite) -> None:
    site = await started(make_site, only(dimse_seconds=2 * SHORT, idle_seconds=2 * SHORT))
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        store = command(0x0001, sop_class=CT_IMAGE, sop_instance="1.2.3", has_data=True)
        wire.writer.write(p_data(pdv(3, 3, store)))
        for _ in range(4):
            await asyncio.sleep(SHORT)
            wire.writer.write(p_data(pdv(3, 0, b"abcd")))
        wire.writer.write(p_data(pdv(3, 2, b"")))
        assert (await wire.receive()).number(0x0900) == 0


async def test_time_in_which_we_do_not_read_is_not_the_peers(make_site: MakeSite) -> None:
    """64 requests wait: we stop reading, and nobody is idle or late."""
    site = await started(make_site, only(dimse_seconds=SHORT, idle_seconds=SHORT))
    site.storage.go = asyncio.Event()
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        for number in range(100):
            store = command(0x0001, message_id=number, sop_class=CT_IMAGE, sop_instance="1.2.3", has_data=True)
            wire.writer.write(p_data(pdv(3, 3, store), pdv(3, 2, b"abcd" * 4000)))
        await asyncio.sleep(3 * SHORT)
        site.storage.go.set()
        for _ in range(100):
            assert (await wire.receive()).number(0x0900) == 0


# writing


async def test_responses_behind_too_many_requests_are_not_waited_for(make_site: MakeSite) -> None:
    """We read no more requests, the request that is performed waits for a response, and that stands behind them."""
    site = await started(make_site, only(dimse_seconds=SHORT), services=[Getter()])
    contexts = [*CONTEXTS, Context(7, STUDY_ROOT_GET), Context(9, CT_IMAGE, scp_role=True)]
    async with await Wire.associate(site.port, contexts) as wire:
        wire.writer.write(_get_request())
        sub_operation = await wire.receive()
        assert sub_operation.number(0x0100) == 0x0001
        for number in range(100):
            find = command(0x0020, message_id=number + 2, sop_class=STUDY_ROOT_FIND, has_data=True)
            wire.writer.write(p_data(pdv(5, 3, find), pdv(5, 2, bytes(16_000))))
        await wire.answer_store(sub_operation, 0)
        with takes(SHORT), pytest.raises(AbortedError):
            await wire.receive()


def _get_request() -> bytes:
    get = command(0x0010, message_id=1, sop_class=STUDY_ROOT_GET, has_data=True)
    return p_data(pdv(7, 3, get), pdv(7, 2, bytes(16)))


async def test_a_peer_that_takes_nothing_is_dropped(make_site: MakeSite) -> None:
    finder = Finder(count=1_000_000, size=50_000)
    site = await started(make_site, only(write_seconds=2 * SHORT), services=[finder])
    wire = await Wire.associate(site.port, CONTEXTS)
    await wire.start_query(STUDY_ROOT_FIND, b"")
    stop_reading(wire)
    for _ in range(200):
        if finder.ended:
            break
        await asyncio.sleep(0.02)
    assert finder.ended == "stopped"
    await asyncio.sleep(0.05)
    assert site.listener.connections == 0
    wire.close()


async def test_a_peer_that_takes_little_but_takes_is_not(make_site: MakeSite) -> None:
    finder = Finder(count=160, size=50_000)
    site = await started(make_site, only(write_seconds=2 * SHORT), services=[finder])
    loop = asyncio.get_running_loop()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        slow.connect(("127.0.0.1", site.port))
        slow.setblocking(False)
        find = p_data(pdv(5, 3, command(0x0020, sop_class=STUDY_ROOT_FIND, has_data=True)), pdv(5, 2, b""))
        await loop.sock_sendall(slow, associate_request(CONTEXTS, "PACSLITE", "SLOW", 0))
        await loop.sock_recv(slow, 4096)
        await loop.sock_sendall(slow, find)
        received = 0
        with takes(3 * SHORT):
            while received < 160 * 50_000:
                received += len(await loop.sock_recv(slow, 65_536))
                await asyncio.sleep(SHORT / 30)
        assert finder.ended == "done"


async def test_an_association_that_ends_with_unread_bytes_is_closed_all_the_same(make_site: MakeSite) -> None:
    """The peer aborts without reading what it was sent."""
    finder = Finder(count=1_000_000, size=50_000)
    site = await started(make_site, only(write_seconds=2 * SHORT), services=[finder])
    wire = await Wire.associate(site.port, CONTEXTS)
    await wire.start_query(STUDY_ROOT_FIND, b"")
    stop_reading(wire)
    await asyncio.sleep(SHORT)
    wire.writer.write(b"\x07\0\0\0\0\x04\0\0\0\0")
    for _ in range(200):
        if not site.listener.connections:
            break
        await asyncio.sleep(0.02)
    assert site.listener.connections == 0
    assert finder.ended == "stopped"
    wire.close()


# a process that was stopped


async def test_a_stop_of_the_process_is_not_the_silence_of_its_peers(make_site: MakeSite) -> None:
    """All timers are due when it goes on (SIGCONT); what had arrived meanwhile is read before anybody is judged.

    Stopped, as most likely, while it works on what it has read: then the loop asks its timers first.
    """
    site = await started(make_site, only(idle_seconds=4 * SHORT))

    class Stopped(Sink):
        def write(self, view: memoryview) -> None:
            time.sleep(2)

    site.storage.make_sink = Stopped
    loop = asyncio.get_running_loop()
    with socket.socket() as one:
        one.setblocking(False)
        await loop.sock_connect(one, ("127.0.0.1", site.port))
        await loop.sock_sendall(one, associate_request(CONTEXTS, "PACSLITE", "ONE", 16384))
        assert (await loop.sock_recv(one, 4096))[:1] == b"\x02"
        other = await Wire.associate(site.port, CONTEXTS)
        echo = p_data(pdv(1, 3, command(0x0030, sop_class=VERIFICATION)))
        meanwhile = threading.Timer(0.5, one.send, [echo])
        meanwhile.start()
        await other.store(CT_IMAGE, "1.2.3", b"abcd")
        assert (await loop.sock_recv(one, 4096))[:1] == b"\x04"
        meanwhile.join()
    await other.release()
    other.close()


# as requestor


REQUEST = AAssociateRQ("PEER", "PACSLITE", (PresentationContext(1, VERIFICATION, (EXPLICIT_LITTLE,)),))


def _begin(connection: Connection, message: Message) -> Request:
    raise AssertionError("the peer asks nothing")


async def ask(port: int, timeouts: Timeouts) -> Connection:
    return await associate("127.0.0.1", port, REQUEST, timeouts=timeouts, begin=_begin)


async def echo(connection: Connection) -> int:
    (context,) = connection.negotiated.contexts.values()
    request = request_command(CommandField.C_ECHO_RQ, connection.next_message_id(), sop_class_uid=VERIFICATION)
    return (await connection.invoke(context, request)).status


async def _accept_and_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    _, request = await read_pdu(reader)
    writer.write(accept_pdu(request))
    await read_to_end(reader)


async def test_no_answer_to_our_request_for_an_association() -> None:
    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_to_end(reader)

    async with ScriptedAcceptor(say_nothing) as peer:
        with (
            takes(SHORT),
            pytest.raises(ConnectFailed, match=r"^127\.0\.0\.1:\d+: aborted: no answer to our A-ASSOCIATE-RQ"),
        ):
            await ask(peer.port, only(artim_seconds=SHORT))


async def test_no_response_aborts_the_association() -> None:
    async with ScriptedAcceptor(_accept_and_read) as peer:
        connection = await ask(peer.port, only(dimse_seconds=SHORT))
        with takes(SHORT), pytest.raises(DimseTimeout, match=r"no response within 0.15 s"):
            await echo(connection)
        with pytest.raises(DimseTimeout):  # what came later could not be told apart
            await echo(connection)
        connection.drop()
        await connection.wait_closed()


async def test_an_outstanding_request_is_not_idle() -> None:
    async with ScriptedAcceptor(_accept_and_read) as peer:
        connection = await ask(peer.port, only(dimse_seconds=3 * SHORT, idle_seconds=SHORT))
        with takes(3 * SHORT), pytest.raises(DimseTimeout):
            await echo(connection)
        connection.drop()
        await connection.wait_closed()


async def test_pending_responses_keep_an_operation_alive() -> None:
    """A C-GET of ours is busy receiving while its own response is long in coming."""

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, request = await read_pdu(reader)
        writer.write(accept_pdu(request))
        await read_pdu(reader)
        for status in (0xFF00, 0xFF00, 0xFF00, 0):
            await asyncio.sleep(SHORT)
            writer.write(p_data(pdv(1, 3, command(0x8030, message_id=None, responded_to=1, status=status))))
        await read_to_end(reader)

    async with ScriptedAcceptor(trickle) as peer:
        connection = await ask(peer.port, only(dimse_seconds=3.5 * SHORT))  # all of them take longer
        (context,) = connection.negotiated.contexts.values()
        request = request_command(CommandField.C_ECHO_RQ, 1, sop_class_uid=VERIFICATION)
        exchange = await connection.begin_exchange(context, request)
        statuses = [(await connection.next_response(exchange))[0].status for _ in range(4)]
        assert statuses == [0xFF00, 0xFF00, 0xFF00, 0]
        connection.drop()
        await connection.wait_closed()


async def test_no_answer_to_our_release() -> None:
    async with ScriptedAcceptor(_accept_and_read) as peer:
        connection = await ask(peer.port, only(artim_seconds=SHORT))
        with takes(SHORT):
            await connection.release()
        assert "no answer to our A-RELEASE-RQ" in str(connection.over)


async def test_connecting_has_a_limit_of_its_own() -> None:
    """The backlog of a listener that never accepts is full: the system drops what asks for a connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
            waiting.append(one)
        await asyncio.sleep(0.02)
        with takes(SHORT), pytest.raises(ConnectFailed, match=r"no connection within 0.15 s"):
            await ask(listener.getsockname()[1], only(connect_seconds=SHORT))
        for one in waiting:
            one.close()
