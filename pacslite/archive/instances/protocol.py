"""What the archive asks of a place for instances. A backend that passes tests/contracts may stand in for another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pacslite.archive.instances.layout import InstancePath

__all__ = ["IncomingFile", "InstanceFile", "InstanceStore"]


@dataclass(slots=True)
class InstanceFile:
    """An instance opened for reading: bytes stay readable through ``fd`` whatever happens to the name."""

    fd: int
    sop_class_uid: str
    transfer_syntax_uid: str
    data_set_offset: int
    data_set_length: int
    digest: bytes | None


class IncomingFile(Protocol):
    """One object on its way to disk; used by one thread at a time."""

    name: str
    size: int

    def append(self, pieces: Sequence[bytes | bytearray]) -> None:
        """Write behind what is written."""

    def begin_writeback(self) -> None:
        """Hint: a sync follows soon."""

    def come_last(self) -> None:
        """Take another name, behind those of all files so far: of one instance's files a start keeps the last."""

    def write_header(self, header: bytes) -> None:
        """Fill the room left at the start."""

    def sync(self) -> None:
        """Return when bytes and name survive a power cut; ``InstanceStore.sync`` may know a quicker way."""

    def close(self) -> None:
        """Give the descriptor back; the file stays."""

    def discard(self) -> None:
        """Remove the file, so that no recovery takes it for an instance, after a power cut too. Does not raise."""


class InstanceStore(Protocol):
    """Files in ``incoming`` by their number, settled files by their path. Callable from any thread."""

    def create(self, header_size: int) -> IncomingFile:
        """Begin a file and leave room for a header."""

    def sync(self, files: Sequence[IncomingFile]) -> list[OSError | None]:
        """Return when they are as safe as the archive's durability promises, with ``full`` from a power cut.

        After an error a file is not to be trusted, ever.
        """

    def settle(self, files: Sequence[tuple[str, InstancePath]]) -> list[OSError | None]:
        """Move incoming files to their places, over whatever is there; those that cannot be moved stay."""

    def open_incoming(self, name: str) -> int:
        """Open for reading."""

    def open_settled(self, path: InstancePath) -> int:
        """Open for reading."""

    def remove_incoming(self, name: str) -> None:
        """Remove; a file that is not there is removed."""

    def remove_settled(self, path: InstancePath) -> None:
        """Remove, with the directories that it leaves empty; a file that is not there is removed."""

    def set_aside(self, path: InstancePath) -> None:
        """Move a settled file out of the way, without losing it."""

    def set_incoming_aside(self, name: str) -> str:
        """Move a file in ``incoming`` out of the way, without losing it; gives its new name in the data directory."""

    def take_back(self, path: InstancePath) -> str:
        """Make a settled file an incoming one; gives its name."""

    def incoming(self) -> list[str]:
        """Names in ``incoming``, oldest first."""

    def sync_incoming(self, names: Sequence[str]) -> None:
        """Make files in ``incoming`` durable that another process wrote."""

    def holds(self, name: str) -> bool:
        """It is opened and removed by this name although it is settled, until ``sync_all`` was called."""

    def settled(self) -> Iterator[InstancePath]:
        """All settled files, directory by directory."""

    def misplaced(self) -> Iterator[str]:
        """What lies among them where no instance can be and nobody looks for one; names below ``instances``."""

    def sync_names(self) -> None:
        """Make the names of the archive's own files and directories durable."""

    def prepare(self) -> bool:
        """Make what makes storing quick; takes its time, and nobody has to wait for it. False: not before settling."""

    def is_quick(self, size: int) -> bool:
        """``sync`` sees to many files of this size at once."""

    @property
    def must_sync(self) -> bool:
        """``sync_all`` is to be called before files are settled: what ``sync`` did holds for ``incoming`` only."""

    @property
    def is_pressed(self) -> bool:
        """``sync_all`` would make ``sync`` quick again."""

    def sync_all(self) -> None:
        """Make every file, rename and removal so far durable."""

    def free_bytes(self) -> int:
        """What may still be written."""
