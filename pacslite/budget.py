"""Byte budgets: of the process for data in flight, above which connections stop reading, and of its peers by host."""

__all__ = ["Budget", "HostBudget"]


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


class HostBudget:
    """Counts bytes held for peers who have said nothing yet: no host takes the room of the others (loop only, too)."""

    __slots__ = ("_by_host", "limit", "share", "used")

    def __init__(self, limit_bytes: int) -> None:
        self.limit = limit_bytes
        self.share = limit_bytes // 4  # of one host
        self.used = 0
        self._by_host: dict[str, int] = {}

    def take(self, host: str, count: int) -> bool:
        """Count them; False: they are too many, of this host or of all, and must be given back."""
        self.used += count
        of_host = self._by_host[host] = self._by_host.get(host, 0) + count
        return of_host <= self.share and self.used <= self.limit

    def give(self, host: str, count: int) -> None:
        self.used -= count
        left = self._by_host.pop(host, 0) - count
        if left:
            self._by_host[host] = left
