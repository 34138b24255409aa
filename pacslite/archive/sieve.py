"""What SQL only narrows is decided here, row by row (PS3.4 §C.2.2.2).

That is: patterns over several values, component groups of names, other timezones, and whatever has no column but is
kept of the header. Queries on plain columns never come here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest

from pacslite.archive.criteria import TIMEZONE, Filter, ItemMatch, KeptMoment, MomentFilter, Query
from pacslite.archive.extra import ExtraKey
from pacslite.archive.kept import decode_kept
from pacslite.archive.keys import KEY_OF_TAG, Level
from pacslite.archive.matching import Between, Match, acceptor, is_exact
from pacslite.archive.normalise import (
    FLOAT_SIZES,
    NUMBER_SIZES,
    ONE_VALUE_VRS,
    floats_as_text,
    normalise,
    strip_padding,
)
from pacslite.archive.timezone import parse_offset, shift_moment
from pacslite.dataset.charset import decode_text
from pacslite.dataset.decode import Attribute, Identifier, IdentifierError, decode_identifier
from pacslite.dataset.element import PIXEL_REPRESENTATION, is_signed
from pacslite.dataset.scan import DataSetError, scan_header

__all__ = ["Cell", "KeptReader", "KeptValues", "Sieve", "item_acceptor", "text_of"]

Cell = str | int | bytes | None
Place = tuple[Level, str]  # a column


class KeptValues(dict[int, tuple[Attribute, tuple[str, ...]]]):
    """Attributes of a row that stand in no column, each with the character sets of its text."""


class KeptReader:
    """Takes wanted attributes out of the kept values of a row."""

    def __init__(self, tags: Mapping[Level, Iterable[int]], place: Callable[[Level, str], int]) -> None:
        self._wanted = [(place(level, "attributes"), frozenset(of_level)) for level, of_level in tags.items()]

    def read(self, row: Sequence[Cell]) -> KeptValues:
        values = KeptValues()
        for place, tags in self._wanted:
            kept = row[place]
            if isinstance(kept, bytes):
                _read_kept(kept, tags, values)
        return values


def _read_kept(kept: bytes, tags: frozenset[int], values: KeptValues) -> None:
    syntax, charsets, elements = decode_kept(kept)
    try:
        scan = scan_header(elements, syntax, detect=False)
    except DataSetError:
        return
    signed = is_signed(scan.get(PIXEL_REPRESENTATION) or b"")
    for tag in tags & scan.elements.keys():
        try:
            decoded = decode_identifier(scan.raw(tag), syntax, max_depth=64, detect=False, signed=signed)
        except IdentifierError:
            continue  # nobody can be shown what is in there; the others can
        values |= {tag: (attribute, charsets) for tag, attribute in decoded.items()}


class Sieve:
    """Decides rows.

    Args:
        place: Gives the place of a column in a row, adding it where needed.
    """

    def __init__(self, query: Query, place: Callable[[Level, str], int]) -> None:
        unknown = query.options.match_unknown
        self._tests: list[Callable[[Sequence[Cell]], bool]] = [
            _column_test(one, place, unknown) for one in query.filters if not is_exact(one.key, one.match)
        ]
        self._tests += [
            _moment_test(one, place, unknown, query.options.timezone_offset)
            for one in query.moments
            if one.offset is not None
        ]
        self._kept_tests = [
            (
                one.tag,
                one.vr,
                _item_test(one.match) if isinstance(one.match, ItemMatch) else _value_test(one.vr, one.match),
            )
            for one in query.kept_filters
        ]
        self._moment_tests = [
            _kept_moment_test(one, place, unknown, query.options.timezone_offset) for one in query.kept_moments
        ]
        self._unknown = unknown

    def __bool__(self) -> bool:
        return bool(self._tests or self._kept_tests or self._moment_tests)

    def accepts(self, row: Sequence[Cell], kept: KeptValues) -> bool:
        for test in self._tests:
            if not test(row):
                return False
        for tag, vr, kept_test in self._kept_tests:
            found = kept.get(tag)
            if found is None or _is_empty(vr, found[0].value):
                if not self._unknown:
                    return False
            elif not kept_test(*found):
                return False
        return all(moment_test(row, kept) for moment_test in self._moment_tests)


def text_of(attribute: Attribute, charsets: Sequence[str]) -> str:
    """The text of a kept value, without padding."""
    value = attribute.value
    if not isinstance(value, bytes):
        return ""
    return strip_padding(attribute.vr, decode_text(value, attribute.vr, charsets))


# private

_Test = Callable[[Attribute, Sequence[str]], bool]


def _column_test(one: Filter, place: Callable[[Level, str], int], unknown: bool) -> Callable[[Sequence[Cell]], bool]:
    if isinstance(one.key, ExtraKey):
        return _extra_test(one, place(one.key.level, one.key.column), unknown)
    at = place(one.key.level, one.key.match)
    accept = acceptor(one.match, multiple=one.key.multiple)

    def test(row: Sequence[Cell]) -> bool:
        value = row[at]
        return unknown if value is None else not isinstance(value, bytes) and accept(value)

    return test


def _extra_test(one: Filter, at: int, unknown: bool) -> Callable[[Sequence[Cell]], bool]:
    """The row has the value, all values, as received."""
    accept, vr = acceptor(one.match, multiple=False), one.key.vr

    def test(row: Sequence[Cell]) -> bool:
        value = row[at]
        return any(map(accept, _forms_of_text(vr, value))) if isinstance(value, str) else unknown

    return test


def _moment_test(
    one: MomentFilter, place: Callable[[Level, str], int], unknown: bool, default: str
) -> Callable[[Sequence[Cell]], bool]:
    date_at, time_at = place(one.date.level, one.date.match), place(one.time.level, one.time.match)
    fits = _moment_acceptor(one, one.date.level, place, unknown, default)

    def test(row: Sequence[Cell]) -> bool:
        return fits(row, row[date_at], row[time_at])

    return test


def _kept_moment_test(
    one: KeptMoment, place: Callable[[Level, str], int], unknown: bool, default: str
) -> Callable[[Sequence[Cell], KeptValues], bool]:
    """Of several dates and times those that stand at the same place are a moment, and any may fit."""
    fits = _moment_acceptor(one, one.level, place, unknown, default)

    def test(row: Sequence[Cell], kept: KeptValues) -> bool:
        dates, times = _kept_forms("DA", kept.get(one.date)), _kept_forms("TM", kept.get(one.time))
        return bool(dates and times) and any(fits(row, date, time) for date, time in zip_longest(dates, times))

    return test


def _kept_forms(vr: str, found: tuple[Attribute, tuple[str, ...]] | None) -> list[Cell]:
    """Each value as it is compared, one None for what is unknown; what is no value of its VR fits nothing."""
    if found is None or _is_empty(vr, found[0].value):
        return [None]
    forms: list[Cell] = list(_normal_forms(vr, *found))
    return forms if any(forms) else []


def _moment_acceptor(
    one: MomentFilter | KeptMoment, level: Level, place: Callable[[Level, str], int], unknown: bool, default: str
) -> Callable[[Sequence[Cell], Cell, Cell], bool]:
    """A test for a date and a time of a row, brought to the timezone that is asked in."""
    asked = one.offset
    offset_at = place(Level.STUDY, KEY_OF_TAG[TIMEZONE].column) if asked is not None and level >= Level.STUDY else None

    def fits(row: Sequence[Cell], stored_date: Cell, stored_time: Cell) -> bool:
        date = stored_date if isinstance(stored_date, str) else None
        time = stored_time if isinstance(stored_time, str) else None
        if asked is not None and date is not None and time is not None:
            stored = parse_offset(str((row[offset_at] if offset_at is not None else None) or default))
            if stored is not None:
                moment = shift_moment(date + time, asked - stored)
                date, time = moment[:8], moment[8:]
        return _fits_moment(one, date, time, unknown=unknown)

    return fits


def _fits_moment(one: MomentFilter | KeptMoment, date: str | None, time: str | None, *, unknown: bool) -> bool:
    """Is a moment in the ranges? Without a time, only a date between the first and the last day surely is.

    What is not there is in an open range, and in others if the unknown matches; as one moment it needs its date.
    """
    dates, times = one.dates, one.times
    if not one.combined:
        return _may_be_within(dates, date, unknown=unknown) and _may_be_within(times, time, unknown=unknown)
    if date is None:
        return unknown
    if not _within(dates, date):
        return False
    if time is None:
        return unknown or date not in {dates.low, dates.high}
    after_low = dates.low is None or date > dates.low or times.low is None or time >= times.low
    return after_low and (dates.high is None or date < dates.high or times.high is None or time <= times.high)


def _may_be_within(ends: Between, value: str | None, *, unknown: bool) -> bool:
    return _within(ends, value) if value is not None else unknown or ends == Between(None, None)


def _within(ends: Between, value: str) -> bool:
    return (ends.low is None or ends.low <= value) and (ends.high is None or value <= ends.high)


def _value_test(vr: str, match: Match) -> _Test:
    accept = acceptor(match, multiple=False)

    def test(attribute: Attribute, charsets: Sequence[str]) -> bool:
        return any(accept(form) for form in _normal_forms(vr, attribute, charsets))

    return test


def item_acceptor(match: ItemMatch) -> Callable[[Identifier, Sequence[str]], bool]:
    """Does an item fit in every key?"""
    tests = [
        (tag, _item_test(one) if isinstance(one, ItemMatch) else _value_test(vr, one)) for tag, vr, one in match.keys
    ]

    def fits(item: Identifier, charsets: Sequence[str]) -> bool:
        own = item.charsets or charsets
        return all(tag in item and test(item[tag], own) for tag, test in tests)

    return fits


def _item_test(match: ItemMatch) -> _Test:
    """§C.2.2.2.6: a sequence fits if one of its items does."""
    fits = item_acceptor(match)

    def test(attribute: Attribute, charsets: Sequence[str]) -> bool:
        return isinstance(attribute.value, list) and any(fits(item, charsets) for item in attribute.value)

    return test


def _is_empty(vr: str, value: bytes | list[Identifier]) -> bool:
    """Nothing, or nothing but padding."""
    if isinstance(value, bytes) and vr not in NUMBER_SIZES and vr not in FLOAT_SIZES:
        return not value.strip(b" \0")
    return not value


def _normal_forms(vr: str, attribute: Attribute, charsets: Sequence[str]) -> Iterator[str | int | None]:
    """Each value of an attribute as it is compared; numbers have the size and the sign of the VR they came in."""
    value = attribute.value
    if not isinstance(value, bytes):
        return
    number_vr = attribute.vr if attribute.vr in NUMBER_SIZES else vr
    if number_vr in NUMBER_SIZES:
        size = NUMBER_SIZES[number_vr]
        for at in range(0, len(value) - size + 1, size):
            yield int.from_bytes(value[at : at + size], "little", signed=number_vr.startswith("S"))
        return
    if vr in FLOAT_SIZES:
        yield from floats_as_text(vr, value)
        return
    yield from _forms_of_text(vr, text_of(attribute, charsets))


def _forms_of_text(vr: str, text: str) -> Iterator[str | int | None]:
    for one in [text] if vr in ONE_VALUE_VRS else text.split("\\"):
        value = strip_padding(vr, one)
        yield normalise("IS" if vr in NUMBER_SIZES else vr, value) if value else None
