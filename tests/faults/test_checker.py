"""The judge condemns what it must: each kind of loss, doctored into an honest picture."""

from collections.abc import Callable

import pytest

from tests.faults.checker import Seen, judge
from tests.faults.history import Attempt, History

ONE, TWO = "1.1", "1.2"


def _history() -> History:
    history = History()
    for uid in (ONE, TWO):
        history.attempts[uid] = Attempt(uid, "study", "series", "patient", f"digest {uid}", 0.0, [(1.0, 0)])
    return history


def _seen() -> Seen:
    return Seen(
        rows=[("study", "series", ONE), ("study", "series", TWO)],
        series_counts={"series": 2},
        study_counts={"study": 2},
        content={ONE: f"digest {ONE}", TWO: f"digest {TWO}"},
        looked_into={"study"},
    )


def test_an_honest_archive_is_clean() -> None:
    assert judge(_history(), _seen()) == []


def _forget_row(seen: Seen) -> None:
    seen.rows.pop()


def _forget_content(seen: Seen) -> None:
    del seen.content[TWO]


def _damage(seen: Seen) -> None:
    seen.content[TWO] = "other"


def _double(seen: Seen) -> None:
    seen.rows.append(("study", "series", TWO))


def _invent(seen: Seen) -> None:
    seen.rows.append(("study", "series", "1.3"))


def _misplace(seen: Seen) -> None:
    seen.rows[1] = ("study", "elsewhere", TWO)


def _miscount(seen: Seen) -> None:
    seen.study_counts["study"] = 3


def _empty_series(seen: Seen) -> None:
    seen.series_counts["hollow"] = 0


def _lose_study(seen: Seen) -> None:
    seen.rows.clear()
    seen.content.clear()
    seen.study_counts.clear()
    seen.series_counts.clear()
    seen.looked_into.clear()


def _lose_by_count(seen: Seen) -> None:
    seen.rows.clear()
    seen.content.clear()
    seen.series_counts.clear()
    seen.looked_into.clear()
    seen.study_counts["study"] = 1


@pytest.mark.parametrize(
    ("doctor", "sentence"),
    [
        (_forget_row, "was acknowledged and is not found"),
        (_forget_content, "does not come back"),
        (_damage, "other bytes"),
        (_double, "has 2 rows"),
        (_invent, "nobody sent it"),
        (_misplace, "it was sent in series"),
        (_miscount, "says it has 3 instances"),
        (_empty_series, "has no instance"),
        (_lose_study, "was acknowledged and is not found"),
        (_lose_by_count, "1 instances, 2 were acknowledged"),
    ],
)
def test_each_loss_is_named(doctor: Callable[[Seen], None], sentence: str) -> None:
    seen = _seen()
    doctor(seen)
    assert any(sentence in violation for violation in judge(_history(), seen))


def test_what_was_refused_must_not_be_there() -> None:
    history = _history()
    history.attempts[TWO].answers = [(1.0, 0xA700)]
    assert any("refused" in violation for violation in judge(history, _seen()))


def test_answers_after_the_cut_promise_nothing() -> None:
    history, seen = History(), _seen()
    history.merge(_history(), before=0.5)
    _forget_row(seen)
    _forget_content(seen)
    seen.study_counts, seen.series_counts = {"study": 1}, {"series": 1}
    assert judge(history, seen) == []
