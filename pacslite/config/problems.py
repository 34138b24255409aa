"""What is wrong with a configuration: the place, the key, the nearest right name and what is allowed."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pacslite.errors import PacsliteError

__all__ = ["ConfigError", "allowed", "choices", "describe", "fields_at", "nearest"]

Path = tuple[str | int, ...]


class ConfigError(PacsliteError):
    """The configuration cannot be used; ``problems`` has a line each."""

    exit_code: ClassVar[int] = 2

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def dotted(path: Path) -> str:
    """``("remote", 1, "port")`` as ``remote[1].port``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def describe(error: ValidationError, model: type[BaseModel], places: Mapping[Path, str]) -> ConfigError:
    """Turn pydantic's findings into lines; ``places`` says where the value at a path was set."""
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        path = problem["loc"]
        where = next((places[path[:n]] for n in range(len(path), 0, -1) if path[:n] in places), "")
        lines.append(f"{where}: {_sentence(problem, path, model)}" if where else _sentence(problem, path, model))
    return ConfigError(lines)


def _sentence(problem: Any, path: Path, model: type[BaseModel]) -> str:
    key = dotted(path)
    if problem["type"] == "extra_forbidden":
        return f"{key}: no such key{_choice(str(path[-1]), fields_at(model, path[:-1]))}"
    if problem["type"] == "missing":
        return f"{key}: is required"
    field = _field_at(model, path)
    value = "" if field is not None and "Secret" in str(field.annotation) else f" = {problem['input']!r}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "literal_error":
        message = "unknown value"
    elif problem["type"] == "tuple_type" and len(path) == 1:
        message = f"is an array of tables: write [[{key}]] above each"
    elif problem["type"] == "model_type" and len(path) == 1:
        message = f"is a table: write [{key}] above its keys"
    elif message.startswith("Input should be "):
        message = f"must be {message.removeprefix('Input should be ')}"
    range_ = allowed(field) if field is not None else ""
    near = nearest(str(problem["input"]), choices(field)) if field is not None else None
    return (
        f"{key}{value}: {message}"
        + (f"; allowed is {range_}" if range_ else "")
        + (f"; nearest is {near}" if near else "")
    )


def _choice(name: str, names: Iterable[str]) -> str:
    known = tuple(names)
    near = nearest(name, known)
    return (f"; nearest is {near}" if near else "") + (f"; there are {', '.join(known)}" if known else "")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar of ``names``, or None if nothing is similar."""
    by_folded = {known.casefold(): known for known in names}
    close = difflib.get_close_matches(name.casefold(), tuple(by_folded), n=1, cutoff=0.6)
    return by_folded[close[0]] if close else None


def _item_model(annotation: Any) -> type[BaseModel] | None:
    """The model in ``Model`` or ``tuple[Model, ...]``."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def fields_at(model: type[BaseModel], path: Path) -> Mapping[str, FieldInfo]:
    """The keys of the section at ``path``; none where it is no section."""
    current: type[BaseModel] | None = model
    for part in path:
        if current is None or isinstance(part, int):
            continue
        field = current.model_fields.get(part)
        current = _item_model(field.annotation) if field else None
    return current.model_fields if current else {}


def _field_at(model: type[BaseModel], path: Path) -> FieldInfo | None:
    names = [part for part in path if isinstance(part, str)]
    for n in range(len(names), 0, -1):
        if field := fields_at(model, tuple(names[: n - 1])).get(names[n - 1]):
            return field
    return None


def _literal(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) in (tuple, Annotated):
        return next((found for part in get_args(annotation) if (found := _literal(part))), ())
    return ()


def choices(field: FieldInfo | None) -> tuple[str, ...]:
    """The words of which a key takes one; none where it takes others."""
    return tuple(str(value) for value in _literal(field.annotation)) if field is not None else ()


def allowed(field: FieldInfo) -> str:
    """What a key may hold, in words: its range or its choices."""
    words = choices(field)
    if words:
        text = ", ".join(f'"{word}"' for word in words)
        return f"any of {text}" if get_origin(field.annotation) is tuple else text
    if field.annotation is bool:
        return "true or false"
    bounds: dict[str, Any] = {}
    for constraint in field.metadata:
        for name in ("ge", "gt", "le"):
            value = getattr(constraint, name, None)
            if value is not None:
                bounds[name] = value
    low = str(bounds["ge"]) if "ge" in bounds else f"above {bounds['gt']}" if "gt" in bounds else ""
    if low and "le" in bounds:
        return f"{low} to {bounds['le']}"
    if low:
        return low if low.startswith("above") else f"{low} or more"
    return ""
