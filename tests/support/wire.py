"""A DICOM requestor of the tests' own, written from PS3.7 and PS3.8 alone: raw association over asyncio streams.

It shares no line with the server, knows exactly what it sends and hands back received data sets byte for byte.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

__all__ = [
    "CT_IMAGE",
    "EXPLICIT_LITTLE",
    "IMPLICIT_LITTLE",
    "PATIENT_ROOT_FIND",
    "PATIENT_ROOT_GET",
    "PATIENT_ROOT_MOVE",
    "SECONDARY_CAPTURE",
    "STUDY_ROOT_FIND",
    "STUDY_ROOT_GET",
    "STUDY_ROOT_MOVE",
    "VERIFICATION",
    "AbortedError",
    "Answer",
    "Context",
    "Message",
    "Received",
    "RejectedError",
    "Wire",
    "associate_request",
    "decode_elements",
    "encode_command",
    "encode_elements",
    "extended_negotiation",
]

IMPLICIT_LITTLE, EXPLICIT_LITTLE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"
CT_IMAGE, SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"
PATIENT_ROOT_FIND, PATIENT_ROOT_MOVE, PATIENT_ROOT_GET = (f"1.2.840.10008.5.1.4.1.2.1.{n}" for n in (1, 2, 3))
STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET = (f"1.2.840.10008.5.1.4.1.2.2.{n}" for n in (1, 2, 3))

_STORE_RQ, _GET_RQ, _FIND_RQ, _MOVE_RQ, _ECHO_RQ, _CANCEL_RQ = 0x0001, 0x0010, 0x0020, 0x0021, 0x0030, 0x0FFF
_PDU = struct.Struct(">BxI")
_PDV = struct.Struct(">IBB")
_NO_DATA_SET = 0x0101
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))


class RejectedError(Exception):
    """A-ASSOCIATE-RJ: result, source and reason (PS3.8 Table 9-21)."""

    def __init__(self, result: int, source: int, reason: int) -> None:
        super().__init__(f"rejected: result {result}, source {source}, reason {reason}")
        self.codes = (result, source, reason)


class AbortedError(Exception):
    """A-ABORT received, or the connection ended without one (source None)."""

    def __init__(self, source: int | None, reason: int | None) -> None:
        super().__init__(f"aborted: source {source}, reason {reason}")
        self.source, self.reason = source, reason


@dataclass(frozen=True)
class Context:
    """One proposed presentation context; ``scp_role`` proposes that we are SCP too (C-GET)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: Sequence[str] = (EXPLICIT_LITTLE,)
    scp_role: bool = False


@dataclass
class Message:
    """A command set (element number of group 0000 to raw value) with its data set."""

    context_id: int
    command: Mapping[int, bytes]
    data: bytes | None = None

    def number(self, element: int) -> int | None:
        value = self.command.get(element)
        return None if value is None or len(value) != 2 else int(struct.unpack("<H", value)[0])

    def text(self, element: int) -> str:
        return self.command.get(element, b"").decode("ascii", "replace").rstrip("\0 ")


@dataclass
class Answer:
    """One response: status, comment, the counters of sub-operations where present, and the raw identifier."""

    status: int
    comment: str = ""
    remaining: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None
    identifier: bytes | None = None
    command: Mapping[int, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Message) -> Self:
        status = message.number(0x0900)
        assert status is not None, f"a response without Status: {message.command}"
        remaining, completed, failed, warning = (message.number(tag) for tag in (0x1020, 0x1021, 0x1022, 0x1023))
        return cls(status, message.text(0x0902), remaining, completed, failed, warning, message.data, message.command)


@dataclass
class Received:
    """An instance that came back as a C-STORE sub-operation of a C-GET."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytes


def _uid(text: str) -> bytes:
    raw = text.encode("ascii")
    return raw + b"\0" * (len(raw) % 2)


def _us(number: int) -> bytes:
    return struct.pack("<H", number)


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def extended_negotiation(sop_class: str, information: bytes) -> bytes:
    """SOP Class Extended Negotiation sub-item (PS3.7 §D.3.3.5), a user item of an association request."""
    uid = sop_class.encode("ascii")
    return struct.pack(">BxHH", 0x56, 2 + len(uid) + len(information), len(uid)) + uid + information


def encode_command(elements: Mapping[int, bytes]) -> bytes:
    """A command set: group 0000, implicit VR little endian, ascending, with its group length (PS3.7 §6.3.1)."""
    body = b"".join(struct.pack("<HHI", 0, tag, len(elements[tag])) + elements[tag] for tag in sorted(elements))
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def encode_elements(elements: Iterable[tuple[int, str, bytes]]) -> bytes:
    """Explicit VR little endian elements (tag, VR, value of even length), in the order given."""
    out = bytearray()
    for tag, vr, value in elements:
        code = vr.encode("ascii")
        out += struct.pack("<HH", tag >> 16, tag & 0xFFFF) + code
        out += struct.pack("<xxI", len(value)) if code in _LONG_VRS else struct.pack("<H", len(value))
        out += value
    return bytes(out)


def decode_elements(data: bytes) -> dict[int, bytes]:
    """Top-level explicit VR little endian elements of defined length, as an identifier has them."""
    at, found = 0, {}
    while at < len(data):
        group, element, code = struct.unpack_from("<HH2s", data, at)
        if code in _LONG_VRS:
            (length,) = struct.unpack_from("<I", data, at + 8)
            at += 12
        else:
            (length,) = struct.unpack_from("<H", data, at + 6)
            at += 8
        assert length <= len(data) - at, f"({group:04x},{element:04x}) has length {length}, {len(data) - at} are left"
        found[group << 16 | element] = data[at : at + length]
        at += length
    return found


class Wire:
    """An association as requestor. Use as ``async with await Wire.associate(...)``: released at the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, contexts: Sequence[Context]) -> None:
        self.reader, self.writer = reader, writer
        self._proposed = contexts
        self.accepted: dict[int, str] = {}
        self.results: dict[int, int] = {}
        self.user_items: dict[int, list[bytes]] = {}
        self.peer_maximum_length = 0
        self.maximum_length = 0  # what we announced; a longer P-DATA-TF fails the test
        self._message_id = 0
        self._fragments: list[tuple[int, int, bytes]] = []
        self._over = False

    # opening and closing

    @classmethod
    async def associate(
        cls,
        port: int,
        contexts: Sequence[Context],
        *,
        called: str = "PACSLITE",
        calling: str = "WIRE",
        maximum_length: int = 1 << 20,
        host: str = "127.0.0.1",
        user_items: bytes = b"",
        sock: socket.socket | None = None,
    ) -> Self:
        """Connect (or take ``sock``, which is) and negotiate; raises ``RejectedError`` or ``AbortedError``."""
        if sock is not None:
            reader, writer = await asyncio.open_connection(sock=sock, limit=4 << 20)
        else:
            reader, writer = await asyncio.open_connection(host, port, limit=4 << 20)
        wire = cls(reader, writer, contexts)
        try:
            writer.write(associate_request(contexts, called, calling, maximum_length, user_items))
            kind, body = await wire.read_pdu()
            if kind == 0x03:
                raise RejectedError(body[1], body[2], body[3])
            assert kind == 0x02, f"PDU type {kind:02x}H answers A-ASSOCIATE-RQ"
            wire._read_accept(body)
            wire.maximum_length = maximum_length
        except BaseException:
            wire.close()
            raise
        return wire

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None and not self._over:
            await self.release()
        self.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def release(self) -> None:
        self.writer.write(b"\x05\0\0\0\0\x04\0\0\0\0")
        kind, _ = await self.read_pdu()
        assert kind == 0x06, f"PDU type {kind:02x}H answers A-RELEASE-RQ"
        self._over = True

    async def abort(self) -> None:
        self.writer.write(b"\x07\0\0\0\0\x04\0\0\0\0")
        await self.writer.drain()
        self._over = True
        self.close()

    def close(self) -> None:
        self._over = True
        self.writer.close()

    # messages

    async def send(self, context_id: int, command: Mapping[int, bytes], data: bytes | None = None) -> None:
        """Send one message; (0000,0800) is set to fit unless the command has one."""
        elements = {0x0800: _us(_NO_DATA_SET if data is None else 1), **command}
        self._send_pdvs(context_id, 1, encode_command(elements))
        if data is not None:
            self._send_pdvs(context_id, 0, data)
        await self.writer.drain()

    async def send_part(self, context_id: int, data: bytes) -> None:
        """Fragments of a data set, the last of which is still to come."""
        self._send_pdvs(context_id, 0, data, final=0)
        await self.writer.drain()

    async def send_rest(self, context_id: int, data: bytes) -> None:
        """The last fragments of a data set."""
        self._send_pdvs(context_id, 0, data)
        await self.writer.drain()

    async def receive(self) -> Message:
        """The next message, whole."""
        command: Mapping[int, bytes] | None = None
        parts: list[bytes] = []
        while True:
            context_id, control, fragment = await self._next_fragment()
            parts.append(fragment)
            if not control & 2:
                continue
            whole, parts = b"".join(parts), []
            if control & 1:
                command = _decode_command(whole)
                if struct.unpack("<H", command[0x0800])[0] == _NO_DATA_SET:
                    return Message(context_id, command)
            else:
                assert command is not None, "a data set without a command"
                return Message(context_id, command, whole)

    async def receive_or_release(self, *, answer: bool = True) -> Message | None:
        """As acceptor: the next message, or None after a release, which is answered here."""
        if not self._fragments:
            kind, body = await self.read_pdu()
            if kind == 0x05:
                if answer:
                    self.writer.write(b"\x06\0\0\0\0\x04\0\0\0\0")
                    await self.writer.drain()
                return None
            self._split(kind, body)
        return await self.receive()

    def next_message_id(self) -> int:
        self._message_id = self._message_id % 65535 + 1
        return self._message_id

    # services

    async def echo(self) -> int:
        context_id = self._context_of(VERIFICATION)
        await self.send(
            context_id, {0x0002: _uid(VERIFICATION), 0x0100: _us(_ECHO_RQ), 0x0110: _us(self.next_message_id())}
        )
        return Answer.of(await self.receive()).status

    async def store(self, sop_class: str, sop_instance: str, data: bytes, *, context_id: int | None = None) -> Answer:
        """One C-STORE; ``data`` is sent as it is."""
        command = self._store_command(sop_class, sop_instance)
        await self.send(context_id or self._context_of(sop_class), command, data)
        return Answer.of(await self.receive())

    async def begin_store(self, sop_class: str, sop_instance: str) -> None:
        """A C-STORE-RQ whose data set is sent by ``send_part`` and ``send_rest``; the answer is ``receive``'s."""
        await self.send(self._context_of(sop_class), {0x0800: _us(1)} | self._store_command(sop_class, sop_instance))

    def _store_command(self, sop_class: str, sop_instance: str) -> dict[int, bytes]:
        return {
            0x0002: _uid(sop_class),
            0x0100: _us(_STORE_RQ),
            0x0110: _us(self.next_message_id()),
            0x0700: _us(0),
            0x1000: _uid(sop_instance),
        }

    async def start_query(self, sop_class: str, identifier: bytes, *, destination: str | None = None) -> int:
        """Send C-FIND-RQ, C-GET-RQ or C-MOVE-RQ, by the SOP class; returns the Message ID."""
        message_id = self.next_message_id()
        kind = {"1": _FIND_RQ, "2": _MOVE_RQ, "3": _GET_RQ}[sop_class[-1]]
        command = {0x0002: _uid(sop_class), 0x0100: _us(kind), 0x0110: _us(message_id), 0x0700: _us(0)}
        if destination is not None:
            command[0x0600] = destination.encode("ascii") + b" " * (len(destination) % 2)
        await self.send(self._context_of(sop_class), command, identifier)
        return message_id

    async def cancel(self, sop_class: str, message_id: int) -> None:
        """C-CANCEL-RQ (PS3.7 §9.3.2.3)."""
        await self.send(self._context_of(sop_class), {0x0100: _us(_CANCEL_RQ), 0x0120: _us(message_id)})

    async def answers(self) -> AsyncIterator[Answer]:
        """Responses to the running C-FIND or C-MOVE, up to and with the final one."""
        while True:
            answer = Answer.of(await self.receive())
            yield answer
            if answer.status not in (0xFF00, 0xFF01):
                return

    async def find(self, sop_class: str, identifier: bytes) -> list[dict[int, bytes]]:
        """All matches of a C-FIND that must end with 0000."""
        await self.start_query(sop_class, identifier)
        received = [answer async for answer in self.answers()]
        assert received[-1].status == 0, f"C-FIND ended with {received[-1]}"
        return [decode_elements(answer.identifier or b"") for answer in received[:-1]]

    async def move(self, sop_class: str, identifier: bytes, destination: str) -> list[Answer]:
        await self.start_query(sop_class, identifier, destination=destination)
        return [answer async for answer in self.answers()]

    async def get(self, sop_class: str, identifier: bytes) -> tuple[list[Received], Answer]:
        """Run a C-GET to its end, answering each sub-operation with 0000."""
        await self.start_query(sop_class, identifier)
        return await self.rest_of_get()

    async def rest_of_get(self) -> tuple[list[Received], Answer]:
        """The same of a C-GET that has begun."""
        instances: list[Received] = []
        while True:
            message = await self.receive()
            if message.number(0x0100) == _STORE_RQ:
                assert message.data is not None
                uids = (message.text(0x0002), message.text(0x1000))
                instances.append(Received(*uids, self.accepted[message.context_id], message.data))
                await self.answer_store(message, 0)
                continue
            answer = Answer.of(message)
            if answer.status != 0xFF00:
                return instances, answer

    async def answer_store(self, request: Message, status: int) -> None:
        response = {
            0x0002: request.command[0x0002],
            0x0100: _us(0x8000 | _STORE_RQ),
            0x0120: request.command[0x0110],
            0x0900: _us(status),
            0x1000: request.command[0x1000],
        }
        await self.send(request.context_id, response)

    # private

    async def read_pdu(self) -> tuple[int, bytes]:
        """The next PDU's type and body; an A-ABORT or the end of the connection raises ``AbortedError``."""
        try:
            kind, length = _PDU.unpack(await self.reader.readexactly(6))
            body = await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self._over = True
            raise AbortedError(None, None) from error
        if kind == 0x07:
            self._over = True
            raise AbortedError(body[2], body[3])
        return kind, body

    async def _next_fragment(self) -> tuple[int, int, bytes]:
        while not self._fragments:
            self._split(*await self.read_pdu())
        return self._fragments.pop(0)

    def _split(self, kind: int, body: bytes) -> None:
        assert kind == 0x04, f"PDU type {kind:02x}H where P-DATA-TF is due"
        assert not self.maximum_length or len(body) <= self.maximum_length, f"{len(body)} bytes in a P-DATA-TF"
        at = 0
        while at < len(body):
            length, context_id, control = _PDV.unpack_from(body, at)
            assert 2 <= length <= len(body) - at - 4, "a PDV leaves its PDU"
            self._fragments.append((context_id, control, body[at + 6 : at + 4 + length]))
            at += 4 + length

    def _send_pdvs(self, context_id: int, command_bit: int, data: bytes, *, final: int = 2) -> None:
        step = (min(self.peer_maximum_length or 1 << 20, 1 << 20) - 6) & ~1
        output: list[bytes] = []
        for at in range(0, max(len(data), 1), step):
            fragment = data[at : at + step]
            last = final if at + step >= len(data) else 0
            header = _PDU.pack(0x04, len(fragment) + 6) + _PDV.pack(len(fragment) + 2, context_id, command_bit | last)
            output += (header, fragment)
        self.writer.write(b"".join(output))

    def _context_of(self, abstract_syntax: str) -> int:
        for context in self._proposed:
            if context.abstract_syntax == abstract_syntax and context.context_id in self.accepted:
                return context.context_id
        raise AssertionError(f"no accepted presentation context for {abstract_syntax}: {self.results}")

    def _read_accept(self, body: bytes) -> None:
        at = 68
        while at < len(body):
            kind, length = struct.unpack_from(">BxH", body, at)
            item = body[at + 4 : at + 4 + length]
            at += 4 + length
            if kind == 0x21:
                self.results[item[0]] = item[2]
                if item[2] == 0:
                    (size,) = struct.unpack_from(">H", item, 6)
                    self.accepted[item[0]] = item[8 : 8 + size].decode("ascii").rstrip("\0 ")
            elif kind == 0x50:
                inner = 0
                while inner < len(item):
                    sub, size = struct.unpack_from(">BxH", item, inner)
                    self.user_items.setdefault(sub, []).append(item[inner + 4 : inner + 4 + size])
                    inner += 4 + size
        (self.peer_maximum_length,) = struct.unpack(">I", self.user_items[0x51][0])


def associate_request(
    contexts: Sequence[Context], called: str, calling: str, maximum_length: int, user_items: bytes = b""
) -> bytes:
    """An A-ASSOCIATE-RQ PDU (PS3.8 §9.3.2)."""
    items = _item(0x10, b"1.2.840.10008.3.1.1.1")
    roles = b""
    for context in contexts:
        abstract = context.abstract_syntax.encode("ascii")
        syntaxes = b"".join(_item(0x40, uid.encode("ascii")) for uid in context.transfer_syntaxes)
        items += _item(0x20, bytes((context.context_id, 0, 0, 0)) + _item(0x30, abstract) + syntaxes)
        if context.scp_role:
            roles += _item(0x54, struct.pack(">H", len(abstract)) + abstract + b"\x01\x01")
    user = (
        _item(0x51, struct.pack(">I", maximum_length))
        + _item(0x52, b"1.2.826.0.1.3680043.8.498.1")
        + roles
        + user_items
    )
    items += _item(0x50, user)
    fixed = struct.pack(">Hxx16s16s32x", 1, called.encode("ascii").ljust(16), calling.encode("ascii").ljust(16))
    return _PDU.pack(0x01, len(fixed) + len(items)) + fixed + items


def _decode_command(data: bytes) -> dict[int, bytes]:
    at, found, previous = 0, {}, -1
    while at < len(data):
        group, element, length = struct.unpack_from("<HHI", data, at)
        assert group == 0, "a command set has group 0000 only"
        assert element > previous, f"(0000,{element:04x}) is out of order"
        previous = element
        found[element] = data[at + 8 : at + 8 + length]
        at += 8 + length
    return found
