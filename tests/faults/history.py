"""What the clients called and what they were answered, as JSON lines: load.py writes it, checker.py judges by it.

Times are CLOCK_MONOTONIC, one clock for all processes of the machine, so that an answer received before a power cut is
known to have been sent before it.
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tests.support.instances import Instance

__all__ = ["Attempt", "History", "Recorder"]


@dataclass
class Attempt:
    """All that happened to one SOP Instance UID with one content."""

    uid: str
    study_uid: str
    series_uid: str
    patient_id: str
    digest: str
    invoked_at: float
    answers: list[tuple[float, int]] = field(default_factory=list)

    @property
    def acknowledged(self) -> bool:
        return any(status == 0 for _, status in self.answers)

    @property
    def refusals(self) -> list[int]:
        return [status for _, status in self.answers if status]


class Recorder:
    """Appends to a history file; a line is written before the call and one after its answer."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", buffering=1, encoding="ascii")

    def invoke(self, instance: Instance) -> None:
        self._write(
            "invoke",
            instance.sop_instance_uid,
            study=instance.study_uid,
            series=instance.series_uid,
            patient=instance.patient_id,
            digest=instance.digest,
        )

    def answer(self, uid: str, status: int) -> None:
        self._write("answer", uid, status=status)

    def _write(self, event: str, uid: str, **more: str | int) -> None:
        self._file.write(json.dumps({"at": time.monotonic(), "event": event, "uid": uid, **more}) + "\n")


class History:
    """The attempts of one or more history files, by UID."""

    def __init__(self) -> None:
        self.attempts: dict[str, Attempt] = {}

    def read(self, path: Path) -> "History":
        for line in path.read_text("ascii").splitlines():
            entry = json.loads(line)
            uid = entry["uid"]
            if entry["event"] == "invoke":
                new = Attempt(uid, entry["study"], entry["series"], entry["patient"], entry["digest"], entry["at"])
                known = self.attempts.setdefault(uid, new)
                assert known.digest == new.digest, f"{uid} was sent with two contents: the generator is wrong"
            else:
                self.attempts[uid].answers.append((entry["at"], entry["status"]))
        return self

    def merge(self, other: "History", *, before: float | None = None) -> None:
        """Take over another history; answers from ``before`` on (a power cut) promise nothing and are dropped."""
        for uid, attempt in other.attempts.items():
            if before is not None:
                attempt.answers = [(at, status) for at, status in attempt.answers if at < before]
            self.attempts[uid] = attempt

    def studies(self) -> set[str]:
        return {attempt.study_uid for attempt in self.attempts.values()}

    def acknowledged(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts.values() if attempt.acknowledged]
