"""One object on its way in: the sink that the fragments of a C-STORE go to."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import xxhash

from pacslite.archive.instances.header import encode_header, header_size
from pacslite.archive.instances.protocol import IncomingFile
from pacslite.archive.outcome import StorageFailed, Stored
from pacslite.archive.record import Record
from pacslite.dataset.layout import Layouts
from pacslite.dataset.remainder import Remainder
from pacslite.dataset.scan import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, DataSetError, HeaderScanner
from pacslite.errors import DimseError

__all__ = ["Complete", "Incoming", "IncomingOwner", "Pieces", "Posted", "ReadFlow"]

_SMALL_FRAGMENT = 8192  # smaller ones are gathered: a list of a million tiny pieces would cost more than their bytes
_GATHERED = 65536
_DEFLATED = DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
_NOT_IN_DATA_SETS = frozenset({b"\0\0", b"\2\0", b"\0\2"})  # groups 0000 and 0002, in either byte order


Pieces = list[bytes | bytearray]


class Complete(NamedTuple):
    """An object of which all bytes are there; ``pieces`` are those that are not in its file yet."""

    incoming: "Incoming"
    pieces: Pieces


Posted = Pieces | Complete | None  # more of an object, its end, or the end of its peer


class ReadFlow(Protocol):
    """The connection that an object arrives on."""

    def pause_reading(self) -> None:
        """Take nothing more from the peer."""

    def resume_reading(self) -> None:
        """Go on."""


class IncomingOwner(Protocol):
    """What an object tells the ingest, on the loop."""

    def took(self, incoming: "Incoming", size: int) -> None:
        """``size`` more bytes are held."""

    def complete(self, incoming: "Incoming") -> None:
        """All is there: store it, and answer its waiter."""

    def drop(self, incoming: "Incoming") -> None:
        """Remove what there is of it."""


class Incoming:
    """An object that arrives. ``write`` and ``abort`` are for the loop's thread and never wait.

    After an error the rest of the object may still be written to it: it is dropped, and ``commit`` tells the error.
    """

    __slots__ = (
        "_gathering",
        "_owner",
        "_passed",
        "_pieces",
        "_remainder",
        "again",
        "digest",
        "ended",
        "error",
        "file",
        "flow",
        "flushing",
        "length",
        "paused",
        "pending",
        "posted",
        "record",
        "scan",
        "sop_class_uid",
        "sop_instance_uid",
        "source_ae_title",
        "streamed",
        "streaming",
        "stripped",
        "transfer_syntax_uid",
        "waiter",
    )

    def __init__(
        self,
        owner: IncomingOwner,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        source_ae_title: str,
        flow: ReadFlow | None,
    ) -> None:
        self.sop_class_uid = sop_class_uid
        self.sop_instance_uid = sop_instance_uid
        self.transfer_syntax_uid = transfer_syntax_uid
        self.source_ae_title = source_ae_title
        self.length = 0  # bytes of the data set so far
        self._owner = owner
        self._pieces: Pieces = []
        self._gathering = bytearray()
        # the ingest's, on the loop
        self.flow = flow
        self.pending = 0  # bytes held in memory and not handed to a disk thread
        self.paused = False
        self.flushing = 0  # bytes that disk threads have
        self.streamed = False  # it is handed on in pieces
        self.ended = False  # committed or aborted
        self.error: DimseError | None = None
        self.waiter: asyncio.Future[Stored] | None = None
        # the disk threads', one at a time
        self.posted: deque[Posted] = deque()
        self.streaming = False  # a thread takes from it
        self.record: Record | None = None
        self.file: IncomingFile | None = None
        self.scan: HeaderScanner | None = None
        self.digest: xxhash.xxh3_128 | None = None
        self.stripped = 0  # bytes that are not stored
        self.again = False  # it is no new instance
        self._passed = 0  # bytes that ``pass_pieces`` was given
        self._remainder: Remainder | None = None

    # receiving

    def write(self, view: memoryview) -> None:
        """Take a fragment; its bytes are copied."""
        size = len(view)
        self.length += size
        if self.error is not None:
            return
        if size >= _SMALL_FRAGMENT:
            if self._gathering:
                self._pieces.append(self._gathering)
                self._gathering = bytearray()
            self._pieces.append(bytes(view))
        else:
            self._gathering += view
            if len(self._gathering) >= _GATHERED:
                self._pieces.append(self._gathering)
                self._gathering = bytearray()
        self.pending += size
        self._owner.took(self, size)

    @property
    def held(self) -> int:
        """Bytes in memory that no disk thread has."""
        return self.pending

    def end(self) -> None:
        """All of it has come: store it. Nobody need wake for that; ``commit`` gives the outcome."""
        if not self.ended:
            self.ended = True
            self.waiter = asyncio.get_running_loop().create_future()
            self._owner.complete(self)

    def abort(self) -> None:
        """Forget the object; nothing of it remains. Once it has ended: nobody waits for the outcome."""
        if not self.ended:
            self.ended = True
            self._owner.drop(self)
        elif self.waiter is not None:
            self.waiter.cancel()

    async def commit(self) -> Stored:
        """Return once the instance is as safe as [storage] durability promises, and visible.

        Raises:
            DimseError: It is not stored, and nothing of it remains. The comment says why.
        """
        self.end()
        if self.waiter is None:
            raise StorageFailed("object was aborted")
        return await self.waiter

    def take_pieces(self) -> Pieces:
        """Hand the bytes over; the caller accounts for them."""
        pieces, self._pieces = self._pieces, []
        if self._gathering:
            pieces.append(self._gathering)
            self._gathering = bytearray()
        return pieces

    # in a disk thread

    @property
    def header_size(self) -> int:
        """Bytes before the data set in the file."""
        return header_size(
            sop_class_uid=self.sop_class_uid,
            sop_instance_uid=self.sop_instance_uid,
            transfer_syntax_uid=self.transfer_syntax_uid,
            source_ae_title=self.source_ae_title,
        )

    def strip_file_meta(self, pieces: Pieces) -> Pieces:
        """Take group 0002 away from the first pieces, which some devices send: it is no part of a data set.

        Source: PS3.10 §7.1, PS3.7 §6.3.1 (group 0000).
        """
        if not pieces or bytes(pieces[0][:2]) not in _NOT_IN_DATA_SETS or self.transfer_syntax_uid == _DEFLATED:
            return pieces
        scan = HeaderScanner(self.transfer_syntax_uid)
        for piece in pieces:
            if scan.feed(memoryview(piece)):
                break
        self.stripped = left = scan.leading
        if left >= sum(map(len, pieces)):
            raise DataSetError(f"File Meta Information of {left} bytes in the data set")
        while left >= len(pieces[0]):
            left -= len(pieces.pop(0))
        pieces[0] = pieces[0][left:]
        return pieces

    @property
    def stored_length(self) -> int:
        """Bytes of the data set in the file."""
        return self.length - self.stripped

    def header(self, digest: bytes, *, is_new: bool) -> bytes:
        """The file's header: it proves ``stored_length`` bytes with this digest."""
        return encode_header(
            sop_class_uid=self.sop_class_uid,
            sop_instance_uid=self.sop_instance_uid,
            transfer_syntax_uid=self.transfer_syntax_uid,
            source_ae_title=self.source_ae_title,
            data_set_length=self.stored_length,
            digest=digest,
            is_new=is_new,
        )

    def scan_pieces(self, pieces: Sequence[bytes | bytearray], layouts: Layouts) -> HeaderScanner:
        """Feed the header scan as far as it wants to be fed."""
        if self.scan is None:
            layout = layouts.of(self.source_ae_title, self.sop_class_uid, self.transfer_syntax_uid)
            self.scan = HeaderScanner(self.transfer_syntax_uid, layout=layout)
        for piece in pieces:
            if self.scan.complete:
                break
            self.scan.feed(memoryview(piece))
        return self.scan

    def pass_pieces(self, pieces: Sequence[bytes | bytearray]) -> None:
        """Pass over what follows the header: the header scan has had these pieces as far as it wanted them."""
        scan = self.scan
        if self._remainder is None and scan is not None and scan.complete and self.transfer_syntax_uid != _DEFLATED:
            self._remainder = Remainder(scan)
        if self._remainder is not None and self._remainder.done:
            return
        for piece in pieces:
            if self._remainder is not None:
                self._remainder.feed(piece, self._passed)
            self._passed += len(piece)

    def check_end(self) -> None:
        """Nobody is told that a data set is stored of which a part is missing.

        Raises:
            DataSetError: Its last value goes beyond its end. Nothing is known of a deflated one.
        """
        if self._remainder is not None:
            self._remainder.finish(self.stored_length)

    def begin_again(self) -> None:
        """Nothing was written of it."""
        self.again = True
        self.digest = None
        self._passed = 0
        self._remainder = None

    def digest_pieces(self, pieces: Sequence[bytes | bytearray]) -> xxhash.xxh3_128:
        """Go on with the digest."""
        if self.digest is None:
            self.digest = xxhash.xxh3_128()
        for piece in pieces:
            self.digest.update(piece)
        return self.digest
