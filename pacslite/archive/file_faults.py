"""Which errors of the system tell something about one file, and which about the machine."""

import errno

__all__ = ["MISPLACED", "fault_of_file", "is_of_file"]

MISPLACED = "not in the directory of a series: move it away, pacslite import takes instances in"

_OF_FILE = frozenset(
    {
        errno.ENOENT,
        errno.ELOOP,  # a symbolic link: none is followed
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENXIO,  # a socket, a device
        errno.ENODEV,
        errno.ESPIPE,  # a pipe
        errno.EINVAL,
        errno.EOVERFLOW,
        errno.ENAMETOOLONG,
        errno.EIO,  # its sectors
        errno.EBADMSG,  # its checksum, on file systems that have one
        errno.EUCLEAN,  # its inode
    }
)


def is_of_file(error: OSError) -> bool:
    """Is it the file's own?

    All else, too many open files, no memory, no permission, would be said of any other file as well: nothing is known
    of this one, and nothing may be done to it.
    """
    return error.errno in _OF_FILE


def fault_of_file(error: OSError, name: str) -> str:
    """What is wrong with a file.

    Raises:
        OSError: It is not the file's fault; names it.
    """
    if not is_of_file(error):
        raise OSError(error.errno, error.strerror, name) from error
    return error.strerror or str(error)
