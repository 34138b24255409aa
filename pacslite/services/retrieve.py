"""Retrieve service class: C-MOVE and C-GET (PS3.4 §C.4.2, §C.4.3; whole instances of Annex Y)."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pacslite.access import Access
from pacslite.archive.archive import Archive
from pacslite.archive.index.reader import IndexReader
from pacslite.archive.query import Model, QueryOptions, parse_retrieve
from pacslite.archive.reference import InstanceRef
from pacslite.dataset.source import ReadBuffer
from pacslite.dimse.command import CommandSet, Tag
from pacslite.dimse.messages import CommandField
from pacslite.dimse.reader import BoundedBuffer, DataSetSink
from pacslite.dimse.service import Reply, Request
from pacslite.dimse.uids import (
    COMPOSITE_INSTANCE_ROOT_GET,
    COMPOSITE_INSTANCE_ROOT_MOVE,
    PATIENT_ROOT_GET,
    PATIENT_ROOT_MOVE,
    PATIENT_STUDY_ONLY_GET,
    PATIENT_STUDY_ONLY_MOVE,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
)
from pacslite.errors import DimseError
from pacslite.scu.contexts import ContextMap, storage_contexts
from pacslite.scu.pool import Pool
from pacslite.scu.requestor import Address
from pacslite.services.destination import Destination
from pacslite.services.identifiers import extended_of, identifier_offer
from pacslite.services.query import identifier_of
from pacslite.services.sending import InstanceSender
from pacslite.services.sub_operations import PendingPolicy, SubOperations
from pacslite.services.transcoding import Transcoder
from pacslite.upper_layer.negotiation import AbstractSyntaxOffer

__all__ = ["GetService", "MoveService", "RetrieveOptions"]

_GET_MODELS: Mapping[str, Model] = {
    PATIENT_ROOT_GET: "patient",
    STUDY_ROOT_GET: "study",
    PATIENT_STUDY_ONLY_GET: "patient_study_only",
    COMPOSITE_INSTANCE_ROOT_GET: "composite",
}
_MOVE_MODELS: Mapping[str, Model] = {
    PATIENT_ROOT_MOVE: "patient",
    STUDY_ROOT_MOVE: "study",
    PATIENT_STUDY_ONLY_MOVE: "patient_study_only",
    COMPOSITE_INSTANCE_ROOT_MOVE: "composite",
}
_CANCEL_SECONDS = 2.0  # what is being sent when a C-CANCEL comes may end within this, then it is aborted


class MoveDestinationUnknown(DimseError):
    """No configured application entity has this title, or it listens nowhere."""

    status = 0xA801


@dataclass(frozen=True, slots=True)
class RetrieveOptions:
    """As configured."""

    pending: PendingPolicy = field(default_factory=PendingPolicy)
    parallel_associations: int = 1  # with one destination
    operations: int = 8  # C-STOREs outstanding on one association, where the receiver negotiates it
    identifier_bytes: int = 1 << 20


class _RetrieveService:
    """What C-MOVE and C-GET share: offering, reading the identifier, planning."""

    models: ClassVar[Mapping[str, Model]]  # by SOP class

    def __init__(
        self,
        archive: Archive,
        reader: IndexReader,
        query_options: QueryOptions,
        options: RetrieveOptions,
        transcoder: Transcoder | None,
    ) -> None:
        self._archive = archive
        self._reader = reader
        self._query_options = query_options
        self._options = options
        self._transcoder = transcoder
        self._offer = identifier_offer((query_options.relational,))

    def offer(self, abstract_syntax: str, service_class: str | None) -> AbstractSyntaxOffer | None:
        return self._offer if abstract_syntax in self.models else None

    def begin(self, request: Request) -> DataSetSink:
        return BoundedBuffer(self._options.identifier_bytes)

    async def _plan(self, request: Request) -> Sequence[InstanceRef]:
        context = request.message.context
        wanted = parse_retrieve(
            identifier_of(request),
            model=self.models[context.abstract_syntax],
            transfer_syntax_uid=context.transfer_syntax,
            relational=extended_of(request).relational,
            options=self._query_options,
        )
        request.facts["level"] = wanted.level.name
        return await self._reader.plan(wanted)


class GetService(_RetrieveService):
    """C-GET SCP, PS3.4 §C.4.3: sub-operations on the association of the request."""

    permission = "get"
    commands = frozenset({CommandField.C_GET_RQ})
    models = _GET_MODELS

    async def handle(self, request: Request, reply: Reply) -> None:
        instances = await self._plan(request)
        negotiated = request.invoker.negotiated
        contexts = ContextMap(negotiated.contexts, as_scp=True)
        sender = InstanceSender(self._archive, request.message.priority, None, _facts(request), self._transcoder)
        buffer = ReadBuffer()

        async def send(instance: InstanceRef) -> int:
            return await sender.send(request.invoker, contexts, instance, buffer)

        operations = SubOperations(request, reply, len(instances), self._options.pending)
        async with operations.reporting():
            outstanding = _outstanding(negotiated.operations_performed, self._options.operations)
            await operations.perform(deque(instances), send, outstanding)
        await operations.finish()


class MoveService(_RetrieveService):
    """C-MOVE SCP, PS3.4 §C.4.2: sub-operations on associations with the destination.

    Args:
        access: Knows the destinations; asked anew for every request, so it can be replaced.
        pool: Opens the associations.
    """

    permission = "move"
    commands = frozenset({CommandField.C_MOVE_RQ})
    models = _MOVE_MODELS

    def __init__(
        self,
        archive: Archive,
        reader: IndexReader,
        query_options: QueryOptions,
        options: RetrieveOptions,
        transcoder: Transcoder | None,
        *,
        access: Callable[[], Access],
        pool: Pool,
    ) -> None:
        super().__init__(archive, reader, query_options, options, transcoder)
        self._access = access
        self._pool = pool

    async def handle(self, request: Request, reply: Reply) -> None:
        message = request.message
        remote = self._access().destination(message.move_destination)
        if remote is None:
            raise MoveDestinationUnknown(f"destination {message.move_destination} is not configured")
        request.facts["to"] = remote.ae_title
        instances = await self._plan(request)
        originator: CommandSet = {
            Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: request.peer.calling_ae_title,
            Tag.MOVE_ORIGINATOR_MESSAGE_ID: message.message_id,
        }
        sender = InstanceSender(self._archive, message.priority, originator, _facts(request), self._transcoder)
        address = Address(remote.ae_title, remote.host, remote.port, remote.tls)
        operations = SubOperations(request, reply, len(instances), self._options.pending)
        async with operations.reporting():
            for contexts in storage_contexts((one.sop_class_uid, one.transfer_syntax_uid) for one in instances):
                classes = {context.abstract_syntax for context in contexts}
                part = [instance for instance in instances if instance.sop_class_uid in classes]
                count = min(self._options.parallel_associations, len(part))
                destinations = [Destination(self._pool, address, contexts, sender) for _ in range(count)]
                await self._send_all(request, operations, part, destinations)
        await operations.finish()

    async def _send_all(
        self,
        request: Request,
        operations: SubOperations,
        instances: Sequence[InstanceRef],
        destinations: Sequence[Destination],
    ) -> None:
        """Share ``instances`` out to ``destinations``, which are associations with the same application entity."""
        loop = asyncio.get_running_loop()
        timers: list[asyncio.TimerHandle] = []

        def give_up_soon() -> None:
            if operations.cancelled:
                for destination in destinations:
                    destination.cancel()
                    timers.append(loop.call_later(_CANCEL_SECONDS, destination.abort))

        request.when_cancelled(give_up_soon)
        waiting = deque(instances)
        try:
            async with asyncio.TaskGroup() as group:
                for destination in destinations:
                    group.create_task(self._send_some(operations, waiting, destination, destinations))
        finally:
            for timer in timers:
                timer.cancel()

    async def _send_some(
        self,
        operations: SubOperations,
        waiting: deque[InstanceRef],
        destination: Destination,
        destinations: Sequence[Destination],
    ) -> None:
        """Send what is ``waiting`` to one of ``destinations``."""

        async def ready() -> bool:
            """Who has no association leaves the rest to those that have; it fails when nobody will have one."""
            return await destination.open() or all(one.hopeless for one in destinations)

        try:
            await destination.open()
            outstanding = _outstanding(destination.operations, self._options.operations)
            await operations.perform(waiting, destination.send, outstanding, ready)
        except BaseException:
            destination.abort()  # nobody else may have it: something is outstanding
            raise
        destination.close()
        if not waiting:
            for other in destinations:
                other.need_no_more()


def _outstanding(negotiated: int, configured: int) -> int:
    return min(negotiated, configured) if negotiated else configured


def _facts(request: Request) -> dict[str, object]:
    return {"assoc": request.peer.association_id, "peer": str(request.peer)}
