"""Verification service class: C-ECHO (PS3.4 Annex A)."""

from pacslite.dimse.messages import CommandField, Message
from pacslite.dimse.reader import DataSetSink, Discard
from pacslite.dimse.service import Peer, Reply, Request
from pacslite.dimse.status import Status
from pacslite.dimse.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
)
from pacslite.upper_layer.negotiation import AbstractSyntaxOffer

__all__ = ["VerificationService"]

_OFFER = AbstractSyntaxOffer(
    transfer_syntaxes=(
        EXPLICIT_VR_LITTLE_ENDIAN,
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    ),
    scu=True,
    scp=False,
    extended=None,
)


class VerificationService:
    """C-ECHO SCP, PS3.4 §A.4."""

    permission = "echo"
    commands = frozenset({CommandField.C_ECHO_RQ})

    def offer(self, abstract_syntax: str, service_class: str | None) -> AbstractSyntaxOffer | None:
        return _OFFER if abstract_syntax == VERIFICATION else None

    def begin(self, request: Request) -> DataSetSink:
        return Discard()  # a C-ECHO-RQ has no data set; one that comes all the same is read over

    def answer(self, message: Message, peer: Peer) -> int:
        return Status.SUCCESS

    async def handle(self, request: Request, reply: Reply) -> None:
        await reply(self.answer(request.message, request.peer))
