"""Layers of values over each other, each value with the place it came from."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Layers", "Place"]

Place = tuple[str | int, ...]

# A later layer's entries of these arrays replace, all together, the earlier layer's entries with the same key: within
# a layer several may have it (one AE title at two addresses)
IDENTITY = {"remote": "ae_title", "user": "username"}


class Layers:
    """The values so far.

    ``origins`` says where the value at a path was set, ``replaced`` which entries of IDENTITY's arrays an earlier
    layer had: by array and identity those of the first layer, with their origin.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[Place, str] = {}
        self.replaced: dict[tuple[str, str], tuple[str, list[Any]]] = {}

    def lay(self, tree: Mapping[str, Any], places: Mapping[Place, str]) -> None:
        """Lay ``tree`` over it: sections key by key, entries of IDENTITY's arrays by identity, all else whole."""
        moved: dict[Place, Place] = {}
        for name, value in tree.items():
            before = self.values.get(name)
            if isinstance(value, Mapping) and isinstance(before, Mapping | None):
                self.values[name] = {**(before or {}), **value}
            elif name in IDENTITY and isinstance(value, list | tuple) and isinstance(before, list | None):
                moved |= self._lay_entries(name, value)
            else:
                self.values[name] = value
        for path, origin in places.items():
            self.origins[(*moved.get(path[:2], path[:2]), *path[2:])] = origin

    def _lay_entries(self, name: str, fresh: Sequence[Any]) -> dict[Place, Place]:
        """Put ``fresh`` where the first entry of the same identity was, else at the end; gives where each is now."""
        before: list[Any] = self.values.get(name, [])
        groups: dict[str, list[int]] = {}
        for index, entry in enumerate(fresh):
            groups.setdefault(_identity(name, entry), []).append(index)
        replaced: dict[str, list[int]] = {}
        order: list[tuple[Sequence[Any], int]] = []
        for index, entry in enumerate(before):
            identity = _identity(name, entry)
            if identity not in groups:
                order.append((before, index))
            elif identity in replaced:
                replaced[identity].append(index)
            else:
                replaced[identity] = [index]
                order += [(fresh, one) for one in groups[identity]]
        order += [(fresh, one) for identity, group in groups.items() if identity not in replaced for one in group]

        for identity, indices in replaced.items():
            origin = self.origins.get((name, indices[0]), "")
            self.replaced.setdefault((name, identity), (origin, [before[index] for index in indices]))
        stay: dict[Place, Place] = {(name, at): (name, n) for n, (layer, at) in enumerate(order) if layer is before}
        self.origins = {
            (*stay.get(path[:2], path[:2]), *path[2:]): origin
            for path, origin in self.origins.items()
            if path[0] != name or len(path) == 1 or path[:2] in stay
        }
        self.values[name] = [layer[at] for layer, at in order]
        return {(name, at): (name, n) for n, (layer, at) in enumerate(order) if layer is fresh}


def _identity(name: str, entry: Any) -> str:
    """AE title or username of an entry, which may be the short form AET@HOST:PORT."""
    if isinstance(entry, Mapping):
        return str(entry.get(IDENTITY[name], "")).strip()
    return str(entry).rpartition("@")[0].strip()
