"""C-STORE sub-operations of a C-MOVE or C-GET: counting, pending responses, the final status (PS3.4 §C.4.2, §C.4.3)."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from pacslite.archive.reference import InstanceRef
from pacslite.dataset.encode import IdentifierEncoder
from pacslite.dimse.command import CommandSet, Tag
from pacslite.dimse.service import Reply, Request
from pacslite.dimse.status import Status, is_warning
from pacslite.errors import PacsliteError

__all__ = ["PendingPolicy", "SubOperationFailed", "SubOperations"]

_FAILED_SOP_INSTANCE_UID_LIST = 0x00080058
_US_MAXIMUM = 65_535  # what a counter can say; more are performed all the same


class SubOperationFailed(PacsliteError):
    """One instance could not be sent; the text says why, without its UID, so that equal reasons can be counted."""


@dataclass(frozen=True, slots=True)
class PendingPolicy:
    """A pending response is sent at the start, then after ``seconds``, or ``count`` sub-operations.

    ``without_requestor``: go on when the requestor's association is gone (PS3.4 leaves it open).
    """

    seconds: float = 1.0
    count: int = 100
    without_requestor: bool = False


class SubOperations:
    """The sub-operations of one request, from its first pending response to its final one.

    Args:
        request: The C-MOVE-RQ or C-GET-RQ.
        reply: Answers it.
        total: Number of instances that will be sent.
        policy: When to tell of progress.
    """

    def __init__(self, request: Request, reply: Reply, total: int, policy: PendingPolicy) -> None:
        self.remaining = total
        self.completed = 0
        self.failed = 0
        self.warning = 0
        self._request = request
        self._reply = reply
        self._policy = policy
        self._failed_uids: list[str] = []
        self._reasons: Counter[str] = Counter()
        self._unreported = 0
        self._wanted = asyncio.Event()

    @property
    def cancelled(self) -> bool:
        request = self._request
        return request.cancelled and not (request.abandoned and self._policy.without_requestor)

    @contextlib.asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        """Send pending responses while the body runs."""
        reporter = asyncio.create_task(self._report())
        try:
            yield
        finally:
            reporter.cancel()
            with contextlib.suppress(asyncio.CancelledError, PacsliteError):
                await reporter

    async def perform(
        self,
        waiting: deque[InstanceRef],
        send: Callable[[InstanceRef], Awaitable[int]],
        outstanding: int = 1,
        ready: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """Send what is ``waiting``, ``outstanding`` at a time; stops early when the request is cancelled.

        Args:
            waiting: Taken from its front; may be shared with other calls.
            send: Gives the status of the C-STORE-RSP, or raises SubOperationFailed.
            ready: Asked before one is taken; False: the others take the rest.
        """

        async def work() -> None:
            while waiting and not self.cancelled:
                if ready is not None and not await ready():
                    return
                if waiting and not self.cancelled:  # still
                    await self._perform_one(waiting.popleft(), send)

        if outstanding == 1:
            await work()
        else:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(outstanding, len(waiting))):
                    group.create_task(work())

    def count(self, instance: InstanceRef, status: int) -> None:
        """Book the answer to one C-STORE sub-operation."""
        if status == Status.SUCCESS:
            self.completed += 1
            self._booked()
        elif is_warning(status):
            self.warning += 1
            self._booked()
        else:
            self.fail(instance, f"status {status:04X}")

    def fail(self, instance: InstanceRef, why: str) -> None:
        self.failed += 1
        self._failed_uids.append(instance.sop_instance_uid)
        self._reasons[why] += 1
        self._booked()

    async def finish(self) -> None:
        """Send the final response (PS3.4 Tables C.4-2 and C.4-3)."""
        facts = {"completed": self.completed, "failed": self.failed, "warning": self.warning}
        self._request.facts |= facts
        identifier = self._failed_identifier()
        comment = self._comment()
        if self.cancelled and self.remaining:
            extra = self._counters() | {Tag.NUMBER_OF_REMAINING_SUBOPERATIONS: _us(self.remaining)}
            return await self._reply(Status.CANCEL, identifier, comment=comment, extra=extra)
        if self.failed and not self.completed and not self.warning:
            status = Status.UNABLE_TO_PERFORM_SUB_OPERATIONS
        elif self.failed or self.warning:
            status = Status.SUB_OPERATIONS_WITH_FAILURES
        else:
            status = Status.SUCCESS
        return await self._reply(status, identifier, comment=comment, extra=self._counters())

    # private

    async def _perform_one(self, instance: InstanceRef, send: Callable[[InstanceRef], Awaitable[int]]) -> None:
        try:
            self.count(instance, await send(instance))
        except SubOperationFailed as error:
            self.fail(instance, str(error))

    def _booked(self) -> None:
        self.remaining -= 1
        self._unreported += 1
        if self._unreported >= self._policy.count:
            self._wanted.set()

    async def _report(self) -> None:
        while True:
            self._unreported = 0
            self._wanted.clear()
            extra = self._counters() | {Tag.NUMBER_OF_REMAINING_SUBOPERATIONS: _us(self.remaining)}
            await self._reply(Status.PENDING, extra=extra)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._policy.seconds):
                    await self._wanted.wait()

    def _counters(self) -> CommandSet:
        return {
            Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS: _us(self.completed),
            Tag.NUMBER_OF_FAILED_SUBOPERATIONS: _us(self.failed),
            Tag.NUMBER_OF_WARNING_SUBOPERATIONS: _us(self.warning),
        }

    def _failed_identifier(self) -> bytes | None:
        """Failed SOP Instance UID List: there if anything failed, never with an empty value (PS3.4 §C.4.2.1.4.2)."""
        if not self._failed_uids:
            return None
        encoder = IdentifierEncoder(self._request.message.context.transfer_syntax)
        uids = "\\".join(self._failed_uids).encode("ascii")
        return encoder.data_set(encoder.element(_FAILED_SOP_INSTANCE_UID_LIST, "UI", uids))

    def _comment(self) -> str:
        """The reasons, the most frequent first, as far as 64 characters go; the log has them whole."""
        if not self._reasons:
            return ""
        reasons = "; ".join(f"{count} x {why}" for why, count in self._reasons.most_common())
        self._request.facts["reasons"] = reasons
        return reasons


def _us(value: int) -> int:
    return min(value, _US_MAXIMUM)
