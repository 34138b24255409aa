"""The client library: every example of docs/client.md, run as it stands there."""

import re
import shutil
from collections.abc import Mapping
from inspect import CO_COROUTINE
from pathlib import Path
from typing import Any

import pytest

from tests.support.corpus import CorpusFile
from tests.support.processes import Pacslite

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
TOP_LEVEL_AWAIT = 0x2000  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def test_there_are_examples_of_every_operation() -> None:
    text = "".join(examples(PAGE.read_text("utf-8")))
    for operation in ("echo", "store", "find", "get", "move"):
        assert f"client.{operation}(" in text


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


async def test_examples_run_in_order(
    server: Pacslite,
    corpus_by_name: Mapping[str, CorpusFile],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "fetched").mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm"):
        shutil.copy(corpus_by_name[name].path, tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, example in enumerate(examples(PAGE.read_text("utf-8"))):
        source = example.replace("PACSLITE@127.0.0.1:11112", f"{server.ae_title}@127.0.0.1:{server.port}")
        code = compile(source, f"{PAGE.name} example {number}", "exec", flags=TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if code.co_flags & CO_COROUTINE:
            await result
    output = capsys.readouterr().out
    assert "CT_small.dcm 0000" in output
    assert "CompressedSamples^CT1 CT 1.3.6.1.4.1.5962.1.2.1.20040119072730.12322" in output
    assert "A702 1 x NOBODY" in output
    assert "Connection refused" in output
    (fetched,) = (tmp_path / "fetched").iterdir()
    assert fetched.read_bytes()[128:132] == b"DICM"
