"""The README's tour, run word by word in a network of its own, so that its ports are free."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.processes import ROOT, need

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Step(NamedTuple):
    command: str
    expected: list[str]  # lines of its output, in this order; "..." stands for anything


def steps(text: str) -> list[Step]:
    found: list[Step] = []
    for line in "".join(BLOCK.findall(text)).splitlines():
        if line.startswith("$ "):
            found.append(Step(line[2:], []))
        else:
            found[-1].expected.append(line)
    return found


class Tour:
    """A folder that looks like a clone, and a network with nothing but its own loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("Makefile", "pyproject.toml", "requirements", "tools", "pacslite", "config"):
            (folder / name).symlink_to(ROOT / name)
        (folder / ".venv").mkdir()
        for entry in Path(sys.prefix).iterdir():
            if entry.name != ".set-up":
                (folder / ".venv" / entry.name).symlink_to(entry)
        (folder / ".venv" / ".set-up").touch()  # the environment this test runs in is set up: make need not do it
        # a reader's make is nobody's child: as one of "make test" it would print the folders it enters
        self.environment = {
            name: value for name, value in os.environ.items() if "MAKE" not in name and name != "MFLAGS"
        }
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        self.network = subprocess.Popen(
            [need("unshare"), *user, "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 600"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.network.stdout is not None
        assert self.network.stdout.readline() == "up\n"
        self.inside = [need("nsenter"), f"--target={self.network.pid}", "--net", *(["--user"] if user else []), "--"]
        self.background: list[subprocess.Popen[bytes]] = []

    def run(self, command: str) -> str:
        result = subprocess.run(
            [*self.inside, "bash", "-c", command],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=50,
            check=False,
            env=self.environment,
        )
        assert result.returncode == 0, f"$ {command}\n{result.stdout}"
        return result.stdout

    def start(self, command: str, lines: int) -> str:
        """Start what the tour leaves running, and wait until it listens."""
        log = self.folder / f"background{len(self.background)}.log"
        with log.open("wb") as output:
            self.background.append(
                subprocess.Popen(
                    [*self.inside, "bash", "-c", command],
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    env=self.environment,
                )
            )
        port = 11112 if command.startswith("make serve") else int(shlex.split(command)[-2])
        self.run(
            f"for i in $(seq 200); do (: </dev/tcp/127.0.0.1/{port}) 2>/dev/null && exit 0; sleep 0.1; done; exit 1"
        )
        deadline = time.monotonic() + 5
        while lines and log.read_text().count("\n") < lines and time.monotonic() < deadline:
            time.sleep(0.05)  # a server listens before it greets
        return log.read_text()

    def interrupt(self, process: "subprocess.Popen[bytes]") -> None:
        """Ctrl-C: to everything of that terminal."""
        os.killpg(process.pid, signal.SIGINT)
        process.wait(20)

    def end(self) -> None:
        for process in self.background:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            process.wait(10)
        self.network.kill()
        self.network.communicate()


@pytest.fixture
def tour(tmp_path: Path) -> Iterator[Tour]:
    journey = Tour(tmp_path)
    yield journey
    journey.end()


def assert_shown(expected: list[str], output: str, command: str) -> None:
    lines = iter(output.splitlines())
    for wanted in expected:
        pattern = re.compile(".*".join(re.escape(part) for part in wanted.split("...")))
        assert any(pattern.fullmatch(line.rstrip()) for line in lines), f"$ {command}\nno {wanted!r} in\n{output}"


def test_every_step_does_what_the_readme_says(tour: Tour) -> None:
    need("storescu")
    journey = steps((ROOT / "README.md").read_text())
    assert len(journey) >= 9
    for step in journey:
        if step.command.startswith("make serve"):
            for process in tour.background[:1]:
                tour.interrupt(process)
            output = tour.start(step.command, len(step.expected))
        elif step.command.endswith("&"):
            output = tour.start(step.command, len(step.expected))
        else:
            output = tour.run(step.command)
        assert_shown(step.expected, output, step.command)
    assert "stopped" in (tour.folder / "background0.log").read_text()
