"""Storage service class: C-STORE (PS3.4 Annex B). The data set goes to the archive as it arrives."""

from pacslite.archive.archive import Archive
from pacslite.archive.incoming import Incoming
from pacslite.dimse.messages import CommandField
from pacslite.dimse.reader import DataSetSink
from pacslite.dimse.service import Reply, Request
from pacslite.dimse.uids import STORAGE_SERVICE_CLASS
from pacslite.errors import DimseError
from pacslite.services.sop_classes import is_standard_storage, is_unknown_to_the_standard
from pacslite.upper_layer.negotiation import AbstractSyntaxOffer

__all__ = ["StorageService"]


class MissingDataSet(DimseError):
    """A C-STORE-RQ that says it has no data set."""

    status = 0xC000


class StorageService:
    """C-STORE SCP, level 2 (full): every attribute is kept as received (PS3.4 §B.4.1.1).

    Args:
        archive: Where instances go.
        unknown_sop_classes: Accept SOP classes that the standard does not know; otherwise only those whose proposer
            says by a SOP Class Common Extended Negotiation item that they are storage (PS3.7 §D.3.3.6).
        decoded: Transfer syntaxes that are decompressed for a C-GET where needed.
    """

    permission = "store"
    commands = frozenset({CommandField.C_STORE_RQ})

    def __init__(
        self, archive: Archive, *, unknown_sop_classes: bool = True, decoded: frozenset[str] = frozenset()
    ) -> None:
        self._archive = archive
        self._unknown_sop_classes = unknown_sop_classes
        self._decoded = decoded

    def offer(self, abstract_syntax: str, service_class: str | None) -> AbstractSyntaxOffer | None:
        if (
            is_standard_storage(abstract_syntax)
            or service_class == STORAGE_SERVICE_CLASS
            or (self._unknown_sop_classes and is_unknown_to_the_standard(abstract_syntax))
        ):
            # any transfer syntax: nothing is decoded to be stored. The requestor may be SCP, for C-GET
            return AbstractSyntaxOffer(
                transfer_syntaxes=None, scu=True, scp=True, decoded=self._decoded, extended=_extended
            )
        return None

    def begin(self, request: Request) -> DataSetSink:
        message = request.message
        return self._archive.begin(
            sop_class_uid=message.sop_class_uid,
            sop_instance_uid=message.sop_instance_uid,
            transfer_syntax_uid=message.context.transfer_syntax,
            source_ae_title=request.peer.calling_ae_title,
            flow=request.flow,
        )

    async def handle(self, request: Request, reply: Reply) -> None:
        incoming = request.sink
        if not isinstance(incoming, Incoming):
            raise MissingDataSet("C-STORE without a data set")
        request.facts["bytes"] = incoming.length
        stored = await incoming.commit()
        if stored.outcome != "stored":
            request.facts["outcome"] = stored.outcome
        await reply(stored.status)


def _extended(proposed: bytes) -> bytes | None:
    """Storage extended negotiation (PS3.4 Table B.3-2): level 2 support, signature level as proposed, no coercion."""
    if not proposed:
        return None
    answer = bytes((2, 0, 3, 0, 0, 0))  # level of support 2; level of digital signature support 3; no element coercion
    return answer[: len(proposed)] if len(proposed) < len(answer) else answer
