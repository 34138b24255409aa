"""The directories below ``instances/``: opened, made, emptied and listed.

Names are opened component by component below a directory descriptor, without following symbolic links: what is planted
in the tree is an error, not a way out.
"""

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from stat import S_ISDIR

from pacslite.archive.instances.fileops import FileOperations
from pacslite.archive.instances.layout import InstancePath

__all__ = ["InstanceTree", "names_in"]


class InstanceTree:
    """Directories of studies and series below ``root``, a descriptor that stays the caller's.

    Who makes directories holds ``lock`` until there is a file in them: none is removed as empty before.
    """

    def __init__(self, operations: FileOperations, root: int) -> None:
        self.lock = threading.Lock()
        self._operations = operations
        self._root = root

    def open_directory(self, path: InstancePath, *, make: bool = False) -> int:
        """Open the directory of a series."""
        return self._open(path[:3], make=make)

    def remove_empty(self, path: InstancePath) -> None:
        """Remove the directories that held the file at ``path``, up to the first that holds something else."""
        with self.lock:
            for depth in (2, 1, 0):
                try:
                    directory = self._open(path[:depth])
                    try:
                        self._operations.remove_directory(directory, path[depth])
                    finally:
                        os.close(directory)
                except OSError:
                    return  # not empty, or gone: both are well

    def paths(self) -> Iterator[InstancePath]:
        """List the files, directory by directory."""
        for prefix in self._listed(None):
            for study in self._listed(prefix):
                for series in self._listed(f"{prefix}/{study}"):
                    for name in self._listed(f"{prefix}/{study}/{series}"):
                        yield InstancePath(prefix, study, series, name)

    def misplaced(self) -> Iterator[str]:
        """List what lies above the directories of series and is no directory, by its path below the root."""
        return self._misplaced(None, levels=3)

    def _misplaced(self, below: str | None, *, levels: int) -> Iterator[str]:
        for name in self._listed(below):
            path = name if below is None else f"{below}/{name}"
            if not self._is_directory(path):
                yield path
            elif levels > 1:
                yield from self._misplaced(path, levels=levels - 1)

    def _is_directory(self, path: str) -> bool:
        try:
            return S_ISDIR(os.stat(path, dir_fd=self._root, follow_symlinks=False).st_mode)
        except FileNotFoundError:  # an empty one that was removed just now
            return True

    def _open(self, names: Sequence[str], *, make: bool = False) -> int:
        directory = os.dup(self._root)  # to be closed like those below it
        for name in names:
            try:
                below = self._open_below(directory, name, make=make)
            finally:
                os.close(directory)
            directory = below
        return directory

    def _open_below(self, directory: int, name: str, *, make: bool) -> int:
        try:
            return self._operations.open_directory(directory, name)
        except FileNotFoundError:
            if not make:
                raise
        self._operations.make_directory(directory, name)
        return self._operations.open_directory(directory, name)

    def _listed(self, below: str | None) -> list[str]:
        """Names in a directory, sorted; links are not entered."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(below or ".", flags, dir_fd=self._root)
        except (NotADirectoryError, FileNotFoundError):
            return []
        except OSError as error:
            if error.errno == errno.ELOOP or (error.errno == errno.EACCES and below == "lost+found"):
                return []
            raise  # what cannot be listed may be full of instances
        try:
            return sorted(names_in(fd))
        finally:
            os.close(fd)


def names_in(directory: int) -> list[str]:
    """List a directory, in no order."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]
