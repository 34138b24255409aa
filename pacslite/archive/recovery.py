"""What a start does with what an unclean stop left: work proportional to what was in flight.

Files in ``incoming/`` are the journal of the index. One whose row is there was synced before the row was written and
is settled at once; one without proves itself by length and digest and is indexed, or is torn and removed: nobody was
told that it is stored.
"""

import logging
import os
from dataclasses import dataclass

import xxhash

from pacslite.archive.delete import finish_deletions
from pacslite.archive.index.writer import Entry, IndexWriter
from pacslite.archive.instances.layout import instance_path
from pacslite.archive.instances.protocol import InstanceStore
from pacslite.archive.options import StorageOptions
from pacslite.archive.record import Record, make_record
from pacslite.archive.settle import Settler, Unsettled
from pacslite.dataset.meta import FileMeta, FileMetaError, read_file_meta
from pacslite.dataset.scan import HeaderScanner
from pacslite.errors import DimseError

__all__ = ["Recovered", "read_record", "recover"]

log = logging.getLogger("pacslite.archive")

_PIECE = 1 << 20
_AT_ONCE = 256


@dataclass(slots=True)
class Recovered:
    """What a start found."""

    settled: int = 0  # indexed before, now in their place
    indexed: int = 0
    removed: int = 0  # torn, or refused by the index
    deletions: int = 0


def recover(store: InstanceStore, index: IndexWriter, settler: Settler, options: StorageOptions) -> Recovered:
    """Bring index and files together again.

    Raises:
        OSError, sqlite3.Error: The disk or the index does not work; nothing is lost.
    """
    found = Recovered(deletions=finish_deletions(store, index))
    names = store.incoming()
    for start in range(0, len(names), _AT_ONCE):
        _recover_some(store, index, settler, options, names[start : start + _AT_ONCE], found)
    if names or found.deletions:
        log.info(
            "recovered",
            extra={
                "settled": found.settled,
                "indexed": found.indexed,
                "removed": found.removed,
                "deletions": found.deletions,
            },
        )
    return found


def _recover_some(
    store: InstanceStore,
    index: IndexWriter,
    settler: Settler,
    options: StorageOptions,
    names: list[str],
    found: Recovered,
) -> None:
    committed: list[Unsettled] = []
    for name in names:
        record = _read(store, index, name, trust_rows=options.durability == "full")
        if record is None:
            store.remove_incoming(name)
            found.removed += 1
            continue
        key = record.series_key
        path = instance_path(key.study_instance_uid, key.series_instance_uid, record.sop_instance_uid)
        unsettled = Unsettled(record.sop_instance_uid, name, path)
        known = index.look_up(record.sop_instance_uid)
        if known is None or known.digest != record.digest:
            (outcome,) = index.commit([Entry(record, replaces=known is not None)])
            if outcome is not None:
                log.warning("incoming file refused", extra={"file": name, "reason": str(outcome)})
                store.remove_incoming(name)
                found.removed += 1
                continue
            found.indexed += 1
        else:
            found.settled += 1
        settler.register(unsettled)
        committed.append(unsettled)
    settler.committed(committed)
    settler.settle()


def _read(store: InstanceStore, index: IndexWriter, name: str, *, trust_rows: bool) -> Record | None:
    """Give the file's record, None if it does not prove itself."""
    fd = store.open_incoming(name)
    try:
        meta = read_file_meta(fd)
        known = index.look_up(meta.sop_instance_uid) if trust_rows else None
        trusted = known is not None and known.digest == meta.digest
        return read_record(fd, meta, verify=not trusted)
    except (FileMetaError, DimseError) as error:
        log.info("incoming file is torn", extra={"file": name, "reason": str(error)})
        return None
    finally:
        os.close(fd)


def read_record(fd: int, meta: FileMeta, *, verify: bool) -> Record:
    """Scan a file of ours.

    Args:
        verify: Read all of it and compare the digest; else only as far as the header goes.
    Raises:
        DimseError: It is no data set, or not the one its header announces.
    """
    if meta.data_set_length is None or meta.digest is None:
        raise FileMetaError("no digest in the File Meta Information")
    scan = HeaderScanner(meta.transfer_syntax_uid)
    digest = xxhash.xxh3_128()
    at, end = meta.data_set_offset, meta.data_set_offset + meta.data_set_length
    while at < end and (verify or not scan.complete):
        piece = os.pread(fd, min(_PIECE, end - at), at)
        if not piece:
            raise FileMetaError(f"file ends at byte {at} of {end}")
        if not scan.complete:
            scan.feed(memoryview(piece))
        if verify:
            digest.update(piece)
        at += len(piece)
    if verify and digest.digest() != meta.digest:
        raise FileMetaError("digest differs")
    if not scan.complete:
        scan.finish()
    record = make_record(
        scan,
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        source_ae_title=meta.source_ae_title,
    )
    record.data_set_offset = meta.data_set_offset
    record.data_set_length = meta.data_set_length
    record.digest = meta.digest
    return record
