"""The servers under test: pacslite and its peers, each on 127.0.0.1 with a data directory of its own.

The peers get what makes them fast: PDUs of 128 KiB and TCP_NODELAY=1. Without the latter DCMTK 3.6.7, and Orthanc that
stands on it, leave Nagle's algorithm on and write each answer in two pieces, which costs 44 ms an instance.
"""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import Usage, session_processes
from benchmarks.wire import EXPLICIT_LITTLE, VERIFICATION, Connection, Proposal, WireError

__all__ = ["PEERS", "Peer", "Server", "ServerError", "available", "empty", "free_port", "running"]

START_SECONDS = 30.0
STOP_SECONDS = 20.0
SETTLE_CPU_SECONDS = 3.0
MAXIMUM_ASSOCIATIONS = 1200
_SCRIPTS = Path(sys.executable).parent
_PATH = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin"


class ServerError(Exception):
    """A server that did not start, or died; the end of its log is in the text."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a server is to run: its directory and port, and the AE ``SINK`` it may move to."""

    directory: Path
    port: int
    sink_port: int = 0
    associations: int = 1


@dataclass(frozen=True, slots=True)
class Launch:
    argv: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    ae_title: str
    launch: Callable[[Site], Launch]
    program: str
    forks: bool = False


@dataclass(slots=True)
class Server:
    peer: Peer
    site: Site
    process: subprocess.Popen[bytes]
    started_in: float = 0.0

    def connect(self, proposals: Sequence[Proposal]) -> Connection:
        return Connection.open(self.site.port, self.peer.ae_title, proposals)

    def usage(self) -> Usage:
        return Usage(self.process.pid, self.peer.forks)

    def stored(self, size: int) -> int:
        """Files that may hold an object of ``size`` bytes: what is missing here was acknowledged and lost.

        DCMTK writes sequences anew with explicit lengths, which takes some bytes off a structured report.
        """
        return sum(0.9 * size <= each < size + 4096 for each in map(_size, self.site.directory.rglob("*")))

    def log_tail(self) -> str:
        return (self.site.directory / "log").read_bytes()[-2000:].decode(errors="replace")


def _pacslite(durability: str) -> Callable[[Site], Launch]:
    def launch(site: Site) -> Launch:
        argv = [str(_SCRIPTS / "pacslite"), "serve", "--data-dir", str(site.directory / "data"), "--host", "127.0.0.1"]
        argv += ["--port", str(site.port), "--ae-title", "PACSLITE", "--log-level", "warning"]
        if site.sink_port:
            argv += ["--remote", f"SINK@127.0.0.1:{site.sink_port}"]
        # the load comes from one address, and faster than one address may ask by default; the peers have no such limit
        return Launch(
            argv, {"PACSLITE_STORAGE__DURABILITY": durability, "PACSLITE_LIMITS__CONNECTIONS_PER_SECOND": "0"}
        )

    return launch


def _orthanc(site: Site) -> Launch:
    """Orthanc as it comes (SQLite, files synced, no compression), everything allowed and HTTP off."""
    settings = {
        "StorageDirectory": str(site.directory / "data"),
        "IndexDirectory": str(site.directory / "data"),
        "StorageCompression": False,
        "SyncStorageArea": True,
        "HttpServerEnabled": False,
        "DicomAet": "ORTHANC",
        "DicomPort": site.port,
        "DicomCheckCalledAet": False,
        **{f"DicomAlwaysAllow{operation}": True for operation in ("Echo", "Store", "Find", "Get", "Move")},
        "DicomModalities": {"sink": ["SINK", "127.0.0.1", site.sink_port]} if site.sink_port else {},
        "MaximumPduLength": 131072,
        "LimitFindResults": 0,
        "LimitFindInstances": 0,
    }
    (site.directory / "data").mkdir()
    configuration = site.directory / "orthanc.json"
    configuration.write_text(json.dumps(settings, indent=1))
    return Launch(["Orthanc", str(configuration)])


def _dcmqrscp(site: Site) -> Launch:
    area = site.directory / "data"
    area.mkdir()
    sink = f"sink = (SINK, 127.0.0.1, {site.sink_port})\n" if site.sink_port else ""
    configuration = site.directory / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {site.port}\nMaxPDUSize = 131072\nMaxAssociations = {MAXIMUM_ASSOCIATIONS}\n"
        f"HostTable BEGIN\n{sink}HostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nDCMQRSCP {area} RW (500, 16384mb) ANY\nAETable END\n"
    )
    return Launch(["dcmqrscp", "--log-level", "error", "-c", str(configuration)])


def _storescp(site: Site) -> Launch:
    area = site.directory / "data"
    area.mkdir()
    fork = ["--fork"] if site.associations > 1 else []
    argv = ["storescp", *fork, "--log-level", "error", "-pdu", "131072", "-aet", "STORESCP", "-od", str(area)]
    return Launch([*argv, str(site.port)])


def _least(site: Site) -> Launch:
    """Two threads: the best of one, two and four."""
    root = Path(__file__).resolve().parent.parent
    argv = [sys.executable, "-m", "benchmarks.least", str(site.port), str(site.directory / "data"), "2"]
    return Launch(argv, {"PYTHONPATH": str(root)})


def _pynetdicom(site: Site) -> Launch:
    """Its own echoscp takes ten associations at most."""
    program = (
        "from pynetdicom import AE, sop_class; ae = AE('ECHOSCP'); ae.add_supported_context(sop_class.Verification, "
        f"'{EXPLICIT_LITTLE}'); ae.maximum_associations = {MAXIMUM_ASSOCIATIONS}; "
        f"ae.start_server(('127.0.0.1', {site.port}))"
    )
    return Launch([sys.executable, "-c", program])


PEERS = {
    peer.name: peer
    for peer in (
        Peer("pacslite", "PACSLITE", _pacslite("full"), "pacslite"),
        Peer("pacslite none", "PACSLITE", _pacslite("none"), "pacslite"),
        Peer("Orthanc", "ORTHANC", _orthanc, "Orthanc"),
        Peer("dcmqrscp", "DCMQRSCP", _dcmqrscp, "dcmqrscp", forks=True),
        Peer("storescp", "STORESCP", _storescp, "storescp", forks=True),
        Peer("least", "LEAST", _least, "pacslite"),
        Peer("pynetdicom", "ECHOSCP", _pynetdicom, "echoscp"),
    )
}


def available(names: Sequence[str]) -> list[Peer]:
    """Those of the named servers that are installed here."""
    return [PEERS[name] for name in names if shutil.which(PEERS[name].program, path=f"{_SCRIPTS}{os.pathsep}{_PATH}")]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _size(path: Path) -> int:
    """Bytes of a file; of none, or of one that is moved to its place just now, -1."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


@contextmanager
def running(
    peer: Peer, folder: Path, *, sink_port: int = 0, associations: int = 1, data: Path | None = None
) -> Iterator[Server]:
    """Start a server in a fresh directory below ``folder``, wait for its C-ECHO, and end it and what it forked.

    ``data`` is put in the place of its data directory: an archive made beforehand, moved in and left to the caller.
    """
    directory = Path(tempfile.mkdtemp(prefix=f"{peer.name.replace(' ', '-')}-", dir=folder))
    if data is not None:
        (directory / "data").symlink_to(data)
    site = Site(directory, free_port(), sink_port, associations)
    launch = peer.launch(site)
    started = time.perf_counter()
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            launch.argv,
            cwd=directory,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=_environment() | {"PATH": _PATH, "TCP_NODELAY": "1"} | launch.environment,
        )
    server = Server(peer, site, process)
    try:
        _wait_for_echo(server, started)
        yield server
    finally:
        _stop(process)
        empty(directory)


def _environment() -> dict[str, str]:
    """Ours, without what would make a Python server compile its modules at every start."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def empty(directory: Path) -> None:
    """Give back the space of a directory's files and keep their names until the run is over.

    ext4 does not use an inode again within a minute (five if not yet written) of its deletion, and looks at each
    such inode in turn when a file is made: deleting between two measurements took a third of the time of the next.
    """
    for folder, _, names in os.walk(directory):
        for name in names:
            os.truncate(Path(folder) / name, 0)


def _wait_for_echo(server: Server, started: float) -> None:
    while True:
        try:
            connection = server.connect([Proposal(VERIFICATION)])
            connection.echo()
        except (OSError, WireError) as error:
            if server.process.poll() is not None or time.perf_counter() - started > START_SECONDS:
                raise ServerError(f"{server.peer.name} does not answer: {error}\n{server.log_tail()}") from error
            time.sleep(0.005)
        else:
            server.started_in = time.perf_counter() - started
            connection.release()
            _settle(server)
            return


def _settle(server: Server) -> None:
    """Wait until it has done what it does after its start (pacslite imports its heavy libraries then)."""
    usage = server.usage()
    seen = -1.0
    while usage.cpu_seconds != seen and usage.cpu_seconds < SETTLE_CPU_SECONDS:
        seen = usage.cpu_seconds
        time.sleep(0.15)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in list(session_processes(process.pid)):  # children that still serve an association
        os.kill(pid, signal.SIGKILL)
