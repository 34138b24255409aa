"""Where a file lies: ``<2 hex>/<Study UID>/<Series UID>/<SOP Instance UID>.dcm`` below ``instances/``.

Before it is settled it has a number for a name, in ``incoming/`` or in the journal.

A UID comes from the network. Only digits and dots become a name (PS3.5 §9.1 allows nothing else); whatever else a
peer sends is hashed, so that no byte string leaves the root, hides, or collides with a directory.
"""

import hashlib
import re
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "SUFFIX",
    "InstancePath",
    "incoming_name",
    "incoming_number",
    "instance_path",
    "is_incoming_name",
    "safe_name",
    "uid_in_name",
]

SUFFIX = ".dcm"
_PLAIN = re.compile(r"[0-9][0-9.]{0,63}")
_NUMBERED = re.compile(r"[0-9]{20}\.dcm")


class InstancePath(NamedTuple):
    """Names below ``instances/``, each a single component."""

    prefix: str
    study: str
    series: str
    name: str

    def __str__(self) -> str:
        return "/".join(self)


def safe_name(uid: str) -> str:
    """Turn a UID into a file name: itself, or ``x-`` and a hash."""
    if _PLAIN.fullmatch(uid):
        return uid
    return f"x-{hashlib.sha256(uid.encode('utf-8', 'surrogateescape')).hexdigest()[:40]}"


@lru_cache(maxsize=1024)
def _directories(study_instance_uid: str, series_instance_uid: str) -> tuple[str, str, str]:
    # the prefix keeps a directory of a million studies from being one directory; ``printf UID | sha256sum`` gives it
    prefix = hashlib.sha256(study_instance_uid.encode("utf-8", "surrogateescape")).hexdigest()[:2]
    return prefix, safe_name(study_instance_uid), safe_name(series_instance_uid)


def instance_path(study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> InstancePath:
    """Say where the file of an instance belongs."""
    return InstancePath(*_directories(study_instance_uid, series_instance_uid), safe_name(sop_instance_uid) + SUFFIX)


def uid_in_name(path: InstancePath) -> str | None:
    """The SOP Instance UID that a file's name is; None if that is a hash, or of somebody else's making.

    A name may be any bytes, and those that are no UTF-8 are no text for an index to be asked for.
    """
    uid = path.name.removesuffix(SUFFIX)
    return uid if _PLAIN.fullmatch(uid) else None


def incoming_name(number: int) -> str:
    """Names sort as their numbers do."""
    return f"{number:020d}{SUFFIX}"


def incoming_number(name: str) -> int:
    """The number in the name of one of our files."""
    return int(name.removesuffix(SUFFIX))


def is_incoming_name(name: str) -> bool:
    """It may be one of ours; what people put there, ``1.dcm`` for one, is not."""
    return _NUMBERED.fullmatch(name) is not None
