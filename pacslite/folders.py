"""Files of folders, for who sends or imports them: none is passed over without a word."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG

__all__ = ["files_below"]


def files_below(paths: Iterable[Path], *, hidden: bool = True) -> Iterator[Path]:
    """Walk folders, in the order of names; links are followed, and each folder is walked once.

    What cannot be looked into is given itself, folder or link: who opens it is told why. Pipes and devices are given
    only where ``paths`` names them.

    Args:
        hidden: Also files whose name begins with a full stop.
    """
    walked: set[tuple[int, int]] = set()
    for path in paths:
        waiting = [path]
        while waiting:
            here = waiting.pop()
            try:
                status = here.stat()
                if S_ISDIR(status.st_mode):
                    if (status.st_dev, status.st_ino) not in walked:
                        waiting += sorted(here.iterdir(), reverse=True)
                        walked.add((status.st_dev, status.st_ino))
                    continue
                is_given = S_ISREG(status.st_mode) or here is path
            except OSError:
                is_given = True
            if is_given and (hidden or here is path or not here.name.startswith(".")):
                yield here
