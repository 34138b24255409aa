"""The environment as a layer of the settings: ``PACSLITE_SERVER__PORT=104`` is ``server.port``.

With _FILE at the end of the name the value is in a file: ``PACSLITE_TLS__KEY_PASSWORD_FILE=/run/secrets/key``.
Arrays of tables are JSON, ``[[remote]]`` also words: ``PACSLITE_REMOTE="WS7@10.0.0.7:104 CT01@10.0.0.12"``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource

from pacslite.config.problems import ConfigError, fields_at, nearest

__all__ = ["EnvironmentSource"]

PREFIX = "PACSLITE_"
SUFFIX_OF_FILES = "_FILE"  # of a Docker or Kubernetes secret: the value is in the file


class EnvironmentSource(EnvSettingsSource):
    """pydantic-settings' environment, which also knows files, names the variable of each value, and misspelt ones.

    Raises:
        ConfigError: At construction, for a variable that names no key or a file that cannot be read.
    """

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        # of tables: those of an array of tables have no variables
        self._keys = {
            section: fields_at(settings_cls, (section,))
            for section, field in settings_cls.model_fields.items()
            if isinstance(field.annotation, type)
        }
        self.origins: dict[tuple[str | int, ...], str] = {}
        values: dict[str, str | None] = {}
        problems: list[str] = []
        for variable in sorted(environ):
            name = variable.upper()
            if not name.startswith(PREFIX) or not self._is_ours(name, environ[variable]):
                continue
            path = tuple(name.removeprefix(PREFIX).lower().split("__"))
            value = environ[variable]
            bare = (*path[:-1], path[-1].removesuffix(SUFFIX_OF_FILES.lower()))
            if not self._exists(path) and self._exists(bare):
                path = bare
                try:
                    value = Path(value).read_text(encoding="utf-8-sig").rstrip("\r\n")
                except (OSError, UnicodeDecodeError) as error:
                    problems.append(f"environment {variable}: {value}: {getattr(error, 'strerror', None) or error}")
                    continue
            if not self._exists(path):
                problems.append(f"environment {variable}: no such key{self._suggestion(path)}")
                continue
            values[_variable(path).lower()] = value
            self.origins[path] = f"environment {variable}"
        if problems:
            raise ConfigError(problems)
        self.env_vars = values

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """JSON where it looks like JSON, else words, which the fields' own validators take apart."""
        del field
        text = str(value).strip()
        if text.startswith(("[", "{")):
            try:
                return json.loads(text)
            except ValueError as error:
                raise ConfigError([f"{self._origin_of(field_name, value)}: no valid JSON: {error}"]) from None
        return text.replace(",", " ").split() if field_name in self.settings_cls.model_fields else value

    def _origin_of(self, key: str, value: str) -> str:
        """The variable of ``key``, which the caller names without its section."""
        return next(
            origin
            for path, origin in self.origins.items()
            if path[-1] == key.lower() and self.env_vars[_variable(path).lower()] == value
        )

    def _exists(self, path: tuple[str, ...]) -> bool:
        if len(path) == 1:
            return path[0] in self.settings_cls.model_fields
        return len(path) == 2 and path[1] in self._keys.get(path[0], ())

    def _is_ours(self, name: str, value: str) -> bool:
        """Others name variables with our prefix too: PACSLITE_PORT=tcp://... is Kubernetes telling of a service."""
        rest = name.removeprefix(PREFIX).lower()
        if "__" in rest or rest.removesuffix("_file") in self.settings_cls.model_fields:
            return True
        return "://" not in value and bool(self._sections_with(rest) or self._two_underscores(rest))

    def _two_underscores(self, rest: str) -> str:
        """``server__port`` for ``server_port``, where that is a section and its key or the file of one; else ""."""
        section, _, key = rest.partition("_")
        known = key.removesuffix(SUFFIX_OF_FILES.lower()) in self._keys.get(section, ())
        return f"{section}__{key}" if known else ""

    def _sections_with(self, key: str) -> list[str]:
        return [section for section, keys in self._keys.items() if key in keys]

    def _suggestion(self, path: tuple[str, ...]) -> str:
        """The variable that may have been meant."""
        if len(path) == 1 and (meant := self._two_underscores(path[0])):
            return f"; nearest is {_variable((meant,))}"
        if self._exists(path[:1]) and path[0] not in self._keys:
            return f"; {_variable(path[:1])} takes whole entries"
        names = {_variable((section, key)) for section, keys in self._keys.items() for key in keys}
        if len(path) == 1 and (sections := self._sections_with(path[0])):
            return f"; nearest is {_variable((sections[0], path[0]))}"
        near = nearest(_variable(path), names)
        return f"; nearest is {near}" if near else ""


def _variable(path: tuple[str | int, ...]) -> str:
    return PREFIX + "__".join(map(str, path)).upper()
