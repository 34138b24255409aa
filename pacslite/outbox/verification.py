"""What storage commitment promises: the instance is in the index, its file is there, and every byte is as received.

Files are read as a whole and compared with the digest that the index holds, in a thread of its own.
"""

import logging
import os
from collections.abc import Callable, Sequence

import xxhash

from pacslite.archive.index.file import IndexFile
from pacslite.archive.instances.protocol import InstanceFile
from pacslite.archive.reference import InstanceRef
from pacslite.dimse.status import Status
from pacslite.errors import PacsliteError
from pacslite.outbox.lookup import IndexLookup
from pacslite.outbox.offload import Offload
from pacslite.scu.commitment import Reference

__all__ = ["Verifier"]

log = logging.getLogger("pacslite.outbox")

_AT_ONCE = 50  # references between two turns of the thread, so that a long list does not hold up a short one
_PIECE = 1 << 20


class Stopped(PacsliteError):
    """The server ends; the next start verifies again."""


class Verifier:
    """Verifies instances of the archive.

    Args:
        open_instance: ``Archive.open``.
    """

    def __init__(self, index: IndexFile, open_instance: Callable[[InstanceRef], InstanceFile]) -> None:
        self._offload = Offload("verify")
        self._lookup = IndexLookup(index)
        self._open_instance = open_instance
        self._buffer = bytearray(_PIECE)
        self._stopping = False

    async def stop(self) -> None:
        """End at the next piece."""
        self._stopping = True
        await self._offload.stop()
        self._lookup.close()

    async def failures(self, references: Sequence[Reference]) -> dict[Reference, int]:
        """Those that cannot be committed, each with its Failure Reason (0008,1197; PS3.3 §C.14.1.1)."""
        failures: dict[Reference, int] = {}
        for start in range(0, len(references), _AT_ONCE):
            failures |= await self._offload.run(self._verify, references[start : start + _AT_ONCE])
        return failures

    # in the thread

    def _verify(self, references: Sequence[Reference]) -> dict[Reference, int]:
        stored = self._lookup.references(reference.sop_instance_uid for reference in references)
        reasons = {
            reference: self._reason(reference, stored.get(reference.sop_instance_uid)) for reference in references
        }
        return {reference: reason for reference, reason in reasons.items() if reason}

    def _reason(self, reference: Reference, stored: InstanceRef | None) -> int:
        """0 if it can be committed."""
        if stored is None:
            return Status.NO_SUCH_OBJECT_INSTANCE
        if stored.sop_class_uid != reference.sop_class_uid:
            return Status.CLASS_INSTANCE_CONFLICT
        problem = self._problem(stored)
        if problem:
            again = self._lookup.references([stored.sop_instance_uid]).get(stored.sop_instance_uid)
            if again is None:  # deleted since we looked
                return Status.NO_SUCH_OBJECT_INSTANCE
            if again == stored or self._problem(again):  # not only replaced
                log.error("instance is damaged", extra={"instance": stored.sop_instance_uid, "why": problem})
                return Status.PROCESSING_FAILURE
        return Status.SUCCESS

    def _problem(self, stored: InstanceRef) -> str:
        try:
            file = self._open_instance(stored)
        except (OSError, PacsliteError) as error:
            return str(error) or type(error).__name__
        try:
            if file.data_set_length != stored.data_set_length:
                return f"{file.data_set_length} bytes, {stored.data_set_length} were stored"
            return "" if self._digest(file) == stored.digest else "digest differs"
        except OSError as error:
            return str(error)
        finally:
            os.close(file.fd)

    def _digest(self, file: InstanceFile) -> bytes:
        digest = xxhash.xxh3_128()
        at, end = file.data_set_offset, file.data_set_offset + file.data_set_length
        while at < end:
            if self._stopping:
                raise Stopped("the server is stopping")
            view = memoryview(self._buffer)[: min(_PIECE, end - at)]
            count = os.preadv(file.fd, [view], at)
            if count == 0:
                break
            digest.update(view[:count])
            at += count
        return digest.digest()
