"""A storage SCP of the tests' own: takes everything, remembers it byte for byte, can be slow or refuse."""

import asyncio
import contextlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.wire import Message, Wire

__all__ = ["Arrival", "StorageScp"]


@dataclass(frozen=True)
class Arrival:
    """One C-STORE request as it came."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    move_originator: str
    move_message_id: int | None
    data: bytes


class StorageScp:
    """``async with StorageScp(port) as scp``: ``scp.received`` in order of arrival.

    Args:
        window: Operations that the requestor may have outstanding (PS3.7 §D.3.3.3); 0: not negotiated.
        at_once: Associations at a time; more are rejected transiently, 2/3/2 (PS3.8 §9.3.4). 0: any number.
    """

    def __init__(
        self,
        port: int,
        *,
        delay: float = 0.0,
        status: Callable[[Arrival], int] = lambda _: 0,
        ignore_release: bool = False,
        window: int = 0,
        at_once: int = 0,
    ) -> None:
        self.port, self._delay, self._status, self._ignore_release = port, delay, status, ignore_release
        self._window, self._at_once = window, at_once
        self._writers: list[asyncio.StreamWriter] = []
        self.received: list[Arrival] = []
        self.associations = self.open = self.rejected = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._associate, "127.0.0.1", self.port, limit=4 << 20)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0)

    async def _associate(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer, [])
        self._writers.append(writer)
        with contextlib.suppress(Exception):
            kind, body = await wire.read_pdu()
            if kind == 0x01 and self._at_once and self.open >= self._at_once:
                self.rejected += 1
                writer.write(b"\x03\0\0\0\0\x04\0\2\3\2")
                await reader.read()
            elif kind == 0x01:
                await self._associated(wire, _accept(body, wire, self._window))
        writer.close()

    async def _associated(self, wire: Wire, answer: bytes) -> None:
        self.associations += 1
        self.open += 1
        try:
            wire.writer.write(answer)
            await self._serve(wire)
        finally:
            self.open -= 1

    async def _serve(self, wire: Wire) -> None:
        while True:
            message = await wire.receive_or_release(answer=not self._ignore_release)
            if message is None and self._ignore_release:
                await asyncio.sleep(60)
            if message is None:
                return
            await self.take(wire, message)

    async def take(self, wire: Wire, message: Message) -> None:
        """Answer one C-STORE request."""
        arrival = _arrival(wire, message)
        await asyncio.sleep(self._delay)
        status = self._status(arrival)
        if status == 0:
            self.received.append(arrival)
        await wire.answer_store(message, status)


def _arrival(wire: Wire, message: Message) -> Arrival:
    assert message.data is not None
    return Arrival(
        message.text(0x0002),
        message.text(0x1000),
        wire.accepted[message.context_id],
        message.text(0x1030),
        message.number(0x1031),
        message.data,
    )


def _accept(request: bytes, wire: Wire, window: int = 0) -> bytes:
    """Accept every context with its first transfer syntax (PS3.8 §9.3.3)."""
    at, items = 68, b""
    while at < len(request):
        kind, length = struct.unpack_from(">BxH", request, at)
        item = request[at + 4 : at + 4 + length]
        at += 4 + length
        if kind == 0x10:
            items += struct.pack(">BxH", kind, length) + item
        elif kind == 0x20:
            inner = 4
            while item[inner] != 0x40:
                inner += 4 + int.from_bytes(item[inner + 2 : inner + 4], "big")
            size = int.from_bytes(item[inner + 2 : inner + 4], "big")
            syntax = item[inner : inner + 4 + size]
            wire.accepted[item[0]] = syntax[4:].decode("ascii").rstrip("\0 ")
            items += struct.pack(">BxHBxBx", 0x21, 4 + len(syntax), item[0], 0) + syntax
        elif kind == 0x50:
            wire.peer_maximum_length = int.from_bytes(item[4:8], "big")
    user = struct.pack(">BxHI", 0x51, 4, 1 << 20) + struct.pack(">BxH", 0x52, 7) + b"1.2.3.4"
    if window:
        user += struct.pack(">BxHHH", 0x53, 4, window, 1)
    items += struct.pack(">BxH", 0x50, len(user)) + user
    body = request[:68] + items
    return struct.pack(">BxI", 0x02, len(body)) + body
