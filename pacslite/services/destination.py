"""A C-MOVE destination, which may fail at any moment: its association, and another when that is lost."""

import asyncio
from dataclasses import dataclass, field

from pacslite.archive.reference import InstanceRef
from pacslite.dataset.source import ReadBuffer
from pacslite.net.connection import Connection
from pacslite.net.ended import (
    AssociationEnded,
    AssociationRejectedError,
    ConnectFailed,
    DimseTimeout,
    PeerNotReady,
    TimedOut,
)
from pacslite.scu.contexts import ContextMap
from pacslite.scu.pool import Pool
from pacslite.scu.requestor import Address
from pacslite.services.sending import InstanceSender
from pacslite.services.sub_operations import SubOperationFailed
from pacslite.upper_layer.items import PresentationContext

__all__ = ["Destination"]

_TRIES = 2  # of an instance: what it was under way with was lost, or it is what the receiver fails at
_REOPENINGS = 3  # after associations lost in a row; then the destination is given up
_TRANSIENT = 2  # Result of an A-ASSOCIATE-RJ: the same request may be accepted later (PS3.8 §9.3.4)
_PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0)  # seconds before we ask again after each


@dataclass(slots=True)
class _Association:
    """What belongs to one association: after its end the transport may still hold views of the buffer."""

    connection: Connection
    was_idle: bool = False  # and nothing has been answered since
    contexts: ContextMap = field(init=False)
    buffer: ReadBuffer = field(init=False, default_factory=ReadBuffer)

    def __post_init__(self) -> None:
        self.contexts = ContextMap(self.connection.negotiated.contexts)


class Destination:
    """A C-MOVE destination: opens an association when the first instance needs it, and another when it is lost.

    A destination that cannot be reached, or rejects us again and again, fails the rest at once: waiting for every
    instance anew would hold the requestor for hours.
    """

    def __init__(
        self, pool: Pool, address: Address, contexts: tuple[PresentationContext, ...], sender: InstanceSender
    ) -> None:
        self._pool = pool
        self._address = address
        self._contexts = contexts
        self._sender = sender
        self._association: _Association | None = None
        self._opening: asyncio.Task[None] | None = None  # all who need an association wait for this one
        self._in_hand = 0  # instances
        self._openings = 0  # since the last answer
        self._hopeless = ""  # why no association will be opened any more

    async def send(self, instance: InstanceRef) -> int:
        """Status of the C-STORE-RSP (raises SubOperationFailed)."""
        self._in_hand += 1
        try:
            return await self._send(instance)
        except AssociationEnded as ended:
            raise SubOperationFailed(f"{self._address.ae_title}: {ended}") from ended
        finally:
            self._in_hand -= 1

    async def open(self) -> bool:
        """Be connected, if it can be."""
        try:
            await self._connected()
        except SubOperationFailed:
            return False
        return True

    @property
    def operations(self) -> int:
        """C-STOREs that may be outstanding (0: no limit)."""
        return 1 if self._association is None else self._association.connection.negotiated.operations_invoked

    @property
    def hopeless(self) -> bool:
        """No association will be opened any more."""
        return bool(self._hopeless)

    def need_no_more(self) -> None:
        """Nothing is left to be sent: an association is waited for only if an instance in hand needs it."""
        if self._opening is not None and not self._in_hand:
            self._opening.cancel()

    def cancel(self) -> None:
        """What is being sent may end; no association is opened for it, or waited for."""
        self._hopeless = self._hopeless or "cancelled"
        if self._opening is not None:
            self._opening.cancel()

    def abort(self) -> None:
        """Give up what is being sent."""
        self.cancel()
        if self._association is not None:
            self._association.connection.abort("cancelled")

    def close(self) -> None:
        """Give the association back; it may be somebody else's from now on."""
        if self._opening is not None:
            self._opening.cancel()
        one, self._association = self._association, None
        if one is not None:
            self._pool.release(self._address, self._contexts, one.connection)

    # private

    async def _send(self, instance: InstanceRef) -> int:
        """Send on one association after another, while the peer loses them before it answers."""
        losses = 0
        while True:
            one = await self._connected()
            try:
                return await self._send_on(one, instance)
            except (DimseTimeout, TimedOut):
                raise
            except AssociationEnded:
                # That the peer ends what was idle, while our request is on its way, says nothing of the instance
                losses += not one.was_idle
                if losses == _TRIES:
                    raise

    async def _send_on(self, one: _Association, instance: InstanceRef) -> int:
        status = await self._sender.send(one.connection, one.contexts, instance, one.buffer)
        one.was_idle = False
        self._openings = 0
        return status

    async def _connected(self) -> _Association:
        while (one := self._association) is None or one.connection.over is not None:
            if self._hopeless:
                raise SubOperationFailed(self._hopeless)
            if self._opening is None or self._opening.done():
                self._opening = asyncio.create_task(self._open())
            opening = self._opening
            await asyncio.wait([opening])
            if opening.cancelled():
                raise SubOperationFailed("cancelled")
            opening.result()
        return one

    async def _open(self) -> None:
        if self._openings > _REOPENINGS:
            self._hopeless = f"{self._address.ae_title}: association lost {self._openings} times in a row"
            return
        self._openings += 1
        try:
            self._association = self._take_idle() or _Association(await self._associate())
        except ConnectFailed as error:
            self._hopeless = f"{self._address.ae_title}: {error.why}"

    def _take_idle(self) -> _Association | None:
        """One of the pool's; only at first, since what ended one that was idle may have ended the others too."""
        idle = self._pool.take_idle(self._address, self._contexts) if self._association is None else None
        return None if idle is None else _Association(idle, was_idle=True)

    async def _associate(self) -> Connection:
        """A new association; a receiver gets the time to free a place, or to start again after we lost it."""
        lost = self._association is not None and not self._association.was_idle
        for pause in _PAUSES:
            try:
                return await self._pool.open(self._address, self._contexts)
            except AssociationRejectedError as rejected:
                if rejected.result != _TRANSIENT:
                    raise
            except PeerNotReady:
                if not lost:
                    raise
            await asyncio.sleep(pause)
        return await self._pool.open(self._address, self._contexts)
