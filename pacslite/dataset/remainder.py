"""What follows a scanned header: nothing of it is kept, but it has to be all there (PS3.5 §7.1, §A.4).

Known is what the lengths promise, up to the end of the pixel data. Much that is odd there is sent, and harmless:
fragments without the delimiter after them, zeros in its place, any padding behind the pixels. Only a value that goes
beyond the end of its data set is damage for certain.
"""

from pacslite.dataset.element import BIG, ITEM, LITTLE, PIXELS, UNDEFINED, DataSetError, measure_header
from pacslite.dataset.scan import HeaderScanner

__all__ = ["Remainder"]

_ITEM_TAG = 0xFFFE0000 | ITEM
_MOST_STEPS = 100_000  # 0.1 s; who sends more elements or fragments is taken at his word
_PADDING_GROUP = 0xFFFC  # Data Set Trailing Padding: nobody misses a part of it. Behind it are items only


class Remainder:
    """Walks from value to value, from the element before which ``scan`` has ended; the data set must not be deflated.

    Constant memory, a step an element or fragment, and a limit to those.
    """

    __slots__ = ("_began", "_explicit", "_form", "_head", "_in_fragments", "_last_tag", "_next", "_steps", "done")

    def __init__(self, scan: HeaderScanner) -> None:
        self.done = not scan.rest  # nothing is to be learned from what is still to come
        self._explicit = scan.explicit
        self._form = BIG if scan.big_endian else LITTLE
        self._head = scan.rest  # of the element or fragment whose value comes next
        self._began = scan.end  # there
        self._next = scan.end + len(scan.rest)  # of all bytes, the next one that is wanted
        self._last_tag = 0
        self._in_fragments = False
        self._steps = 0
        if not self.done:
            self._step()

    def feed(self, data: bytes | bytearray, at: int) -> None:
        """Take a piece, from byte ``at`` of the data set; what came before ``scan`` was complete may come again."""
        end = at + len(data)
        while self._next < end and not self.done:
            if not self._head:
                self._began = self._next
            wanted = (12 if len(self._head) >= 8 else 8) - len(self._head)
            piece = data[self._next - at : self._next - at + wanted]
            self._head += piece
            self._next += len(piece)
            if len(self._head) in {8, 12}:
                self._step()

    def finish(self, length: int) -> None:
        """Note that the data set has ended, after ``length`` bytes.

        Raises:
            DataSetError: In the middle of a value, or of what introduces one.
        """
        if self._next > length:
            raise DataSetError(f"element at byte {self._began} goes {self._next - length} bytes beyond the data set")
        if not self.done and any(self._head):  # a few zeros are somebody's padding
            raise DataSetError(f"data set ends inside the element at byte {self._began}")

    def _step(self) -> None:
        """Go behind the value that ``_head`` introduces, once its length is there."""
        group, element, length = self._form.wide(self._head, 0)
        tag = group << 16 | element
        size = 8
        if self._in_fragments:
            self.done = tag != _ITEM_TAG or length == UNDEFINED
        elif tag <= self._last_tag or group >= _PADDING_GROUP:  # no element, or none that anybody misses
            self.done = True
        elif self._explicit:
            size, length, is_implicit = measure_header(self._form, self._head, 0)
            if size > len(self._head):
                return
            self.done = is_implicit
        self._head = b""
        self._steps += 1
        if self.done or self._steps > _MOST_STEPS:
            self.done = True
            self._next = self._began
            return
        self._next = self._began + size
        self._last_tag = tag
        if length == UNDEFINED:
            self._in_fragments = tag in PIXELS
            self.done = not self._in_fragments
        else:
            self._next += length
            self.done = tag in PIXELS
