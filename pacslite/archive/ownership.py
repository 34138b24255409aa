"""Whose what is made in the data directory is, and who may read it: its owner's, and nobody else.

A command that root runs on the archive of a service would leave files behind that the service cannot write, if they
were root's.
"""

import os
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE

__all__ = ["FILE_MODE", "give", "is_another_ones", "make_directory", "make_file", "shut"]

FILE_MODE = 0o640
_DIRECTORY_MODE = 0o750
_OTHERS = 0o007


def is_another_ones(directory: int) -> bool:
    """We are root, and what we make in ``directory`` is to be given to its owner."""
    of = os.fstat(directory)
    return os.geteuid() == 0 and (of.st_uid, of.st_gid) != (0, 0)


def give(fd: int, directory: int | Path) -> None:
    """What root has made in ``directory`` is the directory's owner's and group's; what others make is theirs."""
    if os.geteuid() != 0:
        return
    with suppress(OSError):  # a file system that knows no owners, a root that may not give: as it was without this
        of = os.fstat(directory) if isinstance(directory, int) else directory.stat()
        if (of.st_uid, of.st_gid) != (0, 0):
            os.fchown(fd, of.st_uid, of.st_gid)


def make_directory(directory: int, name: str) -> None:
    """Make one in another (a descriptor).

    Raises:
        OSError: As ``os.mkdir``.
    """
    os.mkdir(name, _DIRECTORY_MODE, dir_fd=directory)
    if os.geteuid() == 0:
        with suppress(OSError):
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
            try:
                give(fd, directory)
            finally:
                os.close(fd)


def make_file(path: Path) -> None:
    """Make an empty file where none is."""
    with suppress(FileExistsError):
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE)
        try:
            give(fd, path.parent)
        finally:
            os.close(fd)


def shut(path: Path) -> None:
    """Take from others what they may do with a file of ours; without opening it, for it may be a database in use."""
    with suppress(FileNotFoundError):
        found = path.stat()
        if found.st_uid == os.geteuid() and found.st_mode & _OTHERS:
            path.chmod(S_IMODE(found.st_mode) & ~_OTHERS)
