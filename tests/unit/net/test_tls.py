"""TLS by PS3.15 §B.12 and §B.13: versions, suites, mutual authentication, reload, and failures that say why."""

import asyncio
import contextlib
import datetime as dt
import logging
import os
import resource
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from pacslite.access import Access, Remote
from pacslite.dimse.messages import CommandField, request_command
from pacslite.net.connection import Connection
from pacslite.net.ended import ConnectFailed
from pacslite.net.limits import LimitsOptions
from pacslite.net.requestor import associate
from pacslite.net.timeouts import Timeouts
from pacslite.net.tls import Certificates, TlsError, TlsOptions, certificate_names, tls_problem
from pacslite.upper_layer.items import PresentationContext
from pacslite.upper_layer.pdu import AAssociateRQ
from tests.support.raw import command, p_data, pdv, read_to_end
from tests.support.site import Finder, MakeSite, Site
from tests.support.wire import (
    CT_IMAGE,
    EXPLICIT_LITTLE,
    STUDY_ROOT_FIND,
    VERIFICATION,
    Context,
    RejectedError,
    Wire,
    associate_request,
)

CONTEXTS = [Context(1, VERIFICATION), Context(3, CT_IMAGE), Context(5, STUDY_ROOT_FIND)]
PATIENT = Timeouts(tls_handshake_seconds=30)  # a slow machine is no frozen peer
QUICK = Timeouts(tls_handshake_seconds=0.3)
OURS, OTHERS = trustme.CA(), trustme.CA()


class Files:
    """Certificate, key and authority as the configuration names them."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key, self.ca = (folder / name for name in ("server.pem", "server.key", "ca.pem"))
        self.issue()
        OURS.cert_pem.write_to_path(self.ca)

    def issue(self, by: trustme.CA = OURS, name: str = "127.0.0.1", **options: Any) -> trustme.LeafCert:
        issued = by.issue_cert(name, "localhost", **options)
        self.write(issued.cert_chain_pems[0], self.certificate)
        self.write(issued.private_key_pem, self.key)
        return issued

    def write(self, pem: trustme.Blob, path: Path) -> None:
        pem.write_to_path(path)
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))

    def options(self, **more: Any) -> TlsOptions:
        return TlsOptions(self.certificate, self.key, ca=self.ca, **more)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def client(certificate: trustme.CA | None = OURS, trusts: trustme.CA = OURS, name: str = "WS7.ward") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusts.configure_trust(context)
    if certificate is not None:
        certificate.issue_cert(name, common_name=name).configure_cert(context)
    return context


async def secure_site(
    make_site: MakeSite, certificates: Certificates, timeouts: Timeouts = PATIENT, **options: Any
) -> Site:
    site = make_site(tls=lambda: certificates.server, timeouts=timeouts, **options)
    await site.start()
    return site


async def over_tls(port: int, context: ssl.SSLContext, **options: Any) -> Wire:
    """An association inside TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=4 << 20)
    wire = Wire(reader, writer, CONTEXTS)
    try:
        writer.write(associate_request(CONTEXTS, "PACSLITE", "WS7", 16_384))
        kind, body = await wire.read_pdu()
        if kind == 3:
            raise RejectedError(*body[1:4])
        wire._read_accept(body)
    except BaseException:
        writer.transport.abort()
        raise
    return wire


async def use(port: int, context: ssl.SSLContext) -> str:
    """Associate and echo; gives the version and suite."""
    async with await over_tls(port, context) as wire:
        assert await wire.echo() == 0
        used: ssl.SSLObject = wire.writer.get_extra_info("ssl_object")
        return f"{used.version()} {(used.cipher() or ('',))[0]}"


def shake_hands(port: int, context: ssl.SSLContext) -> None:
    """By the standard library's blocking sockets, which tell of the alert that comes."""
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        if not secure.recv(1):  # in TLS 1.3 a client hears of its refusal after its own handshake is done
            raise ConnectionError("closed")


# versions and suites


@pytest.mark.parametrize(
    ("key", "suite"),
    [
        (trustme.KeyType.RSA, "ECDHE-RSA-AES128-GCM-SHA256"),
        (trustme.KeyType.RSA, "ECDHE-RSA-AES256-GCM-SHA384"),
        (trustme.KeyType.ECDSA, "ECDHE-ECDSA-AES128-GCM-SHA256"),
        (trustme.KeyType.ECDSA, "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ],
)
async def test_the_suites_of_tls_1_2(make_site: MakeSite, files: Files, key: trustme.KeyType, suite: str) -> None:
    """RFC 9325 §4.2."""
    files.issue(key_type=key)
    site = await secure_site(make_site, Certificates(files.options()))
    context = client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(suite)
    assert await use(site.port, context) == f"TLSv1.2 {suite}"


async def test_tls_1_3_is_taken_where_both_have_it(make_site: MakeSite, files: Files) -> None:
    site = await secure_site(make_site, Certificates(files.options()))
    assert (await use(site.port, client())).startswith("TLSv1.3 TLS_AES_")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("newest", "suites", "minimum"),
    [
        (ssl.TLSVersion.TLSv1_1, "DEFAULT:@SECLEVEL=0", "1.2"),  # RFC 8996
        (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA256", "1.2"),  # CBC
        (ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256", "1.2"),  # no forward secrecy
        (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256", "1.3"),
    ],
)
async def test_what_is_retired_is_refused(
    make_site: MakeSite,
    files: Files,
    newest: ssl.TLSVersion,
    suites: str,
    minimum: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = await secure_site(make_site, Certificates(files.options(minimum_version=minimum)))
    context = client()
    context.minimum_version = min(ssl.TLSVersion.TLSv1, newest)
    context.maximum_version = newest
    context.set_ciphers(suites)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await over_tls(site.port, context)
    await one_line(site, caplog)


# who is let in


async def one_line(site: Site, caplog: pytest.LogCaptureFixture, why: str = "") -> None:
    """A failed handshake is one line that names the peer and the reason, and nothing is left of it."""
    for _ in range(500):
        if caplog.records and not site.listener._handshakes:
            break
        await asyncio.sleep(0.01)
    assert not site.listener._handshakes
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.message == "TLS handshake failed"
    assert vars(record)["peer"] == "127.0.0.1"
    told = vars(record)["why"]
    assert told
    assert "\n" not in told
    assert why in told


@pytest.mark.parametrize(
    ("context", "why", "reason"),
    [
        (lambda: client(None), "the peer shows no certificate", "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        (lambda: client(OTHERS), "certificate not accepted: ", "TLSV1_ALERT_UNKNOWN_CA"),
        (
            lambda: client(trusts=OTHERS),
            "the peer does not know the authority of our certificate",
            "CERTIFICATE_VERIFY_FAILED",
        ),
    ],
)
async def test_certificates_that_do_not_fit(
    make_site: MakeSite,
    files: Files,
    context: Callable[[], ssl.SSLContext],
    why: str,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Both sides are told: ``reason`` is what OpenSSL makes of our alert, or of our certificate."""
    site = await secure_site(make_site, Certificates(files.options()))
    with pytest.raises(ssl.SSLError) as failure:
        await asyncio.to_thread(shake_hands, site.port, context())
    assert failure.value.reason == reason
    await one_line(site, caplog, why)
    assert await use(site.port, client())


@pytest.mark.parametrize("wanted", ["none", "optional"])
async def test_a_certificate_need_not_be_wanted(make_site: MakeSite, files: Files, wanted: str) -> None:
    site = await secure_site(make_site, Certificates(files.options(client_certificate=wanted)))
    assert await use(site.port, client(None))
    assert await use(site.port, client())


@pytest.mark.parametrize(
    ("words", "timeouts", "why"),
    [
        (b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", PATIENT, "an HTTP request"),
        (associate_request(CONTEXTS, "PACSLITE", "WIRE", 16_384), PATIENT, "the peer does not speak TLS"),
        (b"\x16\x03\x01", QUICK, "taking longer than 0.3 seconds"),
        (b"", QUICK, "taking longer than 0.3 seconds"),
    ],
)
async def test_what_is_no_handshake(
    make_site: MakeSite,
    files: Files,
    words: bytes,
    timeouts: Timeouts,
    why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = await secure_site(make_site, Certificates(files.options()), timeouts)
    with socket.create_connection(("127.0.0.1", site.port)) as one:
        one.sendall(words)
        await one_line(site, caplog, why)


async def test_a_peer_that_leaves_in_its_handshake(
    make_site: MakeSite, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    site = await secure_site(make_site, Certificates(files.options()))
    socket.create_connection(("127.0.0.1", site.port)).close()
    await one_line(site, caplog, "connection closed during the handshake")
    caplog.clear()
    one = socket.create_connection(("127.0.0.1", site.port))
    for _ in range(500):
        if site.listener._handshakes:
            break
        await asyncio.sleep(0.01)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()
    await one_line(site, caplog, "Connection reset by peer")


@contextlib.asynccontextmanager
async def frozen(port: int, count: int) -> AsyncIterator[None]:
    """Connections that never begin their handshake."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", port))
        yield


async def refused(caplog: pytest.LogCaptureFixture) -> None:
    """Wait until the listener has taken all that came, and refused what is too much."""
    for _ in range(500):
        if "connection refused" in caplog.messages:
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)


async def test_frozen_handshakes_hold_nobody_up(make_site: MakeSite, files: Files) -> None:
    """Nor does the listener's end wait for them."""
    site = await secure_site(make_site, Certificates(files.options()))
    async with frozen(site.port, 50):
        async with asyncio.timeout(5):
            assert await use(site.port, client())
        assert len(site.listener._handshakes) == 50
        async with asyncio.timeout(5):
            await site.stop()


async def test_of_many_handshakes_at_once_each_turn_of_the_loop_begins_one(make_site: MakeSite, files: Files) -> None:
    """Others have their turns between: all in one would hold the loop for a millisecond or two each."""
    site = await secure_site(make_site, Certificates(files.options()))
    loop = asyncio.get_running_loop()
    burst = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(50)]
    turns: list[int] = []

    def turn() -> None:
        turns.append(len(site.listener._handshakes))
        if turns[-1] < len(burst):
            loop.call_soon(turn)

    turn()
    async with asyncio.timeout(5):
        while turns[-1] < len(burst):
            await asyncio.sleep(0.005)
    assert max(after - before for before, after in pairwise(turns)) == 1
    for one in burst:
        one.close()


async def test_what_is_too_much_is_closed_before_its_handshake(
    make_site: MakeSite, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    site = await secure_site(make_site, Certificates(files.options()), limits=LimitsOptions(associations_per_host=1))
    async with frozen(site.port, 110):
        await refused(caplog)
        assert len(site.listener._handshakes) == 102


async def test_handshakes_have_their_rate(make_site: MakeSite, files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """They cost more than an association, and come before it: what is too much is closed, and others are served."""
    site = await secure_site(make_site, Certificates(files.options()), limits=LimitsOptions(connections_per_second=20))
    begun = time.monotonic()
    async with frozen(site.port, 60):
        await refused(caplog)
        allowed = 20 + 20 * (time.monotonic() - begun)
        assert 20 <= len(site.listener._handshakes) <= allowed
    for _ in range(500):
        if not site.listener._handshakes:
            break
        await asyncio.sleep(0.01)
    assert not site.listener._handshakes
    await asyncio.sleep(0.2)
    assert await use(site.port, client())


async def test_a_remote_is_its_title_address_and_certificate(make_site: MakeSite, files: Files) -> None:
    """1/1/3 for a certificate of another name, and for a connection without TLS."""

    def access(name: str) -> Access:
        remote = Remote("WS7", "x", addresses=("127.0.0.1",), certificate_name=name)
        return Access(("PACSLITE",), remotes=[remote], loopback=False)

    site = await secure_site(make_site, Certificates(files.options()), access=access("ws7.WARD"))
    assert await use(site.port, client())
    site.access = access("ws8.ward")
    with pytest.raises(RejectedError) as caught:
        await use(site.port, client())
    assert caught.value.codes == (1, 1, 3)
    plain = make_site(access=access("ws7.ward"))
    await plain.start()
    with pytest.raises(RejectedError) as caught:
        await Wire.associate(plain.port, CONTEXTS, calling="WS7")
    assert caught.value.codes == (1, 1, 3)


def test_names_of_a_certificate() -> None:
    certificate = {
        "subject": ((("organizationName", "Hospital"),), (("commonName", "CT01.Ward"),)),
        "subjectAltName": (("DNS", "ct.example"), ("IP Address", "10.0.0.12"), ("DirName", ((("x", "y"),),))),
    }
    assert certificate_names(certificate) == {"ct01.ward", "ct.example", "10.0.0.12"}
    assert certificate_names({}) == frozenset()


# associations inside


async def test_data_goes_both_ways(make_site: MakeSite, files: Files) -> None:
    finder = Finder(count=200, size=30_000)
    site = await secure_site(make_site, Certificates(files.options()), services=[finder])
    data = os.urandom(3_000_000)
    async with await over_tls(site.port, client()) as wire:
        assert (await wire.store(CT_IMAGE, "1.2.3", data)).status == 0
        assert site.storage.sinks[0].data == data
        await wire.start_query(STUDY_ROOT_FIND, b"")
        assert [answer.status async for answer in wire.answers()] == [0xFF00] * 200 + [0]


async def test_a_peer_that_goes_away_without_close_notify(make_site: MakeSite, files: Files) -> None:
    site = await secure_site(make_site, Certificates(files.options()))
    wire = await over_tls(site.port, client())
    handle: socket.socket = wire.writer.get_extra_info("socket")
    with socket.fromfd(handle.fileno(), handle.family, handle.type) as one:
        one.shutdown(socket.SHUT_RDWR)
    for _ in range(100):
        if not site.listener.connections:
            break
        await asyncio.sleep(0.01)
    assert site.listener.connections == 0
    wire.writer.transport.abort()


async def test_descriptors_that_run_out_in_the_midst_of_a_burst(
    make_site: MakeSite, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """Told once a second; who waits in the backlog is served when there are some again."""
    site = await secure_site(make_site, Certificates(files.options()))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    context = client()
    with socket.socket() as waiting:
        waiting.setblocking(False)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (waiting.fileno() + 1, hard))
            await asyncio.get_running_loop().sock_connect(waiting, ("127.0.0.1", site.port))
            await asyncio.sleep(0.1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["cannot accept"]
        async with asyncio.timeout(3):
            assert await use(site.port, context)
    await asyncio.sleep(0.02)


async def test_a_handshake_of_ours_that_is_given_up(files: Files) -> None:
    certificates = Certificates(files.options())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await call(silent.getsockname()[1], certificates.client, timeouts=QUICK)
        accepted, _ = silent.accept()
        accepted.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=accepted)
        async with asyncio.timeout(2):
            await read_to_end(reader)  # our ClientHello, and then the end
        writer.close()


# reading the files again


async def served(port: int) -> int:
    """Serial number of the certificate that the next handshake gets."""
    context = client()
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    used: ssl.SSLObject = writer.get_extra_info("ssl_object")
    certificate = used.getpeercert()
    writer.close()
    assert certificate is not None
    return int(str(certificate["serialNumber"]), 16)


def serial(issued: trustme.LeafCert) -> int:
    from cryptography import x509

    return x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).serial_number


async def test_a_new_certificate_is_served_without_a_new_listener(make_site: MakeSite, files: Files) -> None:
    """On change, without a word from anybody; what is established goes on."""
    certificates = Certificates(files.options())
    watching = asyncio.create_task(certificates.watch(0.02))
    site = await secure_site(make_site, certificates)
    async with await over_tls(site.port, client()) as wire:
        before = await served(site.port)
        new = files.issue()
        for _ in range(100):
            await asyncio.sleep(0.02)
            if await served(site.port) != before:
                break
        assert await served(site.port) == serial(new)
        assert await wire.echo() == 0
    watching.cancel()


async def test_files_that_do_not_go_together_change_nothing(
    make_site: MakeSite, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate without its key is the middle of a renewal: told once, and the old one stays."""
    certificates = Certificates(files.options())
    site = await secure_site(make_site, certificates)
    before = await served(site.port)
    issued = OURS.issue_cert("127.0.0.1")
    files.write(issued.cert_chain_pems[0], files.certificate)
    for _ in range(3):
        certificates.reload_if_changed()
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.message == "certificate not reloaded"
    assert "key values mismatch" in vars(record)["why"]
    assert await served(site.port) == before
    files.write(issued.private_key_pem, files.key)
    certificates.reload_if_changed()
    assert await served(site.port) == serial(issued)


async def test_authorities_are_read_again_too(make_site: MakeSite, files: Files) -> None:
    """One that is no longer in the file is no longer trusted."""
    certificates = Certificates(files.options())
    site = await secure_site(make_site, certificates)
    assert await use(site.port, client())
    files.write(OTHERS.cert_pem, files.ca)
    certificates.reload()
    assert await use(site.port, client(OTHERS))
    with pytest.raises(Exception):  # noqa: B017, PT011
        await use(site.port, client())


async def test_other_options_are_taken_over(make_site: MakeSite, files: Files, tmp_path: Path) -> None:
    certificates = Certificates(files.options())
    site = await secure_site(make_site, certificates)
    (tmp_path / "other").mkdir()
    others = Files(tmp_path / "other")
    certificates.reload(others.options(client_certificate="none"))
    assert await use(site.port, client(None))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda files: files.certificate.unlink(), "server.pem or .*server.key: No such file or directory"),
        (lambda files: files.ca.unlink(), "ca.pem: No such file or directory"),
        (
            lambda files: files.certificate.write_text("no certificate"),
            "server.pem or .*server.key: no certificate, or",
        ),
        (lambda files: files.ca.write_text("no authority"), "ca.pem: "),
    ],
)
def test_files_that_cannot_be_used_are_named(files: Files, spoil: Callable[[Files], object], problem: str) -> None:
    spoil(files)
    with pytest.raises(TlsError, match=problem):
        Certificates(files.options())


@pytest.mark.parametrize("password", ["", "another one"])
def test_a_key_that_its_password_does_not_open_is_told_and_nobody_asked(
    files: Files, capfd: pytest.CaptureFixture[str], password: str
) -> None:
    """OpenSSL itself would ask for one, at the terminal or on the standard streams, and wait."""
    key = load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"the right one"))
    )
    Certificates(files.options(key_password="the right one"))
    with pytest.raises(TlsError, match=r"server.pem or .*server.key: no certificate, or no key that .* opens"):
        Certificates(files.options(key_password=password))
    assert "pass phrase" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("days", "told"), [(100, []), (29, ["certificate expires"]), (-1, ["certificate has expired"])]
)
def test_the_end_of_a_certificate_is_warned_about(
    files: Files, days: int, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """From thirty days before, at the start and once a day."""
    end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    files.issue(not_after=end)
    certificates = Certificates(files.options())
    certificates.reload_if_changed()
    assert [record.message for record in caplog.records] == told
    certificates._expiry_checked -= 86_400
    certificates.reload_if_changed()
    assert [record.message for record in caplog.records] == told * 2


async def test_a_certificate_that_has_gone_is_told_and_the_watch_goes_on(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = Certificates(files.options())
    watching = asyncio.create_task(certificates.watch(0.01))
    context = certificates.server
    files.certificate.unlink()
    await asyncio.sleep(0.1)
    certificates._expiry_checked = float("-inf")  # a day later
    await asyncio.sleep(0.1)
    assert [record.message for record in caplog.records] == [
        "certificate not reloaded",
        "certificate's end not known",
    ]
    assert certificates.server is context
    assert not watching.done()
    files.issue()
    for _ in range(100):
        if certificates.server is not context:
            break
        await asyncio.sleep(0.01)
    assert certificates.server is not context
    watching.cancel()


# outbound


async def call(port: int, context: ssl.SSLContext, host: str = "127.0.0.1", timeouts: Timeouts = PATIENT) -> Connection:
    request = AAssociateRQ("PACSLITE", "WS7", (PresentationContext(1, VERIFICATION, (EXPLICIT_LITTLE,)),))

    def begin(*_: object) -> Any:
        raise AssertionError("the peer asks nothing")

    return await associate(host, port, request, timeouts=timeouts, begin=begin, tls=context)


async def test_we_call_over_tls(make_site: MakeSite, files: Files) -> None:
    """With our certificate, which the peer wants, and with a look at the peer's name."""
    certificates = Certificates(files.options())
    site = await secure_site(make_site, certificates)
    for host in ("127.0.0.1", "localhost"):
        connection = await call(site.port, certificates.client, host)
        (context,) = connection.negotiated.contexts.values()
        request = request_command(CommandField.C_ECHO_RQ, 1, sop_class_uid=VERIFICATION)
        assert (await connection.invoke(context, request)).status == 0
        await connection.release()


@pytest.mark.parametrize(
    ("issue", "problem", "told"),
    [
        (
            {"name": "other.example"},
            "certificate not accepted: IP address mismatch",
            "the peer refuses our certificate",
        ),
        ({"by": OTHERS}, "certificate not accepted: ", "the peer does not know the authority of our certificate"),
        (
            {"not_after": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)},
            "certificate not accepted: .*expired",
            "our certificate has expired",
        ),
    ],
)
async def test_a_peer_that_is_not_who_it_should_be(
    make_site: MakeSite,
    files: Files,
    issue: dict[str, Any],
    problem: str,
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    certificates = Certificates(files.options())
    files.issue(**({"by": OURS} | issue))
    site = await secure_site(make_site, Certificates(files.options(client_certificate="none")))
    caplog.clear()  # of what is said about the certificate itself
    with pytest.raises(ConnectFailed, match=problem):
        await call(site.port, certificates.client)
    await one_line(site, caplog, told)


async def test_a_peer_that_wants_a_certificate_of_us(make_site: MakeSite, files: Files) -> None:
    """In TLS 1.3 we hear of it when our own handshake is done and the A-ASSOCIATE-RQ is sent."""
    site = await secure_site(make_site, Certificates(files.options()))
    with pytest.raises(ConnectFailed, match="the peer wants a certificate of us"):
        await call(site.port, Certificates(TlsOptions(ca=files.ca)).client)


async def test_the_name_need_not_be_looked_at(make_site: MakeSite, files: Files) -> None:
    files.issue(name="other.example")
    certificates = Certificates(files.options(check_names=False))
    site = await secure_site(make_site, certificates)
    connection = await call(site.port, certificates.client)
    await connection.release()


async def test_a_peer_that_does_not_speak_tls(site: Site, files: Files) -> None:
    certificates = Certificates(files.options())
    with pytest.raises(ConnectFailed, match="TLS: the peer does not speak TLS"):
        await call(site.port, certificates.client)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("certificate", "told"),
    [
        (None, "TLS: the peer (wants a certificate of us|finds nothing in common, a cipher suite or our certificate)$"),
        (OTHERS, "TLS: the peer does not know the authority of our certificate$"),
    ],
)
async def test_a_peer_that_refuses_our_certificate(
    version: ssl.TLSVersion, certificate: trustme.CA | None, told: str
) -> None:
    """In TLS 1.3 its alert comes after our handshake, and is told in the same words."""
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    OURS.issue_cert("127.0.0.1").configure_cert(theirs)
    OURS.configure_trust(theirs)
    theirs.verify_mode, theirs.maximum_version = ssl.CERT_REQUIRED, version

    def refuse(listening: socket.socket) -> None:
        connected, _ = listening.accept()
        with connected, connected.dup() as plain:
            with pytest.raises(ssl.SSLError):
                theirs.wrap_socket(connected, server_side=True)
            while plain.recv(65_536):  # closed with something unread, its alert would be lost
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        refusing = asyncio.create_task(asyncio.to_thread(refuse, listening))
        with pytest.raises(ConnectFailed, match=told) as refused:
            await call(listening.getsockname()[1], client(certificate))
        await refusing
    assert refused.type is ConnectFailed, "a peer that is there will not be another one later"


async def test_a_peer_that_freezes_in_our_handshake(files: Files) -> None:
    certificates = Certificates(files.options())
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ConnectFailed, match=r"TLS: .*taking longer than 0.3 seconds"),
    ):
        await call(silent.getsockname()[1], certificates.client, timeouts=QUICK)


def test_problems_in_words() -> None:
    error = ssl.SSLError(1, "[SSL] something")
    error.reason = "SOME_REASON_OF_OPENSSL"
    assert tls_problem(error) == "some reason of openssl"
    error.reason = None  # type: ignore[assignment]
    assert tls_problem(error) == "TLS failed"
    assert tls_problem(ConnectionAbortedError()) == "handshake aborted"
    assert tls_problem(ConnectionResetError()) == "connection closed during the handshake"


# stopping


@pytest.mark.parametrize("when", ["accepted", "begun", "done", "associated", "storing"])
async def test_stopping_in_a_handshake_and_after_it(
    make_site: MakeSite, files: Files, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever has become of it: its place is given back, once, and its socket is closed."""
    monkeypatch.setattr("pacslite.net.listener._DISMISSAL_SECONDS", 0.1)
    site = await secure_site(make_site, Certificates(files.options()))
    listener = site.listener
    stopping: list[asyncio.Task[None]] = []

    def stop() -> None:
        stopping.append(asyncio.create_task(listener.stop(0.1)))

    def cancel() -> None:
        for handshake in listener._handshakes:
            handshake.cancel()

    if when == "accepted":  # its task has not begun
        begin = listener._begin_handshake

        def begun(*details: Any) -> None:
            begin(*details)
            cancel()

        monkeypatch.setattr(listener, "_begin_handshake", begun)
    elif when == "done":  # and nobody has been told yet
        connected = listener.connected

        def shaken(connection: Connection) -> None:
            connected(connection)
            cancel()

        monkeypatch.setattr(listener, "connected", shaken)
    with socket.create_connection(("127.0.0.1", site.port)) as one:
        if when == "begun":
            await asyncio.sleep(0.05)
        elif when != "accepted":
            one.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=one, ssl=client(), server_hostname="127.0.0.1")
            if when in ("associated", "storing"):
                writer.write(associate_request(CONTEXTS, "PACSLITE", "WS7", 16_384))
                assert await reader.readexactly(1) == b"\x02"
            if when == "storing":
                site.storage.go = asyncio.Event()
                request = command(0x0001, sop_class=CT_IMAGE, sop_instance="1.2.3", has_data=True)
                writer.write(p_data(pdv(3, 3, request), pdv(3, 2, b"abcd")))
            await asyncio.sleep(0.05)
        else:
            await asyncio.sleep(0.05)
        stop()
        async with asyncio.timeout(5):
            await stopping[0]
        site.assert_clean()
        if when not in ("accepted", "begun"):
            await read_to_end(reader)
            writer.transport.abort()
        else:
            one.settimeout(2)
            with contextlib.suppress(ConnectionError):
                assert one.recv(100) == b""
    assert not listener._handshakes


async def test_a_context_that_cannot_be_given_closes_the_connection(make_site: MakeSite) -> None:
    """And gives its place back."""
    site = make_site(tls=lambda: 1 // 0)
    await site.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    assert await read_to_end(reader) == b""
    writer.close()
    site.assert_clean()
