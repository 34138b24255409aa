"""Fixtures that every black-box test shares: the server under test and its foreign peers, all real processes."""

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydicom import config

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # "tests.support" is found however pytest is run

from tests.support.corpus import CorpusFile, corpus
from tests.support.networks import Cable
from tests.support.peers import Capture, Dcmjs, Dcmtk, Orthanc, QrScp, StoreScp
from tests.support.processes import Background, Pacslite, RunResult, ServerFactory, free_port, need, run

config.settings.reading_validation_mode = config.IGNORE  # the corpus is what real devices write

DESTINATIONS = ("STORESCP", "QRSCP", "ORTHANC", "PYNETDICOM", "DCMJS", "NOBODY")
DCMJS = Path(__file__).parent / "interop" / "dcmjs"


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


@pytest.fixture
def dcmtk() -> Dcmtk:
    async def call(tool: str, *arguments: str | Path | int, expect: int = 0, seconds: float = 60) -> RunResult:
        return await run(tool, *arguments, expect=expect, seconds=seconds)

    return call


@pytest.fixture(scope="session")
def dcmjs_script() -> Path:
    if not (DCMJS / "node_modules" / "dcmjs-dimse").is_dir():
        pytest.fail(f"dcmjs-dimse is missing: npm ci --prefix {DCMJS}", pytrace=False)
    return DCMJS / "peer.cjs"


@pytest.fixture
def dcmjs(dcmjs_script: Path) -> Dcmjs:
    async def call(port: int, called: str, operation: str, *arguments: str | Path) -> dict[str, Any]:
        done = await run("node", dcmjs_script, port, called, operation, *arguments)
        outcome: dict[str, Any] = json.loads(done.output.splitlines()[-1])
        return outcome

    return call


@pytest.fixture(scope="module")
def destinations() -> Mapping[str, int]:
    """AE title and port of those the server may send to; NOBODY never listens."""
    return {ae_title: free_port() for ae_title in DESTINATIONS}


@pytest.fixture(scope="module")
def settings() -> Mapping[str, Mapping[str, object]]:
    """Tables of the server's configuration; a module overrides this fixture."""
    return {}


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    destinations: Mapping[str, int],
    settings: Mapping[str, Mapping[str, object]],
) -> Iterator[Pacslite]:
    """One server for the module, stopped by SIGTERM at the end: it must exit 0 and have logged nothing alarming."""
    base = tmp_path_factory.mktemp("pacslite")
    remotes = [{"ae_title": name, "host": "127.0.0.1", "port": port} for name, port in destinations.items()]
    pacslite = Pacslite(base / "data", base / "server.log", settings=settings, remotes=remotes)
    pacslite.start()
    try:
        yield pacslite
        pacslite.stop()
    finally:
        pacslite.kill()


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[ServerFactory]:
    """Makes servers for one test; what still runs at the end is killed."""
    factory = ServerFactory(tmp_path)
    yield factory
    for pacslite in factory.made:
        pacslite.kill()


@pytest.fixture(scope="module")
def storescp(tmp_path_factory: pytest.TempPathFactory, destinations: Mapping[str, int]) -> Iterator[StoreScp]:
    peer = StoreScp(tmp_path_factory.mktemp("storescp") / "received", port=destinations["STORESCP"])
    peer.start()
    yield peer
    peer.stop()


@pytest.fixture(scope="module")
def qrscp(
    tmp_path_factory: pytest.TempPathFactory, destinations: Mapping[str, int], server: Pacslite
) -> Iterator[QrScp]:
    peers = {server.ae_title: server.port}
    peer = QrScp(tmp_path_factory.mktemp("qrscp"), peers, port=destinations["QRSCP"])
    peer.start()
    yield peer
    peer.stop()


@pytest.fixture(scope="module")
def orthanc(
    tmp_path_factory: pytest.TempPathFactory, destinations: Mapping[str, int], server: Pacslite
) -> Iterator[Orthanc]:
    peers = {server.ae_title: server.port}
    peer = Orthanc(tmp_path_factory.mktemp("orthanc"), peers, port=destinations["ORTHANC"])
    peer.start()
    yield peer
    peer.stop()


@pytest.fixture(scope="module")
def dcmjs_scp(
    tmp_path_factory: pytest.TempPathFactory, destinations: Mapping[str, int], dcmjs_script: Path
) -> Iterator[Background]:
    port = destinations["DCMJS"]
    log = tmp_path_factory.mktemp("dcmjs") / "scp.log"
    peer = Background.start(["node", dcmjs_script, port, "DCMJS", "scp"], log, port=port)
    yield peer
    peer.stop()


@pytest.fixture
def cable() -> Iterator[Cable]:
    """Two networks of the test's own, joined by a cable."""
    with Cable() as joined:
        yield joined


@pytest.fixture
async def capture(tmp_path: Path, server: Pacslite, destinations: Mapping[str, int]) -> AsyncIterator[Capture]:
    """Wireshark's view of all DICOM traffic of this test."""
    need("tshark")
    watch = Capture(tmp_path / "wire.pcapng", (server.port, *destinations.values()))
    await asyncio.to_thread(watch.start)
    yield watch
    watch.stop()


@pytest.fixture(scope="session")
def corpus_by_name() -> Mapping[str, CorpusFile]:
    return {file.name: file for file in corpus()}


@pytest.fixture
def ct_slice(corpus_by_name: Mapping[str, CorpusFile]) -> Path:
    return corpus_by_name["CT_small.dcm"].path
