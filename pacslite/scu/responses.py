"""A request with many responses (C-FIND, C-MOVE, C-GET), cancelled when nobody wants the rest (PS3.7 §9.3.2.3)."""

import asyncio
from types import TracebackType
from typing import Self

from pacslite.dimse.command import CommandSet
from pacslite.dimse.messages import CommandField, Message, Priority, cancel_request, request_command
from pacslite.net.connection import Connection
from pacslite.net.ended import AssociationEnded
from pacslite.net.exchange import Exchange
from pacslite.upper_layer.negotiation import AcceptedContext

__all__ = ["Responses"]

_CANCEL_SECONDS = 5.0  # for the last response after our C-CANCEL; then the association is aborted
_ABORT_SECONDS = 1.0  # for the peer to close, after that


class Responses:
    """``async with Responses(...) as responses``, then ``async for response, data_set in responses``.

    The request goes out at the beginning of the block. What is still to come at its end is cancelled, taken and thrown
    away, so that the association is free again. ``end`` does the same from outside the block.
    """

    def __init__(
        self,
        connection: Connection,
        context: AcceptedContext,
        field: CommandField,
        identifier: bytes,
        extra: CommandSet | None = None,
    ) -> None:
        self._connection = connection
        self._context = context
        self._identifier = identifier
        self._message_id = connection.next_message_id()
        self._command = request_command(
            field,
            self._message_id,
            sop_class_uid=context.abstract_syntax,
            has_data_set=True,
            priority=Priority.MEDIUM,
            extra=extra,
        )
        self._exchange: Exchange | None = None
        self._taking = asyncio.Lock()  # an exchange has one who waits
        self._ending = asyncio.Lock()
        self._given_up = False

    async def __aenter__(self) -> Self:
        self._exchange = await self._connection.begin_exchange(self._context, self._command, self._identifier)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Message, bytes | None]:
        async with self._taking:
            if self._given_up:
                raise AssociationEnded("the client was closed before the last response")
            if self._is_complete:
                raise StopAsyncIteration
            return await self._next()

    async def end(self) -> None:
        """Cancel the request, unless its last response was taken; harmless at any time.

        A peer that does not end in time loses the association: what it sends could not be told from the next answers.
        """
        async with self._ending:
            if self._is_complete or self._connection.over is not None:
                return
            self._given_up = True
            try:
                async with asyncio.timeout(_CANCEL_SECONDS):
                    await self._cancel()
            except AssociationEnded:
                pass
            except TimeoutError:
                self._abort("the request was cancelled and did not end")
            except BaseException:
                self._abort("given up")
                raise

    # private

    @property
    def _is_complete(self) -> bool:
        """Nothing more will come, and all was taken."""
        return self._exchange is None or (self._exchange.done and not self._exchange.backlog)

    async def _next(self) -> tuple[Message, bytes | None]:
        assert self._exchange is not None
        return await self._connection.next_response(self._exchange)

    async def _cancel(self) -> None:
        if self._exchange is not None and not self._exchange.done:
            await self._connection.send(self._context.context_id, cancel_request(self._message_id))
        while not self._is_complete:
            async with self._taking:
                if not self._is_complete:
                    await self._next()

    def _abort(self, why: str) -> None:
        self._connection.abort(why, close_within=_ABORT_SECONDS)
