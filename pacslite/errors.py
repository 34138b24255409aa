"""Errors that cross layers; every other error stands beside the code that raises it."""

from collections.abc import Sequence
from typing import ClassVar

__all__ = ["DimseError", "PacsliteError"]


class PacsliteError(Exception):
    """Base of everything pacslite raises on purpose."""


class DimseError(PacsliteError):
    """Ends a request with ``status`` (PS3.7 Annex C, PS3.4) and an Error Comment.

    Args:
        comment: What the other side's engineer needs; (0000,0902) is LO, so it is cut to 64 characters when sent.
        offending: Tags for Offending Element (0000,0901), ``0x0020000D`` style.
    """

    status: ClassVar[int] = 0x0110  # processing failure

    def __init__(self, comment: str, *, offending: Sequence[int] = ()) -> None:
        super().__init__(comment)
        self.offending = tuple(offending)
