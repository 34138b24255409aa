"""Where a key stands in a TOML text: tomllib tells the values only, an error wants the line."""

import re
from collections import Counter
from collections.abc import Sequence

__all__ = ["line_of"]

_TABLE = re.compile(r"\s*(\[\[?)\s*([^\]#]+?)\s*\]")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_MULTILINE = re.compile(r"\"\"\"|'''")


def line_of(text: str, path: Sequence[str | int]) -> int | None:
    """The line (from 1) on which ``path``, or else the longest beginning of it that is written out, stands."""
    wanted = tuple(path)
    best: tuple[int, int] | None = None  # length of what agrees, line
    for number, written in _written_paths(text):
        if written == wanted[: len(written)] and (best is None or len(written) > best[0]):
            best = len(written), number
    return best[1] if best else None


def _written_paths(text: str) -> list[tuple[int, tuple[str | int, ...]]]:
    """Each header and key with its line; the elements of an array of tables are counted."""
    found: list[tuple[int, tuple[str | int, ...]]] = []
    table: tuple[str | int, ...] = ()
    elements: Counter[tuple[str, ...]] = Counter()
    inside_string = False
    for number, line in enumerate(text.splitlines(), start=1):
        quotes = len(_MULTILINE.findall(line))
        if inside_string:
            inside_string = quotes % 2 == 0
            continue
        if header := _TABLE.match(line):
            names = _names(header[2])
            table = _in_elements(names, elements)
            if header[1] == "[[":
                table = (*table, elements[names])
                elements[names] += 1
            found.append((number, table))
        elif key := _KEY.match(line):
            found.append((number, (*table, *_names(key[1]))))
        inside_string = quotes % 2 == 1
    return found


def _in_elements(names: tuple[str, ...], elements: Counter[tuple[str, ...]]) -> tuple[str | int, ...]:
    """A table below an array of tables is in the last of its elements so far."""
    path: list[str | int] = []
    for n, name in enumerate(names):
        if n and elements[names[:n]]:
            path.append(elements[names[:n]] - 1)
        path.append(name)
    return tuple(path)


def _names(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
