"""Just enough of PS3.8 §9.3 and PS3.7 §9.3 for a load generator: one requestor association over a blocking socket."""

import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

__all__ = [
    "CT_IMAGE",
    "EXPLICIT_LITTLE",
    "IMPLICIT_LITTLE",
    "VERIFICATION",
    "Command",
    "Connection",
    "Proposal",
    "WireError",
    "data_pdus",
    "echo_request",
    "encode_command",
    "pdu",
    "split_command",
    "sub_items",
    "user_information",
]

VERIFICATION = "1.2.840.10008.1.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_IMPLEMENTATION_CLASS = b"1.2.826.0.1.3680043.10.1562.9"

_UI = {0x0002, 0x0003, 0x1000, 0x1001}  # padded with NUL (PS3.5 §9.1), other text with a space
_NO_DATA_SET = 0x0101

Command = dict[int, bytes]


class WireError(Exception):
    """The peer closed, aborted, rejected, or answered what was not asked."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One presentation context of an A-ASSOCIATE-RQ; ``scp_role`` adds the role item of C-GET (PS3.7 D.3.3.4)."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...] = (EXPLICIT_LITTLE,)
    scp_role: bool = False


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack("!BxI", kind, len(body)) + body


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack("!BxH", kind, len(body)) + body


def sub_items(body: memoryview) -> Iterable[tuple[int, memoryview]]:
    """Split a run of items (PS3.8 §9.3.2): type, reserved, length, value."""
    at = 0
    while at + 4 <= len(body):
        kind, length = struct.unpack_from("!BxH", body, at)
        yield kind, body[at + 4 : at + 4 + length]
        at += 4 + length


def user_information(maximum_length: int, roles: Iterable[str] = ()) -> bytes:
    items = _item(0x51, struct.pack("!I", maximum_length)) + _item(0x52, _IMPLEMENTATION_CLASS)
    for uid in roles:
        name = uid.encode()
        items += _item(0x54, struct.pack("!H", len(name)) + name + b"\x01\x01")
    return _item(0x50, items + _item(0x55, b"BENCH"))


def associate_rq(calling: str, called: str, proposals: Sequence[Proposal], maximum_length: int) -> bytes:
    """A-ASSOCIATE-RQ, PS3.8 §9.3.2; context IDs are 1, 3, 5 and so on in the order of ``proposals``."""
    body = struct.pack("!H2x16s16s32x", 1, f"{called:16}".encode(), f"{calling:16}".encode())
    body += _item(0x10, _APPLICATION_CONTEXT)
    for number, proposal in enumerate(proposals):
        context = struct.pack("!B3x", 2 * number + 1) + _item(0x30, proposal.abstract_syntax.encode())
        context += b"".join(_item(0x40, syntax.encode()) for syntax in proposal.transfer_syntaxes)
        body += _item(0x20, context)
    body += user_information(maximum_length, sorted({p.abstract_syntax for p in proposals if p.scp_role}))
    return pdu(0x01, body)


def encode_command(elements: Mapping[int, int | str], *, data_set: bool) -> bytes:
    """A command set in Implicit VR Little Endian (PS3.7 §6.3.1); keys are element numbers of group 0000."""
    out = b""
    for element, value in sorted({**elements, 0x0800: 1 if data_set else _NO_DATA_SET}.items()):
        if isinstance(value, int):
            raw = struct.pack("<H", value)
        else:
            raw = value.encode()
            raw += (b"\0" if element in _UI else b" ") * (len(raw) % 2)
        out += struct.pack("<HHI", 0, element, len(raw)) + raw
    return struct.pack("<HHII", 0, 0, 4, len(out)) + out


def split_command(raw: bytes | memoryview) -> Command:
    """The elements of a command set by element number, values as they came."""
    elements: Command = {}
    at = 0
    while at < len(raw):
        _, element, length = struct.unpack_from("<HHI", raw, at)
        elements[element] = bytes(raw[at + 8 : at + 8 + length])
        at += 8 + length
    return elements


def data_pdus(context_id: int, data: bytes, maximum_length: int, *, is_command: bool = False) -> bytes:
    """P-DATA-TF PDUs of one PDV each (PS3.8 §9.3.5), the way DCMTK fills them: as large as the receiver allows."""
    room = ((maximum_length or 1 << 20) - 6) & ~1
    out = bytearray()
    for at in range(0, max(len(data), 1), room):
        part = data[at : at + room]
        control = int(is_command) | (2 if at + room >= len(data) else 0)
        out += struct.pack("!BxIIBB", 0x04, len(part) + 6, len(part) + 2, context_id, control) + part
    return bytes(out)


@dataclass(slots=True)
class Connection:
    """An established association; requests and answers strictly one after the other."""

    socket: socket.socket
    contexts: dict[str, tuple[int, str]] = field(default_factory=dict)  # abstract syntax -> context ID, transfer syntax
    maximum_length: int = 16384  # what the peer accepts, 0 = no limit
    _buffer: bytearray = field(default_factory=lambda: bytearray(1 << 18))
    _at: int = 0
    _end: int = 0

    @classmethod
    def open(
        cls,
        port: int,
        called: str,
        proposals: Sequence[Proposal],
        *,
        calling: str = "BENCH",
        maximum_length: int = 131072,
        timeout: float = 60.0,
    ) -> Self:
        sock = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = cls(sock)
        try:
            sock.sendall(associate_rq(calling, called, proposals, maximum_length))
            kind, body = connection.read_pdu()
            if kind != 0x02:
                raise WireError(f"association refused: PDU {kind:02X} {bytes(body[:8]).hex()}")
            connection._take_answer(body, proposals)
        except BaseException:
            sock.close()
            raise
        return connection

    def _take_answer(self, body: memoryview, proposals: Sequence[Proposal]) -> None:
        for kind, value in sub_items(body[68:]):
            if kind == 0x21 and value[2] == 0:
                syntax = next(bytes(v).rstrip(b"\0").decode() for k, v in sub_items(value[4:]) if k == 0x40)
                self.contexts[proposals[value[0] // 2].abstract_syntax] = (value[0], syntax)
            elif kind == 0x50:
                for sub, content in sub_items(value):
                    if sub == 0x51:
                        self.maximum_length = struct.unpack("!I", content)[0]

    def read_pdu(self) -> tuple[int, memoryview]:
        """The next PDU; its body is a view that lives until the next call."""
        while True:
            have = self._end - self._at
            if have >= 6:
                kind, length = struct.unpack_from("!BxI", self._buffer, self._at)
                if have >= 6 + length:
                    start = self._at + 6
                    self._at = start + length
                    return kind, memoryview(self._buffer)[start : self._at]
                self._make_room(6 + length)
            else:
                self._make_room(6)
            count = self.socket.recv_into(memoryview(self._buffer)[self._end :])
            if not count:
                raise WireError("connection closed by the peer")
            self._end += count

    def _make_room(self, needed: int) -> None:
        have = self._end - self._at
        if self._at and len(self._buffer) - self._at < max(needed, 4096):
            self._buffer[:have] = self._buffer[self._at : self._end]
            self._at, self._end = 0, have
        if len(self._buffer) < needed:
            self._buffer = self._buffer + bytes(needed - len(self._buffer))

    def read_message(self) -> tuple[Command, bytes]:
        """A whole message: its command set and its data set (empty without one)."""
        command_set = data_set = b""
        command: Command | None = None
        while True:
            kind, body = self.read_pdu()
            if kind != 0x04:
                raise WireError(f"PDU {kind:02X} {bytes(body[:8]).hex()} in place of P-DATA-TF")
            at = 0
            while at < len(body):
                length, _, control = struct.unpack_from("!IBB", body, at)
                fragment = bytes(body[at + 6 : at + 4 + length])
                at += 4 + length
                if not control & 1:
                    data_set += fragment
                    if control & 2 and command is not None:
                        return command, data_set
                else:
                    command_set += fragment
                    if control & 2:
                        command = split_command(command_set)
                        if command[0x0800] == b"\x01\x01":
                            return command, b""

    def echo(self, message_id: int = 1) -> None:
        self.socket.sendall(echo_request(self.contexts[VERIFICATION][0], message_id))
        command, _ = self.read_message()
        if command[0x0900] != b"\0\0":
            raise WireError(f"C-ECHO answered with {command[0x0900].hex()}")

    def release(self) -> None:
        """A-RELEASE-RQ, the answer, and close; a peer that is gone already is no error here."""
        try:
            self.socket.sendall(pdu(0x05, bytes(4)))
            while self.read_pdu()[0] == 0x04:
                pass
        except (OSError, WireError):
            pass
        finally:
            self.socket.close()


def echo_request(context_id: int, message_id: int) -> bytes:
    """C-ECHO-RQ, PS3.7 §9.3.5."""
    command = encode_command({0x0002: VERIFICATION, 0x0100: 0x0030, 0x0110: message_id}, data_set=False)
    return data_pdus(context_id, command, 0, is_command=True)
