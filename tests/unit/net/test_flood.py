"""A flood of refusals: the first are told one by one, the others by their number, and no host hides another."""

import logging

import pytest

from pacslite.net.flood import FloodLog
from tests.support.clock import Clock

log = logging.getLogger("pacslite.test")


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """Host and others of each line since the last call."""
    lines = [(vars(record)["peer"], vars(record).get("others", 0)) for record in caplog.records]
    caplog.clear()
    return lines


def test_a_flood_is_told_by_its_number(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock(100.0)
    flood = FloodLog(log, clock, lines=3, lines_per_second=2)

    def refuse(host: str, times: int = 1) -> None:
        for _ in range(times):
            flood.warning(host, "refused", {"peer": host})

    refuse("a", 10)
    assert told(caplog) == [("a", 0)] * 3
    refuse("b")
    assert told(caplog) == [("b", 0)]
    clock.now += 0.5
    refuse("a", 5)
    assert told(caplog) == [("a", 7)]
    clock.now += 60
    refuse("a", 5)
    assert told(caplog) == [("a", 4), ("a", 0), ("a", 0)]


def test_hosts_without_end_take_no_memory_without_end(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock(100.0)
    flood = FloodLog(log, clock, lines=1, lines_per_second=1)
    for number in range(5000):
        flood.warning(f"{number}", "refused", {"peer": f"{number}"})
    assert len(told(caplog)) == 5000
    assert len(flood._hosts) <= 1000
    flood.warning("4999", "refused", {"peer": "4999"})
    assert told(caplog) == []
