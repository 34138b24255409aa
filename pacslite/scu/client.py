"""An asynchronous DICOM client: echo, store, find, move, get and storage commitment against any peer.

    async with Client("ARCHIVE@127.0.0.1:11112", calling_ae_title="WS1") as client:
        await client.echo()
        async for result in client.store(Path("study").rglob("*.dcm")):
            print(result.path, f"{result.status:04X}")
        async for answer in client.find({"PatientName": "DOE*", "StudyInstanceUID": ""}, level="study"):
            print(answer["PatientName"])
        report = await client.commitment([Reference(CT_IMAGE_STORAGE, sop_instance_uid)], seconds=60)

Associations are opened when an operation needs them and kept for the next one; leaving the block releases them. What
is asked while another answer is still read has an association of its own.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self, TypeAlias

from pacslite.dataset.dictionary import tag_of
from pacslite.dimse.command import CommandSet, Tag
from pacslite.dimse.messages import CommandField, Message, Priority, request_command
from pacslite.dimse.status import Status, is_failure, is_pending
from pacslite.dimse.uids import (
    PATIENT_ROOT_FIND,
    PATIENT_ROOT_GET,
    PATIENT_ROOT_MOVE,
    STORAGE_COMMITMENT_PUSH_MODEL,
    STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
)
from pacslite.errors import PacsliteError
from pacslite.net.connection import Connection
from pacslite.net.reading import receive_buffer
from pacslite.scu.associations import Associations, ContextNotAccepted
from pacslite.scu.commitment import (
    ACTION_TYPE_REQUEST,
    COMMITMENT_SYNTAXES,
    CommitmentReport,
    CommitmentRequest,
    Reference,
    encode_request,
)
from pacslite.scu.contexts import UNCOMPRESSED
from pacslite.scu.identifier import Answer, Keys, decode_answer, encode_keys
from pacslite.scu.received import ReceiveService
from pacslite.scu.reports import Reports, ReportService
from pacslite.scu.requestor import Address, Requestor, RequestorOptions
from pacslite.scu.responses import Responses
from pacslite.scu.sender import FileSender, StoreResult
from pacslite.scu.storage_classes import retrieve_proposals
from pacslite.upper_layer.items import RoleSelection
from pacslite.upper_layer.negotiation import AcceptedContext

__all__ = ["Client", "ContextNotAccepted", "Level", "Model", "OperationFailed", "Progress", "StoreResult"]

Level: TypeAlias = Literal["patient", "study", "series", "image"]
Model: TypeAlias = Literal["study", "patient"]

_FIND = {"study": STUDY_ROOT_FIND, "patient": PATIENT_ROOT_FIND}
_MOVE = {"study": STUDY_ROOT_MOVE, "patient": PATIENT_ROOT_MOVE}
_GET = {"study": STUDY_ROOT_GET, "patient": PATIENT_ROOT_GET}

# PS3.4 §C.5.1.1: relational queries, combined date and time matching; §C.5.2.1, §C.5.3.1: relational retrieval
_FIND_EXTENDED, _RETRIEVE_EXTENDED = b"\1\1\0\0", b"\1"
_UPPER_KEYS = {0x00100020: "PatientID", 0x0020000D: "StudyInstanceUID"}


class OperationFailed(PacsliteError):
    """The peer ended an operation with another status than it should."""

    def __init__(self, operation: str, status: int, comment: str) -> None:
        meaning = " (cancelled by the peer)" if status == Status.CANCEL else ""
        super().__init__(f"{operation}: status {status:04X}{meaning}" + (f", {comment}" if comment else ""))
        self.status = status
        self.comment = comment


class Progress(NamedTuple):
    """A response to a C-MOVE or C-GET; the last one has the final status."""

    status: int
    remaining: int
    completed: int
    failed: int
    warning: int
    comment: str = ""
    failed_sop_instance_uids: tuple[str, ...] = ()


class Client:
    """A service class user of one peer.

    Args:
        peer: ``AET@HOST:PORT``, or an Address.
        calling_ae_title: Who we say we are.
        options: All else; its calling AE title is overridden by ``calling_ae_title``.
        reports: Where commitment reports are put that come on associations of ours; of a ``ReportListener``, to wait
            for those that come on others too.
    """

    def __init__(
        self,
        peer: str | Address,
        *,
        calling_ae_title: str | None = None,
        options: RequestorOptions | None = None,
        reports: Reports | None = None,
    ) -> None:
        self.address = Address.parse(peer) if isinstance(peer, str) else peer
        self._requestor = Requestor(options or RequestorOptions(), receive_buffer())
        self._calling_ae_title = calling_ae_title
        self._associations = Associations(self._requestor, self.address, calling_ae_title)
        # what has one response, and soon, waits for its turn rather than for another association
        self._echoing, self._committing = asyncio.Lock(), asyncio.Lock()
        self._outstanding: set[Responses | FileSender] = set()
        self.reports = reports or Reports()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what is still asked, give up what is not sent, and release all associations."""
        await asyncio.gather(*(operation.end() for operation in self._outstanding))
        await self._associations.close()

    # Operations

    async def echo(self) -> int:
        """C-ECHO; the status of the response.

        Raises:
            ConnectFailed: No association (of this and all other operations).
            AssociationEnded: It ended before the response (likewise).
            ContextNotAccepted: The peer does not verify (likewise: does not offer the operation).
        """
        async with self._echoing, self._associations.use(VERIFICATION) as (connection, context):
            command = request_command(CommandField.C_ECHO_RQ, connection.next_message_id(), sop_class_uid=VERIFICATION)
            return (await _invoke(connection, context, command)).status

    async def store(self, paths: Iterable[Path], *, priority: Priority = Priority.MEDIUM) -> AsyncIterator[StoreResult]:
        """Send files as they are; folders are walked. Yields a result for each file, in the order of the answers.

        Stopping early aborts the association: a file cannot be taken back in its middle.
        """
        sender = FileSender(self._requestor, self.address, self._calling_ae_title, priority)
        self._outstanding.add(sender)
        try:
            async with aclosing(sender.send(paths)) as results:
                async for result in results:
                    yield result
        finally:
            self._outstanding.discard(sender)

    async def find(self, keys: Keys, *, level: Level = "study", model: Model = "study") -> AsyncIterator[Answer]:
        """C-FIND; yields an answer for each match as it comes. Stopping early sends a C-CANCEL.

        Raises:
            OperationFailed: The final status was not 0000: there may be more matches than were answered (Orthanc's
                limit of results is an FE00).
        """
        async with self._associations.use(_FIND[model], extended=_FIND_EXTENDED) as (connection, context):
            identifier = encode_keys(keys, level, context.transfer_syntax)
            async with self._request(connection, context, CommandField.C_FIND_RQ, identifier) as responses:
                async for response, data_set in responses:
                    if is_pending(response.status) and data_set is not None:
                        yield decode_answer(data_set, context.transfer_syntax)
        if response.status != Status.SUCCESS:
            raise OperationFailed(f"{self.address}: C-FIND", response.status, response.error_comment)

    async def move(
        self, keys: Keys, *, to: str, level: Level = "study", model: Model = "study"
    ) -> AsyncIterator[Progress]:
        """C-MOVE to the application entity ``to``, as the peer knows it; yields progress, last the final response."""
        extra: CommandSet = {Tag.MOVE_DESTINATION: to}
        async with self._associations.use(_MOVE[model], extended=_RETRIEVE_EXTENDED) as (connection, context):
            identifier = encode_keys(keys, level, context.transfer_syntax)
            async with self._request(connection, context, CommandField.C_MOVE_RQ, identifier, extra) as responses:
                async for response, data_set in responses:
                    yield _progress(response, data_set, context.transfer_syntax)

    async def get(
        self, keys: Keys, directory: Path, *, level: Level = "study", model: Model = "study"
    ) -> AsyncIterator[Progress]:
        """C-GET into ``directory``, ``<SOP Instance UID>.dcm`` each; yields progress, last the final response."""
        sop_class_uid = _GET[model]
        proposals = retrieve_proposals(await self._classes_in_study(keys, model))
        # the reports of storage commitment come on its association
        connection = await self._associations.open_alone(
            [(sop_class_uid, UNCOMPRESSED), *proposals],
            extended={sop_class_uid: _RETRIEVE_EXTENDED},
            roles=[RoleSelection(uid, scu=False, scp=True) for uid in dict.fromkeys(uid for uid, _ in proposals)],
            services=(ReceiveService(directory, lambda _: None),),
            but=STORAGE_COMMITMENT_PUSH_MODEL,
        )
        try:
            context = self._associations.context(connection, sop_class_uid)
            identifier = encode_keys(keys, level, context.transfer_syntax)
            with self.address.named():
                async with self._request(connection, context, CommandField.C_GET_RQ, identifier) as responses:
                    async for response, data_set in responses:
                        yield _progress(response, data_set, context.transfer_syntax)
        finally:
            await self._associations.release(connection)

    async def request_commitment(self, references: Iterable[Reference], *, transaction_uid: str | None = None) -> str:
        """N-ACTION of Storage Commitment (PS3.4 §J.3.2); gives the Transaction UID that the report will name.

        The association stays open: a report that comes on it is put into ``reports``.

        Raises:
            OperationFailed: The request was refused: no report will come.
        """
        name = STORAGE_COMMITMENT_PUSH_MODEL
        request = CommitmentRequest(transaction_uid or f"2.25.{uuid.uuid4().int}", tuple(references))
        async with (
            self._committing,
            self._associations.use(
                name, transfer_syntaxes=COMMITMENT_SYNTAXES[:2], services=(ReportService(self.reports),)
            ) as (connection, context),
        ):
            command = request_command(
                CommandField.N_ACTION_RQ,
                connection.next_message_id(),
                sop_class_uid=name,
                sop_instance_uid=STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
                has_data_set=True,
                extra={Tag.ACTION_TYPE_ID: ACTION_TYPE_REQUEST},
            )
            response = await _invoke(connection, context, command, encode_request(request, context.transfer_syntax))
        if is_failure(response.status):
            raise OperationFailed(f"{self.address}: N-ACTION", response.status, response.error_comment)
        return request.transaction_uid

    async def commitment(self, references: Iterable[Reference], *, seconds: float | None = None) -> CommitmentReport:
        """Ask that instances be kept, and wait for the report.

        Raises:
            OperationFailed: The request was refused.
            TimeoutError: No report came within ``seconds``; it may still come.
        """
        return await self.reports.get(await self.request_commitment(references), seconds)

    # private

    @asynccontextmanager
    async def _request(
        self,
        connection: Connection,
        context: AcceptedContext,
        field: CommandField,
        identifier: bytes,
        extra: CommandSet | None = None,
    ) -> AsyncIterator[Responses]:
        """Ask, and be known to ``close``: an iterator that was left early may not be closed when the client is."""
        responses = Responses(connection, context, field, identifier, extra)
        self._outstanding.add(responses)
        try:
            async with responses:
                yield responses
        finally:
            self._outstanding.discard(responses)

    async def _classes_in_study(self, keys: Keys, model: Model) -> list[str]:
        """SOP classes of the study that is wanted, or of the patient's studies, if the peer tells."""
        unique = {name: value for key, value in keys.items() if (name := _UPPER_KEYS.get(tag_of(key) or 0)) and value}
        if not unique:  # it would tell of all that it has
            return []
        classes: list[str] = []
        try:
            wanted = {"StudyInstanceUID": ""} | unique | {"SOPClassesInStudy": ""}
            async for answer in self.find(wanted, level="study", model=model):
                found = str(answer.get("SOPClassesInStudy", ""))
                classes += [uid for uid in found.split("\\") if uid and uid not in classes]
        except OperationFailed:
            pass  # there may be more; what is not proposed is not sent
        except PacsliteError:
            return []  # a peer without C-FIND
        return classes


async def _invoke(
    connection: Connection, context: AcceptedContext, command: CommandSet, data_set: bytes | None = None
) -> Message:
    """A request and its one response; who does not wait for it leaves no association for the next request."""
    try:
        return await connection.invoke(context, command, data_set)
    except asyncio.CancelledError:
        connection.abort("given up")
        raise


def _progress(response: Message, data_set: bytes | None, transfer_syntax_uid: str) -> Progress:
    failed: tuple[str, ...] = ()
    if data_set:
        value = str(decode_answer(data_set, transfer_syntax_uid).get("FailedSOPInstanceUIDList", ""))
        failed = tuple(uid for uid in value.split("\\") if uid)
    return Progress(
        response.status,
        response.count(Tag.NUMBER_OF_REMAINING_SUBOPERATIONS),
        response.count(Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS),
        response.count(Tag.NUMBER_OF_FAILED_SUBOPERATIONS),
        response.count(Tag.NUMBER_OF_WARNING_SUBOPERATIONS),
        response.error_comment,
        failed,
    )
