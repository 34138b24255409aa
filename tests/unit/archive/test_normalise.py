"""Normal forms: two spellings of one value have one, two values have two (PS3.4 §C.2.2.2, PS3.5 §6.2)."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacslite.archive.normalise import normalise, normalise_datetime, time_bounds


@pytest.mark.parametrize(
    ("vr", "text", "form"),
    [
        ("DA", "19980128", "19980128"),
        ("DA", "1998.01.28", "19980128"),  # ACR-NEMA 300
        ("DA", " 19980128 ", "19980128"),
        ("DA", "19980128\\1999.01.28", "19980128\\19990128"),
        ("DA", "19981328", None),
        ("DA", "19980132", None),
        ("DA", "1998", None),
        ("DA", "yesterday", None),
        ("DA", "１９９８０１２８", None),  # digits, but not these  # noqa: RUF001
        ("TM", "2230", "223000.000000"),
        ("TM", "22", "220000.000000"),
        ("TM", "223000", "223000.000000"),
        ("TM", "22:30:00", "223000.000000"),
        ("TM", "223000.1", "223000.100000"),
        ("TM", "235960", "235960.000000"),  # a leap second
        ("TM", "2430", None),
        ("TM", "2261", None),
        ("DT", "2024", "20240101000000.000000"),
        ("DT", "20240131101500.5", "20240131101500.500000"),
        ("DT", "20240131101500+0100", "20240131091500.000000"),
        ("DT", "20240131233000-0100", "20240201003000.000000"),
        ("DT", "20240231", None),
        ("DT", "00010101000000+0100", None),  # before the first day
        ("IS", " 007 ", 7),
        ("IS", "+7", 7),
        ("IS", "-7", -7),
        ("IS", "7\\8", 7),
        ("IS", "7.0", None),
        ("IS", "1_0", None),
        ("IS", "9" * 30, None),
        ("DS", "75", "75"),
        ("DS", "75.00", "75"),
        ("DS", "+7.5E1", "75"),
        ("DS", "-0.0", "0"),
        ("DS", "0.5\\1e3", "0.5\\1E+3"),
        ("DS", "1e999999", "1E+999999"),  # no megabyte of zeros
        ("DS", "1e999999999", None),
        ("DS", "NaN", None),
        ("DS", "Infinity", None),
        ("DS", "1_0", None),
        ("PN", "Müller^Jörg", "muller^jorg"),
        ("LO", "As it is", "As it is"),
    ],
)
def test_form(vr: str, text: str, form: str | int | None) -> None:
    assert normalise(vr, text) == form


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("22", ("220000.000000", "225959.999999")),
        ("2230", ("223000.000000", "223059.999999")),
        ("223010", ("223010.000000", "223010.999999")),
        ("223010.25", ("223010.250000", "223010.259999")),
        ("25", None),
    ],
)
def test_time_of_limited_precision_is_an_interval(text: str, bounds: tuple[str, str] | None) -> None:
    assert time_bounds(text) == bounds


@given(st.integers(-(10**9), 10**9), st.integers(0, 6), st.sampled_from(["", "+"]))
def test_decimal_has_one_spelling(mantissa: int, places: int, sign: str) -> None:
    plain = str(mantissa)
    padded = f"{sign if mantissa >= 0 else ''}{plain}.{'0' * places}"
    assert normalise("DS", plain) == normalise("DS", padded) == normalise("DS", f"{plain}E0")


@given(
    st.datetimes(min_value=datetime(1, 2, 1), max_value=datetime(9998, 1, 1)),  # noqa: DTZ001
    st.integers(-12 * 60, 14 * 60),
)
def test_moment_has_one_form_in_every_zone(moment: datetime, minutes: int) -> None:
    moment = moment.replace(tzinfo=UTC)
    local = moment.astimezone(timezone(timedelta(minutes=minutes)))
    sign, offset = ("-" if minutes < 0 else "+"), abs(minutes)
    text = f"{local.year:04d}{local:%m%d%H%M%S.%f}{sign}{offset // 60:02d}{offset % 60:02d}"
    assert normalise_datetime(text) == f"{moment.year:04d}{moment:%m%d%H%M%S.%f}"


@given(vr=st.sampled_from(["DA", "TM", "DT", "IS", "DS", "PN"]), text=st.text(max_size=40))
def test_anything_is_survived(vr: str, text: str) -> None:
    form = normalise(vr, text)
    assert form is None or isinstance(form, str | int)
