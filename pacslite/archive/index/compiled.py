"""SQL texts kept by shape: SQLAlchemy takes about a millisecond to write one, SQLite and we none to run it again."""

import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, Column, ColumnElement, FromClause, Select, bindparam
from sqlalchemy.dialects import sqlite

from pacslite.archive.index.drivers import Through
from pacslite.archive.index.predicates import PARENT, TABLES, Predicate
from pacslite.archive.keys import Level

__all__ = ["LIMIT", "Page", "compiled_page", "joined"]

LIMIT = "limit"  # the bind parameter that is no value of a predicate

_DIALECT = sqlite.dialect()
_MOST_TEXTS = 512
_FIRST_TABLE = re.compile(r"(\nFROM (?!extra_value AS v\b)\w+(?: AS \w+)?)")  # not of a subquery among the columns


class Page(NamedTuple):
    """A statement, and the values for its question marks."""

    sql: str
    values: tuple[object, ...]


class _Compiled(NamedTuple):
    text: str
    order: tuple[int, ...]  # the value each question mark takes: of the predicates, then the limit, then constants
    constants: tuple[object, ...]


_texts: OrderedDict[Hashable, _Compiled] = OrderedDict()


def compiled_page(
    shape: Hashable,
    predicates: Sequence[Predicate],
    build: Callable[[list[ColumnElement[bool]]], Select[Any]],
    limit: int = -1,
    index: str | None = None,
) -> Page:
    """The statement ``build`` makes of the conditions of ``predicates``; called only for a shape not seen lately.

    ``index``: to be used for the first table that is joined.
    """
    key = (shape, *((one.shape, len(one.values)) for one in predicates))
    compiled = _texts.get(key)
    if compiled is None:
        compiled = _texts[key] = _compile(predicates, build, index)
        if len(_texts) > _MOST_TEXTS:
            _texts.popitem(last=False)
    else:
        _texts.move_to_end(key)
    values = [*(value for one in predicates for value in one.values), limit, *compiled.constants]
    return Page(compiled.text, tuple(values[at] for at in compiled.order))


def joined(start: Level, top: Level, base: Level, through: Through | None = None) -> FromClause:
    """Tables from ``top`` to ``base``, ``start`` first, then the levels above it, then those below."""
    tables: FromClause = TABLES[start]
    if through is not None:
        tables = through.table.join(tables, TABLES[start].c.id == through.id)
    for level in reversed(Level):
        if top <= level < start:
            tables = tables.join(TABLES[level], TABLES[level].c.id == _parent(Level(level + 1)))
    for level in Level:
        if start < level <= base:
            tables = tables.join(TABLES[level], _parent(level) == TABLES[Level(level - 1)].c.id)
    return tables


def _parent(level: Level) -> Column[Any]:
    return TABLES[level].c[PARENT[level]]


def _compile(
    predicates: Sequence[Predicate], build: Callable[[list[ColumnElement[bool]]], Select[Any]], index: str | None
) -> _Compiled:
    """SQLite joins in the order written where it says CROSS JOIN: the driver first, whatever statistics say."""
    conditions = []
    number = 0
    for one in predicates:
        binds: list[BindParameter[Any]] = [bindparam(f"v{number + at}") for at in range(len(one.values))]
        number += len(binds)
        conditions.append(one.build(binds))
    compiled = build(conditions).compile(dialect=_DIALECT)
    names = compiled.positiontup or []
    constants = [name for name in names if name != LIMIT and not name.startswith("v")]  # SQLAlchemy's own: OFFSET 0
    places = {LIMIT: number, **{name: number + 1 + at for at, name in enumerate(constants)}}
    order = tuple(places[name] if name in places else int(name[1:]) for name in names)
    text = str(compiled).replace(" JOIN ", " CROSS JOIN ")
    if index is not None:
        text = re.sub(_FIRST_TABLE, rf"\1 INDEXED BY {index}", text, count=1)
    return _Compiled(text, order, tuple(compiled.params[name] for name in constants))
