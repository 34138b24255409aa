"""A stored data set as it is sent: read in pieces, in place where the page cache has them, off the loop where not."""

import asyncio
import errno
import os
from typing import ClassVar

__all__ = ["FileSource", "ReadBuffer"]

_RWF_NOWAIT = getattr(os, "RWF_NOWAIT", 0)
_MOST_KEPT = 32 << 20
_NOT_NOW = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})


class ReadBuffer:
    """A piece of memory that the sources of one retrieve use in turn: new pages cost as much as the read itself.

    Retrieves that wait for their peer keep theirs, as long as they are not too many. For the event loop's thread.
    """

    __slots__ = ("_data",)

    kept: ClassVar[int] = 0  # bytes, in all

    def __init__(self) -> None:
        self._data = bytearray()

    def __del__(self) -> None:
        ReadBuffer.kept -= len(self._data)

    def take(self, size: int, *, reuse: bool) -> memoryview:
        """``size`` writable bytes; those of the last call only if they are no longer needed (``reuse``)."""
        if reuse and len(self._data) >= size:
            return memoryview(self._data)[:size]
        data = bytearray(size)
        ReadBuffer.kept -= len(self._data)
        self._data = data if ReadBuffer.kept + size <= _MOST_KEPT else bytearray()
        ReadBuffer.kept += len(self._data)
        return memoryview(data)


class FileSource:
    """``length`` bytes at ``offset`` of an open file (see ``dimse.service.DataSetSource``).

    ``read`` never blocks the loop on a disk: it reads with RWF_NOWAIT, and what is not in the page cache is read in a
    thread. Where the file system cannot say (tmpfs), its files are in memory anyway.
    """

    __slots__ = ("_at", "_buffer", "_end", "_fd", "_pad", "length")

    def __init__(self, fd: int, offset: int, length: int, buffer: ReadBuffer | None = None) -> None:
        self._fd = fd
        self._at = offset
        self._end = offset + length
        self._pad = length & 1  # a deflated data set of odd length leaves with one NUL more (PS3.5 §A.5)
        self._buffer = buffer if buffer is not None else ReadBuffer()
        self.length = length + self._pad

    async def read(self, size: int, *, reuse: bool = False) -> memoryview:
        """The next ``size`` bytes; fewer only at the end, or where the file ends before its time.

        Args:
            reuse: What earlier calls returned is no longer in use.
        """
        wanted = min(size, self._end - self._at)
        pad = self._pad if self._at + wanted == self._end and wanted < size else 0
        view = self._buffer.take(wanted + pad, reuse=reuse)
        done = 0
        while done < wanted:
            count = self._read_now(view[done:wanted])
            if count < 0:
                count = await asyncio.to_thread(os.preadv, self._fd, [view[done:wanted]], self._at)
            if count == 0:
                break
            done += count
            self._at += count
        if pad and done == wanted:
            view[done] = 0
            self._pad = 0
            done += 1
        return view[:done]

    def read_ahead(self) -> None:
        """Ask the kernel to have it all in the page cache soon."""
        os.posix_fadvise(self._fd, self._at, self._end - self._at, os.POSIX_FADV_WILLNEED)

    def _read_now(self, view: memoryview) -> int:
        try:
            return os.preadv(self._fd, [view], self._at, _RWF_NOWAIT)
        except OSError as error:
            if error.errno in _NOT_NOW:
                return -1
            if error.errno == errno.EOPNOTSUPP:
                return os.preadv(self._fd, [view], self._at)
            raise
