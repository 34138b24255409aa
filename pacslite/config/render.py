"""Settings as TOML: the commented sample (``config/pacslite.toml``) and what ``pacslite config show`` prints."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from pacslite.config.load import Loaded
from pacslite.config.model import Settings
from pacslite.config.network import Listener, Remote, User
from pacslite.config.problems import allowed, choices
from pacslite.config.services import Forward

__all__ = ["sample", "show", "values"]

HEAD = """\
# pacslite: every key with its default. Keys that are left out have it too.
#
# What is said here is overruled by the environment (PACSLITE_SERVER__PORT=104; PACSLITE_SERVER__PORT_FILE=/a/file
# that holds the value), and that by the flags of "pacslite serve". "pacslite config show" says where each value
# comes from. Paths are relative to the folder in which the server is started.
"""
EXAMPLES: tuple[tuple[str, Sequence[BaseModel]], ...] = (
    ("listener", (Listener(host="", port=2762, tls=True),)),
    (
        "remote",
        (
            Remote(ae_title="WORKSTATION7", host="192.0.2.7", port=104),
            Remote(ae_title="CT01", host="192.0.2.0/24", allow=("echo", "store")),
        ),
    ),
    (
        "forward",
        (Forward(to="WORKSTATION7", when={"Modality": ("CT", "MR"), "calling_ae_title": "CT01"}),),
    ),
    ("user", (User(username="viewer", password=SecretStr("a long one")),)),
)
MASK = "********"
_BARE = re.compile("[A-Za-z0-9_-]+")


def sample() -> str:
    """The text of ``config/pacslite.toml``: sections and keys with what the model says of them."""
    return "\n".join([HEAD.rstrip("\n"), *_sample_sections(), *_sample_tables()]) + "\n"


def _sample_sections() -> Iterator[str]:
    defaults = Settings()
    for name in Settings.model_fields:
        section = getattr(defaults, name)
        if isinstance(section, BaseModel):
            yield ""
            yield from _comment(type(section).__doc__ or "")
            yield f"[{name}]"
            for key, field in type(section).model_fields.items():
                yield from _comment(_described(field))
                yield f"{key} = {toml_value(getattr(section, key))}"


def _sample_tables() -> Iterator[str]:
    """Arrays of tables have no default entry: examples, commented out."""
    for name, entries in EXAMPLES:
        yield ""
        yield from _comment(type(entries[0]).__doc__ or "")
        for key, field in type(entries[0]).model_fields.items():
            yield from _comment(f"{key}: {_described(field)}")
        for entry in entries:
            yield f"# [[{name}]]"
            for key in type(entry).model_fields:
                value = getattr(entry, key)
                yield f"# {key} = {toml_value(value.get_secret_value() if isinstance(value, SecretStr) else value)}"


def _described(field: FieldInfo) -> str:
    """Its description, and what it may hold where that does not say all of it."""
    text, range_, words = field.description or "", allowed(field), choices(field)
    if not range_ or field.annotation is bool or (words and all(f'"{word}"' in text for word in words)):
        return text
    range_ = range_.replace(" ", "\N{NO-BREAK SPACE}")  # not to be wrapped
    return f"{text} ({range_})"


def _comment(text: str) -> list[str]:
    lines = textwrap.wrap(
        text.replace("\n", " "), 118, break_on_hyphens=False, initial_indent="# ", subsequent_indent="# "
    )
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def show(loaded: Loaded) -> str:
    """Each key with its value and where that came from; secrets are masked."""
    lines: list[str] = [f"# file: {loaded.file or 'none'}"]
    for name in Settings.model_fields:
        section = getattr(loaded.settings, name)
        if isinstance(section, BaseModel):
            lines += ["", f"[{name}]", *_shown(loaded, section, (name,))]
        for index, entry in enumerate(section if isinstance(section, tuple) else ()):
            lines += ["", f"[[{name}]]", *_shown(loaded, entry, (name, index))]
    return "\n".join(lines) + "\n"


def _shown(loaded: Loaded, section: BaseModel, path: tuple[str | int, ...]) -> Iterator[str]:
    for key in type(section).model_fields:
        yield f"{f'{key} = {toml_value(getattr(section, key))}':<48} # {_origin(loaded, section, path, key)}"


def _origin(loaded: Loaded, section: BaseModel, path: tuple[str | int, ...], key: str) -> str:
    return loaded.origin(*path, key) if key in section.model_fields_set else "default"


def values(loaded: Loaded) -> dict[str, Any]:
    """The same for scripts: ``{"server.port": {"value": 104, "origin": "--port"}, …}``."""
    found: dict[str, Any] = {}
    for name in Settings.model_fields:
        section = getattr(loaded.settings, name)
        if isinstance(section, BaseModel):
            for key in type(section).model_fields:
                value = _masked(getattr(section, key))
                found[f"{name}.{key}"] = {"value": value, "origin": _origin(loaded, section, (name,), key)}
        else:
            entries = [{key: _masked(value) for key, value in entry} for entry in section]
            found[name] = {"value": entries, "origin": loaded.origin(name)}
    return found


def _masked(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    return str(value) if isinstance(value, Path) else "" if value is None else value


def toml_value(value: Any) -> str:
    """A value as TOML writes it; an empty path is the empty string."""
    value = _masked(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        pairs = (
            f"{key if _BARE.fullmatch(key) else json.dumps(key)} = {toml_value(one)}" for key, one in value.items()
        )
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


if __name__ == "__main__":
    print(sample(), end="")
