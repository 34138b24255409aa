"""One process a data directory: an advisory lock that dies with its holder."""

import fcntl
import os
from pathlib import Path

from pacslite.archive.ownership import FILE_MODE, give
from pacslite.errors import PacsliteError

__all__ = ["DataDirLock", "DataDirLocked"]


class DataDirLocked(PacsliteError):
    """Another process uses the data directory."""


class DataDirLock:
    """Holds ``lock`` in the data directory; the file stays, its lock does not."""

    def __init__(self, data_dir: Path) -> None:
        """Take the lock.

        Raises:
            DataDirLocked: It is held; the message names the process.
        """
        self._fd = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        give(self._fd, data_dir)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise DataDirLocked(f"{data_dir} is in use by process {holder}") from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another process in."""
        os.close(self._fd)
