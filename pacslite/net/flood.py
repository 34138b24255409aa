"""Log lines of what peers can cause without end: a flood of them is not answered by a flood of lines."""

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

__all__ = ["FloodLog"]

_REMEMBERED_HOSTS = 1000


class _Host(NamedTuple):
    """How many lines may be written of a host, as of a time; and how many were not since the last."""

    allowance: float
    then: float
    unwritten: int


class FloodLog:
    """Writes warnings: of each host some, then fewer, which say for how many others they stand.

    Args:
        log: Where to.
        clock: Gives seconds.
        lines: Of one host at once.
        lines_per_second: Of one host for ever.
    """

    def __init__(
        self, log: logging.Logger, clock: Callable[[], float], *, lines: int = 20, lines_per_second: float = 2.0
    ) -> None:
        self._log = log
        self._clock = clock
        self._lines = float(lines)
        self._lines_per_second = lines_per_second
        self._hosts: dict[str, _Host] = {}

    def warning(self, host: str, text: str, facts: Mapping[str, object]) -> None:
        """Write a line, or count it for the next one of ``host``."""
        now = self._clock()
        allowance, then, unwritten = self._hosts.pop(host, (self._lines, now, 0))
        allowance = min(allowance + (now - then) * self._lines_per_second, self._lines)
        if allowance < 1:
            self._hosts[host] = _Host(allowance, now, unwritten + 1)
            return
        if len(self._hosts) >= _REMEMBERED_HOSTS:
            del self._hosts[next(iter(self._hosts))]  # who was silent the longest
        self._hosts[host] = _Host(allowance - 1, now, 0)
        self._log.warning(text, extra={**facts, "others": unwritten} if unwritten else facts)
