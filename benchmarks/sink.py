"""A storage SCP that only counts: it answers each C-STORE and looks at nothing of a data set but its length.

The same receiver serves an association that a C-GET requestor has open (PS3.4 §C.4.3) and one that a C-MOVE opens to
the sink. It reads PDU and PDV headers and skips what is between.
"""

import multiprocessing
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import SynchronizedArray

from benchmarks.wire import (
    EXPLICIT_LITTLE,
    Command,
    WireError,
    data_pdus,
    encode_command,
    pdu,
    split_command,
    sub_items,
    user_information,
)

__all__ = ["MAXIMUM_LENGTH", "Receiver", "Sink", "sink"]

MAXIMUM_LENGTH = 131072
_C_STORE_RQ = b"\x01\x00"
_FORK = multiprocessing.get_context("fork")


@dataclass(slots=True)
class Receiver:
    """Takes messages off a socket; C-STOREs are counted and answered, any other is given to the caller."""

    socket: socket.socket
    instances: int = 0
    octets: int = 0  # of data sets
    _buffer: bytearray = field(default_factory=lambda: bytearray(1 << 20))
    _at: int = 0
    _end: int = 0

    def next_message(self) -> Command | None:
        """The command set of the next message that is no C-STORE-RQ; None when the peer releases the association."""
        command_set = b""
        command: Command | None = None
        while True:
            kind, left = struct.unpack("!BxI", self._take(6))
            if kind != 0x04:
                self._take(left)
                if kind == 0x05:
                    self.socket.sendall(pdu(0x06, bytes(4)))
                    return None
                raise WireError(f"PDU {kind:02X} in place of P-DATA-TF")
            while left:
                length, context_id, control = struct.unpack("!IBB", self._take(6))
                left -= 4 + length
                if control & 1:
                    command_set += self._take(length - 2)
                    if control & 2:
                        command = split_command(command_set)
                        command_set = b""
                        if command[0x0800] == b"\x01\x01":
                            return command
                else:
                    self._skip(length - 2)
                    self.octets += length - 2
                    if control & 2 and command is not None:
                        if command[0x0100] != _C_STORE_RQ:
                            return command
                        self._answer(context_id, command)

    def _answer(self, context_id: int, request: Command) -> None:
        self.instances += 1
        command = encode_command(
            {
                0x0002: request[0x0002].rstrip(b"\0").decode(),
                0x0100: 0x8001,
                0x0120: int.from_bytes(request[0x0110], "little"),
                0x0900: 0,
                0x1000: request[0x1000].rstrip(b"\0").decode(),
            },
            data_set=False,
        )
        self.socket.sendall(data_pdus(context_id, command, 0, is_command=True))

    def _take(self, count: int) -> bytes:
        while self._end - self._at < count:
            rest = self._buffer[self._at : self._end]
            self._buffer[: len(rest)] = rest
            self._at, self._end = 0, len(rest)
            self._receive()
        self._at += count
        return bytes(memoryview(self._buffer)[self._at - count : self._at])

    def _skip(self, count: int) -> None:
        while count > self._end - self._at:
            count -= self._end - self._at
            self._at = self._end = 0
            self._receive()
        self._at += count

    def _receive(self) -> None:
        received = self.socket.recv_into(memoryview(self._buffer)[self._end :])
        if not received:
            raise WireError("connection closed by the peer")
        self._end += received


@dataclass(frozen=True, slots=True)
class Sink:
    """A running sink: its port, and what it has counted so far."""

    port: int
    counts: "SynchronizedArray[int]"

    @property
    def instances(self) -> int:
        return int(self.counts[0])

    @property
    def octets(self) -> int:
        return int(self.counts[1])


@contextmanager
def sink() -> Iterator[Sink]:
    """A sink in a process of its own, for as many associations as come."""
    counts = _FORK.Array("q", 2)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        process = _FORK.Process(target=_serve, args=(listener, counts), daemon=True)
        process.start()
        try:
            yield Sink(listener.getsockname()[1], counts)
        finally:
            process.terminate()
            process.join()


def _serve(listener: socket.socket, counts: "SynchronizedArray[int]") -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_receive, args=(connection, counts), daemon=True).start()


def _receive(connection: socket.socket, counts: "SynchronizedArray[int]") -> None:
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        receiver = _Counting(connection, counts)
        try:
            _accept(receiver)
            receiver.next_message()  # returns at the release: nothing but C-STORE is sent to a sink
        except (OSError, WireError):
            return


class _Counting(Receiver):
    """Counts into memory that the parent sees: before the answer, so that a finished move finds all of it there."""

    def __init__(self, connection: socket.socket, counts: "SynchronizedArray[int]") -> None:
        super().__init__(connection)
        self._counts = counts
        self._counted = 0

    def _answer(self, context_id: int, request: Command) -> None:
        with self._counts.get_lock():
            self._counts[0] += 1
            self._counts[1] += self.octets - self._counted
        self._counted = self.octets
        super()._answer(context_id, request)

    def read_request(self) -> memoryview:
        kind, length = struct.unpack("!BxI", self._take(6))
        if kind != 0x01:
            raise WireError(f"PDU {kind:02X} in place of A-ASSOCIATE-RQ")
        return memoryview(self._take(length))


def _accept(receiver: _Counting) -> None:
    """A-ASSOCIATE-AC (PS3.8 §9.3.3) to every context, in Explicit VR Little Endian where that is proposed."""
    request = receiver.read_request()
    answer = b""
    for kind, value in sub_items(request[68:]):
        if kind == 0x20:
            syntaxes = [bytes(content) for sub, content in sub_items(value[4:]) if sub == 0x40]
            chosen = next((one for one in syntaxes if one.decode() == EXPLICIT_LITTLE), syntaxes[0])
            answer += struct.pack("!BxHBxBx", 0x21, 8 + len(chosen), value[0], 0)
            answer += struct.pack("!BxH", 0x40, len(chosen)) + chosen
        elif kind == 0x10:
            answer = struct.pack("!BxH", 0x10, len(value)) + bytes(value) + answer
    body = bytes(request[:68]) + answer + user_information(MAXIMUM_LENGTH)
    receiver.socket.sendall(pdu(0x02, body))
