"""The free-space floor and the quota: refuse before the disk is full, and take up again by itself."""

import logging
from time import monotonic

from pacslite.archive.instances.protocol import InstanceStore
from pacslite.archive.options import StorageOptions
from pacslite.archive.outcome import OutOfResources

__all__ = ["LOOK_SECONDS", "SpaceGuard"]

log = logging.getLogger("pacslite.archive")

LOOK_SECONDS = 1.0


class SpaceGuard:
    """Asks the file system at most once a second; in between it subtracts what was taken. For the loop's thread."""

    def __init__(self, store: InstanceStore, options: StorageOptions, stored_bytes: int) -> None:
        self._store = store
        self._options = options
        self._next_look = 0.0
        self._free = 0
        self._refusing = False
        self.stored_bytes = stored_bytes  # of all files, for the quota

    def take(self, size: int) -> None:
        """Count bytes that are going to disk."""
        self._free -= size

    def removed(self, size: int) -> None:
        """Count bytes of files that are gone."""
        self.stored_bytes -= size

    def check(self, arrived: int = 0) -> None:
        """Let an object begin, or go on of which so many bytes have arrived.

        Raises:
            OutOfResources: The floor or the quota is reached.
        """
        now = monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._free = self._store.free_bytes()
        if self._free < self._options.min_free_bytes:
            self._refuse("free space is below [storage] min_free_bytes")
        if 0 < self._options.max_bytes <= self.stored_bytes + arrived:
            self._refuse("archive has reached [storage] max_bytes")
        if self._refusing:
            self._refusing = False
            log.warning("storing again", extra={"free_bytes": self._free})

    def _refuse(self, reason: str) -> None:
        if not self._refusing:
            self._refusing = True
            log.error("storing refused", extra={"reason": reason, "free_bytes": self._free})
        raise OutOfResources(reason)
