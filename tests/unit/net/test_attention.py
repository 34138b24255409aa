"""Attention: the loop stays awake while answers are followed by more, seldom where they are not, and never for long."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacslite.net.attention import Attention

SECONDS = 0.0001
BOTH_LOOPS = True


class _Loop:
    """Runs what is called soon; each round takes a microsecond."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rounds = 0
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def run_until(self, when: float) -> None:
        """It sleeps when there is nothing to call."""
        while self.now < when:
            if not self.soon:
                self.now = when
                return
            callbacks, self.soon = self.soon, []
            self.now += 1e-6
            self.rounds += 1
            for callback in callbacks:
                callback()


def attention_on(loop: _Loop, seconds: float = SECONDS, wanted: Callable[[], bool] = lambda: True) -> Attention:
    return Attention(cast("Any", loop), seconds, wanted, lambda: loop.now)


def rounds_of(gaps: list[float], seconds: float = SECONDS) -> int:
    loop = _Loop()
    attention = attention_on(loop, seconds)
    for gap in gaps:
        attention.pay()
        assert len(loop.soon) <= 1
        loop.run_until(loop.now + gap)
    loop.run_until(loop.now + 2 * SECONDS)
    assert not loop.soon, "it looks no longer than it should"
    return loop.rounds


def test_it_does_not_sleep_while_answers_are_followed_by_more() -> None:
    gaps = [0.00007] * 1_000
    assert rounds_of(gaps) >= sum(gaps) / 1e-6 - 1


def test_it_seldom_looks_where_that_does_not_pay() -> None:
    """A message a millisecond: of a second, a thousandth of it is spent in looking for nothing."""
    assert rounds_of([0.001] * 1_000) <= (8 + 1_000 / 128) * SECONDS / 1e-6 * 1.1


@pytest.mark.parametrize("count", [2, 3, 8])
def test_what_comes_in_the_same_bytes_is_not_found_by_looking(count: int) -> None:
    """Requests of a peer that does not wait, and of many peers: a burst each millisecond."""
    assert rounds_of(([0.0] * (count - 1) + [0.001]) * 1_000) <= (8 + count * 1_000 / 128) * SECONDS / 1e-6 * 1.1


def test_it_looks_again_when_that_pays_again() -> None:
    once = rounds_of([0.001] * 1_000)
    assert rounds_of([0.001] * 1_000 + [0.00007] * 1_000) - once > 800 * 70


def test_never_with_0() -> None:
    assert rounds_of([0.00007] * 100, seconds=0) == 0


def test_it_makes_way_for_who_wants_the_interpreter() -> None:
    wanted = True
    loop = _Loop()
    attention = attention_on(loop, wanted=lambda: wanted)
    attention.pay()
    loop.run_until(0.00002)
    assert loop.soon
    wanted = False
    loop.run_until(0.00003)
    assert not loop.soon


@given(gaps=st.lists(st.sampled_from([0.0, 0.00005, 0.00011, 0.001]) | st.floats(0, 0.001), max_size=300))
def test_looking_costs_no_more_than_what_comes_of_it(gaps: list[float]) -> None:
    """The time spent is bounded by what was found in time, and by its own length for each time nothing was."""
    found = sum(gap for gap in gaps if gap <= SECONDS)
    missed = sum(gap > SECONDS for gap in gaps) + 1
    assert rounds_of(gaps) * 1e-6 <= (found + missed * SECONDS) * 1.1 + len(gaps) * 2e-6


async def test_on_a_loop_others_have_their_turn_and_it_ends() -> None:
    attention = Attention(asyncio.get_running_loop(), 0.05, lambda: True)
    attention.pay()
    async with asyncio.timeout(0.04):
        await asyncio.sleep(0.001)
    assert attention._until
    await asyncio.sleep(0.1)
    assert not attention._until
