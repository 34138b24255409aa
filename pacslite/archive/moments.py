"""Dates and times of a query that must be looked at together (PS3.4 §C.2.2.2.5, §C.5.1.1).

Ranges of the same form are one range of moments if that was negotiated. In another timezone every date depends on the
time, as midnight is another.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pacslite.archive.criteria import Filter, ItemMatch, KeptFilter, KeptMoment, MomentFilter
from pacslite.archive.extra import ExtraKey, is_private
from pacslite.archive.keys import KEYS, Key, level_of
from pacslite.archive.matching import Between, Match, OneOf
from pacslite.dataset.dictionary import keyword_of, tag_of, vr_of

__all__ = ["Combined", "combine"]


class Combined(NamedTuple):
    """The filters of a query, those of dates and times joined; ``apart`` are the tags of such that cannot be."""

    filters: tuple[Filter, ...]
    kept_filters: tuple[KeptFilter, ...]
    moments: tuple[MomentFilter, ...]
    kept_moments: tuple[KeptMoment, ...]
    apart: tuple[int, ...]


def combine(
    filters: Sequence[Filter], kept_filters: Sequence[KeptFilter], *, datetime_matching: bool, offset: int | None
) -> Combined:
    """Join what is asked of a date and of its time, where their meaning depends on each other.

    Args:
        datetime_matching: Combined datetime matching was negotiated.
        offset: Minutes from UTC that dates and times are asked in, if timezone query adjustment was negotiated.
    """
    asked = {one.key.tag: one.match for one in filters if not is_private(one.key.tag)}
    asked |= {one.tag: one.match for one in kept_filters if not isinstance(one.match, ItemMatch)}
    elsewhere = {one.key.tag for one in filters if isinstance(one.key, ExtraKey) and not one.key.is_kept}
    moments: list[MomentFilter] = []
    kept_moments: list[KeptMoment] = []
    joined: set[int] = set()
    apart: list[int] = []
    for date, time in dict.fromkeys(pair for tag in asked if (pair := _pair_of(tag)) is not None):
        ranges = _ranges(asked.get(date), asked.get(time), datetime_matching=datetime_matching, offset=offset)
        if ranges is None:
            continue
        date_key, time_key = _KEY_OF_TAG.get(date), _KEY_OF_TAG.get(time)
        if not elsewhere.isdisjoint((date, time)):  # values of different instances are no moment
            apart += [tag for tag in (date, time) if tag in asked]
        elif date_key is not None and time_key is not None:
            moments.append(MomentFilter(date_key, time_key, *ranges, offset))
            joined |= {date, time}
        else:
            kept_moments.append(KeptMoment(date, time, level_of(date), *ranges, offset))
            joined |= {date, time}
    if datetime_matching:
        apart += [one.tag for one in kept_filters if isinstance(one.match, ItemMatch) and _has_pair(one.match)]
    days = {one.date for one in kept_moments if one.offset is None}  # as an extra key it still leaves less to look at
    return Combined(
        tuple(one for one in filters if one.key.tag not in joined - days),
        tuple(one for one in kept_filters if one.tag not in joined),
        tuple(moments),
        tuple(kept_moments),
        tuple(apart),
    )


_KEY_OF_TAG: Mapping[int, Key] = {key.tag: key for key in KEYS}


def _pair_of(tag: int) -> tuple[int, int] | None:
    """The tags of the date and the time that one moment has, of which this is either; by their names in PS3.6."""
    keyword, vr = keyword_of(tag), vr_of(tag)
    if keyword is None or vr not in {"DA", "TM"}:
        return None
    date = tag if vr == "DA" else tag_of(keyword.replace("Time", "Date"))
    time = tag if vr == "TM" else tag_of(keyword.replace("Date", "Time"))
    if date is None or time is None or vr_of(date) != "DA" or vr_of(time) != "TM":
        return None
    return date, time


def _ranges(
    date: Match | None, time: Match | None, *, datetime_matching: bool, offset: int | None
) -> tuple[Between, Between, bool] | None:
    """The two ranges, and whether they are one; None where each can be looked at for itself."""
    if offset is None and (date is None or time is None or not datetime_matching):
        return None
    dates, times = _range_of(date), _range_of(time)
    if dates is None or times is None:
        return None
    combined = datetime_matching and _same_form(date, time)
    return (dates, times, combined) if combined or offset is not None else None


def _same_form(date: Match | None, time: Match | None) -> bool:
    return (
        isinstance(date, Between)
        and isinstance(time, Between)
        and ((date.low is None) == (time.low is None))
        and ((date.high is None) == (time.high is None))
    )


def _range_of(match: Match | None) -> Between | None:
    if match is None:
        return Between(None, None)
    if isinstance(match, OneOf) and len(match.values) == 1:
        return Between(str(match.values[0]), str(match.values[0]))
    return match if isinstance(match, Between) else None


def _has_pair(match: ItemMatch) -> bool:
    """Are there ranges of a date and a time in an item that would be one?"""
    asked = {tag: one for tag, _, one in match.keys if isinstance(one, Between)}
    pairs = (pair for tag in asked if (pair := _pair_of(tag)) is not None)
    return any(_same_form(asked.get(date), asked.get(time)) for date, time in pairs) or any(
        _has_pair(one) for _, _, one in match.keys if isinstance(one, ItemMatch)
    )
