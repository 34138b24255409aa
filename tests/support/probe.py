"""A well-behaved peer in a process of its own: a timed C-ECHO every few milliseconds, while a test does its worst.

What counts is the server's doing: how long it, or the probe, was ready to run and the machine ran others is left out.
"""

import asyncio
import math
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.processes import ROOT, Pacslite

__all__ = ["Latencies", "echoing"]

_PROGRAM = """
import socket, struct, sys, time
sys.path.insert(0, sys.argv[2])
from tests.support.raw import command, p_data, pdv
from tests.support.wire import VERIFICATION, Context, associate_request

def receive(one):
    head = b""
    while len(head) < 6:
        piece = one.recv(6 - len(head))
        if not piece:
            raise SystemExit("closed")
        head += piece
    left = struct.unpack(">BxI", head)[1]
    while left:
        left -= len(one.recv(left))
    return head[0]

def waited():
    # seconds in which the server's loop, or we, had no processor
    both = [open(f"/proc/{pid}/schedstat").read().split()[1] for pid in (sys.argv[3], "self")]
    return sum(map(int, both)) / 1e9

echo = p_data(pdv(1, 3, command(0x0030, sop_class=VERIFICATION)))
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as one:
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    one.sendall(associate_request([Context(1, VERIFICATION)], "PACSLITE", "PROBE", 16384))
    assert receive(one) == 2
    print("ready", flush=True)
    import select
    while not select.select([sys.stdin], [], [], 0.002)[0]:
        before, started = waited(), time.perf_counter()
        one.sendall(echo)
        assert receive(one) == 4
        taken = time.perf_counter() - started
        print(max(taken - (waited() - before), 0), flush=True)
"""


@dataclass
class Latencies:
    """Seconds from a C-ECHO-RQ to its response."""

    seconds: list[float] = field(default_factory=list)

    @property
    def p99(self) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * 0.99) - 1)]


@asynccontextmanager
async def echoing(server: Pacslite) -> AsyncIterator[Latencies]:
    """Echo while the block runs; what it took is there when the block has ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        str(server.port),
        str(ROOT),
        str(server.pid),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    latencies = Latencies()
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield latencies
        process.stdin.close()
        output = await asyncio.wait_for(process.stdout.read(), 20)
        assert await process.wait() == 0, "the probe's association ended"
        latencies.seconds += map(float, output.split())
        assert latencies.seconds
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
