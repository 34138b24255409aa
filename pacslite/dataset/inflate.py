"""Inflate a deflated data set piece by piece (PS3.5 §A.5), so far and no further."""

import zlib
from collections.abc import Iterator

from pacslite.dataset.element import DataSetError

__all__ = ["Inflater"]

_BLOCK = 65536


class Inflater:
    """What inflates one data set, to at most ``limit`` bytes and one more."""

    __slots__ = ("_inflater", "_limit", "inflated")

    def __init__(self, limit: int) -> None:
        self._inflater = zlib.decompressobj(-15)
        self._limit = limit
        self.inflated = 0  # bytes that came out

    @property
    def has_ended(self) -> bool:
        """Was the last block there?"""
        return self._inflater.eof

    @property
    def is_beyond(self) -> bool:
        """Is there more than ``limit``?"""
        return self.inflated > self._limit

    def inflate(self, data: memoryview | bytes) -> Iterator[bytes]:
        """Give what the next piece inflates to, a block at a time; what is not asked for is not inflated.

        Raises:
            DataSetError: It is nothing deflated.
        """
        inflater = self._inflater
        for at in range(0, len(data), _BLOCK):
            rest = bytes(data[at : at + _BLOCK])
            while not (inflater.eof or self.is_beyond):
                wanted = min(_BLOCK, self._limit + 1 - self.inflated)
                try:
                    piece = inflater.decompress(rest, wanted)
                except zlib.error as error:
                    raise DataSetError(f"deflated data set: {error}") from None
                rest = inflater.unconsumed_tail
                self.inflated += len(piece)
                yield piece
                if len(piece) < wanted:  # all that the input gives; some output may wait even when all input is taken
                    break
