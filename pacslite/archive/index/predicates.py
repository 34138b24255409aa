"""What a filter is in SQL: a condition, the values bound in it, and a shape under which its compiled text is kept.

A condition says exactly what ``matching.acceptor`` says, or (``matching.is_exact``) a little more. Everything asked is
a bound value: ``%``, ``_`` and ``[`` are characters like others, ``*`` and ``?`` mean in GLOB what they mean in DICOM
(PS3.4 §C.2.2.2.4), and GLOB knows case.
"""

import json
import re
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    FromClause,
    Text,
    and_,
    column,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from pacslite.archive.criteria import Filter, MomentFilter
from pacslite.archive.extra import AnyKey
from pacslite.archive.index.schema import instance, patient, series, study
from pacslite.archive.keys import Level
from pacslite.archive.matching import Between, Either, Like, Match, NameLike, OneOf, Sounds

__all__ = [
    "PARENT",
    "TABLES",
    "Build",
    "Predicate",
    "all_of",
    "any_of",
    "between",
    "column_of",
    "condition",
    "filter_predicate",
    "like_any",
    "literal_prefix",
    "lower_predicate",
    "moment_predicate",
    "one_of",
    "plain_column_of",
    "prefix_end",
    "unindexed",
]

PARENT = {Level.STUDY: "patient_fk", Level.SERIES: "study_fk", Level.IMAGE: "series_fk"}
TABLES = {Level.PATIENT: patient, Level.STUDY: study, Level.SERIES: series, Level.IMAGE: instance}

Build = Callable[[Sequence[BindParameter[object]]], ColumnElement[bool]]


class Predicate(NamedTuple):
    """``build`` is called once a shape, with a bind parameter for each of ``values``."""

    shape: Hashable
    values: tuple[object, ...]
    build: Build


class unindexed(FunctionElement[str]):  # noqa: N801 (a function of SQL)
    """A column that no index may be used for: another drives the query."""

    type = Text()
    inherit_cache = True


@compiles(unindexed)
def _plain(element: FunctionElement[str], compiler: SQLCompiler, **options: object) -> str:
    return compiler.process(next(iter(element.clauses)), **options)


@compiles(unindexed, "sqlite")
def _unary_plus(element: FunctionElement[str], compiler: SQLCompiler, **options: object) -> str:
    return f"+{compiler.process(next(iter(element.clauses)), **options)}"


def column_of(level: Level, name: str) -> ColumnElement[str]:
    """A column of the table of ``level``."""
    return TABLES[level].c[name]


@cache
def plain_column_of(level: Level, name: str) -> ColumnElement[str]:
    """The same, kept from any index: another drives the query."""
    return unindexed(column_of(level, name))


def filter_predicate(one: Filter, *, unknown: bool) -> Predicate:
    """The condition of a filter that does not drive the query."""
    key = one.key
    name = f"{key.level}.{key.match}"
    col = plain_column_of(key.level, key.match)
    predicate = condition(key, col, name, one.match)
    if not unknown:
        return predicate
    build = predicate.build
    return Predicate(("unknown", predicate.shape), predicate.values, lambda binds: or_(build(binds), col.is_(None)))


def moment_predicate(one: MomentFilter, *, unknown: bool) -> Predicate:
    """Combined ranges as SQL; in another timezone the days that may hold what is asked."""
    date = plain_column_of(one.date.level, one.date.match)
    time = plain_column_of(one.time.level, one.time.match)
    dates, times = one.dates, one.times
    parts: list[Predicate] = []
    if one.offset is not None:
        return Predicate("any moment", (), lambda _: true())  # the driver narrows, the sieve decides
    if dates.low is not None and times.low is not None:
        parts.append(
            Predicate(
                "low", (dates.low, dates.low, times.low), lambda b: (date > b[0]) | ((date == b[1]) & (time >= b[2]))
            )
        )
    if dates.high is not None and times.high is not None:
        parts.append(
            Predicate(
                "high",
                (dates.high, dates.high, times.high),
                lambda b: (date < b[0]) | ((date == b[1]) & (time <= b[2])),
            )
        )
    predicate = all_of(parts)
    shape = (one.date.tag, unknown, predicate.shape)
    build = predicate.build
    if not unknown:
        return Predicate(shape, predicate.values, build)
    days = between(date, one.date.keyword, dates.low, dates.high)
    width = len(predicate.values)

    def build_unknown(binds: Sequence[BindParameter[object]]) -> ColumnElement[bool]:
        return or_(build(binds[:width]), date.is_(None), and_(time.is_(None), days.build(binds[width:])))

    return Predicate(shape, (*predicate.values, *days.values), build_unknown)


def lower_predicate(level: Level, bottom: Level, conditions: Sequence[Predicate]) -> Predicate:
    """One of what is below an entity of ``level``, down to ``bottom``, fits in all of ``conditions``."""
    below = [one for one in Level if level < one <= bottom]
    predicate = all_of(conditions)
    tables: FromClause = TABLES[below[0]]
    for one in below[1:]:
        tables = tables.join(TABLES[one], TABLES[one].c[PARENT[one]] == TABLES[Level(one - 1)].c.id)
    of_entity = TABLES[below[0]].c[PARENT[below[0]]] == TABLES[level].c.id

    def build(binds: Sequence[BindParameter[object]]) -> ColumnElement[bool]:
        return exists(select(1).select_from(tables).where(of_entity, predicate.build(binds)).correlate(TABLES[level]))

    return Predicate(("lower", level, bottom, predicate.shape), predicate.values, build)


def condition(key: AnyKey, col: ColumnElement[str], name: str, match: Match) -> Predicate:
    """``match`` asked of a column."""
    match match:
        case OneOf(values):
            return _contains(col, name, values) if key.multiple else one_of(col, name, values)
        case Like(patterns):
            return _like(col, name, patterns, multiple=key.multiple)
        case Between(low, high):
            return between(col, name, low, high)
        case NameLike(names):
            return any_of([_name_like(col, name, groups) for groups in names])
        case Sounds(words):
            return _sounds(key, col, name, words)
        case Either(matches):
            return any_of([condition(key, col, name, one) for one in matches])


def one_of(col: ColumnElement[str], name: str, values: Sequence[str | int]) -> Predicate:
    """Equal to one of ``values``; a list of any length is one bound value."""
    if len(values) == 1:
        return Predicate(("=", name), (values[0],), lambda binds: col == binds[0])
    return Predicate(
        ("in", name),
        (json.dumps(list(values)),),
        lambda binds: col.in_(select(func.json_each(binds[0]).table_valued(column("value", Text)).c.value)),
    )


def between(col: ColumnElement[str], name: str, low: str | None, high: str | None) -> Predicate:
    """Inclusive at both ends."""
    values = tuple(end for end in (low, high) if end is not None)

    def build(binds: Sequence[BindParameter[object]]) -> ColumnElement[bool]:
        parts = [col >= binds[0]] if low is not None else []
        parts += [col <= binds[-1]] if high is not None else []
        return and_(true(), *parts)

    return Predicate(("between", name, low is None, high is None), values, build)


def literal_prefix(pattern: str) -> str:
    """What stands before the first wildcard."""
    found = re.match(r"[^*?]*", pattern)
    return found[0] if found else ""


def prefix_end(prefix: str) -> str | None:
    """The least text above all that begin with ``prefix``, in order of code points (as SQLite's, of UTF-8 bytes)."""
    while prefix:
        last = ord(prefix[-1]) + 1
        if last <= 0x10FFFF:
            return prefix[:-1] + chr(0xE000 if 0xD800 <= last <= 0xDFFF else last)
        prefix = prefix[:-1]
    return None


def _contains(col: ColumnElement[str], name: str, values: Sequence[str | int]) -> Predicate:
    """One of several values is one of ``values``."""
    bounded = literal_column(r"'\'").concat(col).concat(literal_column(r"'\'"))
    return Predicate(
        ("contains", name, len(values)),
        tuple(f"\\{value}\\" for value in values),
        lambda binds: or_(*(func.instr(bounded, bind) > literal_column("0") for bind in binds)),
    )


def _like(col: ColumnElement[str], name: str, patterns: Sequence[str], *, multiple: bool) -> Predicate:
    if multiple:  # a star spans values here: the sieve decides
        values = tuple(form for pattern in patterns for form in _around(glob(pattern), r"[\]"))
        return _glob(col, name, values)
    return like_any(col, name, patterns)


def like_any(col: ColumnElement[str], name: str, patterns: Sequence[str]) -> Predicate:
    """One value fits one of the patterns."""
    return _glob(col, name, tuple(glob(pattern) for pattern in patterns))


def _name_like(col: ColumnElement[str], name: str, groups: Sequence[Sequence[str]]) -> Predicate:
    """Any value, and of a pattern of one group any group: a star spans them here, the sieve decides.

    Empty groups at the end ask for nothing: a name that ends before them fits, too.
    """
    last = max(place for place, group in enumerate(groups) if group)
    combinations = product(*(group or ("*",) for group in groups[: last + 1]))
    forms = [form for one in combinations for form in _around("=".join(map(glob, one)), r"[=\]")]
    return _glob(col, name, tuple(dict.fromkeys(forms)))


def _around(pattern: str, delimiter: str) -> list[str]:
    return [pattern, f"{pattern}{delimiter}*", f"*{delimiter}{pattern}", f"*{delimiter}{pattern}{delimiter}*"]


def _glob(col: ColumnElement[str], name: str, patterns: Sequence[str]) -> Predicate:
    return Predicate(
        ("glob", name, len(patterns)),
        tuple(patterns),
        lambda binds: or_(*(col.op("GLOB", is_comparison=True)(bind) for bind in binds)),
    )


def glob(pattern: str) -> str:
    """A DICOM pattern for GLOB, where an opening bracket would begin a set."""
    return re.sub(r"\*+", "*", pattern).replace("[", "[[]")


def _sounds(key: AnyKey, col: ColumnElement[str], name: str, words: Sequence[tuple[str, Sequence[str]]]) -> Predicate:
    if key.keyword != "PatientName":
        return Predicate("any name", (), lambda _: true())
    sounds = patient.c.patient_name_sounds
    parts = []
    for word, codes in words:
        if codes:
            parts.append(
                Predicate(
                    ("sounds", len(codes)),
                    tuple(f" {code} " for code in codes),
                    lambda binds: or_(*(func.instr(sounds, bind) > literal_column("0") for bind in binds)),
                )
            )
        else:
            parts.append(Predicate("word", (word,), lambda binds: func.instr(col, binds[0]) > literal_column("0")))
    predicate = all_of(parts)
    return Predicate((name, predicate.shape), predicate.values, predicate.build)


def any_of(parts: Sequence[Predicate]) -> Predicate:
    return _joined("any", parts, lambda conditions: or_(*conditions))


def all_of(parts: Sequence[Predicate]) -> Predicate:
    return _joined("all", parts, lambda conditions: and_(true(), *conditions))


def _joined(
    word: str, parts: Sequence[Predicate], join: Callable[[list[ColumnElement[bool]]], ColumnElement[bool]]
) -> Predicate:
    if len(parts) == 1:
        return parts[0]

    def build(binds: Sequence[BindParameter[object]]) -> ColumnElement[bool]:
        conditions = []
        at = 0
        for part in parts:
            conditions.append(part.build(binds[at : at + len(part.values)]))
            at += len(part.values)
        return join(conditions)

    return Predicate(
        (word, tuple(part.shape for part in parts)), tuple(value for part in parts for value in part.values), build
    )
