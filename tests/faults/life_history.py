"""What concurrent operations did to a few SOP Instance UIDs, as JSON lines, and the judge of what may be there then.

lives.py writes it, test_lives.py judges by it. Where history.py has one content a UID, here each store brings another.
A write takes effect at one moment between its begin and its answer; without an answer at any later moment, or never.
An answer tells what was there at such a moment, and so does what is read. Of two writes the first is undone for good if
it had ended before the second began.

Times are CLOCK_MONOTONIC, one clock for all processes of the machine.
"""

import json
import math
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal, Self, TextIO

__all__ = ["ABSENT", "LifeHistory", "LifeRecorder", "Operation", "Outcome"]

ABSENT = ""  # in place of a digest: no instance

Kind = Literal["store", "delete", "read"]
Outcome = Literal["stored", "replaced", "duplicate", "refused", "deleted", "nothing", "read", "gone", "failed"]

_TAKES_EFFECT = {"stored", "replaced", "deleted"}
_IS_PROMISED = {*_TAKES_EFFECT, "duplicate", "refused", "nothing"}  # what it told of is so after the stop, too
_FOUND_NONE = {"stored", "nothing"}  # "duplicate" and the like found one


@dataclass
class Operation:
    """One call, and its answer if there was one in time."""

    name: str
    kind: Kind
    uid: str
    digest: str  # of what is stored, or was read; ABSENT: is deleted, or was not there
    begun: float
    ended: float = math.inf
    outcome: Outcome | None = None
    comment: str = ""

    @property
    def takes_effect(self) -> bool:
        return self.outcome in _TAKES_EFFECT

    @property
    def may_take_effect(self) -> bool:
        """It does, or nobody knows: it was not answered, or by an error that is not about what is there."""
        return self.takes_effect or (self.kind != "read" and self.outcome in {None, "failed"})

    def may_have_found(self, digest: str) -> bool:
        if self.outcome == "read":
            return digest == self.digest
        return self.outcome in {None, "gone", "failed"} or (digest == ABSENT) == (self.outcome in _FOUND_NONE)

    def __str__(self) -> str:
        last = "" if self.ended == math.inf else f"{self.ended:.4f}"
        told = f" ({self.comment})" if self.comment else ""
        return f"{self.name} {self.kind} {self.digest[:8] or 'nothing'} {self.begun:.4f}-{last}: {self.outcome}{told}"


class LifeRecorder:
    """Appends to a history file: a line before the call, and one after its answer."""

    def __init__(self, path: Path, prefix: str) -> None:
        self._file: TextIO = path.open("a", buffering=1, encoding="ascii")  # a line is one write(2)
        self._names = (f"{prefix}.{number}" for number in count(1))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def begin(self, kind: Kind, uid: str, digest: str = ABSENT) -> str:
        """Give the operation's name."""
        name = next(self._names)
        self._write("begin", name, kind=kind, uid=uid, digest=digest)
        return name

    def end(self, name: str, outcome: Outcome, *, digest: str | None = None, comment: str = "") -> None:
        more = {} if digest is None else {"digest": digest}
        self._write("end", name, outcome=outcome, comment=comment, **more)

    def tell(self, complaint: str) -> None:
        """What must not be, whatever is there."""
        self._write("complaint", "", comment=complaint)

    def fall_silent(self) -> None:
        """Nothing is under way, and nothing follows."""
        self._write("silent", "")

    def _write(self, event: str, name: str, **more: str) -> None:
        self._file.write(json.dumps({"at": time.monotonic(), "event": event, "name": name, **more}) + "\n")


class LifeHistory:
    """The operations since an archive was looked at, by SOP Instance UID.

    Args:
        found: What was there then: SOP Instance UID to digest.
    """

    def __init__(self, found: Mapping[str, str] | None = None) -> None:
        self._found = dict(found or {})
        self._operations: dict[str, list[Operation]] = defaultdict(list)
        self.complaints: list[str] = []

    def __iter__(self) -> Iterator[Operation]:
        for operations in self._operations.values():
            yield from operations

    def read(self, path: Path, *, before: float = math.inf) -> None:
        """Take a life's operations; what came from ``before`` on (a power cut) did not happen and promises nothing."""
        named: dict[str, Operation] = {}
        for line in path.read_text("ascii").splitlines():
            entry = json.loads(line)
            if entry["at"] >= before:
                continue
            name = entry["name"]
            if entry["event"] == "begin":
                named[name] = Operation(name, entry["kind"], entry["uid"], entry["digest"], entry["at"])
            elif entry["event"] == "end":
                operation = named[name]
                operation.ended, operation.outcome, operation.comment = entry["at"], entry["outcome"], entry["comment"]
                operation.digest = entry.get("digest", operation.digest)
            elif entry["event"] == "complaint":
                self.complaints.append(entry["comment"])
        self.add(named.values())

    def add(self, operations: Iterable[Operation]) -> None:
        for operation in operations:
            self._operations[operation.uid].append(operation)

    def judge(self, found: Mapping[str, str]) -> list[str]:
        """The violations, each a sentence and the operations it is about.

        Args:
            found: SOP Instance UID to digest, after the end of all operations.
        """
        violations = list(self.complaints)
        for uid in sorted({*self._found, *self._operations, *found}):
            before, after = self._found.get(uid, ABSENT), found.get(uid, ABSENT)
            violations += _judge_one(uid, before, self._operations[uid], after)
        return violations


def _judge_one(uid: str, before: str, operations: list[Operation], after: str) -> list[str]:
    first = Operation("before", "store", uid, before, -math.inf, -math.inf, "stored" if before else "deleted")
    writes = [first, *(each for each in operations if each.may_take_effect)]
    telling = _that_tell(operations, writes)
    undone = [_undone(write, telling) for write in writes]

    def possible(begun: float, ended: float) -> list[Operation]:
        """The writes that may be the last ones that took effect at some moment between."""
        return [write for write, moment in zip(writes, undone, strict=True) if write.begun < ended and moment >= begun]

    violations: list[str] = []
    for each in operations:
        last = [write for write in possible(each.begun, each.ended) if write is not each]
        if not any(each.may_have_found(write.digest) for write in last):
            violations.append(_sentence(f"{uid}: this answer cannot be:\n  {each}", last))
    last = possible(math.inf, math.inf)
    if after not in {write.digest for write in last}:
        came = [f"\n  {each}" for each in operations if each.digest == after and each.kind == "store"]
        violations.append(_sentence(f"{uid}: {after[:8] or 'nothing'} is there:{''.join(came)}", last))
    return violations


def _sentence(what: str, last: list[Operation]) -> str:
    return "\n".join([what, "  and these may be the last ones:", *(f"  {write}" for write in last)])


def _that_tell(operations: list[Operation], writes: list[Operation]) -> list[Operation]:
    """Those that tell for good what had taken effect before they ended, in the order of their begins."""
    sure = {write.digest for write in writes if write.takes_effect and write.digest}
    telling = [each for each in operations if each.outcome in _IS_PROMISED]
    telling += [
        each for each in operations if each.outcome == "read" and each.digest in sure
    ]  # others may be gone again
    return sorted(telling, key=_begun)


def _undone(write: Operation, telling: list[Operation]) -> float:
    """From when on it is undone for good: something came after it, as one tells that began after its end."""
    moment = math.inf
    for later in telling[bisect_right(telling, write.ended, key=_begun) :]:
        if later.begun >= moment:
            break
        if later.takes_effect or not later.may_have_found(write.digest):
            moment = min(moment, later.ended)
    return moment


def _begun(operation: Operation) -> float:
    return operation.begun
