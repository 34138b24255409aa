"""Storage Commitment Push Model: N-ACTION (PS3.4 §J.3.2). What is asked is kept first, then answered, then verified."""

import asyncio
from typing import Protocol

from pacslite.dimse.messages import CommandField
from pacslite.dimse.reader import BoundedBuffer, DataSetSink, IdentifierTooLong
from pacslite.dimse.service import Invoker, Reply, Request
from pacslite.dimse.status import Status
from pacslite.dimse.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    STORAGE_COMMITMENT_PUSH_MODEL,
    STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
)
from pacslite.errors import DimseError
from pacslite.scu.commitment import (
    ACTION_TYPE_REQUEST,
    COMMITMENT_SYNTAXES,
    CommitmentDataError,
    CommitmentRequest,
    TooManyReferences,
    decode_request,
)
from pacslite.upper_layer.negotiation import AbstractSyntaxOffer, AcceptedContext

__all__ = ["CommitmentService", "Transactions"]

_OFFER = AbstractSyntaxOffer(transfer_syntaxes=COMMITMENT_SYNTAXES, scu=True, scp=False)
_BYTES_PER_REFERENCE = 400  # two UIDs, their headers and the item's, and room for what somebody adds
_READ_AT_ONCE = 32_768  # bytes that are decoded on the loop; a longer list is decoded in a thread


class NoSuchInstance(DimseError):
    """The well-known SOP Instance was not named (PS3.4 §J.3.2.1)."""

    status = 0x0112


class NoSuchAction(DimseError):
    """No such action type (PS3.7 Annex C)."""

    status = 0x0123


class Transactions(Protocol):
    """Keeps requests and sees them through."""

    async def accept(self, request: CommitmentRequest, ae_title: str, called_ae_title: str) -> int:
        """Number of the request of ``ae_title``, which has called us so, once it survives a power cut.

        Raises:
            DimseError: It was not taken.
        """

    def begin(self, number: int, invoker: Invoker, context: AcceptedContext) -> None:
        """Verify and report, on the association of the request if it still is there."""


class CommitmentService:
    """Storage Commitment SCP.

    Args:
        transactions: Where requests go.
        maximum_references: Instances in one request; more are answered 0213.
    """

    permission = "commit"
    commands = frozenset({CommandField.N_ACTION_RQ})

    def __init__(self, transactions: Transactions, *, maximum_references: int = 50_000) -> None:
        self._transactions = transactions
        self._maximum_references = maximum_references

    def offer(self, abstract_syntax: str, service_class: str | None) -> AbstractSyntaxOffer | None:
        return _OFFER if abstract_syntax == STORAGE_COMMITMENT_PUSH_MODEL else None

    def begin(self, request: Request) -> DataSetSink:
        message = request.message
        if message.sop_instance_uid != STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE:
            raise NoSuchInstance(f"not {STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE}")
        if message.action_type_id != ACTION_TYPE_REQUEST:
            raise NoSuchAction(f"action type {message.action_type_id}; 1 requests storage commitment")
        return BoundedBuffer(self._maximum_references * _BYTES_PER_REFERENCE)

    async def handle(self, request: Request, reply: Reply) -> None:
        if request.sink is None:
            self.begin(request)  # a message without a data set has not been looked at yet
        wanted = await self._read(request)
        request.facts["transaction"] = wanted.transaction_uid
        request.facts["instances"] = len(wanted.references)
        peer = request.peer
        number = await self._transactions.accept(wanted, peer.calling_ae_title, peer.called_ae_title)
        try:
            await reply(Status.SUCCESS)
        finally:  # what was accepted is seen through, whether or not the peer heard so
            self._transactions.begin(number, request.invoker, request.message.context)

    async def _read(self, request: Request) -> CommitmentRequest:
        if not isinstance(request.sink, BoundedBuffer):
            raise CommitmentDataError("N-ACTION without action information")
        try:
            data = request.sink.getvalue()
        except IdentifierTooLong as error:
            raise TooManyReferences(f"more than {self._maximum_references} instances in one request") from error
        syntax = request.message.context.transfer_syntax
        if len(data) <= _READ_AT_ONCE and syntax != DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            return decode_request(data, syntax, maximum_references=self._maximum_references)
        return await asyncio.to_thread(decode_request, data, syntax, maximum_references=self._maximum_references)
