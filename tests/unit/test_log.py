"""Log lines: one event a line whatever a peer sends, in text and in JSON, with the same fields."""

import io
import json
import logging
import re
import warnings
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import config
from pydicom.valuerep import validate_value

from pacslite.log import configure, escape

Style = Literal["text", "json"]


def logged(style: Style, event: str, level: int = logging.INFO, **fields: Any) -> str:
    stream = io.StringIO()
    configure("debug", style, stream)
    logging.getLogger("pacslite.test").log(level, event, extra=fields)
    return stream.getvalue()


def test_the_line_of_the_style_guide() -> None:
    line = logged("text", "C-STORE", assoc="7f3a", peer="CT01@10.0.0.12", status=0, bytes=527430, ms=3.14159)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO assoc=7f3a peer=CT01@10\.0\.0\.12 C-STORE status=0000 "
        r"bytes=527430 ms=3\.1\n",
        line,
    )


def test_json_has_the_same_fields() -> None:
    line = json.loads(logged("json", "C-STORE", assoc="7f3a", peer="CT01@10.0.0.12", status=0xA700, bytes=5, ms=3.14))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO",
        "event": "C-STORE",
        "logger": "pacslite.test",
        "assoc": "7f3a",
        "peer": "CT01@10.0.0.12",
        "status": "A700",
        "bytes": 5,
        "ms": 3.1,
    }


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("CT 01@h", '"CT 01@h"'),
        ("", '""'),
        ('a"b', r'"a\"b"'),
        ("a=b", '"a=b"'),  # not to be taken for a field
        ("line\r\nbreak", r'"line\r\nbreak"'),
        ("\x1b[2J", r"\x1b[2J"),
        ("nul\x00", r"nul\x00"),
        ("\u202egnp.exe", r"\u202egnp.exe"),  # right-to-left override
        ("\u2028", r'"\u2028"'),  # line separator
        ("Müller^Jürgen", "Müller^Jürgen"),
        ("\udcff", r"\udcff"),
        (None, "None"),
        (True, "True"),
    ],
)
def test_values_in_text(value: object, written: str) -> None:
    assert logged("text", "EVENT", peer=value).partition(" peer=")[2] == f"{written} EVENT\n"


@given(st.text(), st.text(), st.sampled_from(["text", "json"]))
def test_one_event_is_one_line(event: str, value: str, style: Style) -> None:
    line = logged(style, event.replace("%", ""), peer=value, other=value)
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert line[:-1].isprintable() or not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", line[:-1])


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_traceback_stays_on_the_line(style: Style) -> None:
    stream = io.StringIO()
    configure("info", style, stream)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("pacslite.test").exception("failed", extra={"assoc": "1"})
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: two" in line
    assert "test_log.py" in line


def test_levels() -> None:
    stream = io.StringIO()
    configure("warning", "text", stream)
    logging.getLogger("pacslite.test").info("not this")
    logging.getLogger("pacslite.test").warning("this")
    assert stream.getvalue().split()[1:] == ["WARNING", "this"]


def test_pydicom_is_not_heard() -> None:
    """Its warnings quote values: patients' names would stand above DEBUG."""
    stream = io.StringIO()
    configure("debug", "text", stream)
    logging.getLogger("pydicom").warning("Invalid value for VR PN: 'Doe^Jane'")
    assert stream.getvalue() == ""


def test_alembic_does_not_tell_how_it_works() -> None:
    stream = io.StringIO()
    configure("debug", "text", stream)
    logging.getLogger("alembic.runtime.plugins").info("setup plugin alembic.autogenerate.schemas")
    logging.getLogger("alembic.runtime.plugins").warning("this")
    assert stream.getvalue().split()[1:] == ["WARNING", "this"]


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize("style", ["text", "json"])
def test_a_warning_of_python_is_a_line_like_others(style: Style, capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    configure("info", style, stream)
    warnings.warn("The HMAC key is\n8 bytes long", UserWarning, stacklevel=1)
    (line,) = stream.getvalue().splitlines()
    assert r"UserWarning: The HMAC key is\n8 bytes long" in line
    assert "test_log.py" in line
    assert capsys.readouterr() == ("", "")


@pytest.mark.filterwarnings("always")
def test_warnings_of_pydicom_are_not_heard() -> None:
    stream = io.StringIO()
    configure("info", "text", stream)
    validate_value("UI", "Doe^Jane", config.WARN)
    assert stream.getvalue() == ""


def test_a_closed_stream_stops_nobody() -> None:
    stream = io.StringIO()
    configure("info", "text", stream)
    stream.close()
    logging.getLogger("pacslite.test").info("into the void")


@given(st.text())
def test_escape_leaves_what_is_harmless(text: str) -> None:
    escaped = escape(text)
    assert escape(escaped) == escaped
    assert not re.search("[\x00-\x1f\x7f-\x9f]", escaped)
    if text.isascii() and text.isprintable():
        assert escaped == text
