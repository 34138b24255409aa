"""What one peer sends keeps nobody else waiting, however much work its bytes are."""

import asyncio
import gc
import socket
import struct
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacslite.net.pace import UNMEASURED, Pace
from tests.support.raw import command, p_data, pdv
from tests.support.site import Site
from tests.support.wire import CT_IMAGE, VERIFICATION, Context, associate_request

BOTH_LOOPS = True
MOST = 262_144
READS = 32  # of one socket in one turn of the loop, while it fills the buffer
ACCEPTABLE_SECONDS = 0.15  # of one turn, on the processor; without a limit it is up to 3 s

STORE = p_data(pdv(3, 3, command(0x0001, sop_class=CT_IMAGE, sop_instance="1.2.3", has_data=True)))


def turn_seconds(pace: Pace, turn: float, seconds_per_byte: float) -> float:
    """What a turn takes in which a socket has all that is asked of it."""
    taken = 0.0
    for _ in range(READS):
        count = pace.size
        taken += count * seconds_per_byte
        if pace.is_over(turn, count, count * seconds_per_byte):
            break
    return taken


@given(st.floats(1e-10, 2e-7), st.floats(1e-10, 2e-7))
def test_a_turn_is_short_whatever_bytes_cost_and_whatever_they_did_before(first: float, then: float) -> None:
    pace = Pace(MOST)
    for turn in range(30):
        turn_seconds(pace, turn, first)
    assert turn_seconds(pace, 30, first) < 0.0015
    for turn in range(31, 60):
        turn_seconds(pace, turn, then)
    assert turn_seconds(pace, 60, then) < 0.0015
    if then < 4e-10:
        assert pace.size == MOST


def test_a_single_read_of_what_costs_too_much_is_the_last_of_its_turn_and_never_comes_to_nothing() -> None:
    pace = Pace(MOST)
    assert pace.is_over(1.0, MOST, 3.0)
    assert UNMEASURED < pace.size < 10_000


def echoes(count: int) -> bytes:
    return p_data(pdv(1, 3, command(0x0030, sop_class=VERIFICATION))) * count


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        (STORE, p_data(*[pdv(3, 0, b"")] * 20_000) * 50),
        (STORE, p_data(pdv(3, 0, b"")) * 300_000),
        (STORE, p_data(*[pdv(3, 0, b"ab")] * 16_000) * 20),
        (STORE, p_data(pdv(3, 0, bytes(100))) * 40_000),
        (b"", echoes(25_000)),
        (p_data(pdv(3, 2, b"ab")), p_data(*[pdv(3, 0, b"ab")] * 16_000) * 20),  # no message: answered with an A-ABORT
    ],
    ids=["empty PDVs", "PDUs of an empty PDV", "PDVs of 2 bytes", "PDUs of 100 bytes", "echoes", "after the end"],
)
async def test_a_flood_leaves_others_their_turns(site: Site, begin: bytes, words: bytes) -> None:
    flooding = threading.Thread(target=flood, args=(site.port, begin + words))
    gc.disable()  # what thousands of tests have left takes it 0.3 s
    try:
        flooding.start()
        longest, before = 0.0, time.thread_time()
        while flooding.is_alive():
            await asyncio.sleep(0)
            now = time.thread_time()  # what other processes take is not ours
            longest, before = max(longest, now - before), now
    finally:
        gc.enable()
    assert longest < ACCEPTABLE_SECONDS


def flood(port: int, words: bytes) -> None:
    """Send ``words``, take what is answered, and leave."""
    contexts = [Context(1, VERIFICATION), Context(3, CT_IMAGE)]
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(associate_request(contexts, "PACSLITE", "FLOOD", 16_384))
        peer.recv(65_536)
        taking = threading.Thread(target=take, args=(peer,))
        taking.start()
        try:
            peer.sendall(words)
            peer.shutdown(socket.SHUT_WR)
        except OSError:  # it does not listen any more
            pass
        taking.join()


def take(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
    try:
        while peer.recv(1 << 20):
            pass
    except OSError:
        pass
