"""What a start does with what an unclean stop left: work proportional to what was in flight.

Files in ``incoming/`` are the journal of the index. One whose row is there was synced before the row was written and
is left to who settles, unless the instance has another file too: then it may be what a sender repeated, cut off before
it was refused. That one, and one without a row, proves itself by length and digest and is taken in, or is torn and
removed: nobody was told that it is stored. One that proves itself and is refused is set aside: whether somebody was
told cannot always be known. The same after the index has failed, while the archive serves.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pacslite.archive.file_faults import is_of_file
from pacslite.archive.index.removal import InstanceRow, remove_dangling
from pacslite.archive.index.replaced import drop_note
from pacslite.archive.index.writer import AlreadyThere, Entry, IndexFailure, IndexFull, IndexWriter
from pacslite.archive.instances.header import read_header
from pacslite.archive.instances.layout import InstancePath
from pacslite.archive.instances.protocol import InstanceStore
from pacslite.archive.notes import carry_out_notes
from pacslite.archive.options import StorageOptions
from pacslite.archive.outlived import OutlivedRows
from pacslite.archive.proof import read_record
from pacslite.archive.record import Record
from pacslite.archive.settle import Settler, Unsettled
from pacslite.archive.unsynced import is_marked_unsynced, mark_synced, mark_unsynced
from pacslite.dataset.meta import FileMeta, FileMetaError
from pacslite.errors import DimseError

__all__ = ["Recovered", "Recovery"]

log = logging.getLogger("pacslite.archive")


@dataclass(slots=True)
class Recovered:
    """What a start found."""

    settled: int = 0  # indexed before, now to be moved to their place
    indexed: int = 0
    removed: int = 0  # torn, or there already
    set_aside: int = 0  # sound, and another file has their place
    dropped: int = 0  # rows without their files: [storage] durability did not promise them
    restored: int = 0  # the same, and the files were there that their instances had before
    deletions: int = 0  # files of deletions that were cut off


class _Unread(NamedTuple):
    """A file that proves itself, and a data set that cannot be read."""

    meta: FileMeta
    reason: str


class Recovery:
    """Brings index and files together. Blocks."""

    def __init__(self, store: InstanceStore, index: IndexWriter, settler: Settler, options: StorageOptions) -> None:
        self._store = store
        self._index = index
        self._settler = settler
        self._outlived = OutlivedRows(store, index, settler)
        self._data_dir = options.data_dir
        self._syncs = options.durability == "full"  # a row is written after its file was synced
        self._trust_rows = False  # and so it was before

    def start(self) -> Recovered:
        """Finish what was cut off, before anybody is served. Files are moved to their place later, as ever.

        Raises:
            OSError, sqlite3.Error, IndexFailure, IndexFull: Disk or index do not work; nothing is lost.
        """
        if not self._syncs:
            mark_unsynced(self._data_dir)
        self._trust_rows = not is_marked_unsynced(self._data_dir)
        found = Recovered()
        if self._trust_rows:
            found.deletions = carry_out_notes(self._store, self._index)
        deleted = {name for _, name, _ in self._index.notes()}
        names = [n for n in self._store.incoming() if f"incoming/{n}" not in deleted and self._can_be_opened(n)]
        if names and self._syncs:
            self._store.sync_incoming(names)  # who was killed may have left them in memory only: rows promise them now
        for name in names:  # oldest first: of one instance the newest file stays
            self._take_in(name, found)
        if not self._trust_rows:
            self._mend_outlived(found)
        if names or found.deletions or found.dropped or found.restored:
            log.info("recovered", extra={name: getattr(found, name) for name in Recovered.__slots__})
        return found

    def revive(self) -> None:
        """Open a failed index again and index what it may have lost. Raises as ``start`` does: then try later."""
        with self._settler.lock, self._index.lock:  # what is unsettled now was acknowledged, or was to be deleted
            try:
                self._index.reopen()
                self._index_again()
                self._index.cleanse()
            except BaseException as error:
                self._index.fail(str(error))
                raise
        log.warning("index works again")

    def adopt(self, path: InstancePath) -> None:
        """Index a file of ours that lies among the settled ones, and was found to be sound.

        If its instance was stored meanwhile, it is set aside.
        """
        with self._settler.lock:
            fd = self._store.open_settled(path)
            try:
                record = read_record(fd, read_header(fd), verify=False)
            finally:
                os.close(fd)
            with self._index.lock:  # nobody stores it from here on
                if self._index.current(record.sop_instance_uid) is not None:
                    self._store.set_aside(path)
                    return
                name = self._store.take_back(path)
                try:
                    refusal = self._index_file(name, record, None)
                except BaseException:
                    self._store.settle([(name, path)])
                    raise
            if refusal is not None:
                self._refuse(name, record.sop_instance_uid, Recovered(), reason=str(refusal))

    # private

    def _mend_outlived(self, found: Recovered) -> None:
        """Make each row one that has its file; only then remove what is noted: it may be what is to be restored."""
        lost = [row for row, files in self._outlived.replaced() if not self._restore(row, files, found)]
        found.dropped = self._outlived.drop(lost)
        if self._syncs:
            self._store.sync_all()
        found.deletions = carry_out_notes(self._store, self._index)
        if self._syncs:
            mark_synced(self._data_dir)
            self._trust_rows = True

    def _restore(self, row: InstanceRow, files: Sequence[str], found: Recovered) -> bool:
        """Give a row without its file to the newest that is left of what it took the place of."""
        for file in files:
            record = self._sound(file)
            if record is None or record.sop_instance_uid != row.sop_instance_uid:
                continue
            directory, _, name = file.partition("/")
            if directory == "incoming":
                with self._index.transaction() as connection:
                    drop_note(connection, file)
                refusal = self._index_file(name, record, row)
            else:
                moves = row.path != record.path
                refusal = self._commit(Entry(record, replaces=True, relocates=moves, is_kept=True))
            if refusal is None:
                found.restored += 1
                return True
        return False

    def _sound(self, file: str) -> Record | None:
        """Read a file by its name in the data directory; None if it is not there, or not whole."""
        directory, _, name = file.partition("/")
        try:
            if directory == "incoming":
                fd = self._store.open_incoming(name)
            else:
                fd = self._store.open_settled(InstancePath(*name.split("/")))
        except OSError:
            return None
        try:
            return read_record(fd, read_header(fd), verify=True)
        except (OSError, FileMetaError, DimseError):
            return None
        finally:
            os.close(fd)

    def _index_again(self) -> None:
        deleted = {name for _, name, _ in self._index.notes()}
        for unsettled in self._settler.all():
            if f"incoming/{unsettled.name}" in deleted:  # its row is gone, and the deletion was not finished
                self._settler.forget(unsettled)
            elif (entry := self._lost_entry(unsettled)) is not None and (refusal := self._commit(entry)) is not None:
                log.error("acknowledged file refused", extra={"file": unsettled.name, "reason": str(refusal)})
        self._settler.noted()

    def _lost_entry(self, unsettled: Unsettled) -> Entry | None:
        """What the index is to be told of an acknowledged file; None if it knows, or nothing can be told."""
        try:
            try:
                fd = self._store.open_incoming(unsettled.name)
            except FileNotFoundError:  # settled just now
                fd = self._store.open_settled(unsettled.path)
            try:
                meta = read_header(fd)
                known = self._index.current(meta.sop_instance_uid)
                if known is not None and (known.digest, known.size) == (meta.digest, _size_of(meta)):
                    return None
                record = read_record(fd, meta, verify=False)
                moves = known is not None and known.path != unsettled.path
                # what it took the place of was noted by the commit that is lost
                notes = tuple(f"incoming/{name}" for name in self._settler.superseded(record.sop_instance_uid))
                return Entry(record, replaces=known is not None, relocates=moves, unlink=notes, is_kept=True)
            finally:
                os.close(fd)
        except (FileNotFoundError, FileMetaError, DimseError) as error:  # one damaged file does not stop the archive
            log.error("acknowledged file is damaged", extra={"file": unsettled.name, "error": str(error)})
            return None
        except OSError as error:
            self._leave_alone(unsettled.name, error)
            return None

    def _can_be_opened(self, name: str) -> bool:
        if self._store.holds(name):
            return True
        try:
            os.close(self._store.open_incoming(name))
        except OSError as error:
            self._leave_alone(name, error)
            return False
        return True

    def _leave_alone(self, name: str, error: OSError) -> None:
        """One file that cannot be read keeps no other from being served, and is not touched: it may be read some day.

        Raises:
            OSError: There is more to it: the journal cannot be read, or there is no descriptor left.
        """
        if self._store.holds(name) or not is_of_file(error):
            raise error
        log.error("incoming file cannot be read", extra={"file": name, "error": str(error)})

    def _take_in(self, name: str, found: Recovered) -> None:
        try:
            read = self._read(name)
        except OSError as error:
            self._leave_alone(name, error)
            return
        if isinstance(read, _Unread):
            self._take_in_unread(name, read, found)
            return
        if read is None:
            self._store.remove_incoming(name)
            found.removed += 1
            return
        if isinstance(read, InstanceRow):
            self._leave_to_settler(Unsettled(read.sop_instance_uid, name, read.path))
            found.settled += 1
            return
        record, is_new = read
        known = self._index.current(record.sop_instance_uid)
        old = self._settler.locate(record.sop_instance_uid)
        size = record.data_set_offset + record.data_set_length
        same = known is not None and (known.digest, known.size) == (record.digest, size)
        cut_off = is_new and (old is not None or not same)  # if its instance was there all the same
        if known is not None and cut_off and not self._outlived.is_alone(known):
            self._refuse(name, record.sop_instance_uid, found, is_there=known.digest == record.digest)
        elif same:
            self._keep_for_row(Unsettled(record.sop_instance_uid, name, record.path), found)
        elif (refusal := self._index_file(name, record, known)) is not None:
            self._refuse(name, record.sop_instance_uid, found, reason=str(refusal))
        else:
            found.indexed += 1

    def _take_in_unread(self, name: str, unread: _Unread, found: Recovered) -> None:
        """Somebody may have been told that it is stored: its row knows what is in it, or it is set aside."""
        meta, reason = unread
        known = self._index.current(meta.sop_instance_uid)
        if known is None or (known.digest, known.size) != (meta.digest, _size_of(meta)):
            self._refuse(name, meta.sop_instance_uid, found, reason=reason)
            return
        self._keep_for_row(Unsettled(meta.sop_instance_uid, name, known.path), found)

    def _keep_for_row(self, unsettled: Unsettled, found: Recovered) -> None:
        """It is the file that its instance's row stands for, and takes the place of one that came in before."""
        old = self._settler.locate(unsettled.sop_instance_uid)
        if old is not None:
            self._store.remove_incoming(old.name)
            self._settler.noted()
        self._leave_to_settler(unsettled)
        found.settled += 1

    def _index_file(self, name: str, record: Record, known: InstanceRow | None) -> DimseError | None:
        """Commit the row of an unsettled file; whoever sees the row finds the file."""
        unsettled = Unsettled(record.sop_instance_uid, name, record.path)
        moves = known is not None and known.path != unsettled.path
        with self._index.lock:
            old = self._settler.register(unsettled)
            notes = () if old is None else (f"incoming/{old.name}",)
            refusal: DimseError | None = None
            try:
                entry = Entry(record, replaces=known is not None, relocates=moves, unlink=notes, is_kept=True)
                refusal = self._commit(entry)
            except BaseException:
                self._settler.withdraw(unsettled)
                raise
            if refusal is not None:
                self._settler.withdraw(unsettled)
                return refusal
            self._settler.committed([unsettled])
        if moves or old is not None:
            self._settler.noted()
        return None

    def _refuse(
        self,
        name: str,
        sop_instance_uid: str,
        found: Recovered,
        *,
        is_there: bool = False,
        reason: str = "another file has its place",
    ) -> None:
        """The index was about to refuse it, or does; ``is_there``: its data set stands in another file."""
        if is_there:
            self._store.remove_incoming(name)
            found.removed += 1
            return
        extra = {"file": name, "instance": sop_instance_uid, "reason": reason}
        try:
            extra["set_aside"] = self._store.set_incoming_aside(name)
            found.set_aside += 1
        except OSError as error:  # on a full disk, for one: it stays for the next start
            extra["error"] = str(error)
        log.warning("incoming file refused", extra=extra)

    def _leave_to_settler(self, unsettled: Unsettled) -> None:
        self._settler.register(unsettled)
        self._settler.committed([unsettled])

    def _commit(self, entry: Entry) -> DimseError | None:
        (outcome,) = self._index.commit([entry])
        if isinstance(outcome, AlreadyThere) and not entry.replaces:  # and yet no query finds it
            with self._index.transaction() as connection:
                removed = remove_dangling(connection, entry.record.sop_instance_uid)
            if removed:
                (outcome,) = self._index.commit([entry])
        if isinstance(outcome, IndexFailure | IndexFull):
            raise outcome  # not the file's fault
        return outcome

    def _read(self, name: str) -> tuple[Record, bool] | InstanceRow | _Unread | None:
        """Give the file's record and whether it came as new, or its row if that proves it; None if nothing does."""
        fd = self._store.open_incoming(name)
        try:
            meta = read_header(fd)
            try:
                return self._proof(meta) or (read_record(fd, meta, verify=True), meta.is_new)
            except DimseError as error:  # it proves itself, and was stored by who read it otherwise
                return _Unread(meta, str(error))
        except FileMetaError as error:
            log.info("incoming file is torn", extra={"file": name, "reason": str(error)})
            return None
        finally:
            os.close(fd)

    def _proof(self, meta: FileMeta) -> InstanceRow | None:
        """The row of a file that is the only one; where there is another, this may be a torn copy of that."""
        if not self._trust_rows or self._settler.locate(meta.sop_instance_uid) is not None:
            return None
        known = self._index.current(meta.sop_instance_uid)
        if known is None or (known.digest, known.size) != (meta.digest, _size_of(meta)):
            return None
        try:
            os.close(self._store.open_settled(known.path))
        except FileNotFoundError:
            return known
        except OSError:  # something is there
            return None
        return None


def _size_of(meta: FileMeta) -> int:
    """Of the whole file, as its header has it."""
    return meta.data_set_offset + (meta.data_set_length or 0)
