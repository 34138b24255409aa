"""What a command may load: an import that costs over 20 ms is made where it is used."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pacslite.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]

# typer brings pydantic itself; its settings, which read files and the environment, are another 60 ms
HEAVY = {
    "aiosqlite",
    "alembic",
    "anyascii",
    "cryptography",
    "jellyfish",
    "jwt",
    "numpy",
    "pydantic_settings",
    "pydicom",
    "rich",
    "sqlalchemy",
    "pacslite.app",
    "pacslite.archive",
    "pacslite.config",
}


def imported(*words: str) -> set[str]:
    """Modules that a command loads; the peer is a port at which nobody listens."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pacslite", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert "Traceback" not in result.stderr, result.stderr[-2000:]
    return set(re.findall(r"^import time:.*\|\s+([\w.]+)$", result.stderr, re.MULTILINE))


@pytest.mark.parametrize(
    "words",
    [
        ("echo", "PACSLITE@127.0.0.1:1"),
        ("find", "PACSLITE@127.0.0.1:1", "PatientName"),
        ("move", "PACSLITE@127.0.0.1:1", "--to", "A", "StudyInstanceUID=1.2.3"),
        ("get", "PACSLITE@127.0.0.1:1", "--out", "/tmp", "StudyInstanceUID=1.2.3"),
        ("store", "PACSLITE@127.0.0.1:1", "pyproject.toml"),
        ("--version",),
    ],
)
def test_a_client_command_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    modules = imported(*words)
    assert "pacslite.cli.main" in modules
    assert sorted(modules & HEAVY) == []


def processor_seconds(*words: str, status: int) -> float:
    """Of a Python process, with bytecode: the least of five, for others may work on this machine too."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    seconds = []
    for _ in range(6):  # the first may compile
        process = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        _, ended, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(ended)
        assert process.returncode == status
        seconds.append(usage.ru_utime + usage.ru_stime)
    return min(seconds[1:])


def test_echo_ends_within_its_time() -> None:
    """0.3 s, and where the machine is slow just now six times what Python takes: it waits for nothing."""
    bare = processor_seconds("-c", "import asyncio", status=0)
    echo = processor_seconds("-m", "pacslite", "echo", "PACSLITE@127.0.0.1:1", status=1)
    assert echo < max(0.3, 6 * bare), bare


@pytest.mark.parametrize(
    "module", ["pacslite.upper_layer.association", "pacslite.dimse.messages", "pacslite.dataset.scan"]
)
def test_the_protocol_needs_no_library(module: str) -> None:
    code = (
        f"import sys; sys.path.append({str(ROOT)!r}); import {module}; "
        "print(*{name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    )
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) - {"__main__"} == {"pacslite"}


def test_every_command_is_a_module_of_the_command_line() -> None:
    assert all((ROOT / f"{module.replace('.', '/')}.py").is_file() for module in COMMANDS.values())
