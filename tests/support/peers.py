"""Foreign peers as background processes: Orthanc, dcmqrscp, storescp, and a capture of the wire."""

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.support.processes import Background, RunResult, free_port, need, run

__all__ = ["Capture", "Dcmjs", "Dcmtk", "Orthanc", "QrScp", "StoreScp"]


class Dcmtk(Protocol):
    """Runs a tool of DCMTK; an exit code other than ``expect`` fails the test."""

    async def __call__(
        self, tool: str, *arguments: str | Path | int, expect: int = 0, seconds: float = 60
    ) -> RunResult: ...


class Dcmjs(Protocol):
    """Runs one operation of dcmjs-dimse and returns its outcome."""

    async def __call__(self, port: int, called: str, operation: str, *arguments: str | Path) -> dict[str, Any]: ...


@dataclass
class StoreScp:
    """DCMTK's storescp: writes what it receives, bit for bit."""

    directory: Path
    ae_title: str = "STORESCP"
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    background: Background | None = None

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        log = self.directory.with_suffix(".log")
        words: list[str | Path | int] = [
            "storescp",
            "-aet",
            self.ae_title,
            "-od",
            self.directory,
            "+B",
            *self.options,
            self.port,
        ]
        self.background = Background.start(words, log, port=self.port)

    def stop(self) -> None:
        if self.background is not None:
            self.background.stop()

    def files(self) -> list[Path]:
        return sorted(path for path in self.directory.iterdir() if path.is_file())

    def clear(self) -> None:
        for path in self.files():
            path.unlink()


@dataclass
class QrScp:
    """DCMTK's dcmqrscp, a small archive of its own."""

    directory: Path
    peers: Mapping[str, int] = field(default_factory=dict)  # AE titles of this machine and their ports
    ae_title: str = "QRSCP"
    port: int = field(default_factory=free_port)
    background: Background | None = None

    def start(self) -> None:
        storage = self.directory / "storage"
        storage.mkdir(parents=True)
        hosts = "\n".join(f"p{i} = ({aet}, 127.0.0.1, {port})" for i, (aet, port) in enumerate(self.peers.items()))
        names = ", ".join(f"p{i}" for i in range(len(self.peers)))
        config = self.directory / "dcmqrscp.cfg"
        config.write_text(
            f"NetworkTCPPort = {self.port}\nMaxPDUSize = 65536\nMaxAssociations = 32\n"
            f"HostTable BEGIN\n{hosts}\n{'all = ' + names if names else ''}\nHostTable END\n"
            "VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\n{self.ae_title} {storage} RW (500, 1024mb) ANY\nAETable END\n"
        )
        words: list[str | Path | int] = ["dcmqrscp", "-c", config, self.port]
        self.background = Background.start(words, self.directory / "dcmqrscp.log", port=self.port)

    def stop(self) -> None:
        if self.background is not None:
            self.background.stop()

    def files(self) -> list[Path]:
        return sorted(path for path in (self.directory / "storage").iterdir() if path.name != "index.dat")


@dataclass
class Orthanc:
    """Orthanc with its REST interface on a port of its own."""

    directory: Path
    peers: Mapping[str, int] = field(default_factory=dict)
    ae_title: str = "ORTHANC"
    port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    settings: Mapping[str, object] = field(default_factory=dict)
    background: Background | None = None

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        config = {
            "Name": "peer",
            "StorageDirectory": str(self.directory / "storage"),
            "IndexDirectory": str(self.directory / "storage"),
            "DicomAet": self.ae_title,
            "DicomPort": self.port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "SynchronousCMove": True,
            "UnknownSopClassAccepted": True,
            "StorageCompression": False,
            "Plugins": [],
            "DicomModalities": {aet: [aet, "127.0.0.1", port] for aet, port in self.peers.items()},
            **self.settings,
        }
        path = self.directory / "orthanc.json"
        path.write_text(json.dumps(config))
        self.background = Background.start(["Orthanc", path], self.directory / "orthanc.log", port=self.port)

    def stop(self) -> None:
        if self.background is not None:
            self.background.stop()

    def rest(self, path: str, body: object | None = None) -> Any:
        """GET, or POST where there is a body; the decoded answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=data)
        with urllib.request.urlopen(request, timeout=60) as response:
            raw = response.read()
        return json.loads(raw) if raw[:1] in (b"{", b"[", b'"') else raw

    def delete(self, path: str) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", method="DELETE")
        urllib.request.urlopen(request, timeout=60).close()

    def instances(self) -> list[str]:
        """SOP Instance UIDs."""
        return [str(item["MainDicomTags"]["SOPInstanceUID"]) for item in self.rest("/instances?expand")]


@dataclass
class Capture:
    """A capture of loopback traffic on some ports, judged by Wireshark's DICOM dissector."""

    path: Path
    ports: tuple[int, ...]
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        wanted = " or ".join(f"tcp port {port}" for port in self.ports)
        log = self.path.with_suffix(".log")
        with log.open("wb") as output:
            words = [need("tshark"), "-i", "lo", "-f", wanted, "-w", str(self.path), "-q", "-B", "64"]
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        for _ in range(500):
            if b"Capture started" in log.read_bytes() or self.path.exists():
                break
            assert self.process.poll() is None, f"tshark ended: {log.read_text()}; it must be permitted to capture"
            time.sleep(0.02)
        else:
            raise AssertionError(f"tshark does not start: {log.read_text()}")
        self._wait_until_it_sees()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            time.sleep(0.5)  # what is in the kernel's buffer
            self.process.terminate()
            self.process.wait(10)

    async def judge(self) -> RunResult:
        """Stop, and fail on anything malformed; returns the list of dissected PDUs (one line a frame)."""
        self.stop()
        decode = [word for port in self.ports for word in ("-d", f"tcp.port=={port},dicom")]
        base: tuple[str | Path, ...] = ("tshark", "-r", self.path, *decode, "-o", "tcp.desegment_tcp_streams:TRUE")
        bad = await run(*base, "-Y", 'dicom && (_ws.malformed || _ws.expert.severity == "Error")')
        lines = [line for line in bad.output.splitlines() if "Running as user" not in line]
        assert not lines, "the dissector finds malformed frames:\n" + "\n".join(lines[:20])
        return await run(*base, "-Y", "dicom")

    def _wait_until_it_sees(self) -> None:
        """Knock on the port until the file grows: the capture is live only some time after its file exists."""
        for _ in range(200):
            size = self.path.stat().st_size if self.path.exists() else 0
            with socket.socket() as probe:
                probe.settimeout(0.2)
                probe.connect_ex(("127.0.0.1", self.ports[0]))
            time.sleep(0.05)
            if self.path.exists() and self.path.stat().st_size > size > 0:
                return
        raise AssertionError("tshark sees no packet on lo")
