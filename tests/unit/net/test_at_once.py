"""What is answered in the call that brings it: what comes in the same bytes, what waits, what goes wrong meanwhile."""

import asyncio
import contextlib
import gc
import logging
import random
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pacslite.access import Refusal
from pacslite.dimse.messages import Message as Received
from pacslite.dimse.service import Peer
from pacslite.errors import DimseError
from pacslite.log import TextFormatter
from pacslite.net.connection import Connection
from pacslite.net.identity import Identity
from pacslite.net.limits import LimitsOptions
from pacslite.services.verification import VerificationService
from pacslite.upper_layer.pdu import AAssociateRQ
from tests.support.raw import ABORT, RELEASE_RP, RELEASE_RQ, command, p_data, pdv, read_to_end, user_item
from tests.support.site import MakeSite, Sink, Site
from tests.support.wire import (
    CT_IMAGE,
    STUDY_ROOT_FIND,
    VERIFICATION,
    AbortedError,
    Context,
    RejectedError,
    Wire,
    associate_request,
)

BOTH_LOOPS = True
CONTEXTS = [Context(1, VERIFICATION), Context(3, CT_IMAGE), Context(5, STUDY_ROOT_FIND)]
REQUEST = associate_request(CONTEXTS, "PACSLITE", "WIRE", 16_384)
ECHO = p_data(pdv(1, 3, command(0x0030, sop_class=VERIFICATION)))
GARBAGE = b"\x09\0\0\0\0\0"
WINDOW = user_item(0x53, struct.pack(">HH", 4, 4))


@pytest.fixture(autouse=True)
def everything_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pacslite")


def echo(number: int) -> bytes:
    return p_data(pdv(1, 3, command(0x0030, message_id=number, sop_class=VERIFICATION)))


def store(number: int, data: bytes = b"abcd") -> bytes:
    request = command(0x0001, message_id=number, sop_class=CT_IMAGE, sop_instance=f"1.2.{number}", has_data=True)
    return p_data(pdv(3, 3, request), pdv(3, 2, data))


async def until(reached: Callable[[], object], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not reached():
            await asyncio.sleep(0.005)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of associations, without what anybody's log has at the beginning of a line."""
    return [
        f"{record.levelname} {record.message} {vars(record).get('why', '')}".strip()
        for record in caplog.records
        if record.name == "pacslite.association"
    ]


async def say(port: int, *words: bytes) -> bytes:
    """Each in a segment of its own; gives what is answered until we are closed to."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for one in words:
        writer.write(one)
        await asyncio.sleep(0.02)
    if writer.can_write_eof():
        with contextlib.suppress(OSError):
            writer.write_eof()
    answer = await read_to_end(reader)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer


# in the same bytes


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize(
    ("behind", "answer", "line"),
    [
        (ABORT, b"", "aborted by the peer (source 0, reason 0)"),
        (RELEASE_RQ, b"\x07\0\0\0\0\x04\0\0\x02\x02", "aborted: A-RELEASE-RQ"),
        (RELEASE_RP, b"\x07\0\0\0\0\x04\0\0\x02\x02", "aborted: A-RELEASE-RP"),
        (ECHO, b"\x07\0\0\0\0\x04\0\0\x02\x02", "aborted: P-DATA-TF"),
        (REQUEST, b"\x07\0\0\0\0\x04\0\0\x02\x02", "aborted: A-ASSOCIATE-RQ"),
        (GARBAGE, b"\x07\0\0\0\0\x04\0\0\x02\x01", "aborted: PDU"),
    ],
    ids=["abort", "release", "released", "echo", "again", "garbage"],
)
async def test_what_comes_with_a_request_for_an_association(
    site: Site, behind: bytes, answer: bytes, line: str, refused: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Sta3 is passed before we are told: it is as if the request had not come, and no fault of ours (AA-3, AA-8)."""
    request = associate_request(CONTEXTS, "OTHER", "WIRE", 16_384) if refused else REQUEST
    assert await say(site.port, request + behind) == answer
    await until(lambda: not site.listener.connections)
    (only,) = lines(caplog)
    assert only.startswith(f"WARNING no association {line}")
    site.assert_clean()


@pytest.mark.parametrize(
    ("behind", "line"),
    [
        (ABORT, "aborted by the peer (source 0, reason 0)"),
        (GARBAGE, "aborted: PDU"),
        (REQUEST, "aborted: A-ASSOCIATE-RQ"),
        (RELEASE_RQ + ECHO, "aborted: P-DATA-TF"),
        (RELEASE_RQ, ""),
    ],
    ids=["abort", "garbage", "again", "data", "release"],
)
@pytest.mark.parametrize(
    "before",
    [b"", ECHO, store(1), store(2) + ECHO, ECHO + store(2)],
    ids=["nothing", "echo", "store", "store, echo", "echo, store"],
)
async def test_what_comes_with_the_end_of_an_association(
    site: Site, before: bytes, behind: bytes, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests before it are performed where they still can be, nobody is told that we have failed."""
    await say(site.port, REQUEST, before + behind)
    await until(lambda: not site.listener.connections)
    accepted, ended = lines(caplog)
    assert accepted == "INFO association accepted"
    assert ended.startswith(
        f"WARNING association ended {line}" if line else "INFO association ended released by the peer"
    )
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    site.assert_clean()


@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize("window", [b"", WINDOW])
@pytest.mark.parametrize("seed", range(6))
async def test_requests_of_a_peer_that_does_not_wait(site: Site, seed: int, window: bytes, release: bool) -> None:
    """C-ECHO, C-STORE and C-FIND in any order and in any pieces: each is answered once, without a window in order."""
    chance = random.Random(seed)
    site.storage.make_sink = Sink
    site.storage.go = asyncio.Event()
    count = chance.randrange(1, 60)
    kinds = [chance.choice("eees") for _ in range(count)]
    talk = b"".join(
        store(number, bytes(2 * chance.randrange(5_000))) if kind == "s" else echo(number)
        for number, kind in enumerate(kinds, start=1)
    )
    wire = await Wire.associate(site.port, CONTEXTS, user_items=window)
    if release:
        talk += RELEASE_RQ
    at = 0
    while at < len(talk):
        size = chance.choice([1, 7, 100, 5_000, 100_000])
        wire.writer.write(talk[at : at + size])
        at += size
        await asyncio.sleep(0)
        if chance.random() < 0.2:
            site.storage.go.set()
    site.storage.go.set()
    answered = [(await wire.receive()).number(0x0120) for _ in range(count)]
    assert sorted(map(int, answered)) == list(range(1, count + 1))  # type: ignore[arg-type]
    if not window:
        assert answered == list(range(1, count + 1))
    if release:
        assert await wire.read_pdu() == (6, bytes(4))
    else:
        await wire.release()
    wire.close()
    assert len(site.storage.stored) == kinds.count("s")


async def test_a_flood_of_echoes_of_a_peer_that_does_not_read(make_site: MakeSite) -> None:
    """What it does not take is bounded, it is not read any more, and is answered in order when it reads again."""
    site = make_site()
    await site.start()
    loop = asyncio.get_running_loop()
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        peer.connect(("127.0.0.1", site.port))
        peer.setblocking(False)
        await loop.sock_sendall(peer, REQUEST)
        assert (await loop.sock_recv(peer, 4096))[:1] == b"\x02"
        (connection,) = site.listener._connections
        count = 0
        with contextlib.suppress(TimeoutError):
            while count < 1_000_000:
                burst = b"".join(echo(1 + number % 60_000) for number in range(count, count + 500))
                async with asyncio.timeout(0.3):
                    await loop.sock_sendall(peer, burst)
                count += 500
        assert count < 1_000_000
        assert connection._outflow.unsent < 1_048_576 + 400_000  # and what one read brings
        assert len(connection._inbox._requests) < 64 + 4_000
        received = bytearray(await loop.sock_recv(peer, 1 << 20))
        size = 6 + int.from_bytes(received[2:6], "big")
        while len(received) < count * size:  # and some of the last burst, which was cut
            received += await loop.sock_recv(peer, 1 << 20)
    at = received.index(b"\0\0\x20\x01\x02\0\0\0") + 8  # (0000,0120)
    numbers = [int.from_bytes(received[place : place + 2], "little") for place in range(at, count * size, size)]
    assert numbers == [1 + number % 60_000 for number in range(count)]
    await until(lambda: not site.listener.connections)


# while something is awaited


class Slow:
    """Verifies a token for as long as a test wants."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = 0

    def needs_time(self, request: AAssociateRQ) -> bool:
        return True

    def verify(self, request: AAssociateRQ) -> Identity | Refusal:
        self.begun += 1
        self.go.wait(10)
        return Identity("anna")


async def reset(writer: asyncio.StreamWriter) -> None:
    handle: socket.socket = writer.get_extra_info("socket")
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def sends(data: bytes) -> Callable[[asyncio.StreamWriter], Any]:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.close()

    return send


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("waits_for", ["identity", "services"])
@pytest.mark.parametrize(
    ("leave", "line"),
    [
        (sends(ABORT), "WARNING no association aborted by the peer (source 0, reason 0)"),
        (sends(GARBAGE), "WARNING no association aborted: PDU"),
        (sends(ECHO), "WARNING no association aborted: P-DATA-TF"),
        (sends(REQUEST), "WARNING no association aborted: A-ASSOCIATE-RQ"),
        (close, "DEBUG no association connection closed by the peer"),
        (reset, "DEBUG no association connection lost: Connection reset by peer"),
    ],
    ids=["abort", "garbage", "echo", "again", "close", "reset"],
)
async def test_who_leaves_while_something_is_awaited_is_forgotten_at_once(
    site: Site,
    waits_for: str,
    leave: Callable[[asyncio.StreamWriter], Any],
    line: str,
    at_once: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody waits on for it, and the log has one line."""
    caplog.set_level(logging.DEBUG, "pacslite")
    slow = Slow()
    if waits_for == "identity":
        site.identity = slow  # type: ignore[assignment]
    else:
        site.ready.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(REQUEST)
    if not at_once:
        await until(lambda: site.acceptor._awaited)
        await asyncio.sleep(0.02)
    await leave(writer)
    overtaken = at_once and leave is reset  # what was written may never have arrived
    await until(lambda: not site.listener.connections and (overtaken or lines(caplog)))
    assert not site.acceptor._awaited
    site.assert_clean()
    slow.go.set()
    site.ready.set()
    await asyncio.sleep(0.02)
    told = lines(caplog)
    if not overtaken:
        assert len(told) == 1
        assert told[0].startswith(line)
    site.assert_clean()


async def test_stopping_waits_for_nobody_who_has_not_associated(site: Site) -> None:
    """Aborted at once, though the services may never come."""
    site.ready.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(REQUEST)
    await until(lambda: site.acceptor._awaited)
    stopping = asyncio.create_task(site.stop(10))
    assert (await reader.readexactly(10))[:1] == b"\x07"
    writer.close()
    async with asyncio.timeout(0.5):
        await stopping
    assert site.listener.connections == 0


# faults of ours


class Fault(Exception):
    """Its text is a patient's name."""

    def __init__(self) -> None:
        super().__init__("Doe^John")


class Denied(DimseError):
    status = 0x0124


def refuse() -> None:
    raise Denied("not today")


def fails(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("where", ["_access", "_identity", "_dispatcher", "_limits"])
async def test_a_fault_before_the_association_is_a_rejection(
    site: Site, where: str, later: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Transient, and told once; the next one is served."""
    acceptor = site.acceptor
    if later:
        slow = Slow()
        slow.go.set()
        site.identity = slow  # type: ignore[assignment]
    patch = pytest.MonkeyPatch()
    match where:
        case "_access":
            patch.setattr(acceptor, "_access", fails(Fault()))
        case "_identity":
            patch.setattr(site.identity, "verify", fails(Fault()))
        case "_dispatcher":
            patch.setattr(acceptor, "_answer", fails(Fault()))
        case "_limits":
            patch.setattr(site.limits, "admit", fails(Fault()))
    with pytest.raises(RejectedError) as caught:
        await Wire.associate(site.port, CONTEXTS)
    assert caught.value.codes == (2, 1, 1)
    await until(lambda: not site.listener.connections)
    site.assert_clean()
    assert lines(caplog) == ["ERROR association failed Fault"]
    assert "Doe" not in TextFormatter().format(caplog.records[-1])
    patch.undo()
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        assert await wire.echo() == 0


@pytest.mark.parametrize(
    ("error", "answer"),
    [(Denied("not today"), (0x0124, "not today")), (Fault(), (0x0110, "internal error: Fault"))],
    ids=["refusal", "fault"],
)
async def test_a_service_that_answers_at_once_may_fail(
    site: Site,
    error: Exception,
    answer: tuple[int, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As one that is awaited: answered in the protocol's terms, and the association goes on."""
    monkeypatch.setattr(VerificationService, "answer", fails(error))
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        for number in (1, 1):  # the Message ID is free again
            wire.writer.write(echo(number))
            response = await wire.receive()
            assert (response.number(0x0900), response.text(0x0902)) == answer
        monkeypatch.undo()
        assert await wire.echo() == 0
    assert not [record for record in caplog.records if "Doe" in TextFormatter().format(record)]


@pytest.mark.parametrize("window", [b"", WINDOW])
@pytest.mark.parametrize("request_", [ECHO, store(1)], ids=["echo", "store"])
async def test_a_fault_behind_the_answer_ends_the_association(
    site: Site, request_: bytes, window: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In what counts requests, say: told, nothing stays counted."""

    def observe(_: Peer, __: Received, ___: int | None, ____: float) -> None:
        raise Fault

    monkeypatch.setattr(site.dispatcher, "_observe", observe)
    wire = await Wire.associate(site.port, CONTEXTS, user_items=window)
    wire.writer.write(request_)
    assert (await wire.receive()).number(0x0900) == 0
    with pytest.raises(AbortedError):
        await wire.receive()
    wire.close()
    await until(lambda: not site.listener.connections)
    site.assert_clean()
    told = lines(caplog)
    assert told.count("ERROR association failed Fault") == 1
    assert told[-1] == "WARNING association ended aborted: internal error"


@pytest.mark.parametrize("where", ["arriving", "waiting", "cancelled"])
async def test_a_service_that_fails_when_told_of_the_end(
    site: Site, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What else has to be given up is given up, and the association is not counted for ever."""

    class Broken(Sink):
        def abort(self) -> None:
            super().abort()
            raise Fault

    site.storage.make_sink = Broken
    site.storage.go = asyncio.Event()
    site.finder.go = asyncio.Event()
    wire = await Wire.associate(site.port, CONTEXTS)
    if where == "arriving":
        request = command(0x0001, sop_class=CT_IMAGE, sop_instance="1.2.3", has_data=True)
        wire.writer.write(p_data(pdv(3, 3, request), pdv(3, 0, b"abcd")))
    elif where == "waiting":
        await wire.start_query(STUDY_ROOT_FIND, b"")
        wire.writer.write(store(2) + store(3))
    else:
        await wire.start_query(STUDY_ROOT_FIND, b"")
        (connection,) = site.listener._connections
        await until(lambda: connection.active)
        next(iter(connection.active.values()))._on_cancel = fails(Fault())
    (connection,) = site.listener._connections
    await until(lambda: len(connection.active) == (3 if where == "waiting" else 1))
    await wire.abort()
    await until(lambda: connection.over)
    site.finder.go.set()
    await until(lambda: not site.listener.connections)
    site.assert_clean()
    assert "ERROR a service failed at the end of an association Fault" in lines(caplog)


# limits


ONE = LimitsOptions(associations=1, associations_per_host=1, associations_per_ae_title=1)


@pytest.mark.parametrize(
    "words",
    [
        (b"",),
        (REQUEST[:50],),
        (GARBAGE,),
        (ABORT,),
        (REQUEST + ABORT,),
        (REQUEST + GARBAGE,),
        (REQUEST, ABORT),
        (REQUEST, GARBAGE),
        (REQUEST,),
        (REQUEST, RELEASE_RQ),
        (REQUEST, ECHO + RELEASE_RQ),
        (REQUEST, ECHO + ABORT),
        (REQUEST, store(1) + RELEASE_RQ),
        (REQUEST, store(1) + ABORT),
        (REQUEST, store(1)[:-2] + ABORT),
        (REQUEST, p_data(pdv(9, 3, b""))),
        (REQUEST, RELEASE_RQ + ECHO),
        (REQUEST.replace(b"PACSLITE", b"ANYBODY "),),
        (REQUEST.replace(b"\0\x01\0\0PACSLITE", b"\0\x02\0\0PACSLITE"),),
    ],
)
async def test_however_an_association_ends_the_next_has_its_place(
    make_site: MakeSite, words: Sequence[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Counted once and given back once, at most one line for an association that has not come about."""
    site = make_site(limits=ONE)
    await site.start()
    for _ in range(3):
        caplog.clear()
        await say(site.port, *words)
        await until(lambda: not site.listener.connections)
        site.assert_clean()
        told = lines(caplog)
        accepted = told.count("INFO association accepted")
        assert len(told) == 2 * accepted or (not accepted and len(told) <= 1)
        assert not any("ERROR" in line for line in told)
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        with pytest.raises(RejectedError):
            await Wire.associate(site.port, CONTEXTS)
        assert await wire.echo() == 0
        assert site.acceptor.associations == 1


async def test_who_is_let_go_before_it_is_heard_is_one_line_in_a_second_and_not_more(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "pacslite")
    site = make_site(limits=LimitsOptions(associations=1))
    await site.start()
    held = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(110)]
    await asyncio.sleep(0.05)
    assert site.listener.connections == 102
    assert lines(caplog) == []
    for _, writer in held:
        writer.close()


# draining


@pytest.mark.parametrize("window", [b"", WINDOW])
async def test_draining_ends_an_association_when_its_last_request_is_performed(
    make_site: MakeSite, window: bytes
) -> None:
    """Side by side or one after the other: nobody waits for the drain time to pass."""
    site = make_site()
    await site.start()
    site.storage.go = asyncio.Event()
    wire = await Wire.associate(site.port, CONTEXTS, user_items=window)
    wire.writer.write(store(1) + store(2) + echo(3))
    await until(lambda: site.storage.running)
    await asyncio.sleep(0.02)
    stopping = asyncio.create_task(site.stop(20))
    await asyncio.sleep(0.02)
    site.storage.go.set()
    answered = {(await wire.receive()).number(0x0120) for _ in range(3 if window else 1)}
    with contextlib.suppress(AbortedError):
        while len(answered) <= 3:
            answered.add((await wire.receive()).number(0x0120))
    assert answered == {1, 2, 3}
    wire.close()
    async with asyncio.timeout(3):
        await stopping
    site.assert_clean()


@pytest.mark.parametrize(
    "words",
    [
        (),
        (REQUEST[:50],),
        (REQUEST,),
        (REQUEST, ECHO),
        (REQUEST, store(1)),
        (REQUEST, store(1) + store(2) + ECHO),
        (REQUEST, RELEASE_RQ),
        (REQUEST, store(1) + RELEASE_RQ),
        (REQUEST, GARBAGE),
        (REQUEST.replace(b"PACSLITE", b"ANYBODY "),),
    ],
)
@pytest.mark.parametrize("waits", [False, True])
async def test_stopping_at_each_stage_has_an_end(
    make_site: MakeSite, words: Sequence[bytes], waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that does not close, a service that does not end: nothing is left, and nothing is left counted."""
    monkeypatch.setattr("pacslite.net.listener._DISMISSAL_SECONDS", 0.05)
    site = make_site()
    await site.start()
    site.storage.go = asyncio.Event() if waits else None
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    for one in words:
        writer.write(one)
        await asyncio.sleep(0.02)
    async with asyncio.timeout(6):
        await site.stop(0.05)
    site.assert_clean()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


# memory

TALKS: list[Sequence[bytes]] = [
    (REQUEST, ECHO + RELEASE_RQ),
    (REQUEST, store(1) + RELEASE_RQ),
    (REQUEST, ECHO + ABORT),
    (REQUEST + ABORT,),
    (REQUEST.replace(b"PACSLITE", b"ANYBODY "),),
]


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("words", [*TALKS, (REQUEST, store(1)[:-2]), (REQUEST, store(1) + store(2) + ECHO + ABORT)])
async def test_an_association_is_freed_when_it_ends(site: Site, words: Sequence[bytes], refused: bool) -> None:
    """At once: nothing of it refers to itself, so that the collector has nothing to look for."""
    site.storage.refuse = refused

    def connections() -> int:
        return sum(isinstance(one, Connection) for one in gc.get_objects())

    gc.collect()
    before = connections()
    gc.disable()
    try:
        for _ in range(3):
            await asyncio.wait_for(say(site.port, *words), 3)
            await until(lambda: not site.listener.connections)
        site.storage.sinks.clear()
        site.storage.stored.clear()
        await until(lambda: connections() == before)
    finally:
        gc.enable()


@pytest.mark.parametrize("asks", ["store", "side by side", "refused", "find"])
async def test_an_association_is_freed_when_who_is_to_be_answered_has_left(site: Site, asks: str) -> None:
    """What its services are told of the end names where they were, which leads back to it."""

    def connections() -> int:
        return sum(isinstance(one, Connection) for one in gc.get_objects())

    go = site.storage.go = site.finder.go = asyncio.Event()
    if asks == "refused":
        site.storage.fail = refuse
    gc.collect()
    before = connections()
    gc.disable()
    try:
        wire = await Wire.associate(site.port, CONTEXTS, user_items=WINDOW if asks == "side by side" else b"")
        if asks == "find":
            await wire.start_query(STUDY_ROOT_FIND, b"")
        else:
            wire.writer.write(store(1) + store(2))
        await until(lambda: site.dispatcher.performing)
        await wire.abort()
        await until(lambda: site.acceptor.associations and all(one.over for one in site.listener._connections))
        go.set()
        await until(lambda: not site.listener.connections)
        await until(lambda: connections() == before)
    finally:
        gc.enable()


async def test_associations_leave_nothing(site: Site) -> None:
    """Of whatever kind, and however they end: no object stays for each."""
    loop = asyncio.get_running_loop()

    async def round_of(count: int) -> int:
        for number in range(count):
            with socket.socket() as one:
                one.setblocking(False)
                await loop.sock_connect(one, ("127.0.0.1", site.port))
                for words in TALKS[number % len(TALKS)]:
                    await loop.sock_sendall(one, words)
                    with contextlib.suppress(ConnectionError):
                        await loop.sock_recv(one, 65_536)
        await until(lambda: not site.listener.connections)
        site.storage.sinks.clear()
        site.storage.stored.clear()
        gc.collect()
        return len(gc.get_objects())

    logging.disable(logging.CRITICAL)  # records are kept for the tests
    try:
        await round_of(50)
        before = await round_of(100)
        assert await round_of(400) - before < 100
    finally:
        logging.disable(logging.NOTSET)
