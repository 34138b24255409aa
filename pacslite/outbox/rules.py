"""Forwarding rules: which instances go on to which application entity.

A condition is a key attribute and what is asked of it, as in a query (PS3.4 §C.2.2.2): wildcards, ranges of dates,
names folded; several values are alternatives. A key is written as keyword (``StationName``), as column
(``station_name``) or as tag (``0008,1010``); ``calling_ae_title`` is who sent the instance. All conditions of a rule
must hold.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pacslite.archive.keys import KEY_OF_TAG, KEYS, Key
from pacslite.archive.matching import acceptor, parse_match
from pacslite.dataset.dictionary import tag_of
from pacslite.errors import DimseError, PacsliteError

__all__ = ["CALLING_AE_TITLE", "Condition", "Rule", "RuleError", "RuleSet", "key_named", "make_rule"]

CALLING_AE_TITLE = "calling_ae_title"

Value = str | int | None
_KEY_OF_COLUMN: Mapping[str, Key] = {key.column.rstrip("_"): key for key in KEYS}
_SOURCE_AE_TITLE = 0x00020016  # the attribute of PS3.10 that says the same
_PATTERN_VRS = {"UI": "*?"}  # a query matches no UID by wildcards, a rule has no reason to


class RuleError(PacsliteError):
    """A rule that cannot be understood; names the key."""

    exit_code = 2


class Condition(NamedTuple):
    """``key`` is None for the calling AE title."""

    key: Key | None
    accepts: Callable[[Value], bool]


class Rule(NamedTuple):
    """Instances that meet all of ``conditions`` go to the AE title ``to``."""

    to: str
    conditions: tuple[Condition, ...]


class RuleSet:
    """Rules, and the keys whose values they look at, in the order in which ``destinations`` takes them."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.rules = tuple(rules)
        keys = [one.key for rule in rules for one in rule.conditions if one.key is not None]
        self.keys: tuple[Key, ...] = tuple(dict.fromkeys(keys))

    def __bool__(self) -> bool:
        return bool(self.rules)

    def destinations(self, calling_ae_title: str | None, values: Sequence[Value]) -> list[str]:
        """Where an instance goes, each once, but never back to who sent it: two servers would send it for ever."""
        by_key: dict[Key | None, Value] = dict(zip(self.keys, values, strict=True))
        by_key[None] = calling_ae_title
        found = [
            rule.to
            for rule in self.rules
            if rule.to != calling_ae_title and all(one.accepts(by_key[one.key]) for one in rule.conditions)
        ]
        return list(dict.fromkeys(found))


def make_rule(to: str, when: Mapping[str, str | Sequence[str]]) -> Rule:
    """Read a rule as it is configured.

    Raises:
        RuleError: No such key, or a value that its VR does not have.
    """
    conditions = [_condition(name, value) for name, value in when.items()]
    return Rule(to, tuple(one for one in conditions if one is not None))


def key_named(name: str) -> Key:
    """The key attribute of that keyword, column or tag.

    Raises:
        RuleError: The index has none.
    """
    tag = tag_of(name)
    key = _KEY_OF_COLUMN.get(name.lower()) if tag is None else KEY_OF_TAG.get(tag)
    if key is None:
        raise RuleError(
            f"{name!r} is no key of the index; {CALLING_AE_TITLE}, Modality or station_name are, and others"
        )
    return key


# private


def _condition(name: str, value: str | Sequence[str]) -> Condition | None:
    key = None if name == CALLING_AE_TITLE else key_named(name)
    tag, vr, multiple = (_SOURCE_AE_TITLE, "AE", False) if key is None else (key.tag, key.vr, key.multiple)
    values = [value] if isinstance(value, str) else value
    if any(not one.strip() for one in values) or not values:
        raise RuleError(f"{name}: an empty value says nothing; leave the key out")
    if any(mark in one for one in values for mark in _PATTERN_VRS.get(vr, "")):
        vr = "LO"  # the same text, matched as text
    try:
        match = parse_match(tag, vr, "\\".join(values))
    except DimseError as error:
        raise RuleError(f"{name}: {error}") from error
    return None if match is None else Condition(key, acceptor(match, multiple=multiple))
