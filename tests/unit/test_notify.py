"""What systemd is told (sd_notify): by a path, by an abstract name, or not at all."""

import socket
from pathlib import Path

import pytest

from pacslite.notify import notify


@pytest.mark.parametrize("name", ["{folder}/notify", "@pacslite-test-{folder}"])
def test_states_arrive_as_one_datagram(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = name.format(folder=tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify("READY=1", "STATUS=serving")
        assert systemd.recv(100) == b"READY=1\nSTATUS=serving"


def test_nobody_needs_to_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("STOPPING=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")
