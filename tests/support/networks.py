"""Two networks with one cable between them, as network namespaces: the cable can be pulled (needs root)."""

import asyncio
import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.support.processes import Pacslite, need

__all__ = ["Cable", "Network", "launched"]

_CLONE_NEWNET = 0x40000000
_T = TypeVar("_T")


@dataclass
class Network:
    """A network namespace, kept by a process that does nothing."""

    address: str
    keeper: "subprocess.Popen[bytes]" = field(init=False)

    def __post_init__(self) -> None:
        self.keeper = subprocess.Popen([need("unshare"), "--net", "sleep", "600"])
        ours = Path("/proc/self/ns/net").readlink()
        for _ in range(500):
            if self._path.exists() and self._path.readlink() != ours and self._command() == b"sleep":
                break
            assert self.keeper.poll() is None, "unshare --net: not permitted"
            time.sleep(0.01)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def prefix(self) -> tuple[str, ...]:
        """Of a command line, to run it here."""
        return (need("nsenter"), f"--net={self._path}")

    def run(self, program: str, *words: str) -> None:
        subprocess.run([*self.prefix, need(program), *words], check=True)

    def call(self, make: Callable[[], _T]) -> _T:
        """Call ``make`` in this network; the sockets that it opens stay in it, whoever uses them."""
        made: list[_T] = []
        failed: list[BaseException] = []

        def work() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            fd = os.open(self._path, os.O_RDONLY)
            try:
                if libc.setns(fd, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
                made.append(make())
            except BaseException as error:
                failed.append(error)
            finally:
                os.close(fd)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return made[0]

    async def connect(self, address: tuple[str, int]) -> socket.socket:
        """A connection from here, for the caller's event loop."""

        def make() -> socket.socket:
            one = socket.create_connection(address, timeout=5)
            one.setblocking(False)
            return one

        return await asyncio.to_thread(self.call, make)

    def stop(self) -> None:
        self.keeper.kill()
        self.keeper.wait()

    @property
    def _path(self) -> Path:
        return Path(f"/proc/{self.keeper.pid}/ns/net")

    def _command(self) -> bytes:
        return Path(f"/proc/{self.keeper.pid}/cmdline").read_bytes().partition(b"\0")[0]


class Cable:
    """Joins ``here`` and ``there`` while it is entered; what is left of both is gone afterwards."""

    def __init__(self) -> None:
        self.here = Network("10.77.0.1")
        self.there = Network("10.77.0.2")

    def __enter__(self) -> Self:
        here, there = self.here, self.there
        here.run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", str(there.keeper.pid))
        for network, name in ((here, "near"), (there, "far")):
            network.run("ip", "address", "add", f"{network.address}/24", "dev", name)
            network.run("ip", "link", "set", name, "up")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.here.stop()
        self.there.stop()

    def pull(self) -> None:
        """Nothing comes through any more, in either direction, and nobody is told."""
        self.there.run("ip", "link", "set", "far", "down")


async def launched(server: Pacslite) -> None:
    """Start a server in another network, where nobody here can see its port."""
    server.launch()
    for _ in range(1000):
        if " serving " in server.text():
            return
        assert server.process.poll() is None, server.text()
        await asyncio.sleep(0.02)
    raise AssertionError(server.text())
