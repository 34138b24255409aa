"""The least that a storage SCP in one asyncio process can do, beside which the others are measured.

It takes C-STOREs off uvloop's sockets, one thread or more write each data set to a new file, and the answer is 0000. It
knows no state machine, scans no header, keeps no index, syncs nothing, checks nothing and moves no file to its place:
what it stores in a second is more than any server built like this can, whatever its code.

``python -m benchmarks.least PORT FOLDER THREADS``
"""

import asyncio
import os
import queue
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.wire import Command, data_pdus, encode_command, pdu, split_command, sub_items, user_information

__all__ = ["main"]

_MAXIMUM_LENGTH = 131072
_RECEIVE_BYTES = 256 << 10
_PDV = 12  # bytes of the headers of a P-DATA-TF and of its one PDV (PS3.8 §9.3.5)
_SWITCH_SECONDS = 0.0005  # between threads that want the interpreter, as in pacslite


class _Files:
    """Writes data sets to files named by numbers."""

    def __init__(self, folder: Path, threads: int) -> None:
        folder.mkdir()
        self._directory = os.open(folder, os.O_RDONLY)
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[tuple[int, list[bytes], Callable[[], None]]] = queue.SimpleQueue()
        self._number = 0
        for _ in range(threads):
            threading.Thread(target=self._run, daemon=True).start()

    def write(self, pieces: list[bytes], done: Callable[[], None]) -> None:
        self._number += 1
        self._waiting.put((self._number, pieces, done))

    def _run(self) -> None:
        while True:
            done = []
            number, pieces, tell = self._waiting.get()
            while True:
                fd = os.open(str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._directory)
                os.writev(fd, pieces)
                os.close(fd)
                done.append(tell)
                try:
                    number, pieces, tell = self._waiting.get_nowait()
                except queue.Empty:
                    break
            self._loop.call_soon_threadsafe(_tell, done)


def _tell(done: list[Callable[[], None]]) -> None:
    for tell in done:
        tell()


class _Association(asyncio.BufferedProtocol):
    """One peer that sends what ``benchmarks.load`` sends: one PDV a PDU, nothing out of order."""

    _buffer = memoryview(bytearray(_RECEIVE_BYTES))  # of all: what arrived is copied before another reads

    def __init__(self, files: _Files) -> None:
        self._files = files
        self._head = b""  # of a PDU, as far as it is there
        self._left = 0  # bytes of a PDV
        self._context_id = self._control = 0
        self._command = b""
        self._pieces: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        at = 0
        while at < size:
            if self._left:
                at = self._take(at, size)
                continue
            piece = bytes(self._buffer[at : min(size, at + _PDV - len(self._head))])
            self._head += piece
            at += len(piece)
            if len(self._head) < _PDV and self._head[:1] not in (b"\x05", b"\x07"):
                return
            if self._head[0] != 0x04:
                self._control_pdu(bytes(self._buffer[at:size]))
                return
            length, self._context_id, self._control = struct.unpack("!6xIBB", self._head)
            self._left = length - 2
            self._head = b""

    def _take(self, at: int, size: int) -> int:
        piece = bytes(self._buffer[at : min(size, at + self._left)])
        self._left -= len(piece)
        if self._control & 1:
            self._command += piece
        else:
            self._pieces.append(piece)
        if not self._left and self._control & 2:
            self._ended()
        return at + len(piece)

    def _ended(self) -> None:
        """The last fragment of a command set or data set."""
        command = split_command(self._command)
        has_data_set = command[0x0800] != b"\x01\x01"
        if self._control & 1 and has_data_set:
            return
        answer = self._answer(command)
        pieces, self._pieces, self._command = self._pieces, [], b""
        if has_data_set:
            self._files.write(pieces, lambda: self._transport.write(answer))
        else:
            self._transport.write(answer)

    def _answer(self, command: Command) -> bytes:
        """0000, in the C-STORE-RSP or C-ECHO-RSP (PS3.7 §9.3)."""
        number = {name: int.from_bytes(command[name], "little") for name in (0x0100, 0x0110)}
        elements: dict[int, int | str] = {0x0100: number[0x0100] | 0x8000, 0x0120: number[0x0110], 0x0900: 0}
        for name in (0x0002, 0x1000):
            if name in command:
                elements[name] = command[name].rstrip(b"\0").decode()
        return data_pdus(self._context_id, encode_command(elements, data_set=False), 0, is_command=True)

    def _control_pdu(self, rest: bytes) -> None:
        """An A-ASSOCIATE-RQ is accepted whole, with the first transfer syntax of each context; others are the end."""
        if self._head[0] != 0x01:
            self._transport.write(pdu(0x06, bytes(4)))
            self._transport.close()
            return
        body = memoryview(self._head[6:] + rest)
        self._head = b""
        items = bytes(user_information(_MAXIMUM_LENGTH))
        for kind, value in sub_items(body[68:]):
            if kind == 0x20:
                syntax = next(bytes(name) for kind, name in sub_items(value[4:]) if kind == 0x40)
                item = struct.pack("!B3xBxH", value[0], 0x40, len(syntax)) + syntax
                items = struct.pack("!BxH", 0x21, len(item)) + item + items
        self._transport.write(pdu(0x02, bytes(body[:68]) + items))


async def _serve(port: int, folder: Path, threads: int) -> None:
    files = _Files(folder, threads)
    server = await asyncio.get_running_loop().create_server(lambda: _Association(files), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    port, folder, threads = sys.argv[1:]
    sys.setswitchinterval(_SWITCH_SECONDS)
    uvloop.run(_serve(int(port), Path(folder), int(threads)))


if __name__ == "__main__":
    main()
