"""A timer against what it promises, whatever is done with it: it is stopped lazily, fires early, and may be stalled."""

from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacslite.net.timers import Timer

EARLY = 0.0009  # a loop that counts milliseconds


class _Handle:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class _Loop:
    """Time that passes when a test says so."""

    def __init__(self, early: float = 0) -> None:
        self.now = 1_000.0
        self.set = 0
        self._early = early
        self._handles: list[_Handle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> _Handle:
        self.set += 1
        self._handles.append(_Handle(when, callback))
        return self._handles[-1]

    @property
    def waiting(self) -> list[_Handle]:
        return [one for one in self._handles if not one.cancelled]

    def run(self, seconds: float) -> None:
        """Let time pass, each handle called when it is due, or a little before."""
        end = self.now + seconds
        while due := [one for one in self.waiting if one.when - self._early <= end]:
            first = min(due, key=lambda one: one.when)
            self.now = max(self.now, first.when - self._early)
            self._handles.remove(first)
            first.callback()
        self.now = max(self.now, end)

    def stall(self, seconds: float) -> None:
        """The process is stopped: afterwards everything is due at once."""
        self.now += seconds
        self.run(0)


def timer_on(loop: _Loop) -> tuple[Timer, list[float]]:
    fired: list[float] = []
    return Timer(cast("Any", loop), lambda: fired.append(loop.now)), fired


SECONDS = st.sampled_from([0, 0.0004, 0.1, 0.5, 1, 2, 3, 30, 600]) | st.floats(0, 100)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), SECONDS),
        st.tuples(st.just("run"), SECONDS),
        st.tuples(st.just("stall"), SECONDS),
        st.tuples(st.sampled_from(["stop", "close"]), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=500, deadline=None)
@given(steps=STEPS, early=st.sampled_from([0, EARLY]))
def test_a_timer_calls_once_when_its_time_has_come_and_not_else(steps: list[tuple[str, float]], early: float) -> None:
    loop = _Loop(early)
    timer, fired = timer_on(loop)
    due: float | None = None  # what a timer that is set anew each time would be set to
    for what, seconds in steps:
        before = len(fired)
        match what:
            case "start":
                timer.start(seconds)
                due = loop.now + seconds
            case "stop":
                timer.stop()
                due = None
            case "close":
                timer.close()
                assert not loop.waiting
                timer.start(seconds)  # it calls nobody any more
                loop.run(seconds + 1)
                assert len(fired) == before
                return
            case "run":
                end = loop.now + seconds
                loop.run(seconds)
                if len(fired) > before:
                    assert due is not None
                    assert due - 0.001 <= fired[-1] <= due + 0.001
                    due = None
                else:
                    assert due is None or due > end - 0.001
            case "stall":
                loop.stall(seconds)
                if due is not None and loop.now - due > 1:
                    due = loop.now + 1  # a moment more, to read what has arrived meanwhile
                    assert len(fired) == before
                elif len(fired) > before:
                    assert due is not None
                    assert due <= loop.now + 0.001
                    due = None
        assert len(fired) - before <= 1
        assert bool(timer) is (due is not None)
        assert len(loop.waiting) <= 1
    timer.close()
    assert not loop.waiting


@pytest.mark.parametrize(
    ("first", "second", "calls"),
    [
        (10, 10, [1_010.0]),
        (10, 30, [1_030.0]),  # for later: the loop's timer stays, and is set again when it fires
        (30, 10, [1_010.0]),  # for earlier: it is set at once
    ],
)
def test_what_is_started_anew_is_called_by_its_last_start(first: float, second: float, calls: list[float]) -> None:
    loop = _Loop()
    timer, fired = timer_on(loop)
    timer.start(first)
    timer.start(second)
    loop.run(100)
    assert fired == calls


def test_starting_and_stopping_costs_the_loop_nothing() -> None:
    """ARTIM of an association: started, stopped, started for its end."""
    loop = _Loop()
    timer, fired = timer_on(loop)
    for _ in range(1_000):
        timer.start(30)
        loop.run(0.001)
        timer.stop()
    assert loop.set == 1
    loop.run(100)
    assert fired == []
    assert not loop.waiting


def test_a_callback_may_start_its_timer() -> None:
    loop = _Loop(EARLY)
    again: list[float] = []

    def called() -> None:
        again.append(loop.now)
        if len(again) < 5:
            timer.start(1)

    timer = Timer(cast("Any", loop), called)
    timer.start(1)
    loop.run(100)
    assert again == pytest.approx([1_001, 1_002, 1_003, 1_004, 1_005], abs=0.01)
    assert not timer
