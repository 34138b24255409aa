"""C-FIND beside the peers: time to the first and to the last answer, in archives of the same studies."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.find import STUDY_ROOT_FIND, encode_identifier, find, value_of
from benchmarks.load import StoreLoad, store
from benchmarks.peers import Server, available, running
from benchmarks.report import Figures, Journal, Target, percentile, table
from benchmarks.samples import identity, new_run, sample
from benchmarks.wire import Connection, Proposal

__all__ = ["CASES", "Archive", "Case", "run"]

SERVERS = ("pacslite", "Orthanc", "dcmqrscp")
STUDIES, IMAGES = 10_000, 1_000
DCMQRSCP_STUDIES = 490  # beyond 500 dcmqrscp 3.6.7 ends with a corrupted heap
STUDIES_A_DAY = 30
PATIENT_NAME, PATIENT_ID, ACCESSION, DATE = 0x00100010, 0x00100020, 0x00080050, 0x00080020
STUDY_UID, SERIES_UID, SOP_UID, INSTANCE_NUMBER = 0x0020000D, 0x0020000E, 0x00080018, 0x00200013
STUDY_KEYS = dict.fromkeys(
    (DATE, 0x00080030, ACCESSION, 0x00080090, 0x00081030, PATIENT_NAME, PATIENT_ID, STUDY_UID, 0x00200010), ""
)
COUNTS = dict.fromkeys((0x00080061, 0x00201206, 0x00201208), "")


@dataclass(frozen=True, slots=True)
class Archive:
    """``studies`` of one report each and one more with a series of ``images``."""

    run: str
    studies: int
    images: int

    def fields(self, study: int, image: int = 0) -> dict[str, str]:
        return identity(self.run, study, 0, image, day=study // STUDIES_A_DAY)

    def all(self) -> list[dict[str, str]]:
        return [self.fields(study) for study in range(self.studies + 1)]

    def fill(self, server: Server) -> None:
        """The peers take four associations; dcmqrscp loses instances then, and gets one."""
        associations = 1 if server.peer.name == "dcmqrscp" else 4
        each = self.studies // associations

        def place(association: int, number: int) -> tuple[int, int, int, int]:
            study = association * each + number
            return study, 0, 0, study // STUDIES_A_DAY

        last = (self.studies, 0), self.studies // STUDIES_A_DAY
        one = store(server, StoreLoad("SR", associations, each), run=self.run, place=place, warm=False)
        two = store(
            server,
            StoreLoad("SR", 1, self.images),
            run=self.run,
            place=lambda _, number: (*last[0], number, last[1]),
            warm=False,
        )
        if one.failures or two.failures:
            raise RuntimeError(f"{server.peer.name} refused {one.failures + two.failures} instances")


Keys = Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Case:
    title: str
    level: str
    keys: Callable[[Archive], Keys]
    expected: Callable[[Archive], set[str]]
    faster: float = 0.0  # than Orthanc, to the last answer
    repeats: int = 5

    @property
    def unique_key(self) -> int:
        return SOP_UID if self.level == "IMAGE" else STUDY_UID


def _studies(wanted: Callable[[Archive, dict[str, str]], bool]) -> Callable[[Archive], set[str]]:
    return lambda archive: {one["StudyInstanceUID"] for one in archive.all() if wanted(archive, one)}


def _middle(archive: Archive) -> dict[str, str]:
    return archive.fields(archive.studies // 2)


def _week(archive: Archive) -> tuple[str, str]:
    first = archive.studies // 2 // STUDIES_A_DAY * STUDIES_A_DAY
    return archive.fields(first)["StudyDate"], archive.fields(first + 6 * STUDIES_A_DAY)["StudyDate"]


def _fifty(archive: Archive) -> list[str]:
    return [archive.fields(study)["StudyInstanceUID"] for study in range(0, archive.studies, archive.studies // 50)][
        :50
    ]


def _image_keys(archive: Archive) -> Keys:
    fields = archive.fields(archive.studies)
    uids = {STUDY_UID: fields["StudyInstanceUID"], SERIES_UID: fields["SeriesInstanceUID"]}
    return uids | {SOP_UID: "", INSTANCE_NUMBER: ""}


CASES = (
    Case(
        "Patient ID",
        "STUDY",
        lambda archive: STUDY_KEYS | {PATIENT_ID: _middle(archive)["PatientID"]},
        lambda archive: {_middle(archive)["StudyInstanceUID"]},
        faster=8,
    ),
    Case(
        "accession number",
        "STUDY",
        lambda archive: STUDY_KEYS | {ACCESSION: _middle(archive)["AccessionNumber"]},
        lambda archive: {_middle(archive)["StudyInstanceUID"]},
        faster=8,
    ),
    Case(
        "name prefix, 1 in 100",
        "STUDY",
        lambda _: STUDY_KEYS | {PATIENT_NAME: "BERGER^CLARA*"},
        _studies(lambda _, one: one["PatientName"].startswith("BERGER^CLARA")),
        faster=8,
    ),
    Case(
        "dates of a week, 210",
        "STUDY",
        lambda archive: STUDY_KEYS | {DATE: "-".join(_week(archive))},
        _studies(lambda archive, one: _week(archive)[0] <= one["StudyDate"] <= _week(archive)[1]),
        faster=5,
    ),
    Case(
        "list of 50 UIDs",
        "STUDY",
        lambda archive: STUDY_KEYS | {STUDY_UID: "\\".join(_fifty(archive))},
        lambda archive: set(_fifty(archive)),
        faster=5,
    ),
    Case(
        "images of a series",
        "IMAGE",
        _image_keys,
        lambda archive: {archive.fields(archive.studies, n)["SOPInstanceUID"] for n in range(archive.images)},
        faster=5,
        repeats=3,
    ),
    Case("all studies", "STUDY", lambda _: STUDY_KEYS, _studies(lambda *_: True), faster=3, repeats=1),
    Case("all, with counts", "STUDY", lambda _: STUDY_KEYS | COUNTS, _studies(lambda *_: True), repeats=1),
)


def run(journal: Journal, folder: Path, rounds: int, quick: bool, only: Sequence[str]) -> Iterator[str]:
    """Fill each server once, then ask all of them in each round."""
    uid_root = new_run()
    with ExitStack() as stack:
        filled: list[tuple[Server, Archive, Connection]] = []
        for peer in available([name for name in SERVERS if not only or name in only]):
            server = stack.enter_context(running(peer, folder, associations=4))
            studies = DCMQRSCP_STUDIES if peer.name == "dcmqrscp" else STUDIES // (10 if quick else 1)
            archive = Archive(uid_root, studies, min(IMAGES, studies))
            archive.fill(server)
            filled.append((server, archive, server.connect([Proposal(STUDY_ROOT_FIND)])))
        os.sync()
        several = [journal.figures("query", case.title) for case in CASES]
        for number in range(rounds):
            for case, figures in zip(CASES, several, strict=True):
                turn = number % len(filled)
                for server, archive, connection in filled[turn:] + filled[:turn]:
                    _ask(case, server, archive, connection, figures)
        for _, _, connection in filled:
            connection.release()
        journal.save()
        sizes = ", ".join(f"{server.peer.name} {archive.studies + 1:,}" for server, archive, _ in filled)
        yield _table(several, [server.peer.name for server, _, _ in filled], f"studies: {sizes}; {rounds} rounds")
    sample.cache_clear()


def _ask(case: Case, server: Server, archive: Archive, connection: Connection, figures: Figures) -> None:
    identifier = encode_identifier(case.level, case.keys(archive))
    answers = [find(connection, STUDY_ROOT_FIND, identifier) for _ in range(case.repeats)]
    expected = case.expected(archive)
    wrong = sum(
        answer.status != 0 or sorted(value_of(one, case.unique_key) for one in answer.identifiers) != sorted(expected)
        for answer in answers
    )
    total = percentile((answer.total_seconds for answer in answers), 50)
    figures.add(
        server.peer.name,
        first=percentile((answer.first_seconds for answer in answers), 50) * 1e3,
        total=total * 1e3,
        slowest=max(answer.total_seconds for answer in answers) * 1e3,
        answers=len(expected),
        rate=len(expected) / total,
        wrong=wrong,
    )


def _table(several: Sequence[Figures], servers: Sequence[str], subtitle: str) -> str:
    lines: list[list[str | float]] = []
    for case, figures in zip(CASES, several, strict=True):
        for name in servers:
            ratio = figures.ratio("Orthanc", name, "total")
            ours = name == "pacslite" and case.faster
            lines.append(
                [
                    case.title,
                    name,
                    *(figures.median(name, figure) for figure in ("answers", "first", "total", "slowest", "rate")),
                    Target(case.faster).judge(ratio) if ours else ratio,
                    "WRONG" if any(one["wrong"] for one in figures.rounds[name]) else "right",
                ]
            )
    columns = ["query", "server", "answers", "first ms", "all ms", "slowest ms", "answers/s", "Orthanc : it", "answers"]
    return table(f"C-FIND, {subtitle}", columns, lines)
