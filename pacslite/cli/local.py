"""The archive of this machine, for the commands that work on it without a network."""

from pathlib import Path

from pacslite.archive.archive import Archive
from pacslite.archive.options import StorageOptions
from pacslite.config import Settings, load
from pacslite.config.load import Flag
from pacslite.log import configure

__all__ = ["archive_of", "settings_for", "storage_options"]


def settings_for(config: Path | None, data_dir: Path | None) -> Settings:
    """The settings that ``serve`` would have with these flags.

    Logging is set up by them too, for errors: a command itself says what is worth a line.
    """
    flags = [Flag("server.data_dir", "--data-dir", data_dir)] if data_dir is not None else []
    settings = load(config, flags=flags).settings
    configure("debug" if settings.log.level == "debug" else "error", settings.log.format)
    return settings


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
        index_cache_bytes=settings.index.cache_bytes,
        checkpoint_bytes=settings.index.checkpoint_bytes,
    )


def archive_of(settings: Settings) -> Archive:
    """For ``async with``; DataDirLocked if a server has it."""
    return Archive(storage_options(settings))
