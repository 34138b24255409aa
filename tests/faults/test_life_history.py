"""The judge of lives allows what it must, and nothing else."""

from collections.abc import Sequence
from math import inf
from pathlib import Path

import pytest

from tests.faults.life_history import ABSENT, Kind, LifeHistory, LifeRecorder, Operation, Outcome

A, B, C, UNKNOWN = "a", "b", "c", "unknown"
NEVER: set[str] = set()

Told = tuple[Kind, str, float, float, Outcome | None]  # digest, begin, end


@pytest.mark.parametrize(
    ("before", "operations", "allowed"),
    [
        pytest.param(A, [], {A}, id="nothing-happened"),
        pytest.param(ABSENT, [("store", A, 0, 1, "stored")], {A}, id="stored"),
        pytest.param(ABSENT, [("store", A, 0, inf, None)], {A, ABSENT}, id="not-answered"),
        pytest.param(B, [("store", A, 0, 1, "failed")], {A, B}, id="failed"),
        pytest.param(B, [("store", A, 0, 1, "duplicate")], {B}, id="duplicate"),
        pytest.param(B, [("store", A, 0, 1, "refused")], {B}, id="refused"),
        pytest.param(A, [("delete", ABSENT, 0, 1, "deleted")], {ABSENT}, id="deleted"),
        pytest.param(A, [("delete", ABSENT, 0, inf, None)], {A, ABSENT}, id="a-deletion-not-answered"),
        pytest.param(
            C, [("store", A, 0, 1, "replaced"), ("store", B, 2, 3, "replaced")], {B}, id="one-after-the-other"
        ),
        pytest.param(C, [("store", A, 0, 2, "replaced"), ("store", B, 1, 3, "replaced")], {A, B}, id="side-by-side"),
        pytest.param(
            C, [("store", A, 0, inf, None), ("store", B, 1, 2, "replaced")], {A, B}, id="not-answered-and-the-last"
        ),
        pytest.param(
            C,
            [("store", A, 0, 5, "replaced"), ("store", B, 1, 2, "replaced"), ("read", A, 3, 4, "read")],
            {A},
            id="the-one-that-was-read",
        ),
        pytest.param(C, [("store", A, 0, inf, None), ("read", A, 1, 2, "read")], {A, C}, id="read-and-never-answered"),
        pytest.param(
            A,
            [("delete", ABSENT, 0, inf, None), ("delete", ABSENT, 1, 2, "nothing")],
            {ABSENT},
            id="a-deletion-that-another-one-told",
        ),
        pytest.param(
            ABSENT,
            [("store", A, 0, inf, None), ("store", B, 1, 2, "duplicate")],
            {A},
            id="a-store-that-another-one-told",
        ),
        # answers that cannot be, whatever is there
        pytest.param(A, [("store", B, 0, 1, "stored")], NEVER, id="stored-beside-another"),
        pytest.param(ABSENT, [("store", B, 0, 1, "replaced")], NEVER, id="replaced-nothing"),
        pytest.param(ABSENT, [("store", B, 0, 1, "duplicate")], NEVER, id="duplicate-of-nothing"),
        pytest.param(A, [("delete", ABSENT, 0, 1, "nothing")], NEVER, id="nothing-to-delete-where-it-was"),
        pytest.param(
            A, [("delete", ABSENT, 0, 1, "deleted"), ("delete", ABSENT, 2, 3, "deleted")], NEVER, id="deleted-twice"
        ),
        pytest.param(A, [("store", B, 0, 1, "replaced"), ("read", A, 2, 3, "read")], NEVER, id="an-old-one-read"),
        pytest.param(A, [("store", B, 2, 3, "replaced"), ("read", B, 0, 1, "read")], NEVER, id="read-too-early"),
        pytest.param(A, [("read", ABSENT, 0, 1, "read")], NEVER, id="not-found"),
        pytest.param(A, [("read", UNKNOWN, 0, 1, "read")], NEVER, id="read-what-nobody-sent"),
    ],
)
def test_what_may_be_there(before: str, operations: Sequence[Told], allowed: set[str]) -> None:
    history = LifeHistory({"1.1": before} if before else {})
    history.add(
        Operation(str(number), kind, "1.1", digest, begun, ended, outcome)
        for number, (kind, digest, begun, ended, outcome) in enumerate(operations)
    )
    states = (ABSENT, A, B, C, UNKNOWN)
    assert {state for state in states if not history.judge({"1.1": state} if state else {})} == allowed


def test_another_instance_is_no_excuse() -> None:
    history = LifeHistory({"1.1": A})
    history.add([Operation("1", "store", "1.2", B, 0, 1, "stored")])
    assert history.judge({"1.1": A, "1.2": B}) == []
    assert len(history.judge({"1.1": B, "1.2": A, "1.3": C})) == 3


def test_after_the_cut_nothing_was_answered(tmp_path: Path) -> None:
    with LifeRecorder(tmp_path / "history", "life") as recorder:
        recorder.end(recorder.begin("store", "1.1", A), "stored")
        recorder.end(recorder.begin("delete", "1.1"), "deleted")
        recorder.end(recorder.begin("store", "1.1", B), "stored")
    whole, cut = LifeHistory(), LifeHistory()
    whole.read(tmp_path / "history")
    assert whole.judge({"1.1": B}) == []
    assert whole.judge({"1.1": A})
    _, deletion, _ = whole
    cut.read(tmp_path / "history", before=deletion.ended)
    assert [each.outcome for each in cut] == ["stored", None]
    assert cut.judge({"1.1": A}) == cut.judge({}) == []
    assert cut.judge({"1.1": B})
