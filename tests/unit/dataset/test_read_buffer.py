"""Memory that retrieves keep between two instances: bounded for all together."""

from pacslite.dataset import source
from pacslite.dataset.source import ReadBuffer

MEBIBYTE = 1 << 20


def test_pages_are_used_again_when_what_they_held_is_sent() -> None:
    buffer = ReadBuffer()
    first = buffer.take(1000, reuse=False)
    assert buffer.take(1000, reuse=True).obj is first.obj
    assert buffer.take(500, reuse=True).obj is first.obj
    assert buffer.take(1000, reuse=False).obj is not first.obj
    assert len(buffer.take(2000, reuse=True)) == 2000


def test_many_retrieves_keep_no_more_than_some() -> None:
    before = ReadBuffer.kept
    buffers = [ReadBuffer() for _ in range(100)]
    for buffer in buffers:
        assert len(buffer.take(MEBIBYTE, reuse=True)) == MEBIBYTE
    assert 16 * MEBIBYTE < ReadBuffer.kept <= source._MOST_KEPT
    assert sum(len(buffer._data) for buffer in buffers) == ReadBuffer.kept - before
    del buffers, buffer
    assert ReadBuffer.kept == before
