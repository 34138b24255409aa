"""Sends files with C-STORE: what they are is read first, so that every one has its presentation context."""

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from pacslite.dataset.meta import FileMeta, FileMetaError, read_file_meta
from pacslite.dataset.source import FileSource, ReadBuffer
from pacslite.dimse.messages import CommandField, Priority, request_command
from pacslite.folders import files_below
from pacslite.net.connection import Connection
from pacslite.net.ended import AssociationEnded
from pacslite.scu.contexts import ContextMap, storage_contexts
from pacslite.scu.requestor import Address, Requestor
from pacslite.upper_layer.items import PresentationContext

__all__ = ["FileSender", "StoreResult"]


_ABORT_SECONDS = 1.0  # for the peer to close


class StoreResult(NamedTuple):
    """What became of one file; ``status`` is None where it never was sent, and ``comment`` says why."""

    path: Path
    status: int | None
    comment: str = ""
    size: int = 0  # bytes of the data set


class _File(NamedTuple):
    path: Path
    meta: FileMeta


class FileSender:
    """Sends files to one peer, on as many associations as their presentation contexts need, one after the other."""

    def __init__(
        self, requestor: Requestor, address: Address, calling_ae_title: str | None, priority: Priority
    ) -> None:
        self._requestor = requestor
        self._address = address
        self._calling_ae_title = calling_ae_title
        self._priority = priority
        self._connection: Connection | None = None  # in use
        self._ended = False

    async def send(self, paths: Iterable[Path]) -> AsyncGenerator[StoreResult, None]:
        """Yield a result for each file."""
        files, unreadable = await asyncio.to_thread(_inspect, paths)
        for result in unreadable:
            yield result
        for contexts in storage_contexts((file.meta.sop_class_uid, file.meta.transfer_syntax_uid) for file in files):
            classes = {context.abstract_syntax for context in contexts}
            part = [file for file in files if file.meta.sop_class_uid in classes]
            async with aclosing(self._send_part(contexts, part)) as results:
                async for result in results:
                    yield result

    async def end(self) -> None:
        """Give up what is not sent yet; harmless at any time."""
        self._ended = True
        if self._connection is not None:
            self._connection.abort("given up", close_within=_ABORT_SECONDS)

    async def _send_part(
        self, contexts: tuple[PresentationContext, ...], files: list[_File]
    ) -> AsyncGenerator[StoreResult, None]:
        connection = await self._associate(contexts)
        accepted = ContextMap(connection.negotiated.contexts)
        buffer = ReadBuffer()
        window = connection.negotiated.operations_invoked or self._requestor.options.operations
        outstanding: set[asyncio.Task[StoreResult]] = set()
        try:
            for file in files:
                outstanding.add(asyncio.create_task(self._send_file(connection, accepted, file, buffer)))
                if len(outstanding) >= window:
                    done, outstanding = await asyncio.wait(outstanding, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        yield task.result()
            while outstanding:
                done, outstanding = await asyncio.wait(outstanding, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
            await connection.release()
        finally:
            for task in outstanding:
                task.cancel()
            connection.abort("given up", close_within=_ABORT_SECONDS)

    async def _associate(self, contexts: tuple[PresentationContext, ...]) -> Connection:
        self._check_wanted()
        with self._address.named():
            connection = await self._requestor.associate(
                self._address, contexts, calling_ae_title=self._calling_ae_title
            )
        self._connection = connection
        if self._ended:  # meanwhile
            await self.end()
        self._check_wanted()
        return connection

    def _check_wanted(self) -> None:
        if self._ended:
            raise AssociationEnded("the client was closed before all files were sent")

    async def _send_file(
        self, connection: Connection, accepted: ContextMap, file: _File, buffer: ReadBuffer
    ) -> StoreResult:
        meta = file.meta
        context = accepted.exact(meta.sop_class_uid, meta.transfer_syntax_uid)
        if context is None:
            return StoreResult(
                file.path, None, f"{meta.sop_class_uid} in {meta.transfer_syntax_uid} is not accepted by the peer"
            )
        try:
            fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            return StoreResult(file.path, None, error.strerror or str(error))
        try:
            length = os.fstat(fd).st_size - meta.data_set_offset
            command = request_command(
                CommandField.C_STORE_RQ,
                connection.next_message_id(),
                sop_class_uid=meta.sop_class_uid,
                sop_instance_uid=meta.sop_instance_uid,
                has_data_set=True,
                priority=self._priority,
            )
            with self._address.named():
                source = FileSource(fd, meta.data_set_offset, length, buffer)
                response = await connection.invoke(context, command, source)
        except AssociationEnded as ended:
            return StoreResult(file.path, None, str(ended))
        finally:
            os.close(fd)
        return StoreResult(file.path, response.status, response.error_comment, length)


def _inspect(paths: Iterable[Path]) -> tuple[list[_File], list[StoreResult]]:
    files: list[_File] = []
    unreadable: list[StoreResult] = []
    for path in files_below(paths):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # of a pipe: nobody may write to it
            try:
                if not S_ISREG(os.fstat(fd).st_mode):
                    raise FileMetaError("a pipe or device")
                meta = read_file_meta(fd)
            finally:
                os.close(fd)
        except OSError as error:
            unreadable.append(StoreResult(path, None, error.strerror or str(error)))
        except FileMetaError as error:
            unreadable.append(StoreResult(path, None, str(error)))
        else:
            if meta.sop_class_uid and meta.sop_instance_uid:
                files.append(_File(path, meta))
            else:
                unreadable.append(StoreResult(path, None, "no SOP Class or SOP Instance UID in the file meta"))
    return files, unreadable
