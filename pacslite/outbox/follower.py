"""From what is stored to the queue: applies the rules to each instance once, and never lets storing wait.

The archive says what was stored; that is only noted, and the outbox's thread looks it up in the index, enqueues it
where rules want it and sets the mark, in one transaction. After an unclean stop the index tells what was stored behind
the mark: nothing that was acknowledged is forgotten, whenever we are killed.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pacslite.archive.outcome import Stored
from pacslite.outbox.lookup import IndexLookup, StoredRow
from pacslite.outbox.offload import Offload
from pacslite.outbox.queue import Arrival, Mark, Queue
from pacslite.outbox.rules import RuleSet

__all__ = ["Follower"]

log = logging.getLogger("pacslite.outbox")

_AT_ONCE = 500  # instances in one transaction
_GATHER_SECONDS = 0.05  # under load this makes groups; alone an instance waits for it
_NOTED = 100_000  # instances; when the outbox's disk stands still for longer, the index is asked what came
_RETRY_SECONDS = 5.0
_SLACK_SECONDS = 600.0  # from the reception of an instance to its note, at most
_WINDOW = 20_000  # rows searched in one turn of the thread


@dataclass(slots=True)
class _Search:
    """A search through the whole index for what is recent, as far as it has come."""

    since: float
    last: int
    at: int = 0
    added: int = 0


class Follower:
    """Follows the archive. ``enqueued`` is called on the loop when there is something new to send."""

    def __init__(self, queue: Queue, lookup: IndexLookup, offload: Offload, *, enqueued: Callable[[], None]) -> None:
        self._queue = queue
        self._lookup = lookup
        self._offload = offload
        self._enqueued = enqueued
        self._rules = RuleSet()
        self._noted: list[str] = []
        self._overlooked = False  # more came than was noted: there is something behind the mark
        self._search: _Search | None = None
        self._wanted = asyncio.Event()
        self._mark: Mark | None = None

    # on the loop

    def arrived(self, stored: Stored) -> None:
        """Note an instance (a hook of the archive)."""
        if not self._rules or stored.outcome == "duplicate":
            return
        if len(self._noted) < _NOTED:
            self._noted.append(stored.sop_instance_uid)
        else:
            self._overlooked = True
        self._wanted.set()

    async def follow(self, rules: RuleSet) -> None:
        """Apply ``rules`` to what is stored from now on, and to what was stored behind the mark."""
        await self.finish()
        await self._offload.run(self._begin, rules)
        self._rules = rules
        self._wanted.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await asyncio.sleep(_GATHER_SECONDS)
                if await self._step():
                    self._wanted.set()
            except (sqlite3.Error, OSError) as error:
                log.error("not enqueued, trying again", extra={"why": str(error), "seconds": _RETRY_SECONDS})
                self._wanted.set()
                await asyncio.sleep(_RETRY_SECONDS)

    async def finish(self) -> None:
        """Enqueue what is noted; all else, the next start finds behind the mark."""
        while self._noted and not self._overlooked:
            await self._step()

    async def _step(self) -> bool:
        """Enqueue some of what there is; False if there was nothing."""
        if not self._rules:
            self._noted.clear()
            return False
        if self._overlooked:
            self._overlooked = False
            try:
                added, complete = await self._offload.run(self._catch_up)
            except BaseException:
                self._overlooked = True
                raise
            self._overlooked |= not complete
        elif self._noted:
            group, self._noted = self._noted[:_AT_ONCE], self._noted[_AT_ONCE:]
            try:
                added = await self._offload.run(self._apply, group)
            except BaseException:
                self._noted[:0] = group
                raise
        else:
            return False
        if added:
            self._enqueued()
        return True

    # in the thread

    def _begin(self, rules: RuleSet) -> None:
        self._mark = self._queue.mark()
        if not rules:
            if self._mark is not None:
                self._queue.clear_mark()
                self._mark = None
        elif self._mark is None:
            self._set_mark((self._lookup.newest() or (0, ""))[0])
        else:
            self._overlooked = True

    def _set_mark(self, row_id: int, arrivals: Sequence[Arrival] = ()) -> int:
        """Enqueue the last of what came up to this row."""
        mark = Mark(row_id, self._lookup.uid_at(row_id) or "", self._queue.clock())
        added = self._queue.enqueue(arrivals, mark)
        self._mark = mark
        return added

    def _apply(self, sop_instance_uids: Sequence[str]) -> int:
        now = self._queue.clock()
        rules = self._rules
        rows = self._lookup.named(sop_instance_uids, rules.keys)
        return self._enqueue(rows, rules, now)

    def _enqueue(self, rows: Sequence[StoredRow], rules: RuleSet, now: float) -> int:
        """Enqueue rows, ascending, and set the mark behind them."""
        mark = self._mark or Mark(0, "", now)
        # rows before the mark were noted while we caught up, and met there already
        arrivals = _arrivals(rows, rules, up_to=mark.instance_id)
        last = (rows[-1].id, rows[-1].sop_instance_uid) if rows else (0, "")
        mark = Mark(*max(last, mark[:2]), now)
        added = self._queue.enqueue(arrivals, mark)
        self._mark = mark
        return added

    def _catch_up(self) -> tuple[int, bool]:
        """Enqueue a page of what was stored behind the mark; gives how many, and whether that was all."""
        mark, rules = self._mark, self._rules
        if mark is None:
            return 0, True
        if self._search is None and self._is_in_place(mark):
            rows = self._lookup.after(mark.instance_id, rules.keys)
            return self._enqueue(rows, rules, self._queue.clock()), not rows
        return self._search_on(mark, rules)

    def _is_in_place(self, mark: Mark) -> bool:
        """What came since the mark was made, and nothing else, has numbers behind its own."""
        if mark.instance_id == 0:
            return True
        found = self._lookup.position(mark.sop_instance_uid)
        if found is None:
            return False
        row_id, received_at = found
        if row_id == mark.instance_id:  # also of a new one, where the last was deleted and stored again
            return received_at <= mark.made
        return row_id > mark.instance_id and self._lookup.uid_at(mark.instance_id) is None  # replaced since

    def _search_on(self, mark: Mark, rules: RuleSet) -> tuple[int, bool]:
        """Without the marked row numbers of rows say nothing: look at all that was received since the mark was made.

        The instance was deleted, or a power cut took the tail of the index and its rows got new numbers, or the index
        was rebuilt.
        """
        search = self._search
        if search is None:
            newest = self._lookup.newest() or (0, "")
            search = self._search = _Search(mark.made - _SLACK_SECONDS, newest[0])
            log.info("searching the index for what to forward", extra={"rows": search.last})
        up_to = min(search.at + _WINDOW, search.last)
        rows = self._lookup.recent(search.at, up_to, int(search.since), rules.keys)
        if up_to < search.last:
            search.at = up_to
            return self._queue.enqueue(_arrivals(rows, rules)), False
        self._search = None
        return self._set_mark(search.last, _arrivals(rows, rules)), True


def _arrivals(rows: Sequence[StoredRow], rules: RuleSet, *, up_to: int | None = None) -> list[Arrival]:
    """What the rules make of rows; those up to ``up_to`` (None: all) are enqueued only once."""
    return [
        Arrival(destination, row.sop_instance_uid, row.digest, once=up_to is None or row.id <= up_to)
        for row in rows
        for destination in rules.destinations(row.source_ae_title, row.values)
    ]
