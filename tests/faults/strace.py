"""System calls of a running process: watched, made to fail, or made its last (strace, attached for one operation)."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.processes import need

__all__ = ["Call", "Trace", "tracing"]

_LINE = re.compile(r"^\s*(\d+)\s+(?:<\.\.\. )?(\w+)(.*)$")


@dataclass(frozen=True)
class Call:
    """One finished call, in the order in which calls ended."""

    thread: int
    name: str
    text: str  # arguments and result, as strace prints them

    @property
    def injected(self) -> bool:
        return "(INJECTED)" in self.text

    @property
    def failed(self) -> bool:
        return re.search(r"= -1 E", self.text) is not None


@dataclass
class Trace:
    """Filled when the tracing ends."""

    calls: list[Call] = field(default_factory=list)
    raw: str = ""

    @property
    def injected(self) -> bool:
        return any(call.injected for call in self.calls)


@contextlib.contextmanager
def tracing(
    pid: int, *, calls: Sequence[str], inject: str = "", inject_into: Sequence[str] | None = None
) -> Iterator[Trace]:
    """Attach to a process and all its threads; ``inject`` is strace's tail, such as ``error=EIO:when=3``.

    It goes to all ``calls`` or those of ``inject_into``; strace counts each name and each thread by itself.
    """
    names = ",".join(f"?{name}" for name in calls)
    disturbed = ",".join(f"?{name}" for name in inject_into or calls)
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "trace"
        words = [
            need("strace"),
            "-f",
            "-yy",
            "-s",
            "24",
            "-o",
            str(output),
            "-e",
            f"trace={names}",
            "-e",
            "signal=none",
        ]
        if inject:
            words += ["-e", f"inject={disturbed}:{inject}"]
        strace = subprocess.Popen([*words, "-p", str(pid)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert strace.stderr is not None
        line = strace.stderr.readline().decode()
        if "attached" not in line:
            strace.kill()
            strace.wait()
            pytest.fail(f"strace cannot attach ({line.strip()}): permit ptrace (CAP_SYS_PTRACE)", pytrace=False)
        os.set_blocking(strace.stderr.fileno(), False)
        trace = Trace()
        try:
            yield trace
        finally:
            if strace.poll() is None:
                strace.send_signal(signal.SIGINT)
            try:
                strace.wait(10)
            except subprocess.TimeoutExpired:
                strace.kill()
                strace.wait()
            strace.stderr.close()
            trace.raw = output.read_text(errors="replace") if output.exists() else ""
            trace.calls = list(_parse(trace.raw))


def _parse(text: str) -> Iterator[Call]:
    """Join ``unfinished`` with its ``resumed``: a call stands where it ended."""
    begun: dict[int, str] = {}
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        thread, name, rest = int(found[1]), found[2], found[3]
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest.removesuffix("<unfinished ...>")
        elif rest.startswith(" resumed>"):
            yield Call(thread, name, begun.pop(thread, "") + rest.removeprefix(" resumed>"))
        elif rest.startswith("("):
            yield Call(thread, name, rest)
