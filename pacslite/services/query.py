"""Query service class: C-FIND (PS3.4 §C.4.1). Answers leave as the index gives them; no list of them is ever built."""

from collections.abc import Mapping
from contextlib import aclosing

from pacslite.archive.index.reader import IndexReader
from pacslite.archive.query import Model, QueryOptions, parse_query
from pacslite.dimse.messages import CommandField
from pacslite.dimse.reader import BoundedBuffer, DataSetSink
from pacslite.dimse.service import Reply, Request
from pacslite.dimse.status import Status
from pacslite.dimse.uids import PATIENT_ROOT_FIND, PATIENT_STUDY_ONLY_FIND, STUDY_ROOT_FIND
from pacslite.errors import DimseError
from pacslite.services.identifiers import extended_of, identifier_offer
from pacslite.upper_layer.negotiation import AbstractSyntaxOffer

__all__ = ["FindService"]

_MODELS: Mapping[str, Model] = {
    PATIENT_ROOT_FIND: "patient",
    STUDY_ROOT_FIND: "study",
    PATIENT_STUDY_ONLY_FIND: "patient_study_only",
}


class MissingIdentifier(DimseError):
    """A query or retrieve without an identifier."""

    status = 0xA900


class FindService:
    """C-FIND SCP.

    Args:
        reader: Answers queries.
        options: As configured; extended negotiation is answered by them.
        identifier_bytes: Largest identifier that we take.
    """

    permission = "find"
    commands = frozenset({CommandField.C_FIND_RQ})

    def __init__(self, reader: IndexReader, options: QueryOptions, identifier_bytes: int) -> None:
        self._reader = reader
        self._options = options
        self._identifier_bytes = identifier_bytes
        self._offer = identifier_offer((options.relational, True, options.fuzzy, True))

    def offer(self, abstract_syntax: str, service_class: str | None) -> AbstractSyntaxOffer | None:
        return self._offer if abstract_syntax in _MODELS else None

    def begin(self, request: Request) -> DataSetSink:
        return BoundedBuffer(self._identifier_bytes)

    async def handle(self, request: Request, reply: Reply) -> None:
        context = request.message.context
        extended = extended_of(request)
        query = parse_query(
            identifier_of(request),
            model=_MODELS[context.abstract_syntax],
            transfer_syntax_uid=context.transfer_syntax,
            relational=extended.relational,
            datetime_matching=extended.datetime_matching,
            fuzzy=extended.fuzzy,
            timezone=extended.timezone,
            options=self._options,
        )
        request.facts["level"] = query.level.name
        pending = Status.PENDING_WARNING if query.unsupported_keys else Status.PENDING
        count = 0
        async with aclosing(self._reader.find(query)) as batches:
            async for batch in batches:
                if request.cancelled:
                    request.facts["matches"] = count
                    return await reply(Status.CANCEL)
                if batch:  # an empty one only gives us the chance to look for a C-CANCEL
                    await reply.batch(pending, batch)  # waits while the peer does not read
                count += len(batch)
        request.facts["matches"] = count
        return await reply(Status.SUCCESS)  # zero matches too: a single 0000 without an identifier (§C.4.1.3.1)


def identifier_of(request: Request) -> bytes:
    """The identifier that has arrived for ``request``."""
    if not isinstance(request.sink, BoundedBuffer):
        raise MissingIdentifier(f"{request.message.label} without an identifier")
    return request.sink.getvalue()
