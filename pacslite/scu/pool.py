"""Associations with destinations, kept open for a moment: a viewer that moves series by series needs only one."""

import asyncio
from collections.abc import Sequence

from pacslite.net.connection import Connection
from pacslite.net.ended import AssociationEnded
from pacslite.scu.requestor import Address, Requestor
from pacslite.upper_layer.items import PresentationContext

__all__ = ["Pool"]

_CLOSE_SECONDS = 1.0  # for the answers to our A-RELEASE-RQs, when the server stops or another association is opened

_Key = tuple[Address, tuple[PresentationContext, ...]]


class Pool:
    """Opens associations and takes them back.

    Args:
        requestor: Opens them.
        reuse_seconds: How long an idle one is kept.
    """

    def __init__(self, requestor: Requestor, reuse_seconds: float) -> None:
        self._requestor = requestor
        self._reuse_seconds = reuse_seconds
        self._idle: dict[_Key, list[Connection]] = {}
        self._timers: dict[Connection, asyncio.TimerHandle] = {}
        self._closing: dict[asyncio.Task[None], tuple[Address, Connection]] = {}

    @property
    def requestor(self) -> Requestor:
        """For associations that are nobody else's."""
        return self._requestor

    async def acquire(self, address: Address, contexts: Sequence[PresentationContext]) -> Connection:
        """An association on which ``contexts`` were proposed; nobody else uses it until it is given back."""
        idle = self.take_idle(address, contexts)
        return idle if idle is not None else await self.open(address, contexts)

    def take_idle(self, address: Address, contexts: Sequence[PresentationContext]) -> Connection | None:
        """One that was given back, if there is any; its peer may be about to end it."""
        key = (address, tuple(contexts))
        while idle := self._idle.get(key):
            connection = idle[-1]
            self._timers[connection].cancel()
            self._forget(key, connection)
            if connection.over is None:
                return connection
        return None

    async def open(self, address: Address, contexts: Sequence[PresentationContext]) -> Connection:
        """A new one. What is idle with its peer ends first: there are receivers that take one association at a time."""
        for key, connections in list(self._idle.items()):
            if key[0] == address:
                self._expire_all(key, connections)
        ending = {task: one for task, (where, one) in self._closing.items() if where == address and one.over is None}
        if ending:
            await asyncio.wait(ending, timeout=_CLOSE_SECONDS)
            for connection in ending.values():
                connection.abort("no answer to our A-RELEASE-RQ", close_within=_CLOSE_SECONDS)
        return await self._requestor.associate(address, contexts)

    def release(self, address: Address, contexts: Sequence[PresentationContext], connection: Connection) -> None:
        """Give an association back, idle; one that is over is forgotten."""
        if connection.over is not None:
            return
        key = (address, tuple(contexts))
        self._idle.setdefault(key, []).append(connection)
        loop = asyncio.get_running_loop()
        self._timers[connection] = loop.call_later(self._reuse_seconds, self._expire, key, connection)

    async def close(self) -> None:
        """Release all idle associations; those whose peer does not answer soon are dropped."""
        for key, connections in list(self._idle.items()):
            self._expire_all(key, connections)
        if self._closing:
            await asyncio.wait(self._closing, timeout=_CLOSE_SECONDS)
        for _, connection in self._closing.values():
            connection.drop()
        if self._closing:
            await asyncio.wait(self._closing)

    def _expire_all(self, key: _Key, connections: Sequence[Connection]) -> None:
        for connection in list(connections):
            self._timers[connection].cancel()
            self._expire(key, connection)

    def _expire(self, key: _Key, connection: Connection) -> None:
        self._forget(key, connection)
        task = asyncio.create_task(_release(connection))
        self._closing[task] = (key[0], connection)
        task.add_done_callback(self._closing.pop)

    def _forget(self, key: _Key, connection: Connection) -> None:
        """It is idle no longer."""
        del self._timers[connection]
        self._idle[key].remove(connection)
        if not self._idle[key]:
            del self._idle[key]


async def _release(connection: Connection) -> None:
    try:
        await connection.release()
    except AssociationEnded:
        connection.drop()
