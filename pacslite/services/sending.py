"""Sends stored instances: one C-STORE sub-operation."""

import logging
import os

from pacslite.archive.archive import Archive
from pacslite.archive.instances.protocol import InstanceFile
from pacslite.archive.reference import InstanceRef
from pacslite.dataset.source import FileSource, ReadBuffer
from pacslite.dataset.transcode import CannotTranscode
from pacslite.dimse.command import CommandSet
from pacslite.dimse.messages import CommandField, Message, request_command
from pacslite.dimse.service import Invoker
from pacslite.dimse.status import Status
from pacslite.errors import PacsliteError
from pacslite.scu.contexts import ContextMap
from pacslite.services.sub_operations import SubOperationFailed
from pacslite.services.transcoding import Transcoder
from pacslite.upper_layer.negotiation import AcceptedContext

__all__ = ["InstanceSender"]

log = logging.getLogger("pacslite.retrieve")


class InstanceSender:
    """Sends instances of the archive on established associations.

    Args:
        archive: Has them.
        priority: Of the request that they are sent for (PS3.4 §C.4.2.2.1).
        originator: Move Originator elements, for a C-MOVE.
        facts: For log lines.
        transcoder: Decompresses what the receiver does not take as it is stored; None: such instances fail.
    """

    def __init__(
        self,
        archive: Archive,
        priority: int,
        originator: CommandSet | None,
        facts: dict[str, object],
        transcoder: Transcoder | None,
    ) -> None:
        self._archive = archive
        self._transcoder = transcoder
        self._priority = priority
        self._originator = originator
        self._facts = facts

    async def send(self, invoker: Invoker, contexts: ContextMap, instance: InstanceRef, buffer: ReadBuffer) -> int:
        """Status of the C-STORE-RSP.

        Raises:
            SubOperationFailed: It could not be sent.
            AssociationEnded: The association ended before the answer.
        """
        try:
            stored = self._archive.open(instance)
        except (OSError, PacsliteError) as error:
            raise SubOperationFailed("not there any more") from error
        try:
            if os.fstat(stored.fd).st_size < stored.data_set_offset + stored.data_set_length:
                raise SubOperationFailed("its file is damaged")
            response = await self._send_file(invoker, contexts, instance.sop_instance_uid, stored, buffer)
        except OSError as error:  # of the disk: a lost connection is an AssociationEnded
            raise SubOperationFailed(f"cannot be read: {error.strerror or error}") from error
        finally:
            os.close(stored.fd)
        if response.status != Status.SUCCESS:
            log.warning(
                "C-STORE sub-operation",
                extra=self._facts | {"status": f"{response.status:04X}", "comment": response.error_comment},
            )
        return response.status

    async def _send_file(
        self, invoker: Invoker, contexts: ContextMap, sop_instance_uid: str, stored: InstanceFile, buffer: ReadBuffer
    ) -> Message:
        """By what was opened: replaced since it was planned, the instance may be in another syntax or class now."""
        context = contexts.exact(stored.sop_class_uid, stored.transfer_syntax_uid)
        if context is not None:
            source = FileSource(stored.fd, stored.data_set_offset, stored.data_set_length, buffer)
            return await invoker.invoke(context, self._command(invoker, context, sop_instance_uid), source)
        context = contexts.uncompressed(stored.sop_class_uid)
        if context is None or self._transcoder is None:
            raise SubOperationFailed("no presentation context accepted for it")
        try:
            transcoded = await self._transcoder.transcode(stored, context.transfer_syntax)
        except (OSError, CannotTranscode) as error:
            raise SubOperationFailed(str(error)) from error
        try:
            source = FileSource(transcoded.fd, 0, transcoded.length, buffer)
            return await invoker.invoke(context, self._command(invoker, context, sop_instance_uid), source)
        finally:
            os.close(transcoded.fd)

    def _command(self, invoker: Invoker, context: AcceptedContext, sop_instance_uid: str) -> CommandSet:
        return request_command(
            CommandField.C_STORE_RQ,
            invoker.next_message_id(),
            sop_class_uid=context.abstract_syntax,
            sop_instance_uid=sop_instance_uid,
            has_data_set=True,
            priority=self._priority,
            extra=self._originator,
        )
