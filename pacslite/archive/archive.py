"""The archive: the one door for services to what is stored.

``begin`` an object and write to it, ``open`` an instance, ``delete``; queries stand in query.py. All methods are for
the event loop's thread, but for ``open``, which any thread may call.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from pacslite.archive.check import Checker, CheckReport, Progress
from pacslite.archive.delete import Deleted, Deleter
from pacslite.archive.extending import Extender, read_value
from pacslite.archive.extra import ExtraKey, ExtraKeys
from pacslite.archive.incoming import Incoming, ReadFlow
from pacslite.archive.index.extra_values import DROPPED
from pacslite.archive.index.file import IndexFile
from pacslite.archive.index.upgrade import remedy, upgrade_index
from pacslite.archive.index.writer import IndexWriter, Totals
from pacslite.archive.ingest import Ingest
from pacslite.archive.instances.fileops import FileOperations
from pacslite.archive.instances.filesystem import FilesystemStore
from pacslite.archive.instances.header import is_header_of
from pacslite.archive.instances.layout import InstancePath, instance_path
from pacslite.archive.instances.protocol import InstanceFile
from pacslite.archive.keys import Level
from pacslite.archive.lock import DataDirLock
from pacslite.archive.options import StorageOptions
from pacslite.archive.outcome import Stored
from pacslite.archive.phonetic import name_sounds
from pacslite.archive.record import check_uid
from pacslite.archive.recovery import Recovered, Recovery
from pacslite.archive.reference import InstanceRef
from pacslite.archive.reindex import refuse_incomplete
from pacslite.archive.settle import Settler
from pacslite.archive.space import SpaceGuard
from pacslite.budget import Budget
from pacslite.dataset.meta import read_file_meta
from pacslite.errors import PacsliteError

__all__ = ["Archive", "ArchiveUnusable"]


_WARM_UP_SECONDS = 0.5  # then what a first patient needs is imported: neither the start nor its first sender waits


class ArchiveUnusable(PacsliteError):
    """The data directory cannot be used; the message says why."""


class Archive:
    """An archive in one data directory, between ``start`` and ``stop`` (or in ``async with``).

    Args:
        extra_keys: What is to be a key beyond archive/keys.py; None leaves that as it is.
    """

    def __init__(
        self,
        options: StorageOptions,
        *,
        budget: Budget | None = None,
        operations: FileOperations | None = None,
        extra_keys: Sequence[ExtraKey] | None = None,
    ) -> None:
        self.options = options
        self.recovered = Recovered()
        self.extra_keys = ExtraKeys()  # as far as all that is stored has their values
        self._wanted_keys = extra_keys
        self._budget = budget or Budget(128 << 20)
        self._operations = operations
        self._on_stored: list[Callable[[Stored], None]] = []

    @property
    def index(self) -> IndexFile:
        """The index, for who reads it; there is none before ``start``."""
        return IndexFile(self.options.data_dir / "index.sqlite", self._catch_up)

    @property
    def on_stored(self) -> list[Callable[[Stored], None]]:
        """Called on the loop for each instance that was stored, before its sender is answered."""
        return self._on_stored

    # starting and stopping

    async def start(self) -> None:
        """Open everything, and finish what an unclean stop left.

        Raises:
            DataDirLocked: Another process has the data directory.
        ArchiveUnusable: The disk refuses, or the index is damaged.
        IndexIncomplete: Reindex first.
        """
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, self._open)
        except OSError as error:
            raise ArchiveUnusable(_told(error, self.options.data_dir)) from error
        except sqlite3.Error as error:
            raise ArchiveUnusable(f"{self.index.path}: {error}{remedy(error, self.index.path)}") from error
        self._space = SpaceGuard(self._store, self.options, self._index.totals().bytes)
        self._ingest = Ingest(
            store=self._store,
            index=self._index,
            settler=self._settler,
            space=self._space,
            budget=self._budget,
            options=self.options,
            on_stored=self._on_stored,
        )
        self._settler.start(self._recovery.revive)
        if self._wanted_keys is not None:
            self._extender.start()
        self._warming = loop.call_later(_WARM_UP_SECONDS, loop.run_in_executor, None, name_sounds, "Warm^Up")

    def _open(self) -> None:
        self.options.data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._lock = DataDirLock(self.options.data_dir)
        try:
            refuse_incomplete(self.options.data_dir)
            self._store = FilesystemStore(
                self.options.data_dir,
                self._operations,
                journal_bytes=self.options.journal_bytes,
                durability=self.options.durability,
            )
            upgrade_index(self.index.path)
            self._index = IndexWriter(self.index.path, self.options)
            if self._wanted_keys is not None:
                self._index.set_extra_keys(self._wanted_keys)
            self._index.cleanse()  # a log that is lost takes nothing with it but what ``incoming`` has too
            self._store.sync_names()
            self._settler = Settler(self._store, self._index, self.options)
            self._deleter = Deleter(self._store, self._index, self._settler)
            self._recovery = Recovery(self._store, self._index, self._settler, self.options)
            self.recovered = self._recovery.start()
            self._extender = Extender(self._index, self._open_path, self._read_extra_keys)
            self._read_extra_keys()
        except BaseException:
            self._lock.release()
            raise

    async def stop(self) -> None:
        """Finish what is being stored, settle it, close. Who still writes to an object aborts it before."""
        self._warming.cancel()
        await self._ingest.stop()
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    def _close(self) -> None:
        self._extender.stop()
        try:
            self._settler.stop()
        finally:
            self._index.close()
            self._store.close()
            self._lock.release()

    def _catch_up(self) -> None:
        self._index.catch_up()

    def _read_extra_keys(self) -> None:
        self.extra_keys.replace(one.key for one in self._index.extra_states() if one.state != DROPPED)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # storing

    def begin(
        self,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        source_ae_title: str = "",
        flow: ReadFlow | None = None,
    ) -> Incoming:
        """Take an object in.

        Raises:
            OutOfResources: The free-space floor or the quota is reached: nothing is taken in.
            DataSetError: A UID is none.
        """
        self._space.check()
        check_uid("SOP Instance UID", sop_instance_uid)
        check_uid("SOP Class UID", sop_class_uid)
        return Incoming(
            self._ingest,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            source_ae_title=source_ae_title,
            flow=flow,
        )

    # reading

    def open(self, ref: InstanceRef) -> InstanceFile:
        """Open an instance; what was opened stays readable whatever is deleted, replaced or settled meanwhile.

        Raises:
            FileNotFoundError: It is no longer there.
        """
        fd = self._open_file(ref)
        try:
            head = os.pread(fd, ref.data_set_offset, 0)
            if is_header_of(head, ref.digest):  # the file is the one that the reference was read for
                return InstanceFile(
                    fd,
                    ref.sop_class_uid,
                    ref.transfer_syntax_uid,
                    ref.data_set_offset,
                    ref.data_set_length,
                    ref.digest,
                )
            meta = read_file_meta(fd)
            length = meta.data_set_length
            if length is None:
                length = os.fstat(fd).st_size - meta.data_set_offset
            return InstanceFile(
                fd, meta.sop_class_uid, meta.transfer_syntax_uid, meta.data_set_offset, length, meta.digest
            )
        except BaseException:
            os.close(fd)
            raise

    def _open_file(self, ref: InstanceRef) -> int:
        path = instance_path(ref.study_instance_uid, ref.series_instance_uid, ref.sop_instance_uid)
        arriving = self._settler.arriving(ref.sop_instance_uid)
        if arriving is not None:  # the reference is to it, or it is a duplicate that is refused
            ways = [
                partial(self._store.open_incoming, arriving.name),
                partial(self._open_path, ref.sop_instance_uid, path),
            ]
            if not self._store.holds(arriving.name):
                ways.reverse()  # a file that is refused is truncated, whoever reads it
            for way in ways:
                if (fd := _open_if_of(ref, way)) is not None:
                    return fd
        return self._open_path(ref.sop_instance_uid, path)

    def _open_path(self, sop_instance_uid: str, path: InstancePath) -> int:
        for _ in range(3):  # settled, or replaced and settled, between the look and the open
            unsettled = self._settler.locate(sop_instance_uid)
            try:
                if unsettled is not None:
                    return self._store.open_incoming(unsettled.name)
                return self._store.open_settled(path)
            except FileNotFoundError:
                arriving = self._settler.arriving(sop_instance_uid)
                if unsettled is None and arriving is None and self._settler.locate(sop_instance_uid) is None:
                    raise
        return self._store.open_settled(path)

    def read_values(self, key: ExtraKey, owners: Collection[int]) -> dict[int, str]:
        """Values of an extra key that is not complete, from the files of these patients, studies, series or instances.

        For any thread: it blocks.
        """
        with self._index.reading() as connection:
            values = {owner: read_value(connection, self._open_path, key, owner) for owner in owners}
        return {owner: value for owner, value in values.items() if value is not None}

    # managing

    async def delete(self, level: Level, uid: str) -> Deleted:
        """Delete a study, series, instance or patient by its unique key."""
        deleted = Deleted()
        removal = asyncio.get_running_loop().run_in_executor(None, self._deleter.delete, level, uid, deleted)
        removal.add_done_callback(lambda _: self._space.removed(deleted.bytes))  # also if it fails midway
        await asyncio.shield(removal)
        return deleted

    async def check(self, *, deep: bool = False, repair: bool = False, progress: Progress | None = None) -> CheckReport:
        """Compare index and files; ``progress`` is called in another thread."""
        checker = Checker(self._store, self._index, self._settler, self._deleter, self._recovery, self._open_path)
        run = partial(checker.run, deep=deep, repair=repair, progress=progress)
        report = await asyncio.get_running_loop().run_in_executor(None, run)
        self._space.stored_bytes = self._index.totals().bytes
        return report

    async def totals(self) -> Totals:
        """Count what is stored."""
        return await asyncio.get_running_loop().run_in_executor(None, self._index.totals)

    async def settle(self) -> None:
        """Move what is stored into its place now, where it would be some time."""
        await asyncio.get_running_loop().run_in_executor(None, partial(self._settler.settle, at_once=True))

    @property
    def unsettled(self) -> int:
        """Instances that are stored and not yet in their place."""
        return len(self._settler.all())


def _told(error: OSError, data_dir: Path) -> str:
    """The system's word for it, and where: names of files are relative to the data directory, but for its own."""
    where = data_dir
    if isinstance(error.filename, str) and not data_dir.is_relative_to(error.filename):
        named = Path(error.filename)
        where = named if named.is_relative_to(data_dir) else data_dir / named
    return f"{where.absolute()}: {error.strerror or error}"


def _open_if_of(ref: InstanceRef, way: Callable[[], int]) -> int | None:
    """Open a file; None if it is not there, or not the one that the reference was read for."""
    try:
        fd = way()
    except FileNotFoundError:
        return None
    try:
        if is_header_of(os.pread(fd, ref.data_set_offset, 0), ref.digest):
            return fd
    except OSError:
        os.close(fd)
        raise
    os.close(fd)
    return None
