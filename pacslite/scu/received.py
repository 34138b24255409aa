"""Takes the C-STORE sub-operations of a C-GET of ours: each instance becomes a PS3.10 file in a folder."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from xxhash import xxh3_128

from pacslite.dataset.meta import encode_file_meta, private_information
from pacslite.dimse.messages import CommandField, Message
from pacslite.dimse.reader import DataSetSink
from pacslite.dimse.service import Reply, Request
from pacslite.dimse.status import Status
from pacslite.errors import DimseError
from pacslite.upper_layer.negotiation import AbstractSyntaxOffer

__all__ = ["ReceiveService"]

_SAFE_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


class CannotStore(DimseError):
    """The instance cannot become a file here."""

    status = 0xA700


class _File:
    """An instance being received; it has its name only when it is whole."""

    def __init__(self, message: Message, directory: Path) -> None:
        uid = message.sop_instance_uid
        if len(uid) > 64 or not _SAFE_UID.fullmatch(uid):
            raise CannotStore("SOP Instance UID is no file name")
        self.path = directory / f"{uid}.dcm"
        self._partial = directory / f".{uid}.partial"
        self._message = message
        self.length = 0
        self._digest = xxh3_128()
        self._error: OSError | None = None
        try:
            self._file = self._partial.open("wb")
            self._file.seek(len(self._meta()))
        except OSError as error:
            raise CannotStore(f"{self._partial.parent}: {error.strerror}") from error

    def write(self, view: memoryview) -> None:
        self.length += len(view)
        self._digest.update(view)
        if self._error is None:
            try:
                self._file.write(view)
            except OSError as error:
                self._error = error

    @property
    def held(self) -> int:
        """Nothing: all is written at once."""
        return 0

    def end(self) -> None:
        """``finish`` does the rest."""

    def abort(self) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the file its header and its name."""
        try:
            if self._error is not None:
                raise self._error
            self._file.seek(0)
            self._file.write(self._meta())
            self._file.close()
            os.replace(self._partial, self.path)  # noqa: PTH105 (as one step)
        except OSError as error:
            self.abort()
            raise CannotStore(f"cannot write: {error.strerror}") from error

    def _meta(self) -> bytes:
        """The header; its size does not depend on length and digest, so room for it is left before they are known."""
        return encode_file_meta(
            sop_class_uid=self._message.sop_class_uid,
            sop_instance_uid=self._message.sop_instance_uid,
            transfer_syntax_uid=self._message.context.transfer_syntax,
            source_ae_title="",
            private=private_information(self.length, self._digest.digest()),
        )


class ReceiveService:
    """C-STORE SCP on an association that we requested (PS3.4 §C.4.3.3)."""

    permission = "store"
    commands = frozenset({CommandField.C_STORE_RQ})

    def __init__(self, directory: Path, received: Callable[[Path], None]) -> None:
        self._directory = directory
        self._received = received

    def offer(self, abstract_syntax: str, service_class: str | None) -> AbstractSyntaxOffer | None:
        return AbstractSyntaxOffer(transfer_syntaxes=None, scu=True, scp=True, extended=None)

    def begin(self, request: Request) -> DataSetSink:
        return _File(request.message, self._directory)

    async def handle(self, request: Request, reply: Reply) -> None:
        if not isinstance(request.sink, _File):
            raise CannotStore("C-STORE without a data set")
        request.sink.finish()
        self._received(request.sink.path)
        await reply(Status.SUCCESS)
