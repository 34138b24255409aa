"""Sends queued instances: batches of what waits for one destination, each over as few associations as it needs.

An instance is marked as sent as soon as its response is there. Killed in between, we send it again: the receiver has it
already, and says so or does not care.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pacslite.archive.reference import InstanceRef
from pacslite.dataset.source import ReadBuffer
from pacslite.dimse.service import Invoker
from pacslite.dimse.status import Status, is_done
from pacslite.errors import PacsliteError
from pacslite.net.connection import Connection
from pacslite.net.ended import AssociationEnded
from pacslite.outbox.lookup import IndexLookup
from pacslite.outbox.offload import Offload
from pacslite.outbox.queue import Queue
from pacslite.scu.contexts import ContextMap, storage_contexts
from pacslite.scu.pool import Pool
from pacslite.scu.requestor import Address
from pacslite.upper_layer.items import PresentationContext

__all__ = ["ForwardOptions", "Forwarder", "InstanceSender"]

log = logging.getLogger("pacslite.outbox")

# after these the destination, not the instance, is taken for what is wrong
_REFUSALS_IN_A_ROW = 5
_LOSSES_IN_A_ROW = 3  # associations that ended before anything was sent; an instance that ends them waits meanwhile


class InstanceSender(Protocol):
    """Sends one instance of the archive on an association."""

    async def send(self, invoker: Invoker, contexts: ContextMap, instance: InstanceRef, buffer: ReadBuffer) -> int:
        """Status of the C-STORE-RSP.

        Raises:
            PacsliteError: It could not be sent; AssociationEnded: nor can others on this association.
        """


@dataclass(frozen=True, slots=True)
class ForwardOptions:
    """As configured."""

    batch: int = 200  # instances taken from the queue at once
    operations: int = 8  # C-STOREs outstanding on one association, where the destination negotiates it


class _Item(NamedTuple):
    number: int
    instance: InstanceRef
    attempts: int  # that have failed


class _Batch:
    """What has become of a batch so far."""

    def __init__(self) -> None:
        self.sent = 0
        self.errors: Counter[str] = Counter()
        self.last_error = ""
        self.refusals_in_a_row = 0
        self.lost = False  # an association

    @property
    def hopeless(self) -> bool:
        return self.refusals_in_a_row >= _REFUSALS_IN_A_ROW


class Forwarder:
    """Serves the ``forward`` entries of the queue.

    Args:
        address_of: Where an AE title is; None if it is not configured.
    """

    def __init__(
        self,
        queue: Queue,
        lookup: IndexLookup,
        offload: Offload,
        *,
        pool: Pool,
        sender: InstanceSender,
        address_of: Callable[[str], Address | None],
        options: ForwardOptions | None = None,
    ) -> None:
        self._queue = queue
        self._lookup = lookup
        self._offload = offload
        self._pool = pool
        self._sender = sender
        self._address_of = address_of
        self._options = options or ForwardOptions()
        self._in_hand: set[int] = set()  # taken from the queue and not begun
        self._sent: list[int] = []  # not written down yet, as the next
        self._failed: list[tuple[int, str]] = []
        self._writing: asyncio.Task[None] | None = None
        self._stopping = False

    async def serve(self, destination: str) -> bool:
        """Send all that is due for ``destination``; True if anything was sent."""
        progress = False
        losses = 0
        await self.flush()  # what was sent and cannot be written down would be sent again and again
        address = self._address_of(destination)
        if address is None:
            await self._defer(destination, "no [[remote]] with a port has this AE title")
            return False
        while not self._stopping and (items := await self._offload.run(self._take, destination)):
            started = time.perf_counter()
            batch = _Batch()
            error = ""
            try:
                await self._send(address, items, batch)
            except AssociationEnded as ended:  # or never began
                error = str(ended)
            finally:
                self._in_hand.difference_update(item.number for item in items)
            await self.flush()
            if batch.sent:
                progress = True
                await self._offload.run(self._queue.reached, "forward", destination)
            _report(destination, batch, (time.perf_counter() - started) * 1000)
            losses = losses + 1 if batch.lost and not batch.sent else 0
            if batch.hopeless or losses >= _LOSSES_IN_A_ROW:
                error = error or batch.last_error
            if error:
                if self._address_of(destination) == address:  # else it is to be tried at another one
                    await self._defer(destination, error)
                break
            if self._address_of(destination) != address:  # the rest goes where it is now
                break
        return progress

    async def forget_dropped(self) -> None:
        """Others may have dropped what we have taken from the queue: do not send it."""
        asked = set(self._in_hand)
        self._in_hand -= asked - await self._offload.run(self._queue.still_waiting, asked)

    def stop(self) -> None:
        """Begin no further instance."""
        self._stopping = True
        self._in_hand.clear()

    async def flush(self) -> None:
        """Return when all that has become known is written down."""
        while self._sent or self._failed or self._writing is not None:
            await asyncio.shield(self._write())

    # private

    def _take(self, destination: str) -> list[_Item]:
        """In the thread: what is due and still stored as it was when it was enqueued."""
        while waiting := self._queue.take("forward", destination, self._options.batch):
            references = self._lookup.references(one.subject for one in waiting)
            items: list[_Item] = []
            dropped: list[tuple[int, str]] = []
            for one in waiting:
                reference = references.get(one.subject)
                if reference is None:
                    dropped.append((one.id, "no longer stored"))
                elif reference.digest != one.body:
                    dropped.append((one.id, "replaced by a newer one"))
                else:
                    items.append(_Item(one.id, reference, one.attempts))
            if dropped:
                self._queue.finish(dropped=dropped)
            if items:
                return items
        return []

    async def _send(self, address: Address, items: list[_Item], batch: _Batch) -> None:
        self._in_hand.update(item.number for item in items)
        pairs = ((item.instance.sop_class_uid, item.instance.transfer_syntax_uid) for item in items)
        for contexts in storage_contexts(pairs):
            classes = {context.abstract_syntax for context in contexts}
            part = [item for item in items if item.instance.sop_class_uid in classes]
            if not await self._send_part(address, contexts, part, batch):
                return

    async def _send_part(
        self, address: Address, contexts: tuple[PresentationContext, ...], part: list[_Item], batch: _Batch
    ) -> bool:
        """Send on one association; False if it is no use to go on."""
        connection = await self._pool.acquire(address, contexts)
        accepted = ContextMap(connection.negotiated.contexts)
        buffer = ReadBuffer()
        waiting = iter(part)
        window = connection.negotiated.operations_invoked or self._options.operations
        if any(item.attempts for item in part):  # one of them may have ended the association that others were lost with
            window = 1
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(window, self._options.operations, len(part))):
                    group.create_task(self._send_some(connection, accepted, waiting, buffer, batch))
        except BaseException:
            connection.abort("given up")
            raise
        self._pool.release(address, contexts, connection)
        if connection.over is not None:
            batch.lost = True
            batch.last_error = str(connection.over)
        return not batch.lost and not batch.hopeless

    async def _send_some(
        self,
        connection: Connection,
        accepted: ContextMap,
        waiting: Iterator[_Item],
        buffer: ReadBuffer,
        batch: _Batch,
    ) -> None:
        for number, instance, _ in waiting:
            if batch.hopeless or connection.over is not None:
                return
            if number not in self._in_hand:
                continue
            self._in_hand.discard(number)
            error = ""
            try:
                status = await self._sender.send(connection, accepted, instance, buffer)
                if not is_done(status) and status != Status.DUPLICATE_SOP_INSTANCE:  # it has it: that is all we want
                    error = f"status {status:04X}"
                    batch.refusals_in_a_row += _is_of_the_destination(status)
            except PacsliteError as problem:
                error = str(problem)
            except Exception as problem:  # a fault of ours: the others are not to wait for it
                log.exception("not forwarded", extra={"instance": instance.sop_instance_uid})
                error = str(problem) or type(problem).__name__
            if error:
                batch.errors[error] += 1
                batch.last_error = error
                self._failed.append((number, error))
            else:
                batch.sent += 1
                batch.refusals_in_a_row = 0
                self._sent.append(number)
            if self._writing is None:
                self._write()

    def _write(self) -> "asyncio.Task[None]":
        """Write down what has gathered, while sending goes on."""
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_gathered())
            self._writing.add_done_callback(_noticed)
        return self._writing

    async def _write_gathered(self) -> None:
        try:
            while self._sent or self._failed:
                sent, self._sent = self._sent, []
                failed, self._failed = self._failed, []
                try:
                    await self._offload.run(self._queue.finish, sent, failed)
                except BaseException:
                    self._sent[:0], self._failed[:0] = sent, failed
                    raise
        finally:
            self._writing = None

    async def _defer(self, destination: str, error: str) -> None:
        seconds = await self._offload.run(self._queue.defer, "forward", destination, error)
        log.warning("destination deferred", extra={"to": destination, "seconds": seconds, "why": error})


def _is_of_the_destination(status: int) -> bool:
    """Out of resources, not authorized, resource limitation: others will fare alike (PS3.4 §B.2.3, PS3.7 Annex C)."""
    return status >> 8 == 0xA7 or status in {Status.NOT_AUTHORIZED, Status.RESOURCE_LIMITATION}


def _report(destination: str, batch: _Batch, ms: float) -> None:
    for error, count in batch.errors.items():
        log.warning("not forwarded", extra={"to": destination, "instances": count, "why": error})
    if batch.sent:
        log.info("forwarded", extra={"to": destination, "instances": batch.sent, "ms": ms})


def _noticed(task: "asyncio.Task[None]") -> None:
    """Who flushes hears of the error again; it is not lost if nobody does."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("not written down", extra={"why": str(error)})
