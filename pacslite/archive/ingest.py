"""The loop's half of storing: takes fragments in, keeps memory bounded, and answers who waits.

A small object is handed to the disk threads when it is complete, one hop and one wake-up; a large one in pieces while
it arrives. Of objects with one SOP Instance UID one is stored at a time: what it leaves decides what the next one is.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from pacslite.archive.disk import DiskThreads, GroupThreads
from pacslite.archive.incoming import Complete, Incoming, Posted
from pacslite.archive.index.writer import IndexWriter
from pacslite.archive.instances.protocol import InstanceStore
from pacslite.archive.memory import MemoryExhausted, Stall
from pacslite.archive.options import StorageOptions
from pacslite.archive.outcome import OutOfResources, Stored
from pacslite.archive.sealing import Result, Sealer
from pacslite.archive.settle import Settler
from pacslite.archive.space import SpaceGuard
from pacslite.budget import Budget

__all__ = ["Ingest"]

log = logging.getLogger("pacslite.archive")

_MOST_AT_ONCE = 8  # objects that one thread writes and syncs together
_MOST_QUICK = 16  # the same of quick ones


class Ingest:
    """Takes objects in. Its public methods are for the loop's thread."""

    def __init__(
        self,
        *,
        store: InstanceStore,
        index: IndexWriter,
        settler: Settler,
        space: SpaceGuard,
        budget: Budget,
        options: StorageOptions,
        on_stored: Sequence[Callable[[Stored], None]],
    ) -> None:
        self._space = space
        self._budget = budget
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._sealer = Sealer(store, index, settler, options, self._finish)
        self._store = store
        self._syncs = options.durability == "full"
        calm = index.catch_up if options.durability == "none" else None
        # For what one write makes durable, and where nothing is synced: one thread. A second would make the groups
        # smaller, and two would wait for the interpreter more often than for the disk
        self._quick = GroupThreads(
            "quick", 1, self._sealer.seal, most=_MOST_QUICK, prepare=index.open_reader, calm=calm
        )
        # Each with a file of its own to sync
        self._small = GroupThreads(
            "seal", options.disk_threads, self._sealer.seal, most=_MOST_AT_ONCE, prepare=index.open_reader
        )
        # Threads of their own: a large object's sync delays no small one
        self._large = DiskThreads("stream", options.stream_threads, prepare=index.open_reader)
        # SOP Instance UIDs being sealed, each with those who send the same and wait for the outcome
        self._in_flight: dict[str, deque[Incoming]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._holding: dict[Incoming, None] = {}  # those that arrive and of which something is not handed on
        self._paused: dict[Incoming, None] = {}  # whose peers are not read from
        self._stall = Stall(self._loop, options.stall_seconds, self._paused, self._refuse_who_waits)
        self._on_stored = on_stored

    # receiving

    def took(self, incoming: Incoming, size: int) -> None:
        """An object has grown: hand it on if it is large, stop its peer if the disk does not keep up."""
        budget = self._budget
        budget.used += size
        pending = incoming.pending
        if pending == size:
            self._holding[incoming] = None
        if pending < self._options.pressed_piece_bytes:
            if budget.used > budget.most:
                self._relieve(incoming)
            return
        pressed = budget.used > budget.limit
        if not incoming.flushing:
            if pressed or pending >= self._options.piece_bytes:
                self._flush(incoming)
        elif pressed or pending >= self._options.unflushed_bytes:
            self._pause(incoming)

    def complete(self, incoming: Incoming) -> None:
        """All bytes are there."""
        self._holding.pop(incoming, None)
        if isinstance(incoming.error, MemoryExhausted) and incoming.waiter is not None:
            incoming.waiter.set_exception(incoming.error)
            self.drop(incoming)
            return
        if self._budget.used > self._budget.most:
            self._pause(incoming)  # until it is stored: a peer that does not wait for its answers waits here
        else:
            self._resume(incoming)
        self._claim(incoming)

    def drop(self, incoming: Incoming) -> None:
        """The peer has gone."""
        self._resume(incoming)
        self._holding.pop(incoming, None)
        self._forget(incoming)
        if incoming.streamed:
            self._post(incoming, None)

    async def stop(self) -> None:
        """Wait for what is being stored, then end the threads."""
        self._stall.stop()
        await self._idle.wait()
        await self._loop.run_in_executor(None, self._large.stop)
        await self._loop.run_in_executor(None, self._small.stop)
        await self._loop.run_in_executor(None, self._quick.stop)

    def _flush(self, incoming: Incoming) -> None:
        self._holding.pop(incoming, None)
        size = incoming.pending
        incoming.pending = 0
        incoming.flushing += size
        self._space.take(size)
        try:
            self._space.check(incoming.length)
        except OutOfResources as error:  # there was room when it began: no object runs through the floor
            incoming.error = incoming.error or error
        self._post(incoming, incoming.take_pieces())

    def _flushed(self, incoming: Incoming, size: int) -> None:
        incoming.flushing -= size
        self._budget.give(size)
        self._stall.progress()
        if incoming.ended:
            return
        if incoming.error is not None:  # what still arrives is dropped
            self._forget(incoming)
        pending = incoming.pending
        threshold = self._options.pressed_piece_bytes if self._budget.pressed else self._options.piece_bytes
        if pending >= threshold:
            self._flush(incoming)
            if pending >= self._options.unflushed_bytes or self._budget.pressed:
                return
        elif pending:
            self._holding[incoming] = None
        self._resume(incoming)

    def _post(self, incoming: Incoming, item: Posted) -> None:
        incoming.streamed = True
        if self._sealer.post(incoming, item):
            self._large.submit(self._sealer.stream, incoming, self._flushed)

    def _pause(self, incoming: Incoming) -> None:
        if self._stall.stalled:
            self._refuse(incoming)
        elif not incoming.paused and incoming.flow is not None:
            self._stall.watch()
            incoming.paused = True
            self._paused[incoming] = None
            incoming.flow.pause_reading()

    def _resume(self, incoming: Incoming) -> None:
        if incoming.paused and incoming.flow is not None:
            incoming.paused = False
            del self._paused[incoming]
            incoming.flow.resume_reading()

    def _forget(self, incoming: Incoming) -> None:
        """Give back the memory of what was not handed on."""
        incoming.take_pieces()
        self._budget.give(incoming.pending)
        incoming.pending = 0

    # when the budget is exhausted

    def _relieve(self, incoming: Incoming) -> None:
        """Write even the little that each object has: who begins objects and does not go on takes no memory."""
        while self._holding:
            one, _ = self._holding.popitem()
            if one.error is None and not one.flushing:
                self._flush(one)
        self._pause(incoming)

    def _refuse_who_waits(self) -> None:
        """The disk has stalled: who waits for it to take more is refused, and the rest of the object dropped."""
        log.error("storing refused", extra={"reason": f"disk has taken nothing for {self._options.stall_seconds:g} s"})
        for incoming in [*self._paused]:
            if not incoming.ended:
                self._refuse(incoming)

    def _refuse(self, incoming: Incoming) -> None:
        incoming.error = MemoryExhausted("no memory left: the disk takes nothing")
        self._holding.pop(incoming, None)
        self._forget(incoming)
        self._resume(incoming)

    # one at a time for a SOP Instance UID

    def _claim(self, incoming: Incoming) -> None:
        """Seal now, or after those who came first with the same UID: what they leave decides what this one is."""
        waiting = self._in_flight.get(incoming.sop_instance_uid)
        if waiting is None:
            self._in_flight[incoming.sop_instance_uid] = deque()
            self._idle.clear()
            self._submit(incoming)
        else:
            waiting.append(incoming)

    def _submit(self, incoming: Incoming) -> None:
        self._space.take(incoming.pending)
        complete = Complete(incoming, incoming.take_pieces())
        if incoming.streamed:
            self._post(incoming, complete)
        elif not self._syncs or self._store.is_quick(incoming.length):
            self._quick.put(complete)
        else:
            self._small.put(complete)

    def _finish(self, results: list[Result]) -> None:
        """A group is done: tell each, and let the next with the same UID go on."""
        self._stall.progress()
        for incoming, outcome in results:
            self._resume(incoming)
            self._budget.give(incoming.pending)
            incoming.pending = 0
            waiting = self._in_flight[incoming.sop_instance_uid]
            while waiting:
                successor = waiting.popleft()
                if successor.waiter is not None and successor.waiter.cancelled():
                    self.drop(successor)
                    continue
                self._submit(successor)
                break
            else:
                del self._in_flight[incoming.sop_instance_uid]
            waiter = incoming.waiter
            if isinstance(outcome, Stored):
                self._space.stored_bytes += outcome.growth
                self._tell(outcome)
                if waiter is not None and not waiter.done():
                    waiter.set_result(outcome)
            elif waiter is not None and not waiter.done():
                waiter.set_exception(outcome)
        if not self._in_flight:
            self._idle.set()

    def _tell(self, stored: Stored) -> None:
        for hook in self._on_stored:
            try:
                hook(stored)
            except Exception:  # of a stranger: the instance is stored, and its sender must hear of it
                log.exception("on_stored")
