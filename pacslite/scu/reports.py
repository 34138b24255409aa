"""N-EVENT-REPORT of Storage Commitment (PS3.4 §J.3.3): sending one, and receiving those for requests of ours.

Reports come on the association of the request, or on one that the SCP opens for them (report_listener.py).
"""

import asyncio

from pacslite.dimse.command import CommandSet, Tag
from pacslite.dimse.messages import CommandField, Message, request_command
from pacslite.dimse.reader import BoundedBuffer, DataSetSink
from pacslite.dimse.service import Invoker, Reply, Request
from pacslite.dimse.status import Status
from pacslite.dimse.uids import STORAGE_COMMITMENT_PUSH_MODEL, STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE
from pacslite.errors import DimseError
from pacslite.scu.commitment import (
    COMMITMENT_SYNTAXES,
    EVENT_TYPE_FAILURES,
    EVENT_TYPE_SUCCESS,
    CommitmentDataError,
    CommitmentReport,
    decode_report,
    encode_report,
)
from pacslite.upper_layer.negotiation import AbstractSyntaxOffer, AcceptedContext

__all__ = ["ReportService", "Reports", "send_report"]

_DATA_SET_BYTES = 16 << 20
_ENCODED_AT_ONCE = 1000  # instances; a longer report is encoded in a thread
_KEPT_REPORTS = 1000  # that nobody has asked for yet

# scu: SCPs that propose no role selection are to be heard too
_OFFER = AbstractSyntaxOffer(transfer_syntaxes=COMMITMENT_SYNTAXES, scu=True, scp=True)


class NoSuchEventType(DimseError):
    """No such event type (PS3.7 Annex C)."""

    status = 0x0113


async def send_report(
    invoker: Invoker, context: AcceptedContext, report: CommitmentReport, retrieve_ae_title: str = ""
) -> Message:
    """Send an N-EVENT-REPORT and give its response.

    Raises:
        AssociationEnded: Before the response came.
    """
    extra: CommandSet = {Tag.EVENT_TYPE_ID: report.event_type_id}
    command = request_command(
        CommandField.N_EVENT_REPORT_RQ,
        invoker.next_message_id(),
        sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
        sop_instance_uid=STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
        has_data_set=True,
        extra=extra,
    )
    count = len(report.committed) + len(report.failed)
    if count <= _ENCODED_AT_ONCE:
        data = encode_report(report, context.transfer_syntax, retrieve_ae_title)
    else:
        data = await asyncio.to_thread(encode_report, report, context.transfer_syntax, retrieve_ae_title)
    return await invoker.invoke(context, command, data)


class Reports:
    """Reports by Transaction UID; one that comes before it is asked for is kept."""

    def __init__(self) -> None:
        self._arrived: dict[str, CommitmentReport] = {}
        self._awaited: dict[str, asyncio.Future[CommitmentReport]] = {}

    def put(self, report: CommitmentReport) -> None:
        """Hand a report to who waits for it; a second one for the same transaction changes nothing."""
        waiter = self._awaited.get(report.transaction_uid)
        if waiter is None:
            while len(self._arrived) >= _KEPT_REPORTS:
                del self._arrived[next(iter(self._arrived))]
            self._arrived[report.transaction_uid] = report
        elif not waiter.done():
            waiter.set_result(report)

    async def get(self, transaction_uid: str, seconds: float | None = None) -> CommitmentReport:
        """The report of a transaction.

        Raises:
            TimeoutError: None came within ``seconds``.
        """
        if (report := self._arrived.pop(transaction_uid, None)) is not None:
            return report
        waiter: asyncio.Future[CommitmentReport] = asyncio.get_running_loop().create_future()
        self._awaited[transaction_uid] = waiter
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        finally:
            del self._awaited[transaction_uid]


class ReportService:
    """N-EVENT-REPORT as the SCU of Storage Commitment performs it."""

    permission = "commit"
    commands = frozenset({CommandField.N_EVENT_REPORT_RQ})

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def offer(self, abstract_syntax: str, service_class: str | None) -> AbstractSyntaxOffer | None:
        return _OFFER if abstract_syntax == STORAGE_COMMITMENT_PUSH_MODEL else None

    def begin(self, request: Request) -> DataSetSink:
        return BoundedBuffer(_DATA_SET_BYTES)

    async def handle(self, request: Request, reply: Reply) -> None:
        message = request.message
        if message.event_type_id not in {EVENT_TYPE_SUCCESS, EVENT_TYPE_FAILURES}:
            raise NoSuchEventType(f"event type {message.event_type_id}")
        if not isinstance(request.sink, BoundedBuffer):
            raise CommitmentDataError("N-EVENT-REPORT without event information")
        report = decode_report(request.sink.getvalue(), message.context.transfer_syntax)
        self._reports.put(report)
        await reply(Status.SUCCESS)
