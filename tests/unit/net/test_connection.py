"""The two ends of a connection over real sockets: how associations end, and what goes through them."""

import asyncio
import contextlib
import resource
import socket
import struct
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence

import pytest

from pacslite.dimse.command import Value
from pacslite.dimse.messages import CommandField, Message, request_command
from pacslite.dimse.reader import DataSetSink
from pacslite.dimse.service import Peer, Request
from pacslite.net.connection import Connection
from pacslite.net.dispatch import Dispatcher
from pacslite.net.ended import AssociationAborted, AssociationEnded, AssociationReleased, ConnectFailed
from pacslite.net.requestor import associate
from pacslite.net.timeouts import Timeouts
from pacslite.net.timers import Waiting
from pacslite.services.verification import VerificationService
from pacslite.upper_layer.association import Association
from pacslite.upper_layer.items import PresentationContext
from pacslite.upper_layer.negotiation import AcceptedContext
from pacslite.upper_layer.pdu import AAssociateRQ
from tests.support.raw import (
    ABORT,
    RELEASE_RP,
    RELEASE_RQ,
    ScriptedAcceptor,
    accept_pdu,
    command,
    p_data,
    pdv,
    read_pdu,
    read_to_end,
)
from tests.support.site import Finder, MakeSite, Sink, Site, Storage
from tests.support.wire import (
    CT_IMAGE,
    EXPLICIT_LITTLE,
    STUDY_ROOT_FIND,
    VERIFICATION,
    AbortedError,
    Context,
    Wire,
    associate_request,
)

BOTH_LOOPS = True
CONTEXTS = [Context(1, VERIFICATION), Context(3, CT_IMAGE), Context(5, STUDY_ROOT_FIND)]
PROPOSED = (
    PresentationContext(1, VERIFICATION, (EXPLICIT_LITTLE,)),
    PresentationContext(3, CT_IMAGE, (EXPLICIT_LITTLE,)),
    PresentationContext(5, STUDY_ROOT_FIND, (EXPLICIT_LITTLE,)),
)
SECOND = Timeouts(artim_seconds=1, write_seconds=1, dimse_seconds=1, idle_seconds=0)


class Caller:
    """A requestor that also performs C-ECHO, for peers that ask on our own association."""

    def __init__(self) -> None:
        self.dispatcher = Dispatcher((VerificationService(), Storage()))
        self._peer = Peer("1", "PEER", "PACSLITE", "127.0.0.1", frozenset({"echo", "store"}))

    def begin(self, connection: Connection, message: Message) -> Request:
        return self.dispatcher.begin(connection, message, self._peer)

    async def associate(self, port: int, timeouts: Timeouts = SECOND) -> Connection:
        request = AAssociateRQ("PACSLITE", "CALLER", PROPOSED)
        return await associate("127.0.0.1", port, request, timeouts=timeouts, begin=self.begin)


def context_of(connection: Connection, abstract_syntax: str) -> AcceptedContext:
    return next(one for one in connection.negotiated.contexts.values() if one.abstract_syntax == abstract_syntax)


def echo_command(connection: Connection) -> dict[int, Value]:
    return request_command(CommandField.C_ECHO_RQ, connection.next_message_id(), sop_class_uid=VERIFICATION)


def store_command(connection: Connection, uid: str = "1.2.3") -> dict[int, Value]:
    return request_command(
        CommandField.C_STORE_RQ, connection.next_message_id(), sop_class_uid=CT_IMAGE, sop_instance_uid=uid,
        has_data_set=True, priority=0,
    )  # fmt: skip


async def echo(connection: Connection) -> int:
    return (await connection.invoke(context_of(connection, VERIFICATION), echo_command(connection))).status


class Source:
    """A data set in pieces; may end early, fail, or wait."""

    def __init__(self, data: bytes, *, claimed: int | None = None, fail_at: int = -1, wait_at: int = -1) -> None:
        self.length = len(data) if claimed is None else claimed
        self._data, self._at, self._fail_at, self._wait_at = data, 0, fail_at, wait_at
        self.waiting = asyncio.Event()

    async def read(self, size: int, *, reuse: bool = False) -> memoryview:
        del reuse  # every piece is a view of its own
        if 0 <= self._fail_at <= self._at:
            raise OSError(5, "Input/output error")
        if 0 <= self._wait_at <= self._at:
            self.waiting.set()
            await asyncio.Event().wait()
        piece = memoryview(self._data)[self._at : self._at + size]
        self._at += len(piece)
        return piece


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """None that is not open now."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as probe:
        first_free = probe.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# to the end in order


async def test_both_sides_release(site: Site) -> None:
    connection = await Caller().associate(site.port)
    assert await echo(connection) == 0
    assert site.acceptor.associations == 1
    await connection.release()
    assert isinstance(connection.over, AssociationReleased)
    with pytest.raises(AssociationReleased):
        await echo(connection)
    await connection.release()  # once more: nothing happens
    connection.abort("too late")
    assert isinstance(connection.over, AssociationReleased)


async def test_a_peer_that_asks_for_release_first_is_answered() -> None:
    """The A-RELEASE-RQ has been read when ``release`` is called: Sta8."""
    answered = asyncio.Event()

    async def ask_for_release(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, request = await read_pdu(reader)
        writer.write(accept_pdu(request) + RELEASE_RQ)
        assert await read_pdu(reader) == (6, bytes(4))
        answered.set()

    async with ScriptedAcceptor(ask_for_release) as peer:
        connection = await Caller().associate(peer.port)
        while not connection._inbox.released:
            await asyncio.sleep(0.01)
        await connection.release()
        assert answered.is_set()
        assert str(connection.over) == "released by the peer"
        assert await connection.next_request() is None


async def test_a_release_that_is_asked_for_twice_is_asked_once() -> None:
    """By who closes a client and by who has used the association: both wait for its end."""
    asked: list[int] = []

    async def answer_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, request = await read_pdu(reader)
        writer.write(accept_pdu(request))
        asked.append((await read_pdu(reader))[0])
        await asyncio.sleep(0.05)
        writer.write(RELEASE_RP)
        assert await read_to_end(reader) == b""

    async with ScriptedAcceptor(answer_late) as peer:
        connection = await Caller().associate(peer.port)
        await asyncio.gather(connection.release(), connection.release())
    assert asked == [5]
    assert str(connection.over) == "released"


async def test_release_collision_the_requestor_answers_first() -> None:
    """AR-8, AR-9: both have asked; Sta9, Sta11."""
    order: list[int] = []

    async def collide(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, request = await read_pdu(reader)
        writer.write(accept_pdu(request))
        order.append((await read_pdu(reader))[0])
        writer.write(RELEASE_RQ)
        order.append((await read_pdu(reader))[0])
        writer.write(RELEASE_RP)

    async with ScriptedAcceptor(collide) as peer:
        connection = await Caller().associate(peer.port)
        await connection.release()
    assert order == [5, 6]
    assert isinstance(connection.over, AssociationReleased)


async def test_release_collision_the_acceptor_answers_last(make_site: MakeSite) -> None:
    """AR-8, AR-10, AR-4: Sta10, Sta12, Sta13."""
    site = make_site(timeouts=SECOND)
    await site.start()
    wire = await Wire.associate(site.port, CONTEXTS)
    (connection,) = site.listener._connections
    releasing = asyncio.create_task(connection.release())
    assert await wire.read_pdu() == (5, bytes(4))
    wire.writer.write(RELEASE_RQ)
    await asyncio.sleep(0.05)
    wire.writer.write(RELEASE_RP)
    assert await wire.read_pdu() == (6, bytes(4))
    wire.close()
    await releasing


async def test_what_arrives_after_our_release_request_is_still_taken(make_site: MakeSite) -> None:
    """AR-6: P-DATA in Sta7. No answer can be sent to it."""
    site = make_site(timeouts=SECOND)
    await site.start()
    wire = await Wire.associate(site.port, CONTEXTS)
    (connection,) = site.listener._connections
    releasing = asyncio.create_task(connection.release())
    assert await wire.read_pdu() == (5, bytes(4))
    store = command(0x0001, sop_class=CT_IMAGE, sop_instance="1.2.3", has_data=True)
    wire.writer.write(p_data(pdv(3, 3, store), pdv(3, 2, b"abcd")))
    await asyncio.sleep(0.05)
    assert site.storage.stored == ["1.2.3"]
    wire.writer.write(RELEASE_RP)
    assert await read_to_end(wire.reader) == b""
    wire.close()
    await releasing


# to the end otherwise


async def test_ends_are_told_in_words(site: Site) -> None:
    wire = await Wire.associate(site.port, CONTEXTS)
    (connection,) = site.listener._connections
    wire.writer.write(ABORT)
    assert await read_to_end(wire.reader) == b""
    assert isinstance(connection.over, AssociationAborted)
    assert str(connection.over) == "aborted by the peer (source 0, reason 0)"
    wire.close()

    wire = await Wire.associate(site.port, CONTEXTS)
    (connection,) = site.listener._connections
    wire.close()
    await connection.wait_closed()
    assert str(connection.over) == "connection closed by the peer"

    wire = await Wire.associate(site.port, CONTEXTS)
    (connection,) = site.listener._connections
    handle: socket.socket = wire.writer.get_extra_info("socket")
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.writer.transport.abort()
    await connection.wait_closed()
    assert str(connection.over) == "connection lost: Connection reset by peer"


async def test_a_half_closed_peer_is_gone(site: Site) -> None:
    """Its store was not complete: nothing of it stays, and we close our half too."""
    wire = await Wire.associate(site.port, CONTEXTS)
    store = command(0x0001, sop_class=CT_IMAGE, sop_instance="1.2.3", has_data=True)
    wire.writer.write(p_data(pdv(3, 3, store), pdv(3, 0, b"abcd")))
    wire.writer.write_eof()
    assert await read_to_end(wire.reader) == b""
    wire.close()
    assert site.storage.sinks[0].aborted
    assert site.storage.stored == []


async def test_an_answer_in_which_nothing_can_be_sent() -> None:
    """A maximum length of 1 to 7 leaves no room for a fragment (PS3.8 §D.1)."""

    async def accept_little(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, request = await read_pdu(reader)
        writer.write(accept_pdu(request, maximum_length=7))
        assert await read_pdu(reader) == (7, bytes((0, 0, 2, 6)))

    async with ScriptedAcceptor(accept_little) as peer:
        with pytest.raises(ConnectFailed, match="accepts PDUs of 7 bytes, in which nothing can be sent"):
            await Caller().associate(peer.port)


async def test_an_answer_that_is_no_answer() -> None:
    answers: list[tuple[bytes, str]] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "PDU-type"),
        (RELEASE_RP, "not expected"),
        (ABORT, "aborted by the peer"),
        (b"", "connection closed by the peer"),
    ]
    for answer, problem in answers:

        async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes = answer) -> None:
            await read_pdu(reader)
            writer.write(answer)
            await writer.drain()
            if answer:
                await read_to_end(reader)

        async with ScriptedAcceptor(respond) as peer:
            with pytest.raises(ConnectFailed, match=problem):
                await Caller().associate(peer.port)


async def test_a_requestor_that_is_cancelled_leaves_nothing() -> None:
    closed = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_pdu(reader)
        await read_to_end(reader)
        closed.set()

    async with ScriptedAcceptor(wait) as peer:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await Caller().associate(peer.port)
        async with asyncio.timeout(5):
            await closed.wait()


async def test_nobody_listens_and_no_such_host() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with pytest.raises(ConnectFailed, match=rf"127.0.0.1:{port}: Connection refused"):
        await Caller().associate(port)
    for host, problem in (("no-such-host.invalid", ""), ("no..host", "no host name"), ("h" * 64, "no host name")):
        with pytest.raises(ConnectFailed, match=rf"{host}:104: {problem}"):
            await associate(host, 104, AAssociateRQ("A", "B", PROPOSED), timeouts=SECOND, begin=Caller().begin)


async def test_no_descriptor_left_to_connect_with() -> None:
    with no_descriptors(), pytest.raises(ConnectFailed, match=r"127\.0\.0\.1:104: Too many open files"):
        await Caller().associate(104)


async def test_an_address_of_a_family_that_this_machine_has_not(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """IPv6 on a host without it, say: the next address is tried."""

    async def resolve(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        no_family = 99
        return [(family, socket.SOCK_STREAM, 0, "", ("127.0.0.1", site.port)) for family in (no_family, socket.AF_INET)]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    connection = await Caller().associate(site.port)
    assert await echo(connection) == 0
    await connection.release()


# messages of ours


@pytest.mark.parametrize("maximum_length", [0, 8, 16, 4097, 131_072])
async def test_data_sets_in_pieces_arrive_whole_and_in_even_fragments(make_site: MakeSite, maximum_length: int) -> None:
    site = make_site(maximum_length=maximum_length)
    await site.start()
    connection = await Caller().associate(site.port)
    size = 30_001 if 0 < maximum_length < 100 else 3_000_001
    data = bytes(range(256)) * (size // 256) + b"e"
    response = await connection.invoke(context_of(connection, CT_IMAGE), store_command(connection), Source(data))
    assert response.status == 0
    assert site.storage.sinks[0].data == data
    await connection.release()


async def test_no_write_is_many_pdus_however_small_the_peers_limit(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 bytes have room for two of data. Data sets from files, in memory, and several at once."""
    written: list[int] = []
    send_p_data = Association.send_p_data

    def count(association: Association, frames: Sequence[bytes | memoryview]) -> None:
        written.append(sum(map(len, frames)))
        send_p_data(association, frames)

    monkeypatch.setattr(Association, "send_p_data", count)
    site = make_site(services=[Finder(count=40, size=2_000, at_once=True)], maximum_length=8)
    await site.start()
    connection = await Caller().associate(site.port)
    data = bytes(range(256)) * 120
    for source in (Source(data), data):
        command = store_command(connection)
        assert (await connection.invoke(context_of(connection, CT_IMAGE), command, source)).status == 0
    assert [sink.data for sink in site.storage.sinks] == [data, data]
    await connection.release()
    async with await Wire.associate(site.port, CONTEXTS, maximum_length=8) as wire:
        await wire.start_query(STUDY_ROOT_FIND, b"")
        assert [answer.status async for answer in wire.answers()] == [0xFF00] * 40 + [0]
    assert max(written) < 16_000  # 512 PDUs, and the command set


async def test_between_pieces_that_the_socket_takes_others_have_their_turn(site: Site) -> None:
    turns = 0
    at_reads: list[int] = []

    class Counting(Source):
        async def read(self, size: int, *, reuse: bool = False) -> memoryview:
            at_reads.append(turns)
            return await super().read(size, reuse=reuse)

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    connection = await Caller().associate(site.port)
    others = asyncio.create_task(take_turns())
    source = Counting(bytes(8_000_000))
    assert (await connection.invoke(context_of(connection, CT_IMAGE), store_command(connection), source)).status == 0
    others.cancel()
    assert len(at_reads) > 4
    assert sorted(set(at_reads)) == at_reads
    await connection.release()


async def test_messages_do_not_interleave(site: Site) -> None:
    """PS3.7 §6.3: many at once, large and small, each arrives whole."""
    connection = await Caller().associate(site.port)
    store, verification = context_of(connection, CT_IMAGE), context_of(connection, VERIFICATION)
    data = {f"1.2.{n}": bytes((n,)) * (700_000 if n % 3 else 10) for n in range(12)}

    async def send(uid: str) -> None:
        body: Source | bytes = Source(data[uid]) if len(data[uid]) > 10 else data[uid]
        assert (await connection.invoke(store, store_command(connection, uid), body)).status == 0
        assert (await connection.invoke(verification, echo_command(connection))).status == 0

    async with asyncio.TaskGroup() as group:
        for uid in data:
            group.create_task(send(uid))
    assert sorted(site.storage.stored) == sorted(data)
    assert sorted(bytes(sink.data) for sink in site.storage.sinks) == sorted(data.values())
    await connection.release()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"claimed": 5_000_000}, "the stored data set ended early"),
        ({"fail_at": 1_000_000}, "a message was given up in its middle"),
    ],
)
async def test_half_a_message_ends_the_association(site: Site, source: Mapping[str, int], why: str) -> None:
    """What came next would be taken for the rest of its data set."""
    connection = await Caller().associate(site.port)
    with pytest.raises((AssociationEnded, OSError)):
        await connection.invoke(
            context_of(connection, CT_IMAGE), store_command(connection), Source(bytes(2_000_000), **source)
        )
    assert why in str(connection.over)
    await connection.wait_closed()
    await asyncio.sleep(0.02)
    assert site.storage.stored == []
    assert all(sink.aborted for sink in site.storage.sinks)


async def test_a_message_given_up_before_it_began_leaves_the_association(site: Site) -> None:
    connection = await Caller().associate(site.port)
    context = context_of(connection, CT_IMAGE)
    with pytest.raises(OSError, match="Input/output error"):
        await connection.invoke(context, store_command(connection), Source(bytes(10), fail_at=0))
    assert await echo(connection) == 0
    source = Source(bytes(10), wait_at=0)
    sending = asyncio.create_task(connection.invoke(context, store_command(connection), source))
    await source.waiting.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert await echo(connection) == 0
    await connection.release()


async def test_a_message_cancelled_in_its_middle_ends_the_association(site: Site) -> None:
    connection = await Caller().associate(site.port)
    source = Source(bytes(2_000_000), wait_at=1_000_000)
    sending = asyncio.create_task(
        connection.invoke(context_of(connection, CT_IMAGE), store_command(connection), source)
    )
    await source.waiting.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    with pytest.raises(AssociationAborted, match="given up in its middle"):
        await echo(connection)
    await connection.wait_closed()


async def test_message_ids_are_unique_among_those_outstanding(site: Site) -> None:
    """PS3.7 §9.1.1.1.1, the turn of the counter included."""
    site.storage.go = asyncio.Event()
    connection = await Caller().associate(site.port)
    first = store_command(connection)
    waiting = asyncio.create_task(connection.invoke(context_of(connection, CT_IMAGE), first, b"ab"))
    await asyncio.sleep(0.02)
    used = {connection.next_message_id() for _ in range(65_534)}
    assert len(used) == 65_534
    assert 1 not in used
    assert connection.next_message_id() == 2
    site.storage.go.set()
    assert (await waiting).status == 0
    await connection.release()


# messages of the peer's


async def test_a_response_nobody_waits_for_ends_the_association(site: Site) -> None:
    wire = await Wire.associate(site.port, CONTEXTS)
    (connection,) = site.listener._connections
    answer = command(0x8020, message_id=None, responded_to=9, status=0xFF00, sop_class=STUDY_ROOT_FIND, has_data=True)
    wire.writer.write(p_data(pdv(5, 3, answer), pdv(5, 2, bytes(10_000))))
    with pytest.raises(AbortedError):
        await wire.receive()
    assert "a C-FIND response to message 9, which is not outstanding" in str(connection.over)
    wire.close()


async def test_a_response_of_another_operation_is_no_answer() -> None:
    """A C-ECHO-RSP with the Message ID of a C-STORE-RQ says nothing of the instance."""

    async def confuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, request = await read_pdu(reader)
        writer.write(accept_pdu(request))
        await read_pdu(reader)
        writer.write(p_data(pdv(1, 3, command(0x8030, message_id=None, responded_to=1, status=0))))
        await read_to_end(reader)

    async with ScriptedAcceptor(confuse) as peer:
        connection = await Caller().associate(peer.port)
        with pytest.raises(AssociationAborted, match="a C-ECHO response to message 1, which asked for something else"):
            await connection.invoke(context_of(connection, CT_IMAGE), store_command(connection), b"abcd")
        await connection.wait_closed()


@pytest.mark.parametrize("times", [2, 1_100])
async def test_a_pending_response_where_there_is_one_is_the_last(times: int) -> None:
    """Its status is for who asked; what comes behind it answers nothing."""
    more, over = asyncio.Event(), asyncio.Event()

    async def go_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, request = await read_pdu(reader)
        writer.write(accept_pdu(request))
        await read_pdu(reader)
        pending = p_data(pdv(1, 3, command(0x8030, message_id=None, responded_to=1, status=0xFF00)))
        writer.write(pending)
        await more.wait()
        writer.write(pending * (times - 1))
        await read_to_end(reader)
        over.set()

    async with ScriptedAcceptor(go_on) as peer:
        connection = await Caller().associate(peer.port)
        assert await echo(connection) == 0xFF00
        assert connection.waits_for is Waiting.ANYTHING
        more.set()
        async with asyncio.timeout(5):
            await over.wait()
        assert "a C-ECHO response to message 1, which is not outstanding" in str(connection.over)


async def test_a_data_set_with_a_response_that_has_none_is_not_kept() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, request = await read_pdu(reader)
        writer.write(accept_pdu(request))
        await read_pdu(reader)
        status = command(0x8030, message_id=None, responded_to=1, status=0, has_data=True)
        writer.write(p_data(pdv(1, 3, status)))
        for _ in range(160):
            writer.write(p_data(pdv(1, 0, bytes(100_000))))
            await writer.drain()
        writer.write(p_data(pdv(1, 2, bytes(2_000_000))))
        await read_to_end(reader)

    async with ScriptedAcceptor(answer) as peer:
        connection = await Caller().associate(peer.port)
        tracemalloc.start()
        try:
            assert await echo(connection) == 0
            assert tracemalloc.get_traced_memory()[1] < 12_000_000  # both ends: what the peer has ready counts too
        finally:
            tracemalloc.stop()
        connection.drop()
        await connection.wait_closed()


async def test_a_response_that_is_too_long_ends_the_association() -> None:
    pdus: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, request = await read_pdu(reader)
        writer.write(accept_pdu(request))
        await read_pdu(reader)
        pending = command(0x8020, message_id=None, responded_to=1, status=0xFF00, has_data=True)
        writer.write(p_data(pdv(5, 3, pending)) + p_data(pdv(5, 2, bytes(16_777_217))))
        while not pdus or pdus[-1] == 4:
            pdus.append((await read_pdu(reader))[0])

    async with ScriptedAcceptor(answer) as peer:
        connection = await Caller().associate(peer.port)
        find = request_command(CommandField.C_FIND_RQ, 1, sop_class_uid=STUDY_ROOT_FIND, has_data_set=True)
        exchange = await connection.begin_exchange(context_of(connection, STUDY_ROOT_FIND), find, b"")
        with pytest.raises(AssociationAborted, match="C-FIND response: identifier longer than 16777216 bytes"):
            await connection.next_response(exchange)
        await connection.wait_closed()
    assert pdus[-1] == 7


async def test_nothing_that_follows_an_error_in_the_same_bytes_is_begun(site: Site) -> None:
    """A response nobody waits for, and right behind it the beginning of a store."""
    wire = await Wire.associate(site.port, CONTEXTS)
    answer = command(0x8030, message_id=None, responded_to=9, status=0)
    store = command(0x0001, sop_class=CT_IMAGE, sop_instance="1.2.3", has_data=True)
    wire.writer.write(p_data(pdv(1, 3, answer)) + p_data(pdv(3, 3, store), pdv(3, 0, b"abcd")))
    with pytest.raises(AbortedError):
        await wire.receive()
    assert site.storage.sinks == []
    wire.close()


async def test_a_peer_may_ask_on_our_association() -> None:
    """A C-ECHO from the acceptor, and its release: ``next_request`` gives the one and then None."""
    answers: list[tuple[int, bytes]] = []

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, request = await read_pdu(reader)
        writer.write(accept_pdu(request) + p_data(pdv(1, 3, command(0x0030, sop_class=VERIFICATION))))
        answers.append(await read_pdu(reader))
        writer.write(RELEASE_RQ)
        answers.append(await read_pdu(reader))

    async with ScriptedAcceptor(ask) as peer:
        caller = Caller()
        connection = await caller.associate(peer.port)
        request = await connection.next_request()
        assert request is not None
        assert request.message.label == "C-ECHO"
        await caller.dispatcher.perform(connection, request)
        assert await connection.next_request() is None
        connection.respond_release()
        await connection.wait_closed()
    assert [kind for kind, _ in answers] == [4, 6]


@pytest.mark.parametrize(("count", "size", "most"), [(3_000, 16_000, 1_100), (200, 1_000_000, 50)])
async def test_many_answers_that_nobody_takes_stop_the_peer(count: int, size: int, most: int) -> None:
    """1,000 pending responses wait, or 16 MiB: no more are read until they are taken."""
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        _, request = await read_pdu(reader)
        writer.write(accept_pdu(request))
        await read_pdu(reader)
        pending = command(0x8020, message_id=None, responded_to=1, status=0xFF00, has_data=True)
        one = p_data(pdv(5, 3, pending), pdv(5, 2, bytes(size)))
        for sent in range(count):  # noqa: B007
            writer.write(one)
            await writer.drain()
        writer.write(p_data(pdv(5, 3, command(0x8020, message_id=None, responded_to=1, status=0))))
        await read_to_end(reader)

    async with ScriptedAcceptor(flood) as peer:
        connection = await Caller().associate(peer.port)
        find = request_command(CommandField.C_FIND_RQ, 1, sop_class_uid=STUDY_ROOT_FIND, has_data_set=True)
        exchange = await connection.begin_exchange(context_of(connection, STUDY_ROOT_FIND), find, b"")
        async with asyncio.timeout(10):
            while not exchange.is_full:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert exchange.backlog < most
        assert sent < count - 1
        taken = 0
        while (response := await connection.next_response(exchange))[0].status == 0xFF00:
            assert response[1] is not None
            taken += 1
        assert taken == count
        connection.drop()
        await connection.wait_closed()


async def test_64_requests_that_wait_stop_the_peer(site: Site) -> None:
    site.storage.go = asyncio.Event()
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        for number in range(300):
            store = command(0x0001, message_id=number, sop_class=CT_IMAGE, sop_instance="1.2.3", has_data=True)
            wire.writer.write(p_data(pdv(3, 3, store), pdv(3, 2, bytes(16_000))))
        await asyncio.sleep(0.1)
        assert 64 <= len(site.storage.sinks) < 80  # those of one receive buffer may still come
        site.storage.go.set()
        for _ in range(300):
            assert (await wire.receive()).number(0x0900) == 0
    assert len(site.storage.stored) == 300


async def test_instances_that_wait_are_bounded_by_their_bytes(make_site: MakeSite) -> None:
    """Of a peer that sends on without waiting for its answers."""
    site = make_site(queue_bytes=300_000)
    await site.start()
    site.storage.go = asyncio.Event()
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        for number in range(1, 61):
            store = command(0x0001, message_id=number, sop_class=CT_IMAGE, sop_instance="1.2.3", has_data=True)
            wire.writer.write(p_data(pdv(3, 3, store), pdv(3, 2, bytes(100_000))))
        await asyncio.sleep(0.2)
        assert 300_000 < sum(sink.held for sink in site.storage.sinks) < 900_000  # and what one read may bring
        site.storage.go.set()
        for _ in range(60):
            assert (await wire.receive()).number(0x0900) == 0


class Full(Storage):
    """Has no room for what comes, until that is given up."""

    def begin(self, request: Request) -> DataSetSink:
        class Paused(Sink):
            def write(self, view: memoryview) -> None:
                request.flow.pause_reading()

            def abort(self) -> None:
                super().abort()
                request.flow.resume_reading()

        self.make_sink = Paused
        return super().begin(request)


async def test_who_is_not_read_is_seen_to_close_after_our_abort(make_site: MakeSite) -> None:
    """By what was given up with its association, too: ARTIM would see to it only after half a minute."""
    site = make_site(services=[full := Full()])
    await site.start()
    wire = await Wire.associate(site.port, CONTEXTS)
    store = command(0x0001, sop_class=CT_IMAGE, sop_instance="1.2.3", has_data=True)
    wire.writer.write(p_data(pdv(3, 3, store), pdv(3, 0, b"abcd")))
    (connection,) = site.listener._connections
    async with asyncio.timeout(5):
        while not connection._reading.is_paused:
            await asyncio.sleep(0.01)
        connection.abort("enough")
        assert full.sinks[0].aborted
        with pytest.raises(AbortedError):
            await wire.read_pdu()
        wire.close()
        await connection.wait_closed()


async def test_identifiers_that_wait_are_bounded_by_their_bytes(make_site: MakeSite) -> None:
    """Each counts on the budget of all, and until they have had their turn the peer is not read."""
    finder = Finder(count=0)
    site = make_site(services=[finder], queue_bytes=200_000)
    await site.start()
    site.storage.go = asyncio.Event()
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        store = command(0x0001, message_id=1, sop_class=CT_IMAGE, sop_instance="1.2.3", has_data=True)
        wire.writer.write(p_data(pdv(3, 3, store), pdv(3, 2, b"ab")))
        for number in range(2, 40):
            find = command(0x0020, message_id=number, sop_class=STUDY_ROOT_FIND, has_data=True)
            wire.writer.write(p_data(pdv(5, 3, find), pdv(5, 2, bytes(50_000))))
        await asyncio.sleep(0.1)
        assert 200_000 < site.budget.used < 700_000
        site.storage.go.set()
        for _ in range(39):
            assert (await wire.receive()).number(0x0900) == 0
        assert len(finder.identifiers) == 38
        assert site.budget.used == 0


async def test_an_identifier_beyond_the_budget_of_all_is_answered_a700(make_site: MakeSite) -> None:
    finder = Finder(count=0)
    site = make_site(services=[finder], budget_bytes=100_000)
    await site.start()
    holder = await Wire.associate(site.port, CONTEXTS)
    find = command(0x0020, sop_class=STUDY_ROOT_FIND, has_data=True)
    for number in (1, 2):  # half sent, and held
        half = holder if number == 1 else await Wire.associate(site.port, CONTEXTS)
        pieces = [pdv(5, 0, bytes(10_000))] * (7 - number)
        half.writer.write(p_data(pdv(5, 3, find), *pieces))
        await asyncio.sleep(0.02)
        if number == 2:
            second = half
    await asyncio.sleep(0.05)
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        await wire.start_query(STUDY_ROOT_FIND, bytes(1_000))
        (answer,) = [answer async for answer in wire.answers()]
        assert (answer.status, answer.comment) == (0xA700, "no memory left for an identifier")
        await holder.abort()
        await second.abort()
        await asyncio.sleep(0.05)
        await wire.start_query(STUDY_ROOT_FIND, bytes(1_000))
        (answer,) = [answer async for answer in wire.answers()]
        assert answer.status == 0


class Unfinished:
    """Peers of many addresses, each with the beginning of a large A-ASSOCIATE-RQ that it does not go on with."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._came: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def come(self, host: str, size: int) -> None:
        """One more of ``host``; ``size`` bytes of it have been read."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(host, 0))
        self._came.append((reader, writer))
        writer.write(struct.pack(">BxI", 1, 250_000) + bytes(size - 6))
        await asyncio.sleep(0.01)

    async def are_waited_for(self) -> list[bool]:
        """In the order in which they came."""
        await asyncio.sleep(0.05)
        return [reader.exception() is None and not reader.at_eof() for reader, _ in self._came]

    async def leave(self) -> None:
        for _, writer in self._came:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def associate_in_pieces(port: int) -> int:
    """The type of the PDU that answers a request which comes in three pieces, each later than the last."""
    request = associate_request([Context(1, VERIFICATION, ["1.2.3"] * 3000)], "PACSLITE", "PIECES", 16_384)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in (request[:3], request[3:20_000], request[20_000:]):
            writer.write(piece)
            await asyncio.sleep(0.05)
        return (await read_pdu(reader))[0]
    finally:
        writer.close()


async def test_unfinished_pdus_of_one_host_are_bounded_and_cost_no_other_host(make_site: MakeSite) -> None:
    """20 connections with most of a large A-ASSOCIATE-RQ each, and as many bytes as one host may have of the last 8.

    What other hosts bring in pieces is waited for, what they ask is held.
    """
    site = make_site(services=[finder := Finder(count=0)], budget_bytes=8_000_000)
    await site.start()
    peers = Unfinished(site.port)
    for _ in range(20):
        await peers.come("127.0.0.2", 240_000)
    assert await peers.are_waited_for() == [False] * 12 + [True] * 8
    assert site.unfinished.used == 8 * 240_000 <= site.unfinished.share
    await peers.come("127.0.0.2", 80_000)
    assert site.unfinished.used == site.unfinished.share
    assert await associate_in_pieces(site.port) == 2
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        assert await wire.find(STUDY_ROOT_FIND, bytes(100_000)) == []
    assert finder.identifiers == [bytes(100_000)]
    assert await peers.are_waited_for() == [False] * 12 + [True] * 9
    await peers.leave()


async def test_hosts_that_finish_nothing_keep_out_nobody_who_does(make_site: MakeSite) -> None:
    """However many they are, and although they come again: what began first makes room for what is new."""
    site = make_site(budget_bytes=4_000_000)
    await site.start()
    peers = Unfinished(site.port)
    for _ in range(4):
        for number in range(2, 6):
            await peers.come(f"127.0.0.{number}", 240_000)
    assert site.unfinished.used == 16 * 240_000 > site.unfinished.limit - 200_000
    coming = asyncio.create_task(associate_in_pieces(site.port))
    for number in range(2, 14):
        await peers.come(f"127.0.0.{number}", 240_000)
    assert await coming == 2
    assert site.unfinished.used <= site.unfinished.limit
    assert await peers.are_waited_for() == [False] * 12 + [True] * 16
    await peers.leave()


REQUEST = associate_request(CONTEXTS, "PACSLITE", "LATE", 16_384)


@pytest.mark.parametrize(
    ("beginning", "answers"),
    [
        ([associate_request(CONTEXTS, "OTHER", "LATE", 16_384)], [3]),  # rejected: it should close, and goes on
        ([RELEASE_RP], [7]),
        ([REQUEST], [2]),
        ([REQUEST, p_data(pdv(1, 3, command(0x0030, sop_class=VERIFICATION)))], [2, 4]),
    ],
    ids=["rejected", "aborted", "associated", "answered"],
)
async def test_an_unfinished_pdu_counts_whatever_came_before_it(
    make_site: MakeSite, beginning: list[bytes], answers: list[int]
) -> None:
    """In the same bytes or later; ARTIM or idleness would end it only much later."""
    site = make_site(budget_bytes=2_000_000)
    await site.start()
    writers: list[asyncio.StreamWriter] = []
    for number in range(8):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        for pdu, answer in zip(beginning, answers, strict=True):
            rest = struct.pack(">BxI", 1, 250_000) + bytes(10_000) if pdu is beginning[-1] else b""
            writer.write(pdu + rest)
            assert (await read_pdu(reader))[0] == answer
        await asyncio.sleep(0.02)
        assert site.unfinished.used == min(number, 2) * 200_006 + 10_006
        writer.write(bytes(190_000))
        await asyncio.sleep(0.05)
        writers.append(writer)
    assert site.unfinished.used == 2 * 200_006
    assert site.listener.connections == 2
    for writer in writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    ("beginning", "answer"),
    [(associate_request(CONTEXTS, "OTHER", "LATE", 16_384), 3), (RELEASE_RP, 7)],
    ids=["rejected", "aborted"],
)
async def test_a_peer_that_should_close_and_goes_on(site: Site, beginning: bytes, answer: int) -> None:
    """Sta13: a request or an unknown PDU is answered by an A-ABORT (AA-7), other PDUs are not (AA-6)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(beginning)
    assert (await read_pdu(reader))[0] == answer
    for _ in range(2):
        writer.write(RELEASE_RQ + p_data(pdv(1, 3, b"ab")) + REQUEST)
        assert await read_pdu(reader) == (7, bytes((0, 0, 2, 2)))
    writer.write(RELEASE_RQ)
    await asyncio.sleep(0.05)
    writer.write(b"\x08" + REQUEST[1:])
    assert await read_pdu(reader) == (7, bytes((0, 0, 2, 1)))
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(beginning)
    assert (await read_pdu(reader))[0] == answer
    writer.write(ABORT)
    assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("data", [b"", b"\x08\0\x52\0\x06\0\0\0STUDY "])
async def test_a_cancel_of_what_never_was_is_ignored(site: Site, data: bytes) -> None:
    """And with it a data set, which none has (PS3.7 §9.3.2.3)."""
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        cancel = command(0x0FFF, message_id=None, responded_to=77, has_data=bool(data))
        wire.writer.write(p_data(pdv(5, 3, cancel), *([pdv(5, 2, data)] if data else [])))
        assert [await wire.echo() for _ in range(3)] == [0, 0, 0]
