"""What may be chosen about storing, as one frozen value: the composition root fills it from the settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Conflict", "DuplicatePolicy", "Durability", "StorageOptions", "UidConflict"]

Durability = Literal["full", "commit", "none"]
DuplicatePolicy = Literal["keep", "replace", "reject"]
Conflict = Literal["keep", "reject"]
UidConflict = Literal["keep", "reject", "replace"]

_MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """Options of the archive.

    ``durability``: ``full``, an acknowledged instance survives a power cut; ``commit``, it survives the process, and
    a power cut takes the last seconds at most; ``none``, nothing is ever synced, and rows follow their answers.
    """

    data_dir: Path
    durability: Durability = "full"
    duplicates: DuplicatePolicy = "keep"
    uid_conflict: UidConflict = "reject"  # the same SOP Instance UID in another series or study
    patient_conflict: Conflict = "keep"  # the same Study Instance UID under another patient
    min_free_bytes: int = 512 * _MEBIBYTE
    max_bytes: int = 0  # of instance files; 0: no quota
    journal_bytes: int | None = None  # to make small files durable in; 0: each is synced by itself; None: what is there
    disk_threads: int = 2
    stream_threads: int = 2  # write large objects while they arrive
    piece_bytes: int = _MEBIBYTE  # an object of less is written at once, when it is complete
    pressed_piece_bytes: int = 64 << 10  # the same while the process's byte budget is exceeded
    unflushed_bytes: int = 4 * _MEBIBYTE  # an association that holds more stops reading
    stall_seconds: float = 60.0  # nothing was written for so long: who waits for it is refused
    settle_seconds: float = 1.0
    settle_files: int = 256
    checkpoint_bytes: int = 16 * _MEBIBYTE  # of write-ahead log, then the index takes it in
    index_cache_bytes: int = 16 * _MEBIBYTE
