"""Attribute matching, PS3.4 §C.2.2.2: what a key value of a request means, and whether a stored value fits.

``parse_match`` reads one key attribute and gives a match, or None for universal matching. Matches are data: the index
compiles them to SQL (index/select.py), and where SQL can only narrow, ``acceptor`` decides row by row. Both compare
normal forms (archive/normalise.py), so one day written in two ways is one day.
"""

import re
from calendar import monthrange
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pacslite.archive.extra import AnyKey, ExtraKey
from pacslite.archive.normalise import (
    NUMBER_SIZES,
    ONE_VALUE_VRS,
    normalise,
    normalise_date,
    normalise_datetime,
    normalise_name,
    time_bounds,
)
from pacslite.archive.phonetic import words_and_codes
from pacslite.dataset.decode import IdentifierError

__all__ = [
    "WILDCARD_VRS",
    "Between",
    "Either",
    "Like",
    "Match",
    "NameLike",
    "OneOf",
    "Sounds",
    "acceptor",
    "compile_pattern",
    "is_exact",
    "parse_match",
    "tag_text",
]

WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})  # §C.2.2.2.4
_MOST_VALUES = 64  # in a list other than of UIDs
_LONGEST_PATTERN = 4096  # SQLite takes 50,000 bytes; nothing in a header that is searched is as long as this


@dataclass(frozen=True, slots=True)
class OneOf:
    """Single value matching (§C.2.2.2.1), list of UID matching (§C.2.2.2.2), and lists of other values likewise."""

    values: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """Wild card matching (§C.2.2.2.4); ``*`` is any number of characters, ``?`` one, all others themselves."""

    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """Range matching (§C.2.2.2.5) of normal forms; both ends belong to the range, None is an open end."""

    low: str | None
    high: str | None


@dataclass(frozen=True, slots=True)
class NameLike:
    """A person name, folded, by single value or wildcards. ``names`` has one or more; each is its component groups.

    A name of one group fits any group of the stored name; of several, each that is not empty fits its own. An empty
    tuple of patterns is a group that asks for nothing; one group of each name asks for something.
    """

    names: tuple[tuple[tuple[str, ...], ...], ...]


@dataclass(frozen=True, slots=True)
class Sounds:
    """Fuzzy semantic matching of a person name: each word with its codes must be found in the stored name."""

    words: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Either:
    """A list of values that are matched in different ways: any may fit."""

    matches: tuple["Match", ...]


Match = OneOf | Like | Between | NameLike | Sounds | Either


def parse_match(tag: int, vr: str, text: str, *, fuzzy: bool = False) -> Match | None:
    """Read the value of a key attribute.

    Args:
        text: Decoded, padding stripped, not empty; values joined by a backslash. Binary numbers as digits.
        fuzzy: Fuzzy semantic matching of person names was negotiated.
    Returns:
        None where every value matches, an empty one too (§C.2.2.2.3, and ``*`` alone by §C.2.2.2.4, of a name in all
        its components and groups).
    Raises:
        IdentifierError: No value or range of this VR; the comment says which attribute and why.
    """
    if len(text) > _LONGEST_PATTERN and vr != "UI":
        raise IdentifierError(f"{tag_text(tag)} is longer than {_LONGEST_PATTERN} characters", offending=(tag,))
    values = [text] if vr in ONE_VALUE_VRS else [value.strip(" ") for value in text.split("\\")]
    values = [value for value in dict.fromkeys(values) if value]
    if not values or any(not value.strip("*") for value in values):
        return None
    if len(values) > _MOST_VALUES and vr != "UI":
        raise IdentifierError(f"{tag_text(tag)} has more than {_MOST_VALUES} values", offending=(tag,))
    if vr == "PN":
        return _parse_names(values, fuzzy)
    if vr in _RANGED:
        return _either([_parse_moment(tag, vr, value) for value in values])
    if vr in WILDCARD_VRS:
        plain = tuple(value for value in values if not _has_wildcard(value))
        patterns = tuple(value for value in values if _has_wildcard(value))
        return _either([OneOf(plain)] * bool(plain) + [Like(patterns)] * bool(patterns))
    return OneOf(tuple(_normal_form(tag, vr, value) for value in values))


def acceptor(match: Match, *, multiple: bool) -> Callable[[str | int | None], bool]:
    """A test for stored values in their normal form; of several values, joined by a backslash, any may fit (§C.2.2.3).

    An absent value fits nothing: whether the unknown matches (§C.2.2.1.2) is the caller's option.
    """
    if isinstance(match, OneOf):
        wanted = frozenset(match.values)
        accept: Callable[[str], bool] = wanted.__contains__
    else:
        wanted = frozenset()
        accept = _acceptor(match)

    def accepts(value: str | int | None) -> bool:
        if isinstance(value, str):
            return any(map(accept, value.split("\\"))) if multiple and "\\" in value else accept(value)
        return value is not None and value in wanted

    return accepts


def is_exact(key: AnyKey, match: Match) -> bool:
    """Does a comparison of the column say all? Otherwise it finds a little too much, and ``acceptor`` decides."""
    if isinstance(key, ExtraKey) and not key.complete:
        return False
    match match:
        case Like():
            return not key.multiple
        case NameLike():
            return isinstance(key, ExtraKey)  # stars end with their component group, which there has a row of its own
        case Sounds(words):
            return key.keyword == "PatientName" and all(codes for _, codes in words)
        case Either(matches):
            return all(is_exact(key, one) for one in matches)
        case _:
            return True


def tag_text(tag: int) -> str:
    """A tag as the standard writes it."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


# Reading


def _parse_names(values: Sequence[str], fuzzy: bool) -> Match | None:
    if fuzzy and not any(map(_has_wildcard, values)):
        words = [words_and_codes(value) for value in values]
        return _either([Sounds(tuple(of_one)) for of_one in words if of_one])
    folded = [form for value in values if (form := normalise_name(value))]
    names = tuple(tuple(_group(group) for group in form.split("=")) for form in folded)
    return NameLike(names) if names and all(map(any, names)) else None


def _group(pattern: str) -> tuple[str, ...]:
    """Patterns of a component group: ``smith^*`` is also plain ``smith``, as trailing delimiters may be left out.

    So ``*^*`` is also ``*``, and asks for nothing.
    """
    patterns = [re.sub(r"\*+", "*", pattern)]
    while patterns[-1].endswith("^*"):
        patterns.append(patterns[-1][:-2].rstrip("^"))
    return () if patterns[-1] == "*" else tuple(filter(None, patterns))


def _parse_moment(tag: int, vr: str, value: str) -> Match:
    """DA, TM, DT: a single value, or a range if there is a hyphen that is not the sign of an offset from UTC."""
    if (form := normalise(vr, value)) is not None and not (vr == "DT" and _is_range_of_years(value)):
        return OneOf((form,))
    found = _RANGED[vr].fullmatch(value)
    if found is None or not (found[1] or found[2]):
        raise IdentifierError(f"{tag_text(tag)} is no {_NOUN[vr]} or range", offending=(tag,))
    low, high = (part.strip() for part in (found[1], found[2]))
    bounds = _BOUNDS[vr]
    low_bounds, high_bounds = bounds(low) if low else None, bounds(high) if high else None
    if (low and low_bounds is None) or (high and high_bounds is None):
        raise IdentifierError(f"{tag_text(tag)} is no range of {_NOUN[vr]}s", offending=(tag,))
    return Between(low_bounds and low_bounds[0], high_bounds and high_bounds[1])


def _is_range_of_years(value: str) -> bool:
    """What looks like an offset is a year if it is beyond -1200 to +1400 (PS3.5 §6.2): ``2024-2025``."""
    found = _DATETIME_PARTS.fullmatch(value)
    return found is not None and found[3] is not None and not -1200 <= int(found[3]) <= 1400


def _date_bounds(text: str) -> tuple[str, str] | None:
    date = normalise_date(text)
    return (date, date) if isinstance(date, str) else None


def _datetime_bounds(text: str) -> tuple[str, str] | None:
    """First and last moment that a DT of limited precision names, in UTC if it has an offset."""
    found = _DATETIME_PARTS.fullmatch(text)
    low = normalise_datetime(text)
    if found is None or low is None:
        return None
    digits, fraction, offset = found[1], found[2] or "", found[3] or ""
    if len(digits) == 4:
        digits += "12"
    if len(digits) == 6:
        digits += f"{monthrange(int(digits[:4]), int(digits[4:]))[1]:02d}"
    digits += "235959"[len(digits) - 8 :]
    high = normalise_datetime(f"{digits}.{fraction.ljust(6, '9')}{offset}")
    return (low, high) if high is not None else None


def _normal_form(tag: int, vr: str, value: str) -> str | int:
    form = normalise("IS" if vr in NUMBER_SIZES else vr, value)
    if form is None:
        raise IdentifierError(f"{tag_text(tag)} is no {_NOUN.get(vr, vr)}", offending=(tag,))
    return form


def _either(matches: Sequence[Match]) -> Match | None:
    if len(matches) > 1 and all(isinstance(match, OneOf) for match in matches):
        return OneOf(tuple(value for match in matches if isinstance(match, OneOf) for value in match.values))
    return matches[0] if len(matches) == 1 else Either(tuple(matches)) if matches else None


def _has_wildcard(value: str) -> bool:
    return "*" in value or "?" in value


_NOUN = {"DA": "date", "TM": "time", "DT": "datetime", "IS": "integer", "DS": "decimal"}
_PLAIN_RANGE = re.compile(r"([^-]*)-([^-]*)")
_MOMENT = r"\d{4,14}(?:\.\d{1,6})?(?:[+-]\d{4})?"
_DATETIME_PARTS = re.compile(r"(\d{4}(?:\d\d){0,5})(?:\.(\d{1,6}))?([+-]\d{4})?")
_RANGED = {
    "DA": _PLAIN_RANGE,
    "TM": _PLAIN_RANGE,
    "DT": re.compile(rf" *((?:{_MOMENT})?) *- *((?:{_MOMENT})?) *"),
}
_BOUNDS: dict[str, Callable[[str], tuple[str, str] | None]] = {
    "DA": _date_bounds,
    "TM": time_bounds,
    "DT": _datetime_bounds,
}


# Deciding


def _acceptor(match: Match) -> Callable[[str], bool]:
    match match:
        case OneOf(values):
            return frozenset(values).__contains__
        case Like(patterns):
            compiled = [compile_pattern(pattern) for pattern in patterns]
            return lambda value: any(pattern.fullmatch(value) for pattern in compiled)
        case Between(low, high):
            return lambda value: (low is None or low <= value) and (high is None or value <= high)
        case NameLike(names):
            return lambda value: any(_name_fits(name, value.split("=")) for name in names)
        case Sounds(words):
            return lambda value: _sounds_fit(words, value)
        case Either(matches):
            acceptors = [_acceptor(one) for one in matches]
            return lambda value: any(accept(value) for accept in acceptors)


def _name_fits(wanted: Sequence[Sequence[str]], groups: Sequence[str]) -> bool:
    if len(wanted) == 1:
        return any(_group_fits(wanted[0], group) for group in groups)
    return all(
        not patterns or (place < len(groups) and _group_fits(patterns, groups[place]))
        for place, patterns in enumerate(wanted)
    )


def _group_fits(patterns: Sequence[str], group: str) -> bool:
    return any(compile_pattern(pattern).fullmatch(group) for pattern in patterns)


def _sounds_fit(words: Sequence[tuple[str, Sequence[str]]], value: str) -> bool:
    stored = words_and_codes(value)
    codes = {code for _, of_word in stored for code in of_word}
    spelt = {word for word, _ in stored}
    return all(word in spelt or not codes.isdisjoint(of_word) for word, of_word in words)


@lru_cache(512)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """``*`` and ``?`` as a regular expression, to be matched in full.

    Groups are atomic: what a star skips is skipped once, so no pattern takes more than linear time.
    """
    head, *rest = (re.escape(part).replace(r"\?", ".") for part in re.sub(r"\*+", "*", pattern).split("*"))
    if not rest:
        return re.compile(head, re.DOTALL)
    *middle, tail = rest
    return re.compile(head + "".join(f"(?>.*?{part})" for part in middle) + ".*" + tail, re.DOTALL)
