"""Gather the settings: file < environment < flags, and remember where each value came from."""

import contextlib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pacslite.config.environment import EnvironmentSource
from pacslite.config.layers import Layers, Place
from pacslite.config.model import Settings
from pacslite.config.network import Remote
from pacslite.config.places import line_of
from pacslite.config.problems import ConfigError, describe

__all__ = ["Flag", "Loaded", "find_file", "load"]

ENVIRONMENT_FILE = "PACSLITE_CONFIG"
USUAL_FILES = (Path("pacslite.toml"), Path("/etc/pacslite/pacslite.toml"))


@dataclass(frozen=True, slots=True)
class Flag:
    """A value from the command line: ``key`` as ``server.port``, ``name`` as ``--port``."""

    key: str
    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, the file they were read from, and the origin of each value that is not a default.

    ``replaced`` are remotes by AE title, as the first layer had them, that a later one says anew: with their origin.
    """

    settings: Settings
    file: Path | None
    origins: Mapping[Place, str]
    replaced: Mapping[str, tuple[str, Sequence[Remote]]]

    def origin(self, *path: str | int) -> str:
        """Where the value at ``path`` was set: file and line, an environment variable, a flag, or ``default``."""
        for n in range(len(path), 0, -1):
            if path[:n] in self.origins:
                return self.origins[path[:n]]
        return "default"


def find_file(environ: Mapping[str, str]) -> Path | None:
    """The file to read when ``--config`` names none: of PACSLITE_CONFIG, or in one of the usual places."""
    if named := environ.get(ENVIRONMENT_FILE):
        return Path(named)
    return next((path for path in USUAL_FILES if path.is_file()), None)


def load(file: Path | None = None, *, environ: Mapping[str, str] | None = None, flags: Sequence[Flag] = ()) -> Loaded:
    """Read all layers and check them.

    Args:
        file: The TOML file; None looks in the usual places.
        environ: Instead of the process's environment.
        flags: From the command line; they win.
    Raises:
        ConfigError: With a line for each thing that is wrong.
    """
    environ = os.environ if environ is None else environ
    file = file or find_file(environ)
    layers = Layers()
    if file is not None:
        layers.lay(*_read_file(file))
    environment = EnvironmentSource(Settings, environ)
    tree: Any = environment()
    places: dict[Place, str] = {}
    for path, origin in environment.origins.items():
        places |= _places_of(_value_at(tree, path), path, origin)
    layers.lay(tree, places)
    for flag in flags:
        tree = flag.value
        for part in reversed(flag.key.split(".")):
            tree = {part: tree}
        layers.lay(tree, _places_of(tree, (), flag.name))
    try:
        settings = Settings(**layers.values)
    except ValidationError as error:
        raise describe(error, Settings, layers.origins) from None
    return Loaded(settings, file, layers.origins, _remotes_replaced(layers))


def _remotes_replaced(layers: Layers) -> dict[str, tuple[str, list[Remote]]]:
    found = {}
    for (name, title), (origin, entries) in layers.replaced.items():
        if name == "remote":
            with contextlib.suppress(ValidationError):  # what is not used may be wrong
                found[title] = origin, [Remote.model_validate(entry) for entry in entries]
    return found


def _read_file(file: Path) -> tuple[dict[str, Any], dict[Place, str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")  # of Windows: with a byte order mark
        tree = tomllib.loads(text)
    except OSError as error:
        raise ConfigError([f"{file}: {error.strerror or error}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file}: not UTF-8 at byte {error.start}"]) from None
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        raise ConfigError([f"{file}:{at[1] if at else 1}: no valid TOML: {error}"]) from None
    origins = _places_of(tree, (), str(file))
    return tree, {path: f"{file}:{line_of(text, path) or 1}" for path in origins}


def _places_of(value: Any, path: Place, origin: str) -> dict[Place, str]:
    """The path of each table and value in ``value``."""
    places = {path: origin} if path else {}
    if isinstance(value, Mapping):
        for key, inner in value.items():
            places |= _places_of(inner, (*path, key), origin)
    elif isinstance(value, list | tuple) and len(path) == 1:
        for index, inner in enumerate(value):
            places |= _places_of(inner, (*path, index), origin)
    return places


def _value_at(tree: Any, path: Place) -> Any:
    for part in path:
        tree = tree[part]
    return tree
