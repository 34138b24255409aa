"""PDUs byte by byte (PS3.8 §9.3), for peers that break rules, and an acceptor that follows a script."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from tests.support.wire import encode_command

__all__ = [
    "ABORT",
    "NO_DATA_SET",
    "RELEASE_RP",
    "RELEASE_RQ",
    "ScriptedAcceptor",
    "accept_pdu",
    "command",
    "p_data",
    "pdv",
    "read_pdu",
    "read_to_end",
    "user_item",
]

RELEASE_RQ = b"\x05\0\0\0\0\x04\0\0\0\0"
RELEASE_RP = b"\x06\0\0\0\0\x04\0\0\0\0"
ABORT = b"\x07\0\0\0\0\x04\0\0\0\0"
NO_DATA_SET, DATA_SET = b"\x01\x01", b"\0\0"


def pdv(context_id: int, control: int, data: bytes) -> bytes:
    """``control``: bit 0 command, bit 1 last."""
    return struct.pack(">IBB", len(data) + 2, context_id, control) + data


def p_data(*pdvs: bytes) -> bytes:
    body = b"".join(pdvs)
    return struct.pack(">BxI", 4, len(body)) + body


def command(
    field: int,
    *,
    message_id: int | None = 1,
    sop_class: str = "",
    sop_instance: str = "",
    has_data: bool = False,
    responded_to: int | None = None,
    status: int | None = None,
    destination: str = "",
) -> bytes:
    """A command set (PS3.7 §9.3)."""
    elements = {0x0100: struct.pack("<H", field), 0x0800: DATA_SET if has_data else NO_DATA_SET}
    for element, number in ((0x0110, message_id), (0x0120, responded_to), (0x0900, status)):
        if number is not None:
            elements[element] = struct.pack("<H", number)
    for element, text in ((0x0002, sop_class), (0x1000, sop_instance), (0x0600, destination)):
        if text:
            elements[element] = text.encode("latin-1") + b"\0" * (len(text) % 2)
    return encode_command(elements)


def user_item(kind: int, body: bytes) -> bytes:
    """A sub-item of the User Information item."""
    return struct.pack(">BxH", kind, len(body)) + body


def accept_pdu(request: bytes, *, maximum_length: int = 16_384, user_items: bytes = b"") -> bytes:
    """A-ASSOCIATE-AC that accepts every context of the body of an A-ASSOCIATE-RQ with its first transfer syntax."""
    at, items = 68, b""
    while at < len(request):
        kind, length = struct.unpack_from(">BxH", request, at)
        item = request[at + 4 : at + 4 + length]
        at += 4 + length
        if kind == 0x10:
            items += user_item(kind, item)
        elif kind == 0x20:
            inner = 4
            while item[inner] != 0x40:
                inner += 4 + int.from_bytes(item[inner + 2 : inner + 4], "big")
            size = int.from_bytes(item[inner + 2 : inner + 4], "big")
            items += user_item(0x21, bytes((item[0], 0, 0, 0)) + item[inner : inner + 4 + size])
    items += user_item(
        0x50, user_item(0x51, struct.pack(">I", maximum_length)) + user_item(0x52, b"1.2.3.4") + user_items
    )
    body = request[:68] + items
    return struct.pack(">BxI", 2, len(body)) + body


async def read_pdu(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind, length = struct.unpack(">BxI", await reader.readexactly(6))
    return kind, await reader.readexactly(length)


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """What still comes until the peer closes, however it does."""
    received = bytearray()
    try:
        while piece := await reader.read(65_536):
            received += piece
    except ConnectionError:
        pass
    return bytes(received)


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class ScriptedAcceptor:
    """Listens on loopback and does with each connection what ``script`` says; ``async with``."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in [*self._running]:
            task.cancel()
            await asyncio.wait([task])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            await self._script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._running.discard(task)
            writer.transport.abort()
