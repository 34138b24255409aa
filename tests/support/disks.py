"""Disks for one test: a small real file system on a loop device, and one that forgets what was not synced.

They and other mounts need root (mount, /dev/loop-control, /dev/fuse); where that is not granted the test fails and says
so.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.processes import ROOT, need

__all__ = ["ForgetfulDisk", "loop_disk", "mounted"]


def _command(*words: str | Path) -> str:
    program = need(str(words[0]))
    done = subprocess.run([program, *map(str, words[1:])], capture_output=True, text=True, check=False)
    if done.returncode:
        text = f"{' '.join(map(str, words))}: exit {done.returncode}: {done.stderr.strip()}"
        if os.geteuid():
            pytest.fail(f"{text}\nmounting needs root: run the fault tests as root", pytrace=False)
        if "permitted" in done.stderr or "denied" in done.stderr or "loop" in done.stderr:
            pytest.fail(f"{text}\npermit mount, loop devices and /dev/fuse (CAP_SYS_ADMIN)", pytrace=False)
        raise AssertionError(text)
    return done.stdout.strip()


def _make(kind: str, image: Path, megabytes: int, inodes: int = 0) -> None:
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    if kind == "ext4":
        few = ("-N", str(inodes)) if inodes else ()
        _command("mkfs.ext4", "-q", "-F", "-E", "nodiscard", "-m", "0", *few, image)
    else:
        _command(f"mkfs.{kind}", "-q", "-f", "-K", image)


@contextlib.contextmanager
def loop_disk(base: Path, *, megabytes: int, kind: str = "ext4", inodes: int = 0) -> Iterator[Path]:
    """A mounted file system of its own, gone at the end."""
    image, mounted = base / "disk.img", base / "disk"
    mounted.mkdir()
    _make(kind, image, megabytes, inodes)
    _command("mount", "-o", "loop,errors=remount-ro" if kind == "ext4" else "loop", image, mounted)
    try:
        yield mounted
    finally:
        _unmount(mounted)
        image.unlink()


@contextlib.contextmanager
def mounted(at: Path, *words: str | Path) -> Iterator[None]:
    """``mount`` with ``words`` at a directory."""
    _command("mount", *words, at)
    try:
        yield
    finally:
        _unmount(at)


def _unmount(mounted: Path) -> None:
    """A process that was just killed may hold it for a moment longer."""
    for _ in range(100):
        done = subprocess.run([need("umount"), str(mounted)], capture_output=True, check=False)
        if done.returncode == 0:
            return
        time.sleep(0.05)
    _command("umount", "-l", mounted)


@dataclass
class ForgetfulDisk:
    """A file system on a loop device over the image of ``tests/faults/forgetful.py``.

    ``insert()`` mounts it, ``cut()`` is the power cut (kill the server right after it), ``remove()`` unmounts what is
    left and makes the surviving blocks the disk that the next ``insert()`` finds.
    """

    base: Path  # small files, on any file system
    kind: str = "ext4"
    megabytes: int = 768
    mounted: Path = field(init=False)
    cut_at: float | None = None
    _images: Path = field(init=False)
    _daemon: "subprocess.Popen[str] | None" = None
    _device: str = ""

    def __post_init__(self) -> None:
        memory = Path("/dev/shm")
        self._images = Path(tempfile.mkdtemp(prefix="forgetful-", dir=memory if os.access(memory, os.W_OK) else None))
        self.mounted = self.base / "mounted"
        self.mounted.mkdir(parents=True)
        (self.base / "fuse").mkdir()
        _make(self.kind, self._surviving, self.megabytes)

    @property
    def _surviving(self) -> Path:
        return self._images / "surviving.img"

    def insert(self) -> None:
        """Mount it; what the last cut left is recovered by the file system's own journal."""
        current = self._images / "current.img"
        _command("cp", "--sparse=always", self._surviving, current)
        self._daemon = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forgetful", current, self._surviving, self.base / "fuse"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=ROOT,
        )
        self.cut_at = None
        if not self._read_state():
            pytest.fail("the forgetful disk does not start: root and /dev/fuse are needed", pytrace=False)
        self._device = _command("losetup", "-f", "--show", self.base / "fuse" / "disk.img")
        _command("mount", self._device, self.mounted)

    def cut(self, seed: int | None = None) -> float:
        """Drop all unsynced blocks, or with a seed keep each with even chance; returns the moment."""
        self._ask("cut" if seed is None else f"cut {seed}")
        assert self.cut_at is not None
        return self.cut_at

    def cut_after(self, operations: int, seed: int | None = None) -> None:
        """Cut at the given write or flush of the device from now on."""
        self._ask(f"cut-after {operations}" + ("" if seed is None else f" {seed}"))

    def state(self) -> dict[str, float | int | None]:
        return self._ask("stat")

    def remove(self) -> None:
        """Unmount; without a cut everything was written by then."""
        if self._daemon is None:
            return
        _unmount(self.mounted)
        if self._device:
            _command("losetup", "-d", self._device)
            self._device = ""
        _unmount(self.base / "fuse")
        self._daemon.communicate(timeout=10)
        self._daemon = None

    def destroy(self) -> None:
        self.remove()
        shutil.rmtree(self._images)

    def _ask(self, command: str) -> dict[str, float | int | None]:
        assert self._daemon is not None
        assert self._daemon.stdin is not None
        self._daemon.stdin.write(command + "\n")
        state = self._read_state()
        self.cut_at = state["cut_at"]
        return state

    def _read_state(self) -> dict[str, float | int | None]:
        assert self._daemon is not None
        assert self._daemon.stdout is not None
        line = self._daemon.stdout.readline()
        state: dict[str, float | int | None] = json.loads(line) if line else {}
        return state
