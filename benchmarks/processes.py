"""What a server costs, read from /proc: processor seconds and memory of every process of its session."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Usage", "proportional_set", "session_processes"]

_TICK = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def _stat(pid: int) -> list[str] | None:
    """Fields 3 and on of /proc/PID/stat, or None when the process is gone; the name before them may hold anything."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def session_processes(session: int) -> Iterator[int]:
    """Every process of a session: a server under test is started as the leader of its own."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields is not None and int(fields[3]) == session:
                yield int(entry.name)


def _kilobytes(pid: int, file: str, key: str) -> int:
    try:
        with (_PROC / str(pid) / file).open() as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith(key)), 0)
    except OSError:
        return 0


def proportional_set(session: int) -> int:
    """Bytes of memory of a session's processes, shared pages counted once (PSS): fair to servers that fork."""
    return 1024 * sum(_kilobytes(pid, "smaps_rollup", "Pss:") for pid in session_processes(session))


@dataclass(slots=True)
class Usage:
    """Processor seconds since the start of the measurement and the peak of resident memory, of one session.

    ``sample`` is called now and then while the load runs: a process that forks per association loses the figures of
    a child (its memory; processor time goes to the parent that waits for it) when the child ends.
    """

    session: int
    forks: bool = False
    peak_bytes: int = 0
    _started_at: float = field(default=0.0)

    def __post_init__(self) -> None:
        self._started_at = self._seconds()
        self.sample()

    @property
    def cpu_seconds(self) -> float:
        return self._seconds() - self._started_at

    def reset(self) -> None:
        """Start again: the peak falls to what is resident now (proc(5), clear_refs)."""
        self._started_at = self._seconds()
        for pid in self._processes():
            (_PROC / str(pid) / "clear_refs").write_text("5")
        self.peak_bytes = 0
        self.sample()

    def sample(self) -> None:
        now = sum(_kilobytes(pid, "status", "VmHWM:") for pid in self._processes())
        self.peak_bytes = max(self.peak_bytes, now * 1024)

    def _processes(self) -> Iterator[int]:
        return session_processes(self.session) if self.forks else iter((self.session,))

    def _seconds(self) -> float:
        """User and system time of the processes and of the children they waited for."""
        stats = [fields for pid in self._processes() if (fields := _stat(pid)) is not None]
        return sum(int(ticks) for fields in stats for ticks in fields[11:15]) / _TICK
