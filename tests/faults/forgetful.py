"""A disk that forgets what was not synced: a FUSE file system of one block image, spoken to the kernel directly.

A real ext4 or xfs lies on a loop device over the image. What is written and not yet flushed (FSYNC of the image, which
is what a flush of the loop device becomes) is only in ``current``; ``surviving`` holds what a power cut leaves.
At the cut the unsynced blocks are dropped (strict) or kept at random (seeded), and from then on nothing reaches
``surviving`` any more, whatever the doomed machine still writes. Runs as a process of its own; commands come on
standard input, answers go out as JSON lines: ``cut`` | ``cut SEED`` | ``cut-after N [SEED]`` | ``stat``.

The protocol is that of linux/fuse.h, version 7.31; mounting needs root, no library and no fusermount.
"""

import argparse
import ctypes
import errno
import json
import os
import random
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["ForgetfulImage", "Fuse", "main"]

BLOCK = 4096  # what a disk writes whole or not at all
_MAX_WRITE = 1 << 20

_IN_HEADER = struct.Struct("<IIQQIIIHH")  # len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding
_OUT_HEADER = struct.Struct("<IiQ")  # len, error, unique
_INIT_IN = struct.Struct("<IIII")  # major, minor, max_readahead, flags
_INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
_ATTR = struct.Struct("<6Q10I")
_ENTRY = struct.Struct("<4Q2I")
_ATTR_OUT = struct.Struct("<QII")
_OPEN_OUT = struct.Struct("<QII")
_RW_IN = struct.Struct("<QQIIQII")  # fh, offset, size, flags, lock_owner, flags, padding
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22
_ROOT, _IMAGE = 1, 2
_NAME = b"disk.img"


class ForgetfulImage:
    """The blocks: ``current`` is what the machine reads, ``surviving`` what it finds after the cut."""

    def __init__(self, current: Path, surviving: Path) -> None:
        self._current = os.open(current, os.O_RDWR)
        self._surviving = os.open(surviving, os.O_RDWR)
        self.size = os.fstat(self._current).st_size
        self._lock = threading.Lock()
        self._unsynced: list[tuple[int, bytes]] = []
        self._cut_at: float | None = None
        self._countdown: tuple[int, int | None] | None = None
        self.writes = self.flushes = self.dropped = self.kept = 0

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._current, min(size, max(0, self.size - offset)), offset)

    def write(self, offset: int, data: bytes) -> None:
        with self._lock:
            self._count_down()
            os.pwrite(self._current, data, offset)
            self.writes += 1
            if self._cut_at is None:
                self._unsynced.append((offset, data))

    def flush(self) -> None:
        """What was written before is on the platter now; after the cut nothing is."""
        with self._lock:
            self._count_down()
            self.flushes += 1
            if self._cut_at is None:
                for offset, data in self._unsynced:
                    os.pwrite(self._surviving, data, offset)
                self._unsynced.clear()

    def cut(self, seed: int | None) -> None:
        """The power goes: unsynced blocks are dropped, or each kept with even chance in the order of writing."""
        with self._lock:
            self._cut(seed)

    def cut_after(self, operations: int, seed: int | None) -> None:
        """Cut just before the given write or flush from now on (1 is the next one)."""
        with self._lock:
            self._countdown = (operations, seed)

    def state(self) -> dict[str, float | int | None]:
        with self._lock:
            unsynced = sum(len(data) for _, data in self._unsynced)
            return {
                "cut_at": self._cut_at,
                "writes": self.writes,
                "flushes": self.flushes,
                "unsynced_bytes": unsynced,
                "dropped_blocks": self.dropped,
                "kept_blocks": self.kept,
            }

    def _count_down(self) -> None:
        if self._countdown is not None and self._cut_at is None:
            left, seed = self._countdown
            self._countdown = (left - 1, seed)
            if left <= 1:
                self._cut(seed)

    def _cut(self, seed: int | None) -> None:
        if self._cut_at is not None:
            return
        self._cut_at = time.monotonic()
        chance = random.Random(seed)
        for offset, data in self._unsynced:
            for at in range(0, len(data), BLOCK):
                if seed is not None and chance.random() < 0.5:
                    os.pwrite(self._surviving, data[at : at + BLOCK], offset + at)
                    self.kept += 1
                else:
                    self.dropped += 1
        self._unsynced.clear()


class Fuse:
    """The kernel's requests for one directory with one file in it."""

    def __init__(self, image: ForgetfulImage, mountpoint: Path) -> None:
        self._image = image
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0,allow_other"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"forgetful", os.fsencode(mountpoint), b"fuse", 0, options.encode()) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"mount of FUSE on {mountpoint}: {os.strerror(code)} (root and /dev/fuse are needed)")
        self._answers: dict[int, Callable[[int, bytes], bytes]] = {
            1: self._lookup,
            3: lambda node, _: _ATTR_OUT.pack(3600, 0, 0) + self._attributes(node),
            4: lambda node, _: _ATTR_OUT.pack(3600, 0, 0) + self._attributes(node),  # SETATTR: times only
            14: lambda _, __: _OPEN_OUT.pack(1, 0, 0),
            15: self._read,
            16: self._write,
            17: lambda _, __: struct.pack("<5Q4I24x", 1 << 20, 1 << 19, 1 << 19, 9, 9, BLOCK, 255, BLOCK, 0),
            18: lambda _, __: b"",  # RELEASE
            20: self._fsync,
            25: lambda _, __: b"",  # FLUSH is close(2): it syncs nothing
            26: self._init,
            27: lambda _, __: _OPEN_OUT.pack(2, 0, 0),
            29: lambda _, __: b"",
            34: lambda _, __: b"",
            38: lambda _, __: b"",
        }

    def serve(self) -> None:
        """Answer until the file system is unmounted."""
        while True:
            try:
                request = os.read(self._fd, _MAX_WRITE + 4096)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                if error.errno == errno.ENODEV:  # unmounted
                    return
                raise
            _, opcode, unique, node, *_ = _IN_HEADER.unpack_from(request)
            if opcode in (2, 36, 42):  # FORGET, INTERRUPT, BATCH_FORGET have no answer
                continue
            code, body = 0, b""
            answer = self._answers.get(opcode)
            if answer is None:
                code = errno.ENOSYS
            else:
                try:
                    body = answer(node, request[_IN_HEADER.size :])
                except OSError as error:
                    code = error.errno or errno.EIO
            try:
                os.write(self._fd, _OUT_HEADER.pack(_OUT_HEADER.size + len(body), -code, unique) + body)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV):  # interrupted, or gone meanwhile
                    raise

    def _init(self, _node: int, body: bytes) -> bytes:
        _, minor, readahead, flags = _INIT_IN.unpack_from(body)
        wanted = flags & (_BIG_WRITES | _MAX_PAGES)
        pages = _MAX_WRITE // 4096
        return _INIT_OUT.pack(7, min(minor, 31), readahead, wanted, 16, 12, _MAX_WRITE, 1, pages, 0, 0)

    def _lookup(self, node: int, body: bytes) -> bytes:
        if node != _ROOT or body.rstrip(b"\0") != _NAME:
            raise FileNotFoundError(errno.ENOENT, "only the image is here")
        return _ENTRY.pack(_IMAGE, 0, 3600, 3600, 0, 0) + self._attributes(_IMAGE)

    def _attributes(self, node: int) -> bytes:
        mode, size, links = (
            (stat.S_IFDIR | 0o700, 0, 2) if node == _ROOT else (stat.S_IFREG | 0o600, self._image.size, 1)
        )
        return _ATTR.pack(node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0, BLOCK, 0)

    def _read(self, _node: int, body: bytes) -> bytes:
        _, offset, size, *_ = _RW_IN.unpack_from(body)
        return self._image.read(offset, size)

    def _write(self, _node: int, body: bytes) -> bytes:
        _, offset, size, *_ = _RW_IN.unpack_from(body)
        self._image.write(offset, body[_RW_IN.size : _RW_IN.size + size])
        return struct.pack("<II", size, 0)

    def _fsync(self, _node: int, _body: bytes) -> bytes:
        self._image.flush()
        return b""


def _obey(image: ForgetfulImage) -> None:
    for line in sys.stdin:
        word, *numbers = line.split()
        arguments = [int(number) for number in numbers]
        if word == "cut":
            image.cut(arguments[0] if arguments else None)
        elif word == "cut-after":
            image.cut_after(arguments[0], arguments[1] if len(arguments) > 1 else None)
        sys.stdout.write(json.dumps(image.state()) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Serve ``CURRENT`` and ``SURVIVING`` (files of one size) as ``MOUNTPOINT/disk.img`` until unmounted."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("current", "surviving", "mountpoint"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    image = ForgetfulImage(arguments.current, arguments.surviving)
    fuse = Fuse(image, arguments.mountpoint)
    threading.Thread(target=_obey, args=(image,), daemon=True).start()
    sys.stdout.write(json.dumps(image.state()) + "\n")
    sys.stdout.flush()
    fuse.serve()


if __name__ == "__main__":
    main()
