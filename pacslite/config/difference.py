"""Which keys differ between two configurations."""

from collections.abc import Iterator

from pydantic import BaseModel

__all__ = ["changed_keys"]


def changed_keys(running: BaseModel, wanted: BaseModel) -> list[str]:
    """The keys of which ``wanted`` has another value, as the configuration file spells them: ``storage.durability``.

    Tables of which there may be several (``[[remote]]``) are one key.
    """
    return list(_changed(running, wanted, ""))


def _changed(running: BaseModel, wanted: BaseModel, prefix: str) -> Iterator[str]:
    for name in type(running).model_fields:
        before, after = getattr(running, name), getattr(wanted, name)
        if isinstance(before, BaseModel) and isinstance(after, BaseModel):
            yield from _changed(before, after, f"{prefix}{name}.")
        elif before != after:
            yield prefix + name
