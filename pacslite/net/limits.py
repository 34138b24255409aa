"""How many associations may exist, and how fast connections may come: in all, for a host, for a calling AE title."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from pacslite.access import Refusal

__all__ = ["Limits", "LimitsOptions"]


@dataclass(frozen=True, slots=True)
class LimitsOptions:
    """0 means no limit."""

    associations: int = 500
    associations_per_host: int = 0
    associations_per_ae_title: int = 0
    connections_per_second: int = 0  # from one host, before we answer "temporary congestion"


class Limits:
    """Counts; told when an association begins and ends. ``clock`` gives seconds."""

    def __init__(self, options: LimitsOptions, clock: Callable[[], float]) -> None:
        self.options = options
        self._clock = clock
        self._total = 0
        self._hosts: Counter[str] = Counter()
        self._ae_titles: Counter[str] = Counter()
        self._recent: dict[str, deque[float]] = {}

    def admit(self, host: str, ae_title: str) -> Refusal | None:
        """Count a new association, or say why not: 2/3/1 for a rate, 2/3/2 for a number (PS3.8 §9.3.4)."""
        options = self.options
        if options.connections_per_second and self._too_fast(host):
            return Refusal(2, 3, 1, f"more than {options.connections_per_second} associations a second from {host}")
        for count, limit, whose in (
            (self._total, options.associations, "in all"),
            (self._hosts[host], options.associations_per_host, f"of host {host}"),
            (self._ae_titles[ae_title], options.associations_per_ae_title, f"of {ae_title}"),
        ):
            if limit and count >= limit:
                return Refusal(2, 3, 2, f"{limit} associations {whose} are the limit")
        self._total += 1
        self._hosts[host] += 1
        self._ae_titles[ae_title] += 1
        return None

    def release(self, host: str, ae_title: str) -> None:
        self._total -= 1
        for counter, key in ((self._hosts, host), (self._ae_titles, ae_title)):
            counter[key] -= 1
            if counter[key] <= 0:
                del counter[key]

    def _too_fast(self, host: str) -> bool:
        now = self._clock()
        if len(self._recent) > 10_000:  # hosts come and go: forget those that have been silent
            self._recent = {key: times for key, times in self._recent.items() if times[-1] > now - 1}
        times = self._recent.setdefault(host, deque(maxlen=self.options.connections_per_second))
        too_fast = len(times) == times.maxlen and times[0] > now - 1
        if not too_fast:
            times.append(now)
        return too_fast
