"""A query as the archive understands it: level, filters, attributes to return.

It is the one form in which DIMSE and HTTP ask. It knows nothing of identifiers (query.py), of SQL (index/select.py), or
of how answers are encoded (answer.py).
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pacslite.archive.extra import AnyKey, ExtraKey, ExtraKeys
from pacslite.archive.keys import Key, Level
from pacslite.archive.matching import Between, Match
from pacslite.dataset.decode import Identifier

__all__ = [
    "AVAILABILITY",
    "CHARSET",
    "LEVEL",
    "RETRIEVE_AE_TITLE",
    "TIMEZONE",
    "Filter",
    "ItemMatch",
    "KeptFilter",
    "KeptMoment",
    "Model",
    "MomentFilter",
    "Query",
    "QueryOptions",
    "RetrieveRequest",
    "ReturnKey",
]

Model = Literal["patient", "study", "patient_study_only", "composite"]

CHARSET = 0x00080005
LEVEL = 0x00080052
RETRIEVE_AE_TITLE = 0x00080054
AVAILABILITY = 0x00080056
TIMEZONE = 0x00080201


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """As configured.

    Args:
        relational: Relational queries may be negotiated (§C.5.1.1).
        fuzzy: Fuzzy semantic matching of person names may be negotiated.
        require_upper_keys: Without relational queries the unique keys of the levels above are required; off for old
            devices that leave them out.
        strict: Refuse what the standard forbids but harms nobody, as keys of levels below the one asked for; otherwise
            they are ignored.
        match_unknown: A key that is empty in the archive matches whatever is asked (§C.2.2.1.2).
        maximum_results: Answers after which a query is ended with A700; 0, no limit.
        timezone_offset: ``+0100`` style, of stored dates and times that name none; empty, they are taken as asked.
        extra_keys: What else is a key, changing while the archive serves.
    """

    retrieve_ae_title: str = "PACSLITE"
    relational: bool = True
    fuzzy: bool = True
    require_upper_keys: bool = True
    strict: bool = False
    match_unknown: bool = False
    maximum_results: int = 0
    timezone_offset: str = ""
    extra_keys: ExtraKeys = field(default_factory=ExtraKeys, compare=False)


class Filter(NamedTuple):
    """A key with a column, and what is asked of it."""

    key: AnyKey
    match: Match


class MomentFilter(NamedTuple):
    """A date and a time that must be looked at together.

    ``combined``: the two ranges are one range of moments (§C.2.2.2.5, combined datetime matching). With ``offset``,
    minutes from UTC, both are in that timezone (§C.5.1.1, timezone query adjustment).
    """

    date: Key
    time: Key
    dates: Between
    times: Between
    combined: bool
    offset: int | None = None


class ItemMatch(NamedTuple):
    """Sequence matching (§C.2.2.2.6): one item must fit in all of these."""

    keys: tuple[tuple[int, str, "Match | ItemMatch"], ...]


class KeptFilter(NamedTuple):
    """An attribute without a column, compared in what is kept of the header."""

    tag: int
    vr: str
    level: Level
    match: Match | ItemMatch


class KeptMoment(NamedTuple):
    """A date and a time without columns, by their tags, that must be looked at together; else as a ``MomentFilter``."""

    date: int
    time: int
    level: Level
    dates: Between
    times: Between
    combined: bool
    offset: int | None = None


class ReturnKey(NamedTuple):
    """An attribute to return; ``items`` is what is asked of a sequence, empty for all of it.

    Of an attribute that stands in no column of archive/keys.py, ``key`` is what makes it a key all the same; ``text``
    is the same in all answers, as a private creator is.
    """

    tag: int
    vr: str
    items: Identifier = Identifier()
    key: ExtraKey | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """What to find and what to return.

    ``lower_filters`` and ``lower_moments`` are of levels below: an entity matches that has one that fits in all of them
    (relational queries).
    ``unsupported_keys`` were asked for and are not matched, or not returned: answers are FF01 (§C.4.1.1.4).
    With ``timezone``, whose adjustment was negotiated, answers say of which zone they are.

    ``order``: ascending by an indexed key of this level or above, what has none last; without, as the index that is
    walked gives it. ``offset`` answers are left out, and no more than ``limit`` given (0: all): a page for HTTP, where
    DIMSE has none. The same query has its answers in the same order, so pages of it fit together.
    """

    level: Level
    filters: tuple[Filter, ...] = ()
    lower_filters: tuple[Filter, ...] = ()
    moments: tuple[MomentFilter, ...] = ()
    lower_moments: tuple[MomentFilter, ...] = ()
    kept_filters: tuple[KeptFilter, ...] = ()
    kept_moments: tuple[KeptMoment, ...] = ()
    return_keys: tuple[ReturnKey, ...] = ()
    unsupported_keys: tuple[int, ...] = ()
    timezone: bool = False
    charsets: tuple[str, ...] = ()
    transfer_syntax_uid: str = "1.2.840.10008.1.2"
    options: QueryOptions = field(default_factory=QueryOptions)
    order: Key | None = None
    offset: int = 0
    limit: int = 0


@dataclass(frozen=True, slots=True)
class RetrieveRequest:
    """Unique keys of ``level`` and above: all instances below what they name are wanted (§C.4.2.2.1)."""

    level: Level
    filters: tuple[Filter, ...]
