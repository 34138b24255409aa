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
        self.origins: dict[tuple[str | int, ...], str] = {}
        values: dict[str, str | None] = {}
        problems: list[str] = []
        for variable in sorted(environ):
            name = variable.upper()
            if not name.startswith(PREFIX) or not self._is_ours(name, environ[variable]):
                continue
            path = tuple(name.removeprefix(PREFIX).lower().split("__"))
            value = environ[variable]
            if not self._exists(path) and name.endswith(SUFFIX_OF_FILES):
                path = (*path[:-1], path[-1].removesuffix(SUFFIX_OF_FILES.lower()))
                try:
                    value = Path(value).read_text(encoding="utf-8").rstrip("\r\n")
                except (OSError, UnicodeDecodeError) as error:
                    problems.append(f"environment {variable}: {value}: {getattr(error, 'strerror', None) or error}")
                    continue
            if not self._exists(path):
                problems.append(f"environment {variable}: no such key{self._suggestion(path)}")
                continue
            values[f"{PREFIX}{'__'.join(path)}".lower()] = value
            self.origins[path] = f"environment {variable}"
        if problems:
            raise ConfigError(problems)
        self.env_vars = values

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        del field
        """JSON where it looks like JSON, else words, which the fields' own validators take apart."""
        text = str(value).strip()
        if text.startswith(("[", "{")):
            try:
                return json.loads(text)
            except ValueError as error:
                raise ConfigError([f"environment {PREFIX}…{field_name.upper()}: no valid JSON: {error}"]) from None
        return text.replace(",", " ").split() if field_name in self.settings_cls.model_fields else value

    def _exists(self, path: tuple[str, ...]) -> bool:
        return len(path) <= 2 and path[-1] in fields_at(self.settings_cls, path[:-1])

    def _is_ours(self, name: str, value: str) -> bool:
        """Others name variables with our prefix too: PACSLITE_PORT=tcp://... is Kubernetes telling of a service."""
        rest = name.removeprefix(PREFIX).lower()
        if "__" in rest or rest.removesuffix("_file") in self.settings_cls.model_fields:
            return True
        return "://" not in value and bool(self._sections_with(rest))

    def _sections_with(self, key: str) -> list[str]:
        return [name for name in self.settings_cls.model_fields if key in fields_at(self.settings_cls, (name,))]

    def _suggestion(self, path: tuple[str, ...]) -> str:
        """The variable that may have been meant."""
        names = {
            f"{PREFIX}{section}__{key}".upper()
            for section in self.settings_cls.model_fields
            for key in fields_at(self.settings_cls, (section,))
        }
        if len(path) == 1 and (sections := self._sections_with(path[0])):
            return f"; nearest is {PREFIX}{sections[0].upper()}__{path[0].upper()}"
        near = nearest(f"{PREFIX}{'__'.join(path)}", names)
        return f"; nearest is {near}" if near else ""
