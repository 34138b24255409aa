"""One event, one line: text for people, JSON for machines; fields come by ``extra``, with the same keys everywhere.

    log.info("C-STORE", extra={"assoc": "7f3a", "peer": "CT01@10.0.0.12", "status": 0, "bytes": 527430, "ms": 3.14})
    2026-01-05T10:15:02.114Z INFO assoc=7f3a peer=CT01@10.0.0.12 C-STORE status=0000 bytes=527430 ms=3.1

What peers send reaches the line escaped: no line break, terminal command or bidirectional mark of theirs gets through.
No patient data above DEBUG.
"""

import json
import logging
import re
import sys
import time
import warnings
from functools import lru_cache
from typing import Any, Literal, TextIO

__all__ = ["JsonFormatter", "TextFormatter", "configure", "escape"]

# C0, DEL, C1; zero-width and directional marks; line and paragraph separators; the BOM; lone surrogates
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_QUOTED = re.compile(r'[\s"=\\]|^$')
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}

_encode = json.JSONEncoder(default=str, check_circular=False).encode

_OF_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_OF_PYDICOM = re.compile(r"[/\\]pydicom[/\\]")
_FIRST = ("assoc", "peer")  # stand before the event, so that lines of one association line up


def escape(text: str) -> str:
    r"""``text`` without characters that move a cursor, break a line or turn its direction: ``\n``, ``\x1b``."""
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What came by ``extra``, and the traceback as a field of its own."""
    fields = {key: value for key, value in vars(record).items() if key not in _OF_RECORD}
    if record.exc_info and record.exc_info[1] is not None:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return fields


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _time(record: logging.LogRecord) -> str:
    seconds = int(record.created)
    return f"{_second(seconds)}.{int((record.created - seconds) * 1000):03d}Z"


def _plain(key: str, value: Any) -> Any:
    """Values as both formats write them: statuses as the standard prints them, no more than a digit after the point."""
    if key == "status" and isinstance(value, int):
        return f"{value:04X}"
    return round(value, 1) if isinstance(value, float) else value


class TextFormatter(logging.Formatter):
    """``time LEVEL assoc=… peer=… EVENT key=value …``"""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        before = [self._pair(key, fields.pop(key)) for key in _FIRST if key in fields]
        after = [self._pair(key, value) for key, value in fields.items()]
        return " ".join((_time(record), record.levelname, *before, escape(record.getMessage()), *after))

    @staticmethod
    def _pair(key: str, value: Any) -> str:
        text = str(_plain(key, value))
        if text.isalnum() and text.isascii():
            return f"{key}={text}"
        if _QUOTED.search(text):
            text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{key}={escape(text)}"


class JsonFormatter(logging.Formatter):
    """One object a line: ``time``, ``level``, ``event``, ``logger`` and the fields; ASCII only."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record), "level": record.levelname, "event": record.getMessage(), "logger": record.name}
        line |= {key: _plain(key, value) for key, value in _fields(record).items()}
        return _encode(line).replace("\x7f", "\\u007f")


def configure(level: str = "info", style: Literal["text", "json"] = "text", stream: TextIO | None = None) -> None:
    """Send everything to standard error in ``style``. Process-wide: the composition root and the commands call it."""
    # What no line shows need not be asked of the system for each record (0.5 of 2 us)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.raiseExceptions = False  # a full or closed pipe is no reason to stop serving
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its warnings quote values, patients' names among them
    logging.getLogger("asyncio").setLevel(max(logging.INFO, root.level))
    logging.getLogger("alembic").setLevel(max(logging.WARNING, root.level))
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A line like all others in place of Python's own two on standard error."""
    del file, line
    level = logging.DEBUG if _OF_PYDICOM.search(filename) else logging.WARNING
    where = f"{filename}:{lineno}"
    logging.getLogger("py.warnings").log(level, "%s: %s", category.__name__, message, extra={"where": where})
