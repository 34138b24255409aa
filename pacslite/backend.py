"""The archive and the services that stand on it, put together from the settings.

Apart from ``app``, because its libraries (SQLAlchemy above all) take longer to import than all the rest of the start:
the server listens, and answers C-ECHO, before this module is there.
"""

from collections.abc import Callable

from pacslite.access import Access
from pacslite.archive.archive import Archive
from pacslite.archive.index.reader import IndexReader
from pacslite.archive.options import StorageOptions
from pacslite.archive.query import QueryOptions
from pacslite.budget import Budget
from pacslite.config import Settings
from pacslite.dimse.service import Service
from pacslite.scu.pool import Pool
from pacslite.services.query import FindService
from pacslite.services.retrieve import GetService, MoveService, RetrieveOptions
from pacslite.services.storage import StorageService
from pacslite.services.sub_operations import PendingPolicy

__all__ = ["Backend"]


class Backend:
    """``start`` before ``stop``; both once.

    Args:
        access: Who may do what, asked anew at every use.
        pool: Associations with destinations.
    """

    def __init__(self, settings: Settings, *, access: Callable[[], Access], pool: Pool) -> None:
        self._archive = Archive(_storage_options(settings), budget=Budget(settings.limits.total_bytes))
        self._reader = IndexReader(self._archive.index_path, connections=settings.index.read_connections)
        query_options = _query_options(settings)
        retrieve_options = _retrieve_options(settings)
        # Negotiation is computed from this tuple: to add a service, name it here
        self.services: tuple[Service, ...] = (
            FindService(self._reader, query_options, settings.limits.identifier_bytes),
            MoveService(self._archive, self._reader, query_options, retrieve_options, access=access, pool=pool),
            GetService(self._archive, self._reader, query_options, retrieve_options),
            StorageService(self._archive, unknown_sop_classes=settings.storage.unknown_sop_classes),
        )

    async def start(self) -> None:
        """Open the archive.

        Raises:
            PacsliteError: The data directory is in use.
        """
        await self._archive.start()
        try:
            await self._reader.start()
        except BaseException:
            await self._archive.stop()
            raise

    async def stop(self) -> None:
        await self._reader.stop()
        await self._archive.stop()


def _storage_options(settings: Settings) -> StorageOptions:
    storage = settings.storage
    return StorageOptions(
        data_dir=settings.server.data_dir,
        durability=storage.durability,
        duplicates=storage.duplicates,
        uid_conflict=storage.uid_conflict,
        patient_conflict=storage.patient_conflict,
        min_free_bytes=storage.min_free_bytes,
        max_bytes=storage.max_bytes,
        disk_threads=storage.disk_threads,
        piece_bytes=storage.piece_bytes,
        unflushed_bytes=settings.limits.association_bytes,
        index_cache_bytes=settings.index.cache_bytes,
    )


def _query_options(settings: Settings) -> QueryOptions:
    query = settings.query
    return QueryOptions(
        retrieve_ae_title=settings.server.ae_title,
        relational=query.relational,
        fuzzy=query.fuzzy,
        strict=query.strict,
        match_unknown=query.match_unknown,
        maximum_results=query.max_results,
    )


def _retrieve_options(settings: Settings) -> RetrieveOptions:
    retrieve = settings.retrieve
    return RetrieveOptions(
        pending=PendingPolicy(
            seconds=retrieve.pending_seconds,
            without_requestor=retrieve.continue_without_requestor,
        ),
        parallel_associations=retrieve.parallel_associations,
        operations=retrieve.operations,
        identifier_bytes=settings.limits.identifier_bytes,
    )
