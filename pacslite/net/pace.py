"""How much of the event loop's time one connection gets before others have their turn.

What bytes cost depends on what their peer makes of them: 256 KiB are two PDUs of an image, or 43,000 empty PDVs. And
the loop (libuv) reads a socket that fills its buffer up to 32 times before it looks at another.
"""

__all__ = ["UNMEASURED", "Pace"]

UNMEASURED = 1_024  # bytes that are done soon, whatever they are, and behind which the socket is empty
_TURN_SECONDS = 0.0005  # one read, or several in one turn of the loop: an image's PDUs take 0.1 ms a buffer
_LEAST = 2 * UNMEASURED


class Pace:
    """Of one connection. ``size``: bytes to be read at once; ``most``, once they have cost what those of images do."""

    __slots__ = ("_most", "_spent", "_turn", "size")

    def __init__(self, most: int) -> None:
        self.size = most // 4
        self._most = most
        self._turn = -1.0
        self._spent = 0.0  # seconds, in this turn

    def is_over(self, turn: float, count: int, seconds: float) -> bool:
        """Account for ``count`` bytes that took ``seconds``; True: the connection has had its turn.

        Args:
            seconds: Of the processor, by this thread: that a disk thread had the interpreter meanwhile says nothing.
            turn: The loop's time, which stands still while it reads one socket again and again.
        """
        if turn != self._turn:
            self._turn, self._spent = turn, 0.0
        self._spent += seconds
        if seconds > _TURN_SECONDS:
            self.size = max(_LEAST, int(count * _TURN_SECONDS / seconds) // 2)
        elif count == self.size < self._most and seconds < _TURN_SECONDS / 4:
            self.size = min(self._most, 2 * self.size)
        return self._spent > _TURN_SECONDS
