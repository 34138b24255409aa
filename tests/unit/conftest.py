"""Archives of several kinds, for modules that are run with each."""

import pytest

from tests.support.storing import DEFAULTS


@pytest.fixture(params=["files", "journal", "late"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file each, with a journal, and with rows that nobody writes until somebody must."""
    monkeypatch.setattr(DEFAULTS, "journal_bytes", 0 if request.param == "files" else 1 << 20)
    if request.param == "late":
        monkeypatch.setattr(DEFAULTS, "durability", "none")
        monkeypatch.setattr("pacslite.archive.disk._CALM_SECONDS", 600)
