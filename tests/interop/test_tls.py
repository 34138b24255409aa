"""TLS with DCMTK and pynetdicom, both ways, beside a plain listener; certificates renewed under a running server."""

import asyncio
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from pydicom import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.dimse_primitives import C_STORE

from tests.support.corpus import read_file
from tests.support.exchange import QUERY_CONTEXTS, identifier, query, send_instances
from tests.support.instances import Instance, make_instance
from tests.support.peers import Dcmtk, StoreScp
from tests.support.processes import Pacslite, ServerFactory, free_port, to_toml
from tests.support.wire import (
    CT_IMAGE,
    EXPLICIT_LITTLE,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    RejectedError,
    Wire,
)


@dataclass
class Pki:
    """An authority, a server's and a workstation's certificate, in the files that the tools want."""

    folder: Path
    authority: trustme.CA

    def issue(self, name: str, *identities: str, by: trustme.CA | None = None) -> tuple[Path, Path]:
        """Key and certificate ``name``."""
        issued = (by or self.authority).issue_cert(*(identities or (name,)), key_type=trustme.KeyType.RSA)
        key, certificate = self.folder / f"{name}.key", self.folder / f"{name}.pem"
        issued.private_key_pem.write_to_path(key)
        issued.cert_chain_pems[0].write_to_path(certificate)
        return key, certificate

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"


def _pki(folder: Path) -> Pki:
    pki = Pki(folder, trustme.CA(key_type=trustme.KeyType.RSA))
    pki.authority.cert_pem.write_to_path(pki.ca)
    pki.issue("server", "127.0.0.1", "localhost")
    pki.issue("ws7.ward")
    pki.issue("stranger", by=trustme.CA(key_type=trustme.KeyType.RSA))
    return pki


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return _pki(tmp_path_factory.mktemp("pki"))


def _settings(pki: Pki, port: int, wanted: str = "required") -> dict[str, Mapping[str, object]]:
    files = {"certificate": pki.folder / "server.pem", "key": pki.folder / "server.key", "ca": pki.ca}
    return {
        "tls": {**files, "client_certificate": wanted},
        "[listener]": {"host": "127.0.0.1", "port": port, "tls": True},  # [[listener]]
        "timeouts": {"tls_handshake_seconds": 1},
    }


@dataclass
class Secure:
    """A server with a plain port and one with TLS."""

    server: Pacslite
    port: int


@pytest.fixture(scope="module")
def scp_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, pki: Pki, scp_port: int) -> Iterator[Secure]:
    base, port = tmp_path_factory.mktemp("secure"), free_port()
    remotes = [{"ae_title": "STORESCP", "host": "127.0.0.1", "port": scp_port, "tls": True}]
    server = Pacslite(base / "data", base / "server.log", settings=_settings(pki, port), remotes=remotes)
    server.start()
    yield Secure(server, port)
    try:
        server.stop()
    finally:
        server.kill()


@pytest.fixture(scope="module")
def study(secure: Secure) -> Sequence[Instance]:
    instances = [make_instance(n, seed=95, size=200_000) for n in range(3)]
    asyncio.run(send_instances(secure.server.port, instances))  # over the plain listener
    return instances


def own(pki: Pki, name: str = "ws7.ward") -> tuple[str | Path, ...]:
    """DCMTK's options: its key and certificate, and whom it trusts."""
    return ("+tls", pki.folder / f"{name}.key", pki.folder / f"{name}.pem", "+cf", pki.ca)


def client_context(pki: Pki) -> ssl.SSLContext:
    """The workstation's: whom it trusts, and who it is."""
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(pki.folder / "ws7.ward.pem", pki.folder / "ws7.ward.key")
    return context


async def _refusals(server: Pacslite, before: int, count: int = 1) -> list[str]:
    """The lines about handshakes that failed since ``before``."""
    lines: list[str] = []
    for _ in range(100):
        lines = [line for line in server.text()[before:].splitlines() if "TLS handshake failed" in line]
        if len(lines) >= count:
            break
        await asyncio.sleep(0.02)
    return lines


# to us


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
async def test_dcmtk_by_each_profile_of_bcp_195(secure: Secure, dcmtk: Dcmtk, pki: Pki, profile: str) -> None:
    peer = ("-aec", secure.server.ae_title, "127.0.0.1", secure.port)
    await dcmtk("echoscu", *own(pki), profile, *peer)


async def test_dcmtk_stores_and_finds(secure: Secure, dcmtk: Dcmtk, pki: Pki, ct_slice: Path, tmp_path: Path) -> None:
    file = read_file(ct_slice)
    assert file is not None
    peer = ("-aec", secure.server.ae_title, "127.0.0.1", secure.port)
    await dcmtk("storescu", *own(pki), *peer, ct_slice)
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={file.header().StudyInstanceUID}")
    await dcmtk("findscu", "-S", *own(pki), "-X", "-od", tmp_path, *peer, *keys)
    assert len(list(tmp_path.glob("rsp*.dcm"))) == 1


@asynccontextmanager
async def tunnel(port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """What hospitals put before a device that speaks no TLS: gives the port that it listens on in the clear."""
    passing: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        for one in (copy(reader, ours), copy(theirs, writer)):
            passing.add(asyncio.create_task(one))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.wait(passing, timeout=5)


@pytest.mark.parametrize("size", [4096, 131_072])
async def test_getscu_through_a_tunnel(
    secure: Secure, dcmtk: Dcmtk, pki: Pki, study: Sequence[Instance], tmp_path: Path, size: int
) -> None:
    """DCMTK's getscu has no TLS of its own. Certificates on both sides; each instance comes as it was sent."""
    async with tunnel(secure.port, client_context(pki)) as port:
        keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study[0].study_uid}")
        peer = ("-aec", secure.server.ae_title, "127.0.0.1", port)
        await dcmtk("getscu", "-S", "+B", "-pdu", size, "-od", tmp_path, *peer, *keys)
    received = {file.sop_instance_uid: file.data for path in tmp_path.iterdir() if (file := read_file(path))}
    assert received == {one.sop_instance_uid: one.data for one in study}


def test_pynetdicom_gets(secure: Secure, pki: Pki, study: Sequence[Instance]) -> None:
    """C-GET over TLS, with certificates on both sides."""
    received: dict[str, bytes] = {}

    def on_store(event: evt.Event) -> int:
        request = event.request
        assert isinstance(request, C_STORE)
        assert request.DataSet is not None
        received[str(request.AffectedSOPInstanceUID)] = request.DataSet.getvalue()
        return 0

    ae = AE("WS7")
    ae.add_requested_context(STUDY_ROOT_GET)
    ae.add_requested_context(CT_IMAGE, EXPLICIT_LITTLE)
    association = ae.associate(
        "127.0.0.1",
        secure.port,
        ae_title=secure.server.ae_title,
        ext_neg=[build_role(CT_IMAGE, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, on_store)],
        tls_args=(client_context(pki), "localhost"),
    )
    assert association.is_established
    keys = Dataset()
    keys.QueryRetrieveLevel, keys.StudyInstanceUID = "STUDY", study[0].study_uid
    final = [status for status, _ in association.send_c_get(keys, STUDY_ROOT_GET)][-1]
    association.release()
    assert (final.Status, final.NumberOfCompletedSuboperations) == (0, len(study))
    assert received == {one.sop_instance_uid: one.data for one in study}


def test_pynetdicom(secure: Secure, pki: Pki) -> None:
    ae = AE("WS7")
    ae.add_requested_context(VERIFICATION)
    association = ae.associate(
        "127.0.0.1", secure.port, ae_title=secure.server.ae_title, tls_args=(client_context(pki), "localhost")
    )
    assert association.is_established
    assert association.send_c_echo().Status == 0
    association.release()


async def test_who_is_not_let_in(secure: Secure, dcmtk: Dcmtk, pki: Pki) -> None:
    """Without a certificate, with one of another authority, without TLS: one line each that says why."""
    peer = ("-aec", secure.server.ae_title, "127.0.0.1", secure.port)
    for words, why in (
        (("+tla", "+cf", pki.ca), "the peer shows no certificate"),
        (own(pki, "stranger"), "certificate not accepted"),
        ((), "the peer does not speak TLS"),
    ):
        before = len(secure.server.text())
        await dcmtk("echoscu", *words, "-ta", 5, *peer, expect=1)
        (line,) = await _refusals(secure.server, before)
        assert why in line
        assert "peer=127.0.0.1" in line


async def test_anonymous_where_no_certificate_is_wanted(new_server: ServerFactory, dcmtk: Dcmtk, pki: Pki) -> None:
    port = free_port()
    server = new_server()
    server.settings = _settings(pki, port, "none")
    async with server.running():
        await dcmtk("echoscu", "+tla", "+cf", pki.ca, "-aec", server.ae_title, "127.0.0.1", port)
        await dcmtk("echoscu", "-aec", server.ae_title, "127.0.0.1", server.port)


async def test_frozen_handshakes_hold_nobody_up(secure: Secure, dcmtk: Dcmtk, pki: Pki) -> None:
    before = len(secure.server.text())
    frozen = [await asyncio.open_connection("127.0.0.1", secure.port) for _ in range(40)]
    peer = ("-aec", secure.server.ae_title, "127.0.0.1", secure.port)
    async with asyncio.timeout(5):
        await dcmtk("echoscu", *own(pki), *peer)
    lines = await _refusals(secure.server, before, 40)
    assert len(lines) == 40
    assert all("taking longer than 1.0 seconds" in line for line in lines)
    for _, writer in frozen:
        writer.close()


# from us


@pytest.mark.parametrize("certificate", ["server", "stranger"])
async def test_move_over_tls(
    secure: Secure, dcmtk: Dcmtk, pki: Pki, study: Sequence[Instance], scp_port: int, tmp_path: Path, certificate: str
) -> None:
    """To storescp, which wants our certificate; a destination that is not whom it should be gets nothing."""
    scp = StoreScp(tmp_path / "received", options=tuple(map(str, own(pki, certificate))), port=scp_port)
    scp.start()
    words = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study[0].study_uid}")
    move = ("-S", "-aec", secure.server.ae_title, "-aem", "STORESCP", "127.0.0.1", secure.server.port, *words)
    try:
        if certificate == "server":
            await dcmtk("movescu", *move)
            assert len(scp.files()) == len(study)
        else:
            async with await Wire.associate(secure.server.port, QUERY_CONTEXTS) as wire:
                key = identifier("STUDY", StudyInstanceUID=study[0].study_uid)
                final = (await wire.move(STUDY_ROOT_MOVE, key, "STORESCP"))[-1]
            assert (final.status, final.failed) == (0xA702, len(study))
            assert "certificate not accepted" in final.comment
            assert scp.files() == []
    finally:
        scp.stop()


async def test_nothing_is_sent_in_the_clear_to_a_remote_with_tls(
    secure: Secure, pki: Pki, study: Sequence[Instance], scp_port: int, tmp_path: Path
) -> None:
    scp = StoreScp(tmp_path / "received", port=scp_port)
    scp.start()
    try:
        async with await Wire.associate(secure.server.port, QUERY_CONTEXTS) as wire:
            key = identifier("STUDY", StudyInstanceUID=study[0].study_uid)
            final = (await wire.move(STUDY_ROOT_MOVE, key, "STORESCP"))[-1]
        assert (final.status, final.failed) == (0xA702, len(study))
        assert scp.files() == []
    finally:
        scp.stop()


# while it runs


async def _until(holds: Callable[[], bool], seconds: float = 4) -> None:
    for _ in range(int(seconds / 0.02)):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came to be")


def _serial(port: int, pki: Pki) -> str:
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        client_context(pki).wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        certificate = secure.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


async def test_sighup_takes_a_new_certificate_and_new_remotes(
    new_server: ServerFactory, dcmtk: Dcmtk, tmp_path: Path
) -> None:
    """The process and its listeners stay, and so does an association that is established."""
    pki, port = _pki(tmp_path), free_port()
    remote: dict[str, object] = {"ae_title": "WS7", "host": "127.0.0.1", "certificate_name": "ws8.ward"}
    server = new_server()
    server.settings = _settings(pki, port) | {"access": {"unknown_peers": "nobody"}}
    server.remotes = [remote]
    async with server.running():
        peer = ("-aet", "WS7", "-aec", server.ae_title, "127.0.0.1", port)
        done = await dcmtk("echoscu", "-v", *own(pki), *peer, expect=1)
        assert "Calling AE Title Not Recognized" in done
        before = await asyncio.to_thread(_serial, port, pki)
        pki.issue("server", "127.0.0.1", "localhost")
        remote["certificate_name"] = "WS7.ward"
        server.log.with_suffix(".toml").write_text(to_toml(server.settings, server.remotes))
        server.process.send_signal(signal.SIGHUP)
        await _until(lambda: "configuration reloaded" in server.text())
        await dcmtk("echoscu", *own(pki), *peer)
        assert await asyncio.to_thread(_serial, port, pki) != before
        with pytest.raises(RejectedError) as caught:  # without TLS it has no certificate
            await Wire.associate(server.port, QUERY_CONTEXTS, calling="WS7")
        assert caught.value.codes == (1, 1, 3)


async def test_a_certificate_that_changes_needs_no_signal(new_server: ServerFactory, tmp_path: Path) -> None:
    """As a program that renews certificates leaves it. The server looks every ten seconds."""
    pki, port = _pki(tmp_path), free_port()
    server = new_server()
    server.settings = _settings(pki, port)
    async with server.running():
        before = await asyncio.to_thread(_serial, port, pki)
        pki.issue("server", "127.0.0.1", "localhost")
        await _until(lambda: "certificate reloaded" in server.text(), seconds=20)
        assert await asyncio.to_thread(_serial, port, pki) != before


async def test_sighup_with_files_that_do_not_fit_changes_nothing(new_server: ServerFactory, tmp_path: Path) -> None:
    pki, port = _pki(tmp_path), free_port()
    server = new_server()
    server.settings = _settings(pki, port)
    server.expected = ("configuration not reloaded",)
    async with server.running():
        before = await asyncio.to_thread(_serial, port, pki)
        (pki.folder / "server.pem").write_text("no certificate")
        server.process.send_signal(signal.SIGHUP)
        await _until(lambda: "configuration not reloaded" in server.text())
        assert await asyncio.to_thread(_serial, port, pki) == before
        assert await query(server.port, identifier("STUDY", StudyInstanceUID="1.2.3")) == []
