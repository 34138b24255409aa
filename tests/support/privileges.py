"""Tests that run as root see what others would."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["NOBODY", "unprivileged"]

NOBODY = 65_534  # user and group


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may look into every folder and write to every file."""
    if root := os.geteuid() == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
