"""Association limits answer with the standard's refusals (PS3.8 §9.3.4)."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pacslite.net.limits import Limits, LimitsOptions
from tests.support.clock import Clock


def reasons(limits: Limits, *peers: tuple[str, str]) -> list[tuple[int, int, int] | None]:
    answers = []
    for host, ae_title in peers:
        refusal = limits.admit(host, ae_title)
        answers.append(None if refusal is None else (refusal.result, refusal.source, refusal.reason))
    return answers


def test_each_limit_counts_its_own() -> None:
    full = (2, 3, 2)
    assert reasons(Limits(LimitsOptions(associations=2), Clock(100.0)), *[("h", "A")] * 3) == [None, None, full]
    per_host = Limits(LimitsOptions(associations_per_host=1), Clock(100.0))
    assert reasons(per_host, ("h", "A"), ("h", "B"), ("g", "A")) == [None, full, None]
    per_title = Limits(LimitsOptions(associations_per_ae_title=1), Clock(100.0))
    assert reasons(per_title, ("h", "A"), ("g", "A"), ("h", "B")) == [None, full, None]


def test_an_association_that_ends_makes_room() -> None:
    limits = Limits(LimitsOptions(associations=1, associations_per_host=1, associations_per_ae_title=1), Clock(100.0))
    assert reasons(limits, ("h", "A")) == [None]
    limits.release("h", "A")
    assert reasons(limits, ("h", "A"), ("h", "A")) == [None, (2, 3, 2)]


def test_too_many_in_a_second_are_congestion_of_that_host_alone() -> None:
    clock = Clock(100.0)
    limits = Limits(LimitsOptions(connections_per_second=2), clock)

    def congested(host: str, times: int) -> list[bool]:
        refusals = [limits.congestion(host) for _ in range(times)]
        assert {(one.result, one.source, one.reason) for one in refusals if one is not None} <= {(2, 3, 1)}
        return [one is not None for one in refusals]

    assert congested("h", 3) == [False, False, True]
    assert congested("g", 1) == [False]
    clock.now += 0.5
    assert congested("h", 2) == [False, True]
    clock.now += 100
    assert congested("h", 3) == [False, False, True]  # no more is saved up than a second's worth
    assert Limits(LimitsOptions(), clock).congestion("h") is None


def test_hosts_that_are_silent_are_forgotten() -> None:
    clock = Clock(100.0)
    limits = Limits(LimitsOptions(connections_per_second=5), clock)
    for number in range(10_001):
        assert limits.congestion(f"host{number}") is None
    clock.now += 2
    assert limits.congestion("another") is None
    assert len(limits._requests.allowances) == 1


def test_connections_have_room_to_be_told_that_they_are_too_many_and_no_more() -> None:
    """So many beyond the associations, in all and of one host, that a flood from one host leaves others a place."""
    limits = Limits(LimitsOptions(associations=100, associations_per_host=10), Clock(100.0))
    for _ in range(120):
        assert limits.connect("flood") == ""
    assert limits.connect("flood") == "120 connections of one host"
    for number in range(180):
        assert limits.connect(f"host{number}") == ""
    assert limits.connect("last") == "300 connections in all"
    limits.disconnect("flood")
    assert limits.connect("flood") == ""
    unlimited = Limits(LimitsOptions(associations=0), Clock(100.0))
    assert not any(unlimited.connect("h") for _ in range(1000))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("gh"), st.sampled_from("AB"), st.booleans()), max_size=60))
def test_counts_are_those_of_a_list_of_associations(steps: list[tuple[str, str, bool]]) -> None:
    """A model: the limits hold for the associations that exist, whatever came and went before."""
    options = LimitsOptions(associations=5, associations_per_host=3, associations_per_ae_title=4)
    limits = Limits(options, Clock(100.0))
    existing: list[tuple[str, str]] = []
    for host, ae_title, begins in steps:
        if not begins:
            if (host, ae_title) in existing:
                existing.remove((host, ae_title))
                limits.release(host, ae_title)
            continue
        room = (
            len(existing) < 5
            and sum(one == host for one, _ in existing) < 3
            and sum(one == ae_title for _, one in existing) < 4
        )
        assert (limits.admit(host, ae_title) is None) is room
        if room:
            existing.append((host, ae_title))
