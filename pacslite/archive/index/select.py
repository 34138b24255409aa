"""Queries as SQL: pages of rows, each one statement that begins where the page before ended.

No cursor is held between pages: a slow reader keeps no connection, and memory is that of a page. What is stored,
replaced, moved or deleted while a query runs may be among its answers or not, or twice; everything else is, once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Integer, Select, bindparam, func, select

from pacslite.archive.criteria import Filter, Query
from pacslite.archive.index.compiled import LIMIT, Page, compiled_page, joined
from pacslite.archive.index.drivers import Branch, choose_driver
from pacslite.archive.index.extras import cell_of, predicate_of
from pacslite.archive.index.predicates import (
    TABLES,
    Predicate,
    lower_predicate,
    moment_predicate,
    one_of,
    unindexed,
)
from pacslite.archive.index.schema import instance, series, study
from pacslite.archive.keys import UNIQUE_KEY, Level
from pacslite.archive.matching import OneOf

__all__ = ["MOST_VALUES", "Selection", "Way", "instances_of_series", "named_instances", "named_series"]

MOST_VALUES = 500  # of a column of few; where there are more, it is walked along from end to end


class Selection:
    """The rows of a query.

    Columns are asked for by ``place`` before the first page; in a row they are followed by the cursor.
    """

    def __init__(self, query: Query) -> None:
        self._level = query.level
        decided, self.branches = choose_driver(query)
        unknown = query.options.match_unknown
        self._filters = [
            (one.key.level, predicate_of(one, unknown=unknown)) for one in query.filters if one is not decided
        ]
        self._filters += [(one.date.level, moment_predicate(one, unknown=unknown)) for one in query.moments]
        below = [(one.key.level, predicate_of(one, unknown=False)) for one in query.lower_filters]
        below += [(one.date.level, moment_predicate(one, unknown=False)) for one in query.lower_moments]
        if below:
            bottom = max(level for level, _ in below)
            self._filters.append((query.level, lower_predicate(query.level, bottom, [one for _, one in below])))
        self._cells: dict[tuple[Level, str], int] = {}

    def place(self, level: Level, column: str) -> int:
        """Where a row has this column."""
        return self._cells.setdefault((level, column), len(self._cells))

    def values_page(self, branch: Branch) -> Page | None:
        """All values of the column that a branch walks along, if they are few: each is found by a seek of its own."""
        if branch.few_values is None or branch.order is None:
            return None
        col = branch.order
        seeks = select(func.min(col).label("value")).cte("seeks", recursive=True)
        seek = select(func.min(col)).where(col > seeks.c.value).scalar_subquery()
        seeks = seeks.union_all(select(seek).where(seeks.c.value.is_not(None)))

        def build(_: list[ColumnElement[bool]]) -> Select[Any]:
            return select(seeks.c.value).where(seeks.c.value.is_not(None)).limit(bindparam(LIMIT, type_=Integer))

        return compiled_page(("values", branch.name), [], build, MOST_VALUES)

    def first_page(self, branch: Branch, limit: int) -> Page:
        """The first rows of a branch."""
        predicates = [*branch.rest, *branch.high, *((branch.low,) if branch.low is not None else ())]
        return self._page(branch, None, predicates, limit)

    def ways_on(self, branch: Branch) -> tuple["Way", ...]:
        """How a walk goes on behind a row: among those of the same parent, then behind the parent, and so on up."""
        levels = [level for level in reversed(Level) if branch.level <= level <= self._level]
        ways = [Way(level, beyond=level is branch.level) for level in levels]
        if branch.order is not None:
            ways.insert(-1, Way(branch.level, beyond=False))
        return tuple(ways)

    def next_page(self, branch: Branch, way: "Way", row: Sequence[object], limit: int) -> Page:
        """Rows behind ``row``, gone on that way."""
        behind = _behind(branch, way, row[len(self._cells) :])
        along = branch.rest if way.level is branch.level else ()
        high = branch.high if way.beyond else ()
        return self._page(branch, way, [*along, *high, behind], limit)

    def _page(self, branch: Branch, way: "Way | None", walk: Sequence[Predicate], limit: int) -> Page:
        is_walk = way is None or way.level is branch.level
        start = branch.level if way is None or is_walk else Level(way.level - 1)
        base = self._level

        def build(conditions: list[ColumnElement[bool]]) -> Select[Any]:
            top = min([branch.level, *(level for level, _ in self._cells), *(level for level, _ in self._filters)])
            levels = [level for level in Level if branch.level <= level <= base]
            ids = {level: TABLES[level].c.id for level in levels}
            orders = {level: _order_below(branch, level) for level in levels}
            through = branch.through if is_walk else None
            ordered = [branch.order] if branch.order is not None else []
            behind: list[ColumnElement[Any]] = [orders[level] for level in levels if is_walk or level > start]
            if through is not None:  # it sorts by nothing else; below each id the indexes are in order by themselves
                behind = [through.id]
            elif (
                branch.through is not None and ordered
            ):  # not joined: the value is what it was, the first of ``_behind``
                ordered = [bindparam("v0").label("value")]
            uids = [orders[level] for level in levels if orders[level] is not ids[level]]
            return (
                select(*(cell_of(level, name) for level, name in self._cells), *ordered, *ids.values(), *uids)
                .select_from(joined(start, top, base, through))
                .where(*conditions)
                .order_by(*(ordered if way is None or way.beyond else ()), *behind)
                .limit(bindparam(LIMIT, type_=Integer))
            )

        shape = (branch.name, branch.level, base, way, tuple(self._cells))
        predicates = [*walk, *(one for _, one in self._filters)]
        return compiled_page(shape, predicates, build, limit, branch.along if is_walk else None)


class Way(NamedTuple):
    """Where a walk goes on: rows of ``level`` behind the last one, with its parents above; at the level of the driver
    either of the same value or ``beyond`` it.

    These are separate statements because SQLite seeks no pair of a value and a rowid: it would read again all rows of
    the same value that were answered before.
    """

    level: Level
    beyond: bool


def _order_below(branch: Branch, level: Level) -> ColumnElement[Any]:
    """The order in which the index over its parent gives what is of this level: the series of a study by their UIDs."""
    if level is Level.SERIES and branch.level < level:
        return series.c.series_instance_uid
    return TABLES[level].c.id


def _behind(branch: Branch, way: Way, cursor: Sequence[object]) -> Predicate:
    order = branch.order
    ids = cursor[1:] if order is not None else cursor
    at = way.level - branch.level
    own = _order_below(branch, way.level)
    if at:
        parent = TABLES[Level(way.level - 1)].c.id
        last = ids[at] if own is TABLES[way.level].c.id else ids[-1]
        value = cursor[:1] if order is not None and branch.through is not None else ()
        return Predicate(
            ("below", len(value)),
            (*value, ids[at - 1], last),
            lambda binds: (parent == binds[-2]) & (own > binds[-1]),
        )
    if branch.through is not None:
        own = branch.through.id
    if order is None:
        return Predicate("after", (ids[0],), lambda binds: own > binds[0])
    if way.beyond:
        return Predicate("beyond", (cursor[0],), lambda binds: order > binds[0])
    return Predicate("same", (cursor[0], ids[0]), lambda binds: (order == binds[0]) & (own > binds[1]))


# Retrieve plans


def named_series(filters: Sequence[Filter]) -> Page:
    """Series below what unique keys name: id, Study and Series Instance UID, instances; in the order they came."""
    start = max(one.key.level for one in filters)

    def build(conditions: list[ColumnElement[bool]]) -> Select[Any]:
        return (
            select(series.c.id, study.c.study_instance_uid, series.c.series_instance_uid, series.c.number_of_instances)
            .select_from(joined(start, Level.PATIENT, Level.SERIES))
            .where(*conditions)
            .order_by(study.c.id, series.c.id)
        )

    return compiled_page(("series", start), _unique_keys(filters, start), build)


def instances_of_series(ids: Sequence[int]) -> Page:
    """Instances of some series by Instance Number: series id, then what a reference has but for its upper UIDs."""
    predicate = one_of(instance.c.series_fk, "series_fk", ids)

    def build(conditions: list[ColumnElement[bool]]) -> Select[Any]:
        return (
            select(instance.c.series_fk, *_OWN)
            .where(*conditions)
            .order_by(instance.c.series_fk, instance.c.instance_number_key, instance.c.id)
        )

    return compiled_page("instances of series", [predicate], build)


def named_instances(filters: Sequence[Filter]) -> Page:
    """Instances that are named one by one: Study and Series Instance UID, then the rest of a reference."""

    def build(conditions: list[ColumnElement[bool]]) -> Select[Any]:
        return (
            select(study.c.study_instance_uid, series.c.series_instance_uid, *_OWN)
            .select_from(joined(Level.IMAGE, Level.PATIENT, Level.IMAGE))
            .where(*conditions)
            .order_by(study.c.id, series.c.id, instance.c.instance_number_key, instance.c.id)
        )

    return compiled_page("instances", _unique_keys(filters, Level.IMAGE), build)


_OWN = (
    instance.c.sop_class_uid,
    instance.c.sop_instance_uid,
    instance.c.transfer_syntax_uid,
    instance.c.data_set_offset,
    instance.c.data_set_length,
    instance.c.digest,
)


def _unique_keys(filters: Sequence[Filter], start: Level) -> list[Predicate]:
    """The key of ``start`` finds rows, those above are compared."""
    predicates = []
    for key, match in filters:
        if not isinstance(match, OneOf):
            raise TypeError(f"{key.keyword} of a retrieve takes values only")
        is_first = key is UNIQUE_KEY[start]
        col = TABLES[key.level].c[key.match]
        predicates.append(one_of(col if is_first else unindexed(col), f"{key.level}.{is_first}", match.values))
    return predicates
