"""Sees storage commitment requests through: verify, keep what was found, report (PS3.4 §J.3.3).

A request is reported on its own association if that still is there, else on a new one to the AE that asked, on which we
take the SCP role; again and again, over restarts, until its response says that it was received.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pacslite.dimse.service import Invoker
from pacslite.dimse.status import Status, is_done
from pacslite.dimse.uids import STORAGE_COMMITMENT_PUSH_MODEL
from pacslite.net.connection import Connection
from pacslite.net.ended import AssociationEnded, ConnectFailed
from pacslite.outbox.offload import Offload
from pacslite.outbox.queue import Queue, Waiting
from pacslite.outbox.transactions import Transaction, Transactions, report_of
from pacslite.outbox.verification import Stopped, Verifier
from pacslite.scu.commitment import COMMITMENT_SYNTAXES, CommitmentReport, CommitmentRequest, Reference
from pacslite.scu.contexts import presentation_contexts
from pacslite.scu.reports import send_report
from pacslite.scu.requestor import Address, Requestor
from pacslite.upper_layer.items import RoleSelection
from pacslite.upper_layer.negotiation import AcceptedContext

__all__ = ["CommitmentOptions", "Commitments"]

log = logging.getLogger("pacslite.outbox")

_AT_ONCE = 4  # requests that are held in memory, of those that are being verified
_TROUBLE_SECONDS = 30.0  # after an error of our own
_REPORTS = 20  # taken from the queue at once
_FIRST_LOOK_SECONDS, _LAST_LOOK_SECONDS = 0.25, 2.0  # between looks for instances that may still arrive


@dataclass(frozen=True, slots=True)
class CommitmentOptions:
    """As configured.

    ``grace_seconds``: instances may arrive so long after the request before we say that they are not here.
    """

    retrieve_ae_title: str = ""
    grace_seconds: float = 10.0


class _Live(NamedTuple):
    """An association on which a request came; ``turn`` is of all requests of it."""

    invoker: Invoker
    context: AcceptedContext
    turn: asyncio.Lock


class Commitments:
    """All requests that are not finished.

    Args:
        address_of: Where an AE title is; None if it is not configured.
        verified: Called on the loop when there is something to report on a new association.
    """

    def __init__(
        self,
        queue: Queue,
        transactions: Transactions,
        offload: Offload,
        *,
        verifier: Verifier,
        requestor: Requestor,
        address_of: Callable[[str], Address | None],
        verified: Callable[[], None],
        options: CommitmentOptions,
    ) -> None:
        self._queue = queue
        self._transactions = transactions
        self._offload = offload
        self._verifier = verifier
        self._requestor = requestor
        self._address_of = address_of
        self._verified = verified
        self._options = options
        self._live: dict[int, _Live] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    # the service's side

    async def accept(self, request: CommitmentRequest, ae_title: str, called_ae_title: str) -> int:
        """Keep a request; it survives a power cut when this returns (see ``Transactions.accept``)."""
        return await self._offload.run(self._transactions.accept, request, ae_title, called_ae_title)

    def begin(self, number: int, invoker: Invoker, context: AcceptedContext) -> None:
        """See a request through that was answered."""
        turns = (live.turn for live in self._live.values() if live.invoker is invoker)
        self._live[number] = _Live(invoker, context, next(turns, None) or asyncio.Lock())
        self._start(number)

    # the scheduler's side

    async def resume(self) -> None:
        """See those through that were accepted before a restart, or are to be tried again."""
        for number in await self._offload.run(self._transactions.verifying):
            self._start(number)

    async def serve(self, ae_title: str) -> bool:
        """Report to ``ae_title`` on a new association; True if anything was reported."""
        waiting = await self._take(ae_title)
        if not waiting:
            return False
        address = self._address_of(ae_title)
        if address is None:
            await self._defer(ae_title, "no [[remote]] with a port has this AE title")
            return False
        reported, error = False, ""
        for called in dict.fromkeys(one.called_ae_title for one in waiting):
            is_taken, problem = await self._report_as(called, address, waiting)
            reported |= is_taken
            error = problem or error
        if error and not reported and self._address_of(ae_title) == address:  # else it is to be tried at another one
            await self._defer(ae_title, error)
        if reported:
            await self._offload.run(self._queue.reached, "commitment", ae_title)
        return reported

    async def stop(self) -> None:
        """Stop where we are; the next start goes on from there."""
        for task in self._tasks.values():
            task.cancel()
        await self._verifier.stop()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _report_as(self, called: str | None, address: Address, waiting: Sequence[Waiting]) -> tuple[bool, str]:
        """Report what was asked of us by this title: devices know no other. Was any taken, and why not all?"""
        reported = False
        try:
            connection = await self._requestor.associate(
                address,
                presentation_contexts([(STORAGE_COMMITMENT_PUSH_MODEL, COMMITMENT_SYNTAXES[:2])]),
                roles=[RoleSelection(STORAGE_COMMITMENT_PUSH_MODEL, scu=False, scp=True)],
                calling_ae_title=called,
            )
            try:
                while some := [one for one in waiting if one.called_ae_title == called]:
                    for one in some:
                        if await self._offload.run(self._queue.still_waiting, [one.id]):
                            reported |= await self._report(connection, address.ae_title, one)
                    if self._address_of(address.ae_title) != address:  # the rest goes where it is now
                        break
                    waiting = await self._take(address.ae_title)
                await connection.release()
            finally:
                connection.abort("given up")
        except AssociationEnded as ended:
            return reported, str(ended)
        return reported, ""

    # verifying

    def _start(self, number: int) -> None:
        if number not in self._tasks:
            task = self._tasks[number] = asyncio.create_task(self._see_through(number))
            task.add_done_callback(lambda _: self._tasks.pop(number, None))

    async def _see_through(self, number: int) -> None:
        while True:
            try:
                await self._verify(number)
                await self._report_here(number)
                break
            except Stopped:
                return
            except Exception:
                log.exception("storage commitment failed", extra={"entry": number, "seconds": _TROUBLE_SECONDS})
            await asyncio.sleep(_TROUBLE_SECONDS)
        self._verified()

    async def _verify(self, number: int) -> None:
        """Verify at once; what is not here is looked for again until the grace is over."""
        missing: Sequence[Reference] | None = None
        failures: dict[Reference, int] = {}
        pause = _FIRST_LOOK_SECONDS
        time = asyncio.get_running_loop().time
        at_last = time() + self._options.grace_seconds  # whatever becomes of the clock
        while True:
            async with self._slots:
                found = await self._offload.run(self._transactions.get, number)
                if found is None or found[1] is not None:  # dropped; or verified before
                    return None
                transaction = found[0]
                failed = await self._verifier.failures(transaction.request.references if missing is None else missing)
                grace = transaction.created + self._options.grace_seconds - self._queue.clock()
                grace = min(grace, at_last - time())
                missing = [one for one, reason in failed.items() if reason == Status.NO_SUCH_OBJECT_INSTANCE]
                if not missing or grace <= 0:
                    return await self._keep(transaction, failures | failed)
                failures |= {one: reason for one, reason in failed.items() if reason != Status.NO_SUCH_OBJECT_INSTANCE}
                del found, transaction, failed  # they may be large, and many may wait
            await asyncio.sleep(min(pause, grace))
            pause = min(pause * 1.5, _LAST_LOOK_SECONDS)

    async def _keep(self, transaction: Transaction, failures: dict[Reference, int]) -> None:
        await self._offload.run(self._transactions.verified, transaction, failures)
        log.info(
            "storage commitment verified",
            extra={
                "peer": transaction.ae_title,
                "transaction": transaction.request.transaction_uid,
                "instances": len(transaction.request.references),
                "failed": len(failures),
            },
        )

    # reporting

    async def _report_here(self, number: int) -> None:
        """Report on the association of the request, if it is still there."""
        live = self._live.get(number)
        if live is None:
            return
        try:
            async with live.turn:  # whatever was negotiated, one at a time is allowed (PS3.7 §D.3.3.3)
                await self._report_on(live, number)
        finally:
            self._live.pop(number, None)

    async def _report_on(self, live: _Live, number: int) -> None:
        found = await self._offload.run(self._transactions.get, number)
        if found is None:
            return
        transaction, report = found
        if report is None:
            return
        try:
            await self._send(live.invoker, live.context, number, transaction.ae_title, report)
        except AssociationEnded as ended:
            facts = {"peer": transaction.ae_title, "transaction": transaction.request.transaction_uid}
            log.info("association of the request has ended", extra=facts | {"why": str(ended)})

    async def _report(self, connection: Connection, ae_title: str, waiting: Waiting) -> bool:
        context = next(iter(connection.negotiated.contexts.values()), None)
        if context is None:
            raise ConnectFailed("storage commitment reports are not accepted")
        # Whether the SCP role was confirmed is not looked at: there are SCUs that take reports and say nothing of roles
        report = report_of(waiting.subject, waiting.body, waiting.outcome or b"[]")
        try:
            return await self._send(connection, context, waiting.id, ae_title, report)
        except AssociationEnded as ended:
            await self._offload.run(self._queue.finish, (), [(waiting.id, str(ended))])
            raise

    async def _send(
        self, invoker: Invoker, context: AcceptedContext, number: int, ae_title: str, report: CommitmentReport
    ) -> bool:
        response = await send_report(invoker, context, report, self._options.retrieve_ae_title)
        facts: dict[str, object] = {"peer": ae_title, "transaction": report.transaction_uid, "status": response.status}
        if not is_done(response.status):
            error = f"status {response.status:04X} {response.error_comment}".rstrip()
            await self._offload.run(self._queue.finish, (), [(number, error)])
            log.warning("N-EVENT-REPORT refused", extra=facts | {"comment": response.error_comment})
            return False
        await self._offload.run(self._queue.finish, [number])
        log.info("N-EVENT-REPORT", extra=facts | {"instances": len(report.committed), "failed": len(report.failed)})
        return True

    async def _take(self, ae_title: str) -> list[Waiting]:
        waiting = await self._offload.run(self._queue.take, "commitment", ae_title, _REPORTS)
        return [one for one in waiting if one.id not in self._tasks]

    async def _defer(self, ae_title: str, error: str) -> None:
        seconds = await self._offload.run(self._queue.defer, "commitment", ae_title, error)
        log.warning("storage commitment report deferred", extra={"to": ae_title, "seconds": seconds, "why": error})
