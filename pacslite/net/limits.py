"""How many connections and associations may exist, and how fast they may come: in all, for a host, for an AE title."""

from collections.abc import Callable
from dataclasses import dataclass

from pacslite.access import Refusal

__all__ = ["Limits", "LimitsOptions"]

_REMEMBERED_HOSTS = 10_000


@dataclass(frozen=True, slots=True)
class LimitsOptions:
    """0 means no limit."""

    associations: int = 500
    associations_per_host: int = 0
    associations_per_ae_title: int = 0
    connections_per_second: int = 0  # from one host, before we answer "temporary congestion"


class _Rate:
    """So much a second of each host; what one did not use in a second it may make up for in the next."""

    def __init__(self, per_second: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._clock = clock
        self.allowances: dict[str, tuple[float, float]] = {}  # host: how many more, as of a time

    def allows(self, host: str) -> bool:
        """Count one more of ``host``, if there may be one."""
        rate = self._per_second
        if not rate:
            return True
        now = self._clock()
        if len(self.allowances) > _REMEMBERED_HOSTS:  # hosts come and go: forget those that have been silent
            self.allowances = {key: value for key, value in self.allowances.items() if value[1] > now - 1}
        allowance, then = self.allowances.get(host, (rate, now))
        allowance = min(allowance + (now - then) * rate, rate)
        self.allowances[host] = (max(allowance - 1, 0), now)
        return allowance >= 1


class Limits:
    """Counts; told when a connection or an association begins and ends. ``clock`` gives seconds.

    An association too many is told so (PS3.8 §9.3.4). That takes connections beyond their number: as many again, and
    some, in all and for a host; what comes above is closed, so that no host keeps another from being heard.
    """

    def __init__(self, options: LimitsOptions, clock: Callable[[], float]) -> None:
        self.options = options
        self._connections_in_all = 0
        self._connections: dict[str, int] = {}
        self._associations_in_all = 0
        self._associations: dict[str, int] = {}
        self._ae_titles: dict[str, int] = {}
        self._requests = _Rate(options.connections_per_second, clock)  # for associations
        self._handshakes = _Rate(options.connections_per_second, clock)

    # connections

    def connect(self, host: str) -> str:
        """Count a new connection; or say why it must be closed, and do not count it."""
        options = self.options
        if options.associations and self._connections_in_all >= 2 * options.associations + 100:
            return f"{self._connections_in_all} connections in all"
        if options.associations_per_host:
            count = self._connections.get(host, 0)
            if count >= 2 * options.associations_per_host + 100:
                return f"{count} connections of one host"
        self._connections_in_all += 1
        _increment(self._connections, host)
        return ""

    def disconnect(self, host: str) -> None:
        self._connections_in_all -= 1
        _decrement(self._connections, host)

    def handshake(self, host: str) -> str:
        """Count a TLS handshake that ``host`` wants, or say why there will be none."""
        if self._handshakes.allows(host):
            return ""
        return f"more than {self.options.connections_per_second} handshakes a second"

    # associations

    def congestion(self, host: str) -> Refusal | None:
        """Count a request for an association, from ``host``; 2/3/1 if they come too fast."""
        if self._requests.allows(host):
            return None
        rate = self.options.connections_per_second
        return Refusal(2, 3, 1, f"more than {rate} associations a second from {host}")

    def admit(self, host: str, ae_title: str) -> Refusal | None:
        """Count a new association, or say why not: 2/3/2."""
        options = self.options
        if options.associations and self._associations_in_all >= options.associations:
            return _too_many(options.associations, "in all")
        if options.associations_per_host and self._associations.get(host, 0) >= options.associations_per_host:
            return _too_many(options.associations_per_host, f"of host {host}")
        limit = options.associations_per_ae_title
        if limit and self._ae_titles.get(ae_title, 0) >= limit:
            return _too_many(limit, f"of {ae_title}")
        self._associations_in_all += 1
        _increment(self._associations, host)
        _increment(self._ae_titles, ae_title)
        return None

    def release(self, host: str, ae_title: str) -> None:
        self._associations_in_all -= 1
        _decrement(self._associations, host)
        _decrement(self._ae_titles, ae_title)


def _too_many(limit: int, whose: str) -> Refusal:
    return Refusal(2, 3, 2, f"{limit} associations {whose} are the limit")


def _increment(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1


def _decrement(counts: dict[str, int], key: str) -> None:
    count = counts.pop(key) - 1
    if count:
        counts[key] = count
