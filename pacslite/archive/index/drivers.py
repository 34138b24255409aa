"""Which index a query walks along, and in which order its answers come.

A query has one *driver*: the filter that leaves least, asked of an index in an order that the index itself gives, so
that a page costs what it holds and the next one begins where the last ended. A driver is one or more *branches*, walked
one after the other: the component groups of a name; then, with ``match_unknown``, the rows that have no value.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache, partial
from typing import NamedTuple

from sqlalchemy import ColumnElement, FromClause, Integer, and_, column, not_, table, true

from pacslite.archive.criteria import Filter, MomentFilter, Query
from pacslite.archive.extra import AnyKey, ExtraKey
from pacslite.archive.index import extras
from pacslite.archive.index.predicates import (
    TABLES,
    Predicate,
    between,
    column_of,
    condition,
    literal_prefix,
    one_of,
    plain_column_of,
    prefix_end,
    unindexed,
)
from pacslite.archive.index.schema import has_second_group, has_third_group, second_group, third_group
from pacslite.archive.index.trigrams import (
    followed,
    longest_run,
    pair_of_names,
    trigrams_of_names,
    trigrams_of_pair,
    trigrams_of_sounds,
)
from pacslite.archive.keys import UNIQUE_KEY, Key, Level
from pacslite.archive.matching import Between, Either, Like, NameLike, OneOf, Sounds, acceptor

__all__ = ["Branch", "Through", "choose_driver", "walks_of_values"]

TRIGRAMS = table("patient_name_trigram", column("rowid", Integer), column("patient_name_trigram"))

MODALITIES_IN_STUDY = 0x00080061
_UNIQUE_TAGS = {UNIQUE_KEY[Level.STUDY].tag, UNIQUE_KEY[Level.IMAGE].tag}
_NO_DRIVER = 100


class Through(NamedTuple):
    """A table beside those of the levels that gives the ids of one: the walk begins there, in the order of ``id``."""

    table: FromClause
    id: ColumnElement[int]


class Branch(NamedTuple):
    """A walk along an index of the table of ``level``.

    ``order``: in order of this expression, then of the id; None, of the id alone. ``low`` is where the walk begins,
    replaced by the place reached when it goes on; ``rest`` holds all along, and so does ``high``, where it ends, which
    is not said again of values that are the same as one before. ``along`` names the index where
    the planner has a choice, ``through`` a table that comes before. ``reads_all``: nothing bounds it, it may read very
    much to find very little. ``few_values``: the column has so few that a walk over each that fits
    (``walks_of_values``) is better.
    """

    name: str
    level: Level
    order: ColumnElement[str] | None = None
    low: Predicate | None = None
    rest: tuple[Predicate, ...] = ()
    along: str | None = None
    through: Through | None = None
    high: tuple[Predicate, ...] = ()
    reads_all: bool = False
    few_values: Filter | None = None


class _Driver(NamedTuple):
    rank: int  # the least is chosen
    source: Filter | MomentFilter | None  # what its branches are made of; they decide a filter, and narrow moments
    branches: tuple[Branch, ...]


def choose_driver(query: Query) -> tuple[Filter | None, tuple[Branch, ...]]:
    """The branches to walk, and the filter that they decide: it needs not be asked again.

    Raises:
        ValueError: An order that no index gives.
    """
    if query.order is not None:
        return _in_order_of(query.order, query)
    drivers = [_Driver(_NO_DRIVER, None, (Branch("all", query.level, reads_all=True),))]
    drivers += [driver for one in query.filters if (driver := _of_filter(one)) is not None]
    drivers += [_of_moment(one) for one in query.moments if _is_indexed(one.date) and one.dates != Between(None, None)]
    best = min(drivers, key=lambda driver: driver.rank)
    decided = best.source if isinstance(best.source, Filter) else None
    if not query.options.match_unknown or best.source is None:
        return decided, best.branches
    walked = best.source.key if isinstance(best.source, Filter) else best.source.date
    return decided, (*best.branches, _unknown(walked))


def _in_order_of(key: Key, query: Query) -> tuple[Filter | None, tuple[Branch, ...]]:
    """Ascending by a key, whatever else would leave less; what has no value comes last."""
    if not key.indexed or key.level > query.level:
        raise ValueError(f"no order by {key.keyword} at level {query.level.name}")
    col, name = column_of(key.level, key.match), f"{key.level}.{key.match}"
    for one in query.filters:
        driver = _of_filter(one) if one.key == key and not query.options.match_unknown else None
        if driver is not None and len(driver.branches) == 1 and driver.branches[0].order is col:
            return one, driver.branches
    walk = Branch(f"order {name}", key.level, col, between(col, name, "", None), (), _index_of(key), reads_all=True)
    return None, (walk, _unknown(key))


_RANK_OF_LIST = {
    "SOPInstanceUID": 0,
    "SeriesInstanceUID": 1,
    "StudyInstanceUID": 2,
    "PatientID": 3,
    "AccessionNumber": 4,
    "StudyDate": 10,
    "PerformedProcedureStepStartDate": 11,
    "PatientBirthDate": 12,
    "StudyDescription": 27,
    "StudyID": 30,  # "1" as often as not
    "Modality": 45,
}


def _of_filter(one: Filter) -> _Driver | None:
    key, match = one
    if isinstance(key, ExtraKey):
        return _of_extra(one, key) if key.complete else None
    if not _is_indexed(key):
        return None
    col, name = column_of(key.level, key.match), f"{key.level}.{key.match}"
    again = condition(key, plain_column_of(key.level, key.match), name, match)
    index = _index_of(key)
    branch = Branch(f"along {name}", key.level, col, None, (again,), index, reads_all=True)
    if key.tag == MODALITIES_IN_STUDY:
        return _Driver(50, one, (branch._replace(few_values=one),))
    walk = _Driver(60, one, (branch,))
    match match:
        case OneOf(values) if not key.multiple:
            rank = _RANK_OF_LIST.get(key.keyword, 40)
            found = one_of(col, name, values)
            return _Driver(rank, one, (Branch(f"of {name}", key.level, None, None, (found,), index),))
        case Between(low, high):
            low_end, rest = _ends(col, name, low, high)
            branch = Branch(f"range {name}", key.level, col, low_end, rest, index)
            return _Driver(_rank_of_span(low, high), one, (branch,))
        case Like((pattern,)) if not key.multiple and (prefix := literal_prefix(pattern)):
            low_end, rest = _prefixed(col, name, prefix, prefix_end(prefix))
            branch = Branch(f"prefix {name}", key.level, col, low_end, (*rest, again), index)
            return _Driver(_rank_of_prefix(prefix), one, (branch,))
        case NameLike((groups,)) if driver := _of_name(one, name, groups, again):
            return driver
        case NameLike(names) if key.keyword == "PatientName" and (words := trigrams_of_names(names)):
            return _Driver(13 if longest_run(names) > 4 else 17, one, (_of_trigrams(words, again),))
        case NameLike(names) if key.keyword == "PatientName" and (pair := pair_of_names(names)):
            return _Driver(29, one, _of_pair(pair, branch))
        case Sounds(words) if key.keyword == "PatientName" and (wanted := trigrams_of_sounds(words)):
            return _Driver(19, one, (_of_trigrams(wanted, again),))
        case _:
            return walk


_TRIGRAMS_FIRST = Through(TRIGRAMS, TRIGRAMS.c.rowid)
_EXTRA_FIRST = Through(extras.DRIVER, extras.DRIVER.c.owner)
_FEW_VALUED_VRS = frozenset({"AE", "AS", "CS", "DS", "IS", "SS", "US", "SL", "UL", "SV", "UV"})


def _of_extra(one: Filter, key: ExtraKey) -> _Driver:
    """Walk along the values of an extra key, in their order; a list, and fuzzy names, in the order of the entities."""
    match = one.match
    form, name = extras.DRIVER.c.form, f"extra {key.id}"
    fits = extras.extra_condition(key, extras.DRIVER, match)
    once = extras.named_once(key, extras.earlier_condition(key, match))
    branch = Branch(name, key.level, form, None, (extras.of_key(key), fits, once), extras.ALONG, _EXTRA_FIRST)
    is_selective = key.vr not in _FEW_VALUED_VRS
    match match:
        case OneOf(values):
            once_needed = (once,) if len(values) > 1 else ()
            listed = extras.extra_condition(key, extras.DRIVER, match, seek=True)
            found = branch._replace(order=None, rest=(extras.of_key(key), listed, *once_needed))
            return _Driver(9 if is_selective else 42, one, (found,))
        case Between(low, high):
            low_end, rest = _ends(form, name, low, high)
            walk = branch._replace(low=low_end or _begin(form, name), high=rest)
            return _Driver(_rank_of_span(low, high) + 1, one, (walk,))
        case Like((pattern,)) if prefix := literal_prefix(pattern):
            low_end, rest = _prefixed(form, name, prefix, prefix_end(prefix))
            return _Driver(_rank_of_prefix(prefix) + 1, one, (branch._replace(low=low_end, high=rest),))
        case NameLike((groups,)) if all(map(literal_prefix, groups[_first(groups)])):
            low, high = _span_of(groups[_first(groups)])
            low_end, rest = _prefixed(form, name, low, high)
            return _Driver(_rank_of_prefix(low) + 1, one, (branch._replace(low=low_end, high=rest),))
        case Sounds() | Either(matches=(Sounds(), *_)):
            whole = branch._replace(order=None, rest=(extras.of_key(key), fits), along=None, reads_all=True)
            return _Driver(62, one, (whole,))
        case _:
            return _Driver(61, one, (branch._replace(low=_begin(form, name), reads_all=True),))


def _begin(col: ColumnElement[str], name: str) -> Predicate:
    """Behind the rows that have no normal form."""
    return between(col, name, "", None)


def _first(groups: Sequence[Sequence[str]]) -> int:
    return next(place for place, group in enumerate(groups) if group)


def _span_of(patterns: Sequence[str]) -> tuple[str, str | None]:
    """From where to where names, or component groups, stand that fit one of the patterns, each with a prefix."""
    prefixes = [literal_prefix(pattern) for pattern in patterns]
    ends = [
        prefix_end(prefix) if prefix != pattern else f"{prefix}>"  # up to ``=``, that ends a group
        for prefix, pattern in zip(prefixes, patterns, strict=True)
    ]
    return min(prefixes), None if None in ends else max(end for end in ends if end is not None)


def walks_of_values(branch: Branch, values: Sequence[str]) -> tuple[Branch, ...]:
    """A walk for each of all ``values`` of the column that fits what ``few_values`` asks."""
    if branch.few_values is None:
        return (branch,)
    key, match = branch.few_values
    accept = acceptor(match, multiple=key.multiple)
    col, name = column_of(key.level, key.match), f"{key.level}.{key.match}"
    return tuple(
        Branch(f"of {name}", key.level, None, None, (one_of(col, name, [value]),), branch.along)
        for value in values
        if accept(value)
    )


def _of_moment(one: MomentFilter) -> _Driver:
    """Walk the dates; of another timezone a day more at each end."""
    col, name = column_of(one.date.level, one.date.match), f"{one.date.level}.{one.date.match}"
    low, high = one.dates.low, one.dates.high
    if one.offset is not None:
        low, high = low and _days_later(low, -1), high and _days_later(high, 1)
    low_end, rest = _ends(col, name, low, high)
    branch = Branch(f"range {name}", one.date.level, col, low_end, rest, _index_of(one.date))
    return _Driver(_rank_of_span(low, high), one, (branch,))


def _of_name(one: Filter, name: str, groups: Sequence[Sequence[str]], again: Predicate) -> _Driver | None:
    """Walk names that begin as the pattern does: the first group, then the others, each without what came before."""
    at = _first(groups)
    prefixes = [literal_prefix(pattern) for pattern in groups[at]]
    if not all(prefixes):
        return None
    low, high = _span_of(groups[at])
    branches = []
    for place, (expression, _, exists) in enumerate(expressions := _groups_of(one.key.level, one.key.match)):
        if len(groups) > 1 and place != at:
            continue
        low_end, rest = _prefixed(expression, f"{name}.{place}", low, high)
        earlier = [before for _, before, _ in expressions[:place]] if len(groups) == 1 else []
        conditions = [*rest, again, _elsewhere(f"{name}.{place}", earlier, low, high)]
        if place:
            conditions.append(exists)
        index = f"{_index_of(one.key)}{('', '_second', '_third')[place]}"
        branches.append(Branch(f"name {name}.{place}", one.key.level, expression, low_end, tuple(conditions), index))
    is_exact = all(prefix == pattern for prefix, pattern in zip(prefixes, groups[at], strict=True))
    return _Driver(7 if is_exact else _rank_of_prefix(low), one, tuple(branches))


@cache
def _groups_of(level: Level, name: str) -> tuple[tuple[ColumnElement[str], ColumnElement[str], Predicate], ...]:
    """Of each component group: what its index is over, the same kept from the index, and that there is one."""
    col = column_of(level, name)
    groups = (
        (col, true()),
        (second_group(col), has_second_group(col)),
        (third_group(col), has_third_group(col)),
    )
    return tuple(
        (group, unindexed(group), Predicate(f"group {place}", (), partial(_given, exists)))
        for place, (group, exists) in enumerate(groups)
    )


def _given(condition: ColumnElement[bool], _: Sequence[object]) -> ColumnElement[bool]:
    return condition


def _elsewhere(name: str, earlier: Sequence[ColumnElement[str]], low: str, high: str | None) -> Predicate:
    """Not in the range of an earlier branch. Where a later group exists, the earlier ones do."""
    values = tuple(end for _ in earlier for end in (low, high) if end is not None)
    width = 1 if high is None else 2

    def build(binds: Sequence[ColumnElement[object]]) -> ColumnElement[bool]:
        ranges = []
        for number, expression in enumerate(earlier):
            ends = binds[number * width : (number + 1) * width]
            ranges.append(not_(and_(expression >= ends[0], *(expression < end for end in ends[1:]))))
        return and_(true(), *ranges)

    return Predicate(("elsewhere", name, width, len(earlier)), values, build)


def _of_trigrams(words: str, *again: Predicate) -> Branch:
    found = Predicate("trigrams", (words,), lambda binds: TRIGRAMS.c.patient_name_trigram.op("MATCH")(binds[0]))
    return Branch("trigrams", Level.PATIENT, None, None, (found, *again), through=_TRIGRAMS_FIRST)


def _of_pair(pair: str, walk: Branch) -> tuple[Branch, Branch]:
    """Names in which a pair is followed by a common character, and then those in which it is not."""
    name = plain_column_of(Level.PATIENT, "patient_name_key")
    is_followed = Predicate("followed", (followed(pair),), lambda binds: name.op("GLOB", is_comparison=True)(binds[0]))
    is_not = Predicate("not followed", is_followed.values, lambda binds: not_(is_followed.build(binds)))
    return (
        _of_trigrams(trigrams_of_pair(pair), *walk.rest, is_followed),
        walk._replace(rest=(*walk.rest, is_not)),
    )


def _unknown(key: AnyKey) -> Branch:
    if isinstance(key, ExtraKey):
        return Branch(f"unknown extra {key.id}", key.level, None, None, (extras.absent(key),), reads_all=True)
    col = column_of(key.level, key.match)
    absent = Predicate("absent", (), lambda _: col.is_(None))
    return Branch(f"unknown {key.level}.{key.match}", key.level, None, None, (absent,), _index_of(key))


def _ends(
    col: ColumnElement[str], name: str, low: str | None, high: str | None
) -> tuple[Predicate | None, tuple[Predicate, ...]]:
    low_end = between(col, name, low, None) if low is not None else None
    if high is not None:
        return low_end, (between(col, name, None, high),)
    # an open range begins after the values that are unknown
    return low_end, ()


def _prefixed(
    col: ColumnElement[str], name: str, low: str, high: str | None
) -> tuple[Predicate, tuple[Predicate, ...]]:
    rest = (Predicate(("below", name), (high,), lambda binds: col < binds[0]),) if high is not None else ()
    return between(col, name, low, None), rest


def _is_indexed(key: AnyKey) -> bool:
    return key.indexed


def _index_of(key: AnyKey) -> str | None:
    """The index over the column; the one behind a uniqueness constraint has no name and no rival."""
    if key.tag in _UNIQUE_TAGS:
        return None
    return f"ix_{TABLES[key.level].name}_{key.match}"


def _rank_of_prefix(prefix: str) -> int:
    return {1: 28, 2: 24, 3: 16}.get(len(prefix), 14)


def _rank_of_span(low: str | None, high: str | None) -> int:
    if low is None or high is None:
        return 41
    try:
        days = (date.fromisoformat(high) - date.fromisoformat(low)).days
    except ValueError:
        return 40
    return 10 if days <= 7 else 18 if days <= 31 else 22 if days <= 366 else 40


def _days_later(day: str, days: int) -> str:
    try:
        return f"{date.fromisoformat(day) + timedelta(days=days):%Y%m%d}"
    except (ValueError, OverflowError):
        return day
