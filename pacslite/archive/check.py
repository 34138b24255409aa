"""Compares index and files in both directions, and mends what differs: ``pacslite check [--repair] [--deep]``.

Nothing that might be somebody's only copy is thrown away: a damaged or surplus file is set aside in ``damaged/``, after
a second look at it. Where files cannot be opened at all the check ends: nothing is known of them. May run while the
archive serves: what is being stored or deleted is looked at again before it counts as a difference.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Literal, NamedTuple

from pacslite.archive.delete import Deleter
from pacslite.archive.extending import OpenFile
from pacslite.archive.extra_check import check_extra_values
from pacslite.archive.file_faults import MISPLACED, fault_of_file
from pacslite.archive.index.counts import correct_counts, find_wrong_counts
from pacslite.archive.index.failures import IndexFailure, IndexFull
from pacslite.archive.index.links import drop_dangling, find_dangling
from pacslite.archive.index.removal import InstanceRow, pages_of_rows
from pacslite.archive.index.writer import IndexWriter
from pacslite.archive.instances.header import read_header
from pacslite.archive.instances.layout import SUFFIX, InstancePath, uid_in_name
from pacslite.archive.instances.protocol import InstanceStore
from pacslite.archive.keys import Level
from pacslite.archive.proof import digest_of, read_record
from pacslite.archive.recovery import Recovery
from pacslite.archive.settle import Settler
from pacslite.dataset.meta import FileMetaError, read_file_meta
from pacslite.errors import DimseError, PacsliteError

__all__ = ["CheckAborted", "CheckReport", "Checker", "Difference", "Progress"]

Kind = Literal["missing", "damaged", "orphan", "surplus", "foreign", "links", "counts", "keys", "index"]
Progress = Callable[[int, int], None]  # done and all, in instances of index and files

_PAGE = 256
_READERS = 4


class Difference(NamedTuple):
    """One thing that is not as it should be."""

    kind: Kind
    name: str  # SOP Instance UID, file or table
    detail: str
    mended: bool = False


@dataclass(slots=True)
class CheckReport:
    """What a check found; ``as_json`` for scripts."""

    deep: bool
    repair: bool
    instances: int = 0  # rows looked at
    files: int = 0
    bytes: int = 0  # read
    differences: list[Difference] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Nothing differs, or all of it was mended."""
        return all(difference.mended for difference in self.differences)

    def as_json(self) -> dict[str, object]:
        """The report in JSON's types."""
        return asdict(self) | {
            "clean": self.clean,
            "differences": [difference._asdict() for difference in self.differences],
        }


class CheckAborted(PacsliteError):
    """Disk or system do not work; ``report`` has what was found by then, and mended."""

    def __init__(self, message: str, report: CheckReport) -> None:
        super().__init__(message)
        self.report = report


class Checker:
    """Checks one archive. Blocks.

    Args:
        open_file: Opens what a row stands for, wherever its file is just then.
    """

    def __init__(
        self,
        store: InstanceStore,
        index: IndexWriter,
        settler: Settler,
        deleter: Deleter,
        recovery: Recovery,
        open_file: OpenFile,
    ) -> None:
        self._store = store
        self._index = index
        self._settler = settler
        self._deleter = deleter
        self._recovery = recovery
        self._open_file = open_file

    def run(self, *, deep: bool = False, repair: bool = False, progress: Progress | None = None) -> CheckReport:
        """Look at every row, every file and every count; ``deep`` reads all bytes and compares digests.

        Raises:
            CheckAborted: No descriptors, no permission, a failing disk. What was mended by then stays mended.
        """
        report = CheckReport(deep=deep, repair=repair)
        try:
            self._run(report, progress)
        except (OSError, sqlite3.Error, IndexFailure, IndexFull) as error:
            mended = sum(each.mended for each in report.differences)
            done = f"{len(report.differences)} found, {mended} mended by then" if repair else "nothing was changed"
            raise CheckAborted(f"check was given up: {error}; {done}", report) from error
        return report

    def _run(self, report: CheckReport, progress: Progress | None) -> None:
        deep, repair = report.deep, report.repair
        if repair:
            self._store.sync_all()  # a file without a row may be in memory only, and the row will promise it
        total = 2 * self._index.totals().instances
        if damages := self._index.integrity(deep=deep):  # what its rows say proves nothing, against no file
            report.differences += [Difference("index", "index.sqlite", text) for text in damages]
            return
        for done in self._row_pages(report):
            if progress is not None:
                progress(done, total)
        dangling = find_dangling(self._index)
        dropped = self._drop_dangling() if dangling and repair else []
        for path in self._store.settled():
            report.files += 1
            if (difference := self._check_file(path, repair=repair)) is not None:
                report.differences.append(difference)
            if progress is not None and report.files % _PAGE == 0:
                progress(report.instances + report.files, max(total, report.instances + report.files))
        report.differences += [
            Difference("foreign", f"instances/{each}", MISPLACED) for each in self._store.misplaced()
        ]
        still = find_dangling(self._index) if dangling and repair else dangling
        report.differences += _mended("links", dangling, still)
        lost = [uid for uid in dropped if self._index.current(uid) is None]
        report.differences += [Difference("missing", uid, "no file was found of it", mended=True) for uid in lost]
        report.differences += self._check_counts(report)
        wrong = check_extra_values(self._index, self._open_file, deep=deep, repair=repair)
        report.differences += [Difference("keys", name, detail, repair) for name, detail in wrong]

    # the index by itself

    def _drop_dangling(self) -> list[str]:
        """Make files without rows of all that no query finds: those are indexed again, with all that is above them."""
        self._settler.settle(at_once=True)
        with self._settler.lock:
            self._settler.carry_out_notes()  # what was stored again after a deletion is known by its row only
            return drop_dangling(self._index)

    def _check_counts(self, report: CheckReport) -> list[Difference]:
        wrong = left = find_wrong_counts(self._index, sets=report.deep)
        if wrong and report.repair:
            correct_counts(self._index)
            left = find_wrong_counts(self._index, sets=report.deep)
        return _mended("counts", wrong, left)

    # rows

    def _row_pages(self, report: CheckReport) -> Iterator[int]:
        """Look at all rows; gives how many are done, page by page."""
        with (
            ThreadPoolExecutor(_READERS if report.deep else 1, thread_name_prefix="check") as readers,
            self._index.reading() as connection,
        ):
            for rows in pages_of_rows(connection, _PAGE):
                found = readers.map(lambda row: self._check_row(row, report), rows)
                for each in filter(None, found):  # told at once: who is interrupted says what was done
                    report.differences.append(self._mend_row(*each, report) if report.repair else each[1])
                report.instances += len(rows)
                yield report.instances

    def _check_row(self, row: InstanceRow, report: CheckReport) -> tuple[InstanceRow, Difference] | None:
        for _ in range(3):  # it may be settled, replaced or deleted while we look
            kind, detail = self._look(row, report)
            if kind is None:
                return None
            current = self._index.current(row.sop_instance_uid)
            if current is None:
                return None
            if current == row and detail != "moved":
                break
            row = current
        return row, Difference(kind or "missing", row.sop_instance_uid, detail)

    def _look(self, row: InstanceRow, report: CheckReport) -> tuple[Kind | None, str]:
        name = f"instances/{row.path}"
        unsettled = self._settler.locate(row.sop_instance_uid)
        try:
            fd = self._open_file(row.sop_instance_uid, row.path)
        except FileNotFoundError:
            with self._index.lock:  # a row that was being committed has its file now
                moved = self._settler.locate(row.sop_instance_uid) is not unsettled
            return "missing", "moved" if moved else f"no file {name}"
        except OSError as error:
            return "damaged", f"{name}: {fault_of_file(error, name)}"
        try:
            size = os.fstat(fd).st_size
            if size != row.size:
                return "damaged", f"{name}: {size} bytes instead of {row.size}"
            if report.deep or row.path.name != row.sop_instance_uid + SUFFIX:  # of a hash only the header tells the UID
                meta = read_file_meta(fd)
                if meta.digest is not None:  # ours, and not a file that was put here and reindexed
                    read_header(fd)
                if meta.sop_instance_uid != row.sop_instance_uid:
                    return "damaged", f"{name}: another instance"
                if report.deep:
                    report.bytes += size
                    if digest_of(fd, meta.data_set_offset) != row.digest:
                        return "damaged", f"{name}: digest differs"
        except OSError as error:
            return "damaged", f"{name}: {fault_of_file(error, name)}"
        except FileMetaError as error:
            return "damaged", f"{name}: {error}"
        finally:
            os.close(fd)
        return None, ""

    def _mend_row(self, row: InstanceRow, difference: Difference, report: CheckReport) -> Difference:
        """Take the row away, so that the instance can be sent again; what is left of the file is kept."""
        if difference.kind == "damaged" and self._settler.locate(row.sop_instance_uid) is not None:
            self._settler.settle(at_once=True)  # from where it is now it cannot be set aside
        with self._settler.lock:
            again = self._check_row(row, report)  # where it is now, and nobody moves it
            if again is None:
                return difference._replace(detail=f"{difference.detail}; not so any more", mended=True)
            row, difference = again
            if difference.kind == "damaged":
                if self._settler.locate(row.sop_instance_uid) is not None:
                    return difference
                with suppress(FileNotFoundError):
                    self._store.set_aside(row.path)
            self._deleter.delete(Level.IMAGE, row.sop_instance_uid)
        return difference._replace(mended=True)

    # files

    def _check_file(self, path: InstancePath, *, repair: bool) -> Difference | None:
        uid = uid_in_name(path)
        if uid is not None and self._is_known(path, uid):  # whatever it holds was looked at with its row
            return None
        with self._settler.lock:
            difference = self._examine(path)
            if difference is not None and repair:
                difference = self._examine(path)  # what a disk gives once it may not give twice
            if difference is None or not repair:
                return difference
            if difference.kind == "orphan":
                self._recovery.adopt(path)
            else:
                self._store.set_aside(path)
            return difference._replace(mended=True)

    def _is_known(self, path: InstancePath, sop_instance_uid: str) -> bool:
        known = self._index.current(sop_instance_uid)
        return known is not None and known.path == path

    def _examine(self, path: InstancePath) -> Difference | None:
        """Look into a file that is not where its name says, or that the index does not know."""
        name = f"instances/{path}"
        try:
            fd = self._store.open_settled(path)
        except FileNotFoundError:
            return None  # deleted meanwhile
        except OSError as error:
            return Difference("foreign", name, fault_of_file(error, name))
        try:
            if self._is_known(path, read_file_meta(fd).sop_instance_uid):  # its name is a hash, and did not say so
                return None
            meta = read_header(fd)
            record = read_record(fd, meta, verify=True)
        except OSError as error:
            return Difference("foreign", name, fault_of_file(error, name))
        except (FileMetaError, DimseError) as error:
            return Difference("foreign", name, str(error))
        finally:
            os.close(fd)
        if any(noted == name for _, noted, _ in self._index.notes()):
            return None  # replaced or deleted, and about to go
        known = self._index.current(record.sop_instance_uid)
        if known is None:
            return Difference("orphan", name, "sound, not in the index")
        if known.path == path:  # stored meanwhile
            return None
        return Difference("surplus", name, f"the index has it at instances/{known.path}")


def _mended(kind: Kind, wrong: Sequence[tuple[str, str]], left: Sequence[tuple[str, str]]) -> list[Difference]:
    """What was wrong in the index, told from what still is, or is now."""
    still = {name for name, _ in left}
    mended = [Difference(kind, name, detail, mended=True) for name, detail in wrong if name not in still]
    return mended + [Difference(kind, name, detail) for name, detail in left]
