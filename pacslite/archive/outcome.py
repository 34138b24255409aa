"""What becomes of an object that a peer stores: a result, or an error that knows its status."""

import errno
from dataclasses import dataclass
from typing import Literal

from pacslite.errors import DimseError

__all__ = ["DuplicateInstance", "OutOfResources", "StorageFailed", "Stored", "refusal_of"]

_FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class OutOfResources(DimseError):
    """No room: refused, PS3.4 §B.2.3."""

    status = 0xA700


class StorageFailed(DimseError):
    """The disk or the index failed: processing failure, PS3.7 §C.5.15."""

    status = 0x0110


class DuplicateInstance(DimseError):
    """Duplicate SOP Instance, PS3.7 §C.5.7."""

    status = 0x0111


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of an instance; ``status`` is the answer's."""

    outcome: Literal["stored", "duplicate", "replaced"]
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    source_ae_title: str
    size: int  # of the data set
    growth: int = 0  # of the archive: bytes of its file, without those of the one it has replaced
    status: int = 0x0000


def refusal_of(error: OSError) -> DimseError:
    """Tell a failed system call in DIMSE's terms."""
    name = errno.errorcode.get(error.errno or 0, "EIO")
    if error.errno in _FULL_DISK:
        return OutOfResources(f"{name}: {error.strerror}")
    return StorageFailed(f"{name}: {error.strerror}")
