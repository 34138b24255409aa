"""Archives of several kinds, for modules that are run with each; and logging as it was, whoever configures it."""

import logging
from collections.abc import Iterator

import pytest

from tests.support.storing import DEFAULTS


@pytest.fixture(params=["files", "journal", "late"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file each, with a journal, and with rows that nobody writes until somebody must."""
    monkeypatch.setattr(DEFAULTS, "journal_bytes", 0 if request.param == "files" else 1 << 20)
    if request.param == "late":
        monkeypatch.setattr(DEFAULTS, "durability", "none")
        monkeypatch.setattr("pacslite.archive.disk._CALM_SECONDS", 600)


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    """Commands that run in this process configure all of it."""
    loggers = [logging.getLogger(name) for name in (None, "pydicom", "asyncio", "alembic")]
    handlers, levels = loggers[0].handlers[:], [logger.level for logger in loggers]
    switches = {
        name: getattr(logging, name) for name in ("logThreads", "logProcesses", "logMultiprocessing", "raiseExceptions")
    }
    yield
    loggers[0].handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    for name, value in switches.items():
        setattr(logging, name, value)
