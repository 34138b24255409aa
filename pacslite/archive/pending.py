"""Values of extra keys that are not complete yet, for queries: read from the headers of files, slow and exact.

Only what is kept nowhere in the index comes here: private attributes, and keys at another level than the attribute's.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from pacslite.archive.criteria import Query
from pacslite.archive.extra import ExtraKey
from pacslite.archive.keys import Level
from pacslite.archive.sieve import Cell

__all__ = ["PendingValues", "ReadValues"]

ReadValues = Callable[[ExtraKey, Collection[int]], Mapping[int, str]]  # of entities by their ids; blocks

_Row = tuple[Cell, ...]


class PendingValues:
    """Fills the cells of a query's rows that the index cannot fill yet.

    Args:
        place: Gives the place of a column in a row, adding it where needed.
        read: None where there are no files: then what has no value yet has none.
    """

    def __init__(self, query: Query, place: Callable[[Level, str], int], read: ReadValues | None) -> None:
        keys = [one.key for one in query.filters] + [one.key for one in query.return_keys]
        pending = dict.fromkeys(key for key in keys if isinstance(key, ExtraKey) and not key.complete)
        self._read = read
        self._places = [(key, place(key.level, "id"), place(key.level, key.column)) for key in pending]

    def __bool__(self) -> bool:
        return bool(self._places)

    def fill(self, rows: Sequence[_Row]) -> Sequence[_Row]:
        """Give the rows with all values. Blocks."""
        if self._read is None:
            return rows
        for key, id_at, at in self._places:
            owners = {owner for row in rows if row[at] is None and isinstance(owner := row[id_at], int)}
            values = self._read(key, owners) if owners else {}
            rows = [(*row[:at], _of(values, row[id_at]), *row[at + 1 :]) if row[at] is None else row for row in rows]
        return rows


def _of(values: Mapping[int, str], owner: Cell) -> str | None:
    return values.get(owner) if isinstance(owner, int) else None
