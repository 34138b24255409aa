"""The outbox: all that is sent later and must survive a restart, forwarded instances and commitment reports."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pacslite.archive.archive import Archive
from pacslite.outbox.commitments import CommitmentOptions, Commitments
from pacslite.outbox.database import Database, OutboxUnwritable
from pacslite.outbox.follower import Follower
from pacslite.outbox.forwarding import Forwarder, ForwardOptions, InstanceSender
from pacslite.outbox.lookup import IndexLookup
from pacslite.outbox.offload import Offload
from pacslite.outbox.queue import Queue
from pacslite.outbox.retry import Retry
from pacslite.outbox.rules import RuleSet
from pacslite.outbox.schedule import Scheduler
from pacslite.outbox.transactions import Transactions
from pacslite.outbox.verification import Verifier
from pacslite.scu.pool import Pool
from pacslite.scu.requestor import Address, Requestor

__all__ = ["Outbox", "OutboxOptions", "outbox_path"]

_END_SECONDS = 5.0  # what is being sent when we stop may end within this


@dataclass(frozen=True, slots=True)
class OutboxOptions:
    """As configured."""

    retry: Retry = field(default_factory=Retry)
    forwarding: ForwardOptions = field(default_factory=ForwardOptions)
    commitment: CommitmentOptions = field(default_factory=CommitmentOptions)
    maximum_transactions: int = 1000  # storage commitment requests of one AE that are not reported yet


def outbox_path(data_dir: Path) -> Path:
    return data_dir / "outbox.sqlite"


class Outbox:
    """Works between ``start`` and ``stop``; the archive is started before and stopped after.

    Args:
        sender: Sends an instance on an association.
        pool: Associations for forwarding.
        requestor: Opens associations for reports.
        address_of: Where an AE title is; asked anew each time.
    """

    def __init__(
        self,
        archive: Archive,
        *,
        sender: InstanceSender,
        pool: Pool,
        requestor: Requestor,
        address_of: Callable[[str], Address | None],
        options: OutboxOptions | None = None,
    ) -> None:
        options = options or OutboxOptions()
        self._archive = archive
        self._offload = Offload("outbox")
        self._database = Database(outbox_path(archive.options.data_dir))
        self._lookup = IndexLookup(archive.index)
        self.queue = Queue(self._database, options.retry)
        self._forwarder = Forwarder(
            self.queue,
            self._lookup,
            self._offload,
            pool=pool,
            sender=sender,
            address_of=address_of,
            options=options.forwarding,
        )
        self.commitments = Commitments(
            self.queue,
            Transactions(self.queue, options.maximum_transactions),
            self._offload,
            verifier=Verifier(archive.index, archive.open),
            requestor=requestor,
            address_of=address_of,
            verified=self._wake,
            options=options.commitment,
        )
        self._scheduler = Scheduler(
            self.queue,
            self._offload,
            {"forward": self._forwarder.serve, "commitment": self.commitments.serve},
            self._changed,
        )
        self._follower = Follower(self.queue, self._lookup, self._offload, enqueued=self._wake)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, rules: RuleSet) -> None:
        """Go on where the last run ended, and follow the archive from now on."""
        await self._follower.follow(rules)
        self._archive.on_stored.append(self._follower.arrived)
        await self.commitments.resume()
        self._tasks = [asyncio.create_task(self._follower.run()), asyncio.create_task(self._scheduler.run())]

    async def follow(self, rules: RuleSet) -> None:
        """Take other rules for what is stored from now on.

        Raises:
            OutboxUnwritable: The rules stay as they were.
        """
        try:
            await self._follower.follow(rules)
        except sqlite3.Error as error:
            raise self._unwritable(error) from error

    async def undefer(self) -> None:
        """Try all destinations now: they may be elsewhere than when they could not be reached.

        Raises:
            OutboxUnwritable: They are left alone until their time comes.
        """
        try:
            await self._offload.run(self.queue.undefer)
        except sqlite3.Error as error:
            raise self._unwritable(error) from error
        self._wake()

    async def stop(self) -> None:
        """Let what is being sent end soon, write everything down, close."""
        self._forwarder.stop()
        await self._scheduler.stop(_END_SECONDS)
        await self.commitments.stop()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        with contextlib.suppress(Exception):  # it was logged, and the next start goes on from what is written down
            await self._forwarder.flush()
            await self._follower.finish()
        await self._offload.stop()
        self._lookup.close()
        self._database.close()

    # private

    def _unwritable(self, error: sqlite3.Error) -> OutboxUnwritable:
        return OutboxUnwritable(f"{outbox_path(self._archive.options.data_dir)}: {error}")

    def _wake(self) -> None:
        self._scheduler.wake()

    async def _changed(self) -> None:
        """The command line has written to the queue."""
        await self._forwarder.forget_dropped()
        await self.commitments.resume()
