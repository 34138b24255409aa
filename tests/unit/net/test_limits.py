"""Association limits answer with the standard's refusals (PS3.8 §9.3.4)."""

from pacslite.net.limits import Limits, LimitsOptions


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def reasons(limits: Limits, *peers: tuple[str, str]) -> list[tuple[int, int, int] | None]:
    answers = []
    for host, ae_title in peers:
        refusal = limits.admit(host, ae_title)
        answers.append(None if refusal is None else (refusal.result, refusal.source, refusal.reason))
    return answers


def test_each_limit_counts_its_own() -> None:
    full = (2, 3, 2)
    assert reasons(Limits(LimitsOptions(associations=2), Clock()), *[("h", "A")] * 3) == [None, None, full]
    per_host = Limits(LimitsOptions(associations_per_host=1), Clock())
    assert reasons(per_host, ("h", "A"), ("h", "B"), ("g", "A")) == [None, full, None]
    per_title = Limits(LimitsOptions(associations_per_ae_title=1), Clock())
    assert reasons(per_title, ("h", "A"), ("g", "A"), ("h", "B")) == [None, full, None]


def test_an_association_that_ends_makes_room() -> None:
    limits = Limits(LimitsOptions(associations=1, associations_per_host=1, associations_per_ae_title=1), Clock())
    assert reasons(limits, ("h", "A")) == [None]
    limits.release("h", "A")
    assert reasons(limits, ("h", "A"), ("h", "A")) == [None, (2, 3, 2)]


def test_too_many_in_a_second_are_congestion_of_that_host_alone() -> None:
    clock = Clock()
    limits = Limits(LimitsOptions(connections_per_second=2), clock)
    assert reasons(limits, *[("h", "A")] * 3, ("g", "A")) == [None, None, (2, 3, 1), None]
    clock.now += 1.01
    assert reasons(limits, ("h", "A")) == [None]


def test_hosts_that_are_silent_are_forgotten() -> None:
    clock = Clock()
    limits = Limits(LimitsOptions(associations=0, connections_per_second=5), clock)
    for number in range(10_001):
        assert limits.admit(f"host{number}", "A") is None
    clock.now += 2
    assert limits.admit("another", "A") is None
    assert len(limits._recent) == 1
