"""The process's byte budget for data in flight: above it, connections stop reading until bytes have gone to disk."""

__all__ = ["Budget"]


class Budget:
    """Counts bytes held in memory; for the event loop's thread only, so it needs no lock."""

    __slots__ = ("limit", "most", "used")

    def __init__(self, limit_bytes: int) -> None:
        self.limit = limit_bytes
        self.most = limit_bytes + limit_bytes // 4  # beyond it, it is exhausted
        self.used = 0

    @property
    def pressed(self) -> bool:
        """More is held than the limit allows: flush early, read late."""
        return self.used > self.limit

    def take(self, count: int) -> None:
        self.used += count

    def give(self, count: int) -> None:
        self.used -= count
