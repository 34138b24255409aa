"""How many processors this process may use."""

import math
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["processors"]


def processors(system: Path = Path("/")) -> float:
    """By affinity, and by the quota of our control group (``CPUQuota`` of systemd, ``--cpus`` of a container).

    Args:
        system: Where ``proc`` and ``sys`` are.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, _quota(system))


def _quota(system: Path) -> float:
    """Of our group and of those that it is in: each has its own, in version 2."""
    quota = math.inf
    with suppress(OSError, StopIteration):
        lines = (system / "proc/self/cgroup").read_text().splitlines()
        group = Path(next(line.removeprefix("0::/") for line in lines if line.startswith("0::/")))
        for path in (group, *group.parents):
            with suppress(OSError, ValueError, ZeroDivisionError):  # "max": none
                most, period = (system / "sys/fs/cgroup" / path / "cpu.max").read_text().split()
                quota = min(quota, int(most) / int(period))
    return quota
