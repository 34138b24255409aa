"""Byte budgets: of the process for data in flight, above which connections stop reading, and of its peers by host."""

from typing import Protocol

__all__ = ["Budget", "Holder", "HostBudget"]


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


class Holder(Protocol):
    """Who holds bytes of what is not finished."""

    @property
    def host(self) -> str:
        """Whose bytes they are."""

    def give_way(self) -> None:
        """Others need the room: end, and hold nothing."""


class _Counts:
    """Bytes by who holds them; who began first comes first."""

    __slots__ = ("by_holder", "total")

    def __init__(self) -> None:
        self.by_holder: dict[Holder, int] = {}
        self.total = 0

    def set(self, holder: Holder, count: int) -> None:
        self.total += count - self.by_holder.get(holder, 0)
        if count:
            self.by_holder[holder] = count
        else:
            self.by_holder.pop(holder, None)

    @property
    def oldest(self) -> Holder:
        return next(iter(self.by_holder))


class HostBudget:
    """Counts bytes held for peers who have said nothing yet: no host takes the room of the others (loop only, too).

    Room is made by ending what was begun first. Who means it is done after a moment; who does not is the oldest soon,
    however many its hosts are and however often it comes again.
    """

    __slots__ = ("_by_host", "_of_all", "limit", "share")

    def __init__(self, limit_bytes: int) -> None:
        self.limit = limit_bytes
        self.share = limit_bytes // 4  # of one host
        self._of_all = _Counts()
        self._by_host: dict[str, _Counts] = {}

    @property
    def used(self) -> int:
        """Bytes, of all."""
        return self._of_all.total

    def hold(self, holder: Holder, count: int) -> None:
        """``holder`` has ``count`` bytes now; with 0 it has finished, or ended."""
        self._set(holder, count)
        while (of_host := self._by_host.get(holder.host)) is not None and of_host.total > self.share:
            self._end(of_host.oldest)
        while self._of_all.total > self.limit:
            self._end(self._of_all.oldest)

    def _set(self, holder: Holder, count: int) -> None:
        self._of_all.set(holder, count)
        of_host = self._by_host.setdefault(holder.host, _Counts())
        of_host.set(holder, count)
        if not of_host.by_holder:
            del self._by_host[holder.host]

    def _end(self, holder: Holder) -> None:
        self._set(holder, 0)
        holder.give_way()
