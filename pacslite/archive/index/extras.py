"""Extra keys in SQL: what is asked of ``extra_value``, where each value, or component group of a name, has a row.

A condition on a row is the whole truth (but for fuzzy names), so nothing is decided afterwards. A walk along the
values, the driver's, names an entity once: by the first of its rows that fits.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, and_, exists, literal_column, not_, or_, select, true
from sqlalchemy.sql.selectable import NamedFromClause

from pacslite.archive.criteria import Filter
from pacslite.archive.extra import GROUPS, ExtraKey
from pacslite.archive.index.predicates import (
    TABLES,
    Predicate,
    all_of,
    any_of,
    between,
    column_of,
    filter_predicate,
    like_any,
    one_of,
    unindexed,
)
from pacslite.archive.index.schema import extra_value
from pacslite.archive.keys import Level
from pacslite.archive.matching import Between, Either, Like, Match, NameLike, OneOf, Sounds

__all__ = [
    "ALONG",
    "DRIVER",
    "absent",
    "cell_of",
    "earlier_condition",
    "extra_condition",
    "named_once",
    "of_key",
    "predicate_of",
]

DRIVER = extra_value.alias("x")  # the rows that a query walks along
ALONG = "ix_extra_value_form"

_WITHIN = extra_value.alias("v")  # the rows of one entity
_EARLIER = extra_value.alias("w")
_GROUP = extra_value.alias("g")


def predicate_of(one: Filter, *, unknown: bool) -> Predicate:
    """The condition of a filter that does not drive the query, whatever its key."""
    key = one.key
    if not isinstance(key, ExtraKey):
        return filter_predicate(one, unknown=unknown)
    if not key.complete:
        return Predicate("not yet", (), lambda _: true())
    fits = extra_condition(key, _WITHIN, one.match)
    owner = TABLES[key.level].c.id

    def build(binds: Sequence[BindParameter[object]]) -> ColumnElement[bool]:
        rows = select(1).select_from(_WITHIN).where(_of_owner(_WITHIN, key, owner), fits.build(binds))
        found: ColumnElement[bool] = exists(rows.correlate(TABLES[key.level]))
        return or_(found, _is_absent(key)) if unknown else found

    return Predicate(("extra", key.id, key.level, unknown, fits.shape), fits.values, build)


def cell_of(level: Level, name: str) -> ColumnElement[Any]:
    """A column of a level's table, or the value of an extra key of that level."""
    if name in TABLES[level].c:
        return column_of(level, name)
    key_id: ColumnElement[int] = literal_column(str(int(name.removeprefix("extra "))))
    value = select(_WITHIN.c.value).where(
        _WITHIN.c.key_id == key_id, _WITHIN.c.owner == TABLES[level].c.id, _WITHIN.c.place == literal_column("0")
    )
    return value.correlate(TABLES[level]).scalar_subquery().label(name.replace(" ", "_"))


def of_key(key: ExtraKey) -> Predicate:
    """The rows of one key, in a walk."""
    return Predicate(("of key", key.id), (), lambda _: DRIVER.c.key_id == _id(key))


def named_once(key: ExtraKey, fits: Predicate) -> Predicate:
    """No earlier row of the entity fits: in a walk over several values none is met twice."""

    def build(binds: Sequence[BindParameter[object]]) -> ColumnElement[bool]:
        earlier = (
            select(1)
            .select_from(_EARLIER)
            .where(_of_owner(_EARLIER, key, DRIVER.c.owner), _EARLIER.c.place < DRIVER.c.place, fits.build(binds))
        )
        return not_(exists(earlier.correlate(DRIVER)))

    return Predicate(("once", key.id, fits.shape), fits.values, build)


def earlier_condition(key: ExtraKey, match: Match) -> Predicate:
    """``match`` of the rows that ``named_once`` looks at."""
    return extra_condition(key, _EARLIER, match)


def absent(key: ExtraKey) -> Predicate:
    """The entity has no value (PS3.4 §C.2.2.1.2)."""
    return Predicate(("absent", key.id, key.level), (), lambda _: _is_absent(key))


def extra_condition(key: ExtraKey, rows: NamedFromClause, match: Match, *, seek: bool = False) -> Predicate:
    """``match`` asked of a row; ``acceptor`` of the value, or of each component group, says the same.

    ``seek``: the index over the forms may be used for it, else it is only compared.
    """
    form: ColumnElement[str] = rows.c.form if seek else unindexed(rows.c.form)
    name = f"{rows.name} {key.id} {seek}"
    match match:
        case OneOf(values):
            return one_of(form, name, [str(value) for value in values])
        case Like(patterns):
            return like_any(form, name, patterns)
        case Between(low, high):
            return between(form, name, low, high)
        case NameLike(names):
            return any_of([_name_condition(key, rows, form, name, groups) for groups in names])
        case Sounds():
            return Predicate("any name", (), lambda _: rows.c.place == literal_column("0"))
        case Either(matches):
            return any_of([extra_condition(key, rows, one, seek=seek) for one in matches])


# private


def _id(key: ExtraKey) -> ColumnElement[int]:
    """Literal: it is part of the statement, as the name of a column would be."""
    return literal_column(str(key.id))


def _of_owner(rows: NamedFromClause, key: ExtraKey, owner: ColumnElement[int]) -> ColumnElement[bool]:
    return and_(rows.c.key_id == _id(key), rows.c.owner == owner)


def _is_absent(key: ExtraKey) -> ColumnElement[bool]:
    table = TABLES[key.level]
    rows = select(1).select_from(_WITHIN).where(_of_owner(_WITHIN, key, table.c.id))
    return not_(exists(rows.correlate(table)))


def _name_condition(
    key: ExtraKey, rows: NamedFromClause, form: ColumnElement[str], name: str, groups: Sequence[Sequence[str]]
) -> Predicate:
    """One group fits any group of the name; of several, each that is not empty its own, of the same value."""
    if len(groups) == 1:
        return like_any(form, name, groups[0])
    first = next(place for place, group in enumerate(groups) if group)
    group_of = rows.c.place % literal_column(str(GROUPS))
    parts = [
        Predicate(("group", name, first), (), lambda _: group_of == literal_column(str(first))),
        like_any(form, name, groups[first]),
    ]
    parts += [
        _other_group(key, rows, name, place - first, group)
        for place, group in enumerate(groups)
        if place > first and group
    ]
    return all_of(parts)


def _other_group(key: ExtraKey, rows: NamedFromClause, name: str, distance: int, patterns: Sequence[str]) -> Predicate:
    fits = like_any(unindexed(_GROUP.c.form), f"group of {name}", patterns)
    at = rows.c.place + literal_column(str(distance))

    def build(binds: Sequence[BindParameter[object]]) -> ColumnElement[bool]:
        others = (
            select(1)
            .select_from(_GROUP)
            .where(_of_owner(_GROUP, key, rows.c.owner), _GROUP.c.place == at, fits.build(binds))
        )
        return exists(others.correlate(rows))

    return Predicate(("other group", distance, fits.shape), fits.values, build)
