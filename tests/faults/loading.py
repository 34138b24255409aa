"""Runs the load generator beside a test and reads what its clients lived through."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.history import History
from tests.support.processes import ROOT

__all__ = ["Load"]


class Load:
    """One run of ``tests.faults.load`` with its history file."""

    def __init__(self, base: Path, port: int, seed: int, *options: str | int) -> None:
        self._file = base / f"history{seed}.jsonl"
        words = [sys.executable, "-m", "tests.faults.load", self._file, port, "--seed", seed, *options]
        self._process = subprocess.Popen([str(word) for word in words], cwd=ROOT)

    async def until_acknowledged(self, count: int = 1, *, seconds: float = 20) -> None:
        """Wait for the first answers: the clients are at work."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._file.exists() and self._file.read_bytes().count(b'"status": 0') >= count:
                return
            if (code := self._process.poll()) is not None:
                said = self._file.read_text()[-2000:] if self._file.exists() else "nothing was sent"
                raise AssertionError(f"the load generator ended early with {code}:\n{said}")
            await asyncio.sleep(0.02)
        raise AssertionError(f"not {count} acknowledged within {seconds} s: {self._file.read_text()[-500:]}")

    async def finish(self, *, seconds: float = 30) -> History:
        """Wait until it ends by itself (the server is gone, or its time is up)."""
        code = await asyncio.to_thread(self._process.wait, seconds)
        assert code == 0, f"the load generator ended with {code}"
        return History().read(self._file)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
