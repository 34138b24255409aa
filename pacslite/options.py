"""The archive's options from the settings: the same for the server and for the commands that work without it.

But for the journal, which the server makes: commands use the one that is there.
"""

from pacslite.archive.options import StorageOptions
from pacslite.config import Settings

__all__ = ["storage_options"]


def storage_options(settings: Settings) -> StorageOptions:
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
        stall_seconds=settings.timeouts.stall_seconds,
        index_cache_bytes=settings.index.cache_bytes,
        checkpoint_bytes=settings.index.checkpoint_bytes,
    )
