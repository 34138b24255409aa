"""Real processes for the tests: the server under test, its foreign peers, and command-line tools.

A missing program fails the test that needs it and says what to install; nothing is skipped.
"""

import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

__all__ = [
    "ROOT",
    "Background",
    "Pacslite",
    "RunResult",
    "ServerFactory",
    "free_port",
    "need",
    "run",
    "to_toml",
    "wait_for_port",
]

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = {
    "storescu": "dcmtk",
    "storescp": "dcmtk",
    "findscu": "dcmtk",
    "movescu": "dcmtk",
    "getscu": "dcmtk",
    "echoscu": "dcmtk",
    "dcmqrscp": "dcmtk",
    "dcmodify": "dcmtk",
    "dcmconv": "dcmtk",
    "Orthanc": "orthanc",
    "gdcmscu": "libgdcm-tools",
    "node": "nodejs",
    "tshark": "tshark",
    "strace": "strace",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "losetup": "mount",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
_SBIN = ("/usr/sbin", "/sbin")
# Names of patients and doctors that the tests send: none may stand in a log above DEBUG
_PATIENT_DATA = re.compile(
    r"Load\^|Referring\^|Encapsulated\^|CompressedSamples|Yamada|Buc\^|Hong\^|Wang\^", re.IGNORECASE
)
_ALARMING = re.compile(r"\bERROR\b|\bCRITICAL\b|Traceback|never retrieved|never awaited|ResourceWarning")


def need(program: str) -> str:
    """The path of a program; without it the test fails and names the Debian package."""
    path = shutil.which(program) or shutil.which(program, path=os.pathsep.join(_SBIN))
    if path is None:
        pytest.fail(f"{program} is missing: apt-get install {_PACKAGES.get(program, program)}", pytrace=False)
    return path


def free_port() -> int:
    """A port that nobody has, from below those that the system gives to outgoing connections: none will take it.

    Each of the processes that run the tests has ports of its own.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % workers  # one that replaces another is gw2
    share = 17_000 // workers
    for _ in range(1000):
        port = 15_000 + worker * share + random.randrange(share)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    pytest.fail("no free port between 15000 and 32000", pytrace=False)


def wait_for_port(port: int, process: "subprocess.Popen[bytes]", *, seconds: float = 20) -> float:
    """Wait until something listens on ``port``; returns how long it took. Fails when the process ends instead."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return time.monotonic() - started
        if process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode} before it listened on {port}")
        time.sleep(0.01)
    raise AssertionError(f"nothing listens on {port} after {seconds} s")


@dataclass(frozen=True)
class RunResult:
    """What a finished command left."""

    code: int
    output: str

    def __contains__(self, text: str) -> bool:
        return text in self.output


async def run(
    *command: str | Path | int,
    expect: int | Iterable[int] = 0,
    seconds: float = 60,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> RunResult:
    """Run a program to its end (standard error with standard output); any exit code but the expected one fails."""
    words = [need(str(command[0])), *map(str, command[1:])]
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
    try:
        raw, _ = await asyncio.wait_for(process.communicate(), seconds)
    except TimeoutError:
        process.kill()
        raw, _ = await process.communicate()
        raise AssertionError(f"{words} took longer than {seconds} s\n{raw.decode(errors='replace')[-4000:]}") from None
    result = RunResult(process.returncode or 0, raw.decode(errors="replace"))
    expected = {expect} if isinstance(expect, int) else set(expect)
    assert result.code in expected, f"{' '.join(words)}\nexit {result.code}, not {expected}\n{result.output[-4000:]}"
    return result


@dataclass
class Background:
    """A peer that runs beside the test; its output goes to a file."""

    process: "subprocess.Popen[bytes]"
    log: Path
    port: int = 0

    @classmethod
    def start(
        cls, command: Sequence[str | Path | int], log: Path, *, port: int = 0, env: Mapping[str, str] | None = None
    ) -> "Background":
        """Start it, and where ``port`` is given wait until it listens there."""
        words = [need(str(command[0])), *map(str, command[1:])]
        with log.open("ab") as output:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(env or {})}
            )
        background = cls(process, log, port)
        if port:
            try:
                wait_for_port(port, process)
            except AssertionError as error:
                background.stop()
                raise AssertionError(f"{words[0]}: {error}\n{background.text()[-4000:]}") from None
        return background

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, seconds: float = 10) -> int:
        """SIGTERM, then SIGKILL; returns the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


@dataclass
class Pacslite:
    """One server process over one data directory; may be killed and started again on the same port."""

    data_dir: Path
    log: Path
    port: int = field(default_factory=free_port)
    ae_title: str = "PACSLITE"
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    remotes: Sequence[Mapping[str, object]] = ()
    prefix: Sequence[str] = ()  # of the command line: strace, prlimit
    env: Mapping[str, str] = field(default_factory=dict)
    expected: Sequence[str] = ()  # regular expressions of alarming log lines that this test provokes
    started_seconds: float = 0.0
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None
        return self._process

    def command(self, *words: str) -> list[str]:
        """Our command line, without ``prefix``."""
        return [sys.executable, "-m", "pacslite", *words]

    def start(self) -> None:
        """Start it and wait until it accepts connections and says so."""
        before = len(self.text())
        self.launch()
        assert self._process is not None
        try:
            self.started_seconds = wait_for_port(self.port, self._process)
            for _ in range(1000):
                if " serving " in (fresh := self.text()[before:]) or '"serving"' in fresh:
                    break
                if (code := self._process.poll()) is not None:  # and somebody else has taken the port
                    raise AssertionError(f"ended with {code}")
                time.sleep(0.01)
            else:
                raise AssertionError("does not say that it serves")
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"pacslite serve: {error}\n{self.text()[-6000:]}") from None

    def launch(self) -> None:
        """Start it without waiting."""
        config = self.log.with_suffix(".toml")
        config.write_text(to_toml(self.settings, self.remotes))
        words = [
            *self.prefix,
            *self.command("serve", "--config", str(config), "--data-dir", str(self.data_dir), "--host", "127.0.0.1"),
        ]
        words += ["--port", str(self.port), "--ae-title", self.ae_title]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT, env={**os.environ, **self.env}
            )

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def stop(self, *, seconds: float = 20) -> None:
        """SIGTERM; it must drain, exit 0, and have logged nothing alarming."""
        process = self.process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"not stopped {seconds} s after SIGTERM\n{self.text()[-4000:]}") from None
        assert code == 0, f"exit {code} after SIGTERM\n{self.text()[-6000:]}"
        self.assert_quiet()

    def assert_quiet(self) -> None:
        """No patient's name in the log, and no traceback, error or leaked task but what the test provoked."""
        named = [line for line in self.text().splitlines() if _PATIENT_DATA.search(line)]
        assert not named, "patient data in the server's log:\n" + "\n".join(named[:20])
        lines = [line for line in self.text().splitlines() if _ALARMING.search(line)]
        unexpected = [line for line in lines if not any(re.search(known, line) for known in self.expected)]
        assert not unexpected, "alarming lines in the server's log:\n" + "\n".join(unexpected[:20])

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def descriptors(self) -> Counter[str]:
        """What its open descriptors refer to; numbers in names are left out, so that like counts with like."""
        found: Counter[str] = Counter()
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                found[re.sub(r"\d+", "N", str(link.readlink()))] += 1
        return found

    async def tool(self, *words: str | Path | int, expect: int | Iterable[int] = 0, seconds: float = 60) -> RunResult:
        """Another command of pacslite's command line."""
        return await run(sys.executable, "-m", "pacslite", *words, expect=expect, seconds=seconds, cwd=ROOT)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Pacslite"]:
        """Started here, stopped and judged at the end; killed if the test failed."""
        self.start()
        try:
            yield self
        except BaseException:
            self.kill()
            raise
        await asyncio.to_thread(self.stop)


class ServerFactory:
    """Makes servers below one directory and remembers them."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self.made: list[Pacslite] = []

    def __call__(self, data_dir: Path | None = None, **settings: Mapping[str, object]) -> Pacslite:
        """A server that is not started yet; keyword arguments are tables of its configuration.

        Its journal is small: quick to make for every test, and often full, so that both ways of syncing run.
        """
        settings["storage"] = {"journal_bytes": 1 << 20} | dict(settings.get("storage", {}))
        log = self._base / f"server{len(self.made)}.log"
        pacslite = Pacslite(data_dir or self._base / f"data{len(self.made)}", log, settings=settings)
        self.made.append(pacslite)
        return pacslite


def to_toml(settings: Mapping[str, Mapping[str, object]], remotes: Sequence[Mapping[str, object]] = ()) -> str:
    """Tables of plain values, and the [[remote]] entries."""
    parts = [(f"[{table}]", values) for table, values in settings.items()]
    parts += [("[[remote]]", remote) for remote in remotes]
    return "\n".join(
        "\n".join([head, *(f"{key} = {_literal(value)}" for key, value in values.items()), ""])
        for head, values in parts
    )


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
