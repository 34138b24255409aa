"""Normal forms under which values are compared (PS3.4 §C.2.2.2): the ``_key`` twins of the index's columns.

The writer applies them to what is stored, the query to what is asked, so that both sides agree on what "by meaning" is.
A value that is no value of its VR has no normal form (None): it is returned as received, and matches by nothing but
universal matching.
"""

import re
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from pacslite.dataset.charset import fold_name

__all__ = [
    "FLOAT_SIZES",
    "NORMALISERS",
    "NUMBER_SIZES",
    "ONE_VALUE_VRS",
    "floats_as_text",
    "normalise",
    "normalise_date",
    "normalise_datetime",
    "normalise_decimal",
    "normalise_integer",
    "normalise_name",
    "normalise_time",
    "strip_padding",
    "time_bounds",
]

NUMBER_SIZES = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "UV": 8, "SV": 8}
FLOAT_SIZES = {"FL": 4, "FD": 8}
ONE_VALUE_VRS = frozenset({"LT", "ST", "UT", "UR"})  # PS3.5 §6.4: a backslash is a character of the text

_TRAILING_ONLY = frozenset({"LT", "ST", "UT"})

_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)|(\d{4})\.(\d\d)\.(\d\d)")  # PS3.5 Table 6.2-1; dots: ACR-NEMA 300
_TIME = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6}))?)?)?")  # colons: ACR-NEMA 300
_DATETIME = re.compile(r"(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:\.(\d{1,6}))?([+-]\d{4})?")
_INTEGER_LIMIT = 1 << 63  # of the index's column


def normalise(vr: str, text: str) -> str | int | None:
    """The comparable form of ``text``, all its values: the content of the column ``Key.match`` names."""
    normaliser = NORMALISERS.get(vr)
    return normaliser(text) if normaliser is not None else text


def strip_padding(vr: str, text: str) -> str:
    """A value without what is at its ends and says nothing (PS3.5 §6.2); LT, ST and UT may begin with spaces."""
    return text.rstrip(" \0") if vr in _TRAILING_ONLY else text.strip(" \0")


def floats_as_text(vr: str, value: bytes) -> list[str]:
    """FL, FD in little endian: the digits of each number, one spelling for one number. What is left over is none."""
    size = FLOAT_SIZES[vr]
    whole = value[: len(value) // size * size]
    return [repr(number + 0.0) for (number,) in struct.iter_unpack("<f" if size == 4 else "<d", whole)]  # -0.0 is 0.0


def normalise_name(text: str) -> str | None:
    """PN: values folded one by one (case, accents, spacing), joined by a backslash again."""
    if "\\" in text:
        return "\\".join(fold_name(value) for value in text.split("\\")) or None
    return fold_name(text) or None


def normalise_date(text: str) -> str | None:
    """DA: ``YYYYMMDD``; 1998.01.28 is the same day as 19980128."""
    return _each(_one_date, text)


def normalise_time(text: str) -> str | None:
    """TM: ``HHMMSS.FFFFFF``; 2230 is 223000.000000."""
    return _each(_one_time, text)


def time_bounds(text: str) -> tuple[str, str] | None:
    """First and last moment that a TM of limited precision names: ``2230`` is 22:30:00.000000 to 22:30:59.999999."""
    found = _TIME.fullmatch(text.strip())
    low = _one_time(text)
    if found is None or low is None:
        return None
    hours, minutes, seconds, fraction = found.groups()
    high = f"{hours}{minutes or '59'}{seconds or '59'}.{(fraction or '').ljust(6, '9')}"
    return low, high


def normalise_datetime(text: str) -> str | None:
    """DT: ``YYYYMMDDHHMMSS.FFFFFF``, missing parts at their least; with an offset it is brought to UTC."""
    return _each(_one_datetime, text)


def normalise_integer(text: str) -> int | None:
    """IS: the number; of several values the first."""
    value = text.partition("\\")[0].strip()
    if len(value) > 24 or not value.isascii():
        return None
    try:
        number = int(value)
    except ValueError:
        return None
    return number if -_INTEGER_LIMIT <= number < _INTEGER_LIMIT and "_" not in value else None


def normalise_decimal(text: str) -> str | None:
    """DS: one spelling for one number: 75, 75.0 and 7.5E1 are ``75``."""
    return _each(_one_decimal, text)


def _each(normaliser: Callable[[str], str | None], text: str) -> str | None:
    if "\\" not in text:
        return normaliser(text)
    return "\\".join(form for value in text.split("\\") if (form := normaliser(value)) is not None) or None


def _one_date(value: str) -> str | None:
    found = _DATE.fullmatch(value.strip())
    if found is None:
        return None
    year, month, day = (part for part in found.groups() if part is not None)
    return year + month + day if "01" <= month <= "12" and "01" <= day <= "31" else None


def _one_time(value: str) -> str | None:
    found = _TIME.fullmatch(value.strip())
    if found is None:
        return None
    hours, minutes, seconds, fraction = found.groups()
    if hours > "23" or (minutes or "") > "59" or (seconds or "") > "60":  # 60: a leap second
        return None
    return f"{hours}{minutes or '00'}{seconds or '00'}.{(fraction or '').ljust(6, '0')}"


def _one_datetime(value: str) -> str | None:
    found = _DATETIME.fullmatch(value.strip())
    if found is None:
        return None
    year, month, day, hours, minutes, seconds, fraction, offset = found.groups()
    plain = f"{year}{month or '01'}{day or '01'}{hours or '00'}{minutes or '00'}{seconds or '00'}"
    plain += f".{(fraction or '').ljust(6, '0')}"
    try:
        moment = datetime.strptime(plain, "%Y%m%d%H%M%S.%f").replace(tzinfo=UTC)
    except ValueError:
        return None
    if offset is None:
        return plain
    shift = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:]))
    try:
        moment = moment - shift if offset[0] == "+" else moment + shift
    except OverflowError:
        return None
    return f"{moment.year:04d}{moment:%m%d%H%M%S.%f}"


def _one_decimal(value: str) -> str | None:
    try:
        number = Decimal(value.strip()).normalize() if len(value) <= 32 and "_" not in value else None
    except ArithmeticError:  # no number, or one beyond all exponents
        return None
    if number is None or not number.is_finite():
        return None
    return str(number) if number else "0"


NORMALISERS: Mapping[str, Callable[[str], str | int | None]] = {
    "PN": normalise_name,
    "DA": normalise_date,
    "TM": normalise_time,
    "DT": normalise_datetime,
    "IS": normalise_integer,
    "DS": normalise_decimal,
}
