"""Queries over a million studies, pacslite alone. The index is generated: no query opens a file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import generate_index
from benchmarks.find import STUDY_ROOT_FIND, Answers, encode_identifier, find
from benchmarks.peers import PEERS, Server, empty, running
from benchmarks.query import ACCESSION, DATE, PATIENT_ID, PATIENT_NAME, STUDY_KEYS, STUDY_UID
from benchmarks.report import Figures, Journal, Target, percentile, table
from benchmarks.wire import Connection, Proposal
from benchmarks.workers import Start, run_workers

__all__ = ["run"]

STUDIES = 1_000_000
ANSWERS_PER_SECOND = 20_000
_UID = "1.2.826.0.1.3680043.9.7433.1."


@dataclass(frozen=True, slots=True)
class Case:
    """Queries of one kind, each for something else, and the limit for the 99th percentile of the first answer."""

    title: str
    values: Callable[[int, int], str]  # of the number of studies and the number of the query
    tag: int
    milliseconds: float
    cancels: bool = False  # after the first answer: there are thousands
    repeats: int = 200


def _at(studies: int, number: int) -> int:
    """Anywhere in the archive, another place for each number."""
    return number * 7_368_787 % studies


def _prefix(_: int, number: int) -> str:
    family = generate_index.FAMILIES[number * 7 % len(generate_index.FAMILIES)]
    return f"{family}^{generate_index.GIVEN[number % len(generate_index.GIVEN)]}^{chr(65 + number % 26)}*"


def _family(_: int, number: int) -> str:
    return f"{generate_index.FAMILIES[number * 7 % len(generate_index.FAMILIES)]}*"


def _letters(_: int, number: int) -> str:
    return f"*{generate_index.FAMILIES[number * 7 % len(generate_index.FAMILIES)][1:4]}*"


def _infix(_: int, number: int) -> str:
    given = generate_index.GIVEN[number % len(generate_index.GIVEN)]
    return f"*{given}^{chr(65 + number % 26)}{number % 10}*"


def _uids(studies: int, number: int) -> str:
    return "\\".join(f"{_UID}{_at(studies, number * 50 + one)}" for one in range(50))


def _day(_: int, number: int) -> str:
    day = f"20{14 + number % 12}{number % 12 + 1:02d}{number % 28 + 1:02d}"
    return f"{day}-{day}"


CASES = (
    Case("Patient ID", lambda studies, n: f"PID{_at(studies * 6 // 10, n):08d}", PATIENT_ID, 5),
    Case("accession number", lambda studies, n: f"ACC{_at(studies, n):09d}", ACCESSION, 5),
    Case("list of 50 UIDs", _uids, STUDY_UID, 5),
    Case("name prefix", _prefix, PATIENT_NAME, 5),
    Case("family name*", _family, PATIENT_NAME, 5, cancels=True),
    Case("name infix", _infix, PATIENT_NAME, 20),
    Case("*three letters*", _letters, PATIENT_NAME, 20, cancels=True),
    Case("dates of a day", _day, DATE, 20),
)


def run(journal: Journal, folder: Path, rounds: int, quick: bool, only: Sequence[str]) -> Iterator[str]:
    if only and "pacslite" not in only:
        return
    divisor = 10 if quick else 1
    archive = folder / "million"
    studies = STUDIES // divisor
    seconds = generate_index.generate_beside(archive, studies)
    figures = {case.title: journal.figures("large", case.title) for case in CASES}
    everything = journal.figures("large", "all studies")
    with running(PEERS["pacslite"], folder, data=archive) as server:
        connection = server.connect([Proposal(STUDY_ROOT_FIND)])
        for _ in range(rounds):
            for case in CASES:
                _ask(case, studies, connection, figures[case.title])
            _ask_all(server, everything)
        started = server.started_in * 1e3
        connection.release()
    empty(archive)
    journal.save()
    yield _queries(figures, everything, f"{studies:,} studies (index made in {seconds:.0f} s, start {started:.0f} ms)")


def _ask(case: Case, studies: int, connection: Connection, figures: Figures) -> None:
    answers: list[Answers] = []
    for number in range(case.repeats):
        keys = STUDY_KEYS | {case.tag: case.values(studies, number)}
        answers.append(find(connection, STUDY_ROOT_FIND, encode_identifier("STUDY", keys), cancels=case.cancels))
    figures.add(
        "pacslite",
        first_p50=percentile((one.first_seconds for one in answers), 50) * 1e3,
        first_p99=percentile((one.first_seconds for one in answers), 99) * 1e3,
        total_p50=percentile((one.total_seconds for one in answers), 50) * 1e3,
        total_p99=percentile((one.total_seconds for one in answers), 99) * 1e3,
        answers=sum(len(one.identifiers) for one in answers) / len(answers),
        failed=sum(one.status not in ((0, 0xFE00) if case.cancels else (0,)) for one in answers),
    )


def _ask_all(server: Server, figures: Figures) -> None:
    """Every study, to a client in a process of its own; memory must not grow meanwhile."""
    usage = server.usage()
    usage.reset()
    before = usage.peak_bytes
    [(count, first, seconds)] = run_workers([partial(_drain, server)], usage=usage)
    figures.add(
        "pacslite",
        answers=count,
        first=first * 1e3,
        seconds=seconds,
        rate=count / seconds,
        grown=(usage.peak_bytes - before) / 1e6,
        memory=usage.peak_bytes / 1e6,
    )


def _drain(server: Server, start: Start) -> tuple[int, float, float]:
    connection = server.connect([Proposal(STUDY_ROOT_FIND)])
    start()
    answers = find(connection, STUDY_ROOT_FIND, encode_identifier("STUDY", STUDY_KEYS))
    connection.release()
    return len(answers.identifiers), answers.first_seconds, answers.total_seconds


def _queries(figures: dict[str, Figures], everything: Figures, subtitle: str) -> str:
    lines: list[list[str | float]] = []
    for case in CASES:
        one = figures[case.title]
        limit = Target(case.milliseconds, below=True, unit=" ms")
        values = [
            one.median("pacslite", name) for name in ("answers", "first_p50", "first_p99", "total_p50", "total_p99")
        ]
        lines.append([case.title, *values[:2], limit.judge(values[2]), *values[3:]])
    rate = Target(ANSWERS_PER_SECOND, unit="/s").judge(everything.median("pacslite", "rate"))
    values = [everything.median("pacslite", name) for name in ("answers", "first", "seconds", "grown", "memory")]
    lines.append(["all studies", values[0], values[1], rate, values[2] * 1e3, values[2] * 1e3])
    columns = ["query", "answers", "first p50 ms", "first p99 ms", "all p50 ms", "all p99 ms"]
    text = table(f"C-FIND in {subtitle}", columns, lines)
    return f"{text}all studies: memory grew by {values[3]:.1f} MB to {values[4]:.0f} MB\n"
