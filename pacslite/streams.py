"""The standard streams of a command: none is closed, each takes every letter, and nobody must take what they print."""

import io
import os
import sys

__all__ = ["give_up_output", "open_standard_streams"]


def open_standard_streams() -> None:
    """Where one is closed, the next file or socket would have its number, and with it what is printed.

    What the terminal's encoding lacks is written as an escape: a name in a message must not end the command.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115, PTH123
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def give_up_output() -> None:
    """What cannot be written is not tried again at the interpreter's end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
