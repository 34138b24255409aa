"""The composition root: builds the server from its settings, starts it, reloads it, and lets it end in order."""

import asyncio
import gc
import importlib
import ipaddress
import logging
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from pacslite.access import Access, Remote
from pacslite.budget import Budget, HostBudget
from pacslite.config import Settings, changed_keys
from pacslite.dataset.meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacslite.errors import PacsliteError
from pacslite.net.acceptor import Acceptor, AcceptorOptions
from pacslite.net.dispatch import Dispatcher
from pacslite.net.fault import log_fault
from pacslite.net.identity import IdentityOptions, IdentityVerifier, User
from pacslite.net.limits import Limits, LimitsOptions
from pacslite.net.listener import Endpoint, Listener
from pacslite.net.reading import receive_buffer
from pacslite.net.sending import Sending
from pacslite.net.timeouts import Timeouts
from pacslite.net.tls import Certificates, TlsOptions
from pacslite.notify import notify
from pacslite.processors import processors
from pacslite.scu.pool import Pool
from pacslite.scu.requestor import Requestor, RequestorOptions
from pacslite.services.verification import VerificationService
from pacslite.streams import give_up_output

if TYPE_CHECKING:
    from pacslite.backend import Backend  # imported when the server listens already, in a thread

__all__ = ["Server", "run"]

log = logging.getLogger("pacslite")

# A disk thread that has synced needs the interpreter to answer: Python's own 5 ms would have it wait for the loop
_SWITCH_INTERVAL_SECONDS = 0.0005
_ENOUGH_PROCESSORS = 2  # that one may look for what comes next: of fewer, others want all
_TAKEN_OVER = ("access.", "forward", "log.level", "remote", "server.called_ae_titles", "tls.", "user")


class CannotListen(PacsliteError):
    """An address is in use, or not ours."""


class Server:
    """Everything that runs. ``start`` before ``stop``; both once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ports: list[int] = []
        self._access = Access(())
        self._identity = IdentityVerifier(_identity_options(settings))
        self._certificates: Certificates | None = None
        self._watch: asyncio.Task[None] | None = None
        # of what nobody can write to disk. Bytes of instances are the archive's to count
        self._budget = Budget(settings.limits.total_bytes // 8)  # identifiers
        self._unfinished = HostBudget(settings.limits.total_bytes // 8)  # PDUs
        self._dispatcher = Dispatcher([VerificationService()], budget=self._budget)
        self._ready = asyncio.Event()
        self._listener: Listener | None = None
        self._pool: Pool | None = None
        self._backend: Backend | None = None

    async def start(self) -> None:
        """Listen, then open the archive: C-ECHO is answered at once, all other associations wait for the archive.

        Raises:
            PacsliteError: The data directory is in use, a certificate cannot be used, an address is taken.
        """
        settings = self.settings
        self._access = await _access(settings, settings.server.ae_title)
        if settings.tls.certificate is not None or any(remote.tls for remote in settings.remote):
            self._use(Certificates(_tls_options(settings)))
        timeouts = _timeouts(settings)
        requestor = Requestor(self._requestor_options(timeouts), receive_buffer())
        self._pool = Pool(requestor, settings.retrieve.reuse_seconds)
        try:
            await self._listen(timeouts)
            composed = await asyncio.to_thread(importlib.import_module, "pacslite.backend")
            backend: Backend = composed.Backend(settings, access=lambda: self._access, pool=self._pool)
            await backend.start()
            self._backend = backend
        except BaseException:
            await self.stop()
            raise
        self._dispatcher.add(backend.services)
        self._ready.set()

    async def stop(self) -> None:
        """Let running operations end within the drain time, then close everything."""
        if self._listener is not None:
            await self._listener.stop(self.settings.timeouts.drain_seconds)
        if self._watch is not None:
            self._watch.cancel()
        if self._pool is not None:
            await self._pool.close()
        if self._backend is not None:
            await self._backend.stop()

    async def reload(self, settings: Settings) -> None:
        """Take over what can change while associations run (``_TAKEN_OVER``); name what else differs."""
        rules = self._backend.rules(settings) if self._backend is not None else None  # what may fail comes first
        if self._certificates is not None:
            self._certificates.reload(_tls_options(settings))
        elif any(remote.tls for remote in settings.remote):
            self._use(Certificates(_tls_options(settings)))
        if self._backend is not None and rules is not None:
            await self._backend.follow(rules)
        self._access = await _access(settings, self.settings.server.ae_title)
        self._identity = IdentityVerifier(_identity_options(settings))
        logging.getLogger().setLevel(settings.log.level.upper())
        if self._backend is not None:
            await self._backend.undefer()  # when it can ask for the new addresses
        log.info("configuration reloaded", extra={"remotes": len(settings.remote)})
        left = [key for key in changed_keys(self.settings, settings) if not key.startswith(_TAKEN_OVER)]
        if left:
            log.warning("changed settings need a restart", extra={"keys": " ".join(left)})

    # private

    async def _listen(self, timeouts: Timeouts) -> None:
        settings = self.settings
        limits = Limits(_limits_options(settings), asyncio.get_running_loop().time)
        acceptor = Acceptor(
            self._dispatcher,
            lambda: self._access,
            lambda: self._identity,
            limits,
            AcceptorOptions(
                maximum_length=settings.limits.maximum_length,
                operations=settings.limits.operations,
                implementation_class_uid=IMPLEMENTATION_CLASS_UID,
                implementation_version_name=IMPLEMENTATION_VERSION_NAME,
                attention_seconds=settings.server.attention_microseconds / 1e6
                if processors() >= _ENOUGH_PROCESSORS
                else 0.0,
            ),
            self._ready,
        )
        self._listener = Listener(
            acceptor,
            timeouts,
            limits,
            self._unfinished,
            Sending(asyncio.get_running_loop(), settings.limits.total_bytes // 4),
            maximum_length=settings.limits.maximum_length,
            queue_bytes=settings.limits.association_bytes,
        )
        server = self._server_context if self._certificates is not None else None
        first = settings.server
        endpoints = [Endpoint(first.host, first.port, server if first.tls else None)]
        endpoints += [Endpoint(one.host, one.port, server if one.tls else None) for one in settings.listener]
        try:
            self.ports = await self._listener.start(endpoints)
        except OSError as error:
            raise CannotListen(f"cannot listen: {error.strerror or error}") from error

    def _use(self, certificates: Certificates) -> None:
        self._certificates = certificates
        self._watch = asyncio.create_task(certificates.watch())

    def _server_context(self) -> ssl.SSLContext:
        assert self._certificates is not None
        return self._certificates.server

    def _client_context(self) -> ssl.SSLContext:
        if self._certificates is None:
            self._use(Certificates(TlsOptions()))
            assert self._certificates is not None
        return self._certificates.client

    def _requestor_options(self, timeouts: Timeouts) -> RequestorOptions:
        return RequestorOptions(
            calling_ae_title=self.settings.server.ae_title,
            maximum_length=self.settings.limits.maximum_length,
            operations=self.settings.retrieve.operations,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            timeouts=timeouts,
            tls=self._client_context,
        )


async def run(settings: Settings, reload: Callable[[], Settings] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP takes over what ``reload`` gives. Exit code 0 after an orderly end."""
    sys.setswitchinterval(_SWITCH_INTERVAL_SECONDS)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    hung_up = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    server = Server(settings)
    await server.start()
    try:
        gc.collect()
        gc.freeze()  # what is there now stays: collections need not look at it again
        _greet(settings, server.ports)
        notify("READY=1")
        reloading = asyncio.create_task(_reload_on(hung_up, server, reload))
        await ended.wait()
        log.info("stopping", extra={"drain_seconds": settings.timeouts.drain_seconds})
        notify("STOPPING=1")
        reloading.cancel()
    finally:  # threads of an archive that is not stopped would keep the process, whatever it fails at
        await server.stop()
    log.info("stopped")
    return 0


async def _reload_on(hung_up: asyncio.Event, server: Server, reload: Callable[[], Settings] | None) -> None:
    while True:
        await hung_up.wait()
        hung_up.clear()
        notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            await server.reload(reload() if reload is not None else server.settings)
        except PacsliteError as error:
            log.error("configuration not reloaded", extra={"why": str(error)})
        except Exception as error:  # the next one is heard all the same
            log_fault(log, "configuration not reloaded", {}, error)
        notify("READY=1")


def _greet(settings: Settings, ports: list[int]) -> None:
    """Say where we are, and what to type next; a full or closed pipe is no reason not to serve."""
    server = settings.server
    host = server.host or "127.0.0.1"
    port = ports[0]
    try:
        print(
            f"pacslite serves {server.ae_title} at {server.host or 'all addresses'}, port {port}, "
            f"data in {server.data_dir.resolve()}\n"
            f"  storescu -aec {server.ae_title} {host} {port} IMAGE.dcm\n"
            f"  findscu -aec {server.ae_title} -S -k QueryRetrieveLevel=STUDY -k StudyInstanceUID -k PatientName "
            f"{host} {port}",
            flush=True,
        )
    except OSError:
        give_up_output()
    log.info("serving", extra={"ae_title": server.ae_title, "ports": ",".join(map(str, ports))})


# Settings to what the parts take


def _timeouts(settings: Settings) -> Timeouts:
    timeouts = settings.timeouts
    return Timeouts(
        artim_seconds=timeouts.artim_seconds,
        idle_seconds=timeouts.idle_seconds,
        keepalive_seconds=timeouts.keepalive_seconds,
        write_seconds=timeouts.write_seconds,
        dimse_seconds=timeouts.dimse_seconds,
        connect_seconds=timeouts.connect_seconds,
        tls_handshake_seconds=timeouts.tls_handshake_seconds,
    )


def _limits_options(settings: Settings) -> LimitsOptions:
    limits = settings.limits
    return LimitsOptions(
        associations=limits.maximum_associations,
        associations_per_host=limits.maximum_associations_per_host,
        associations_per_ae_title=limits.maximum_associations_per_ae_title,
        connections_per_second=limits.connections_per_second,
    )


def _identity_options(settings: Settings) -> IdentityOptions:
    access = settings.access
    key = access.jwt_key.get_secret_value()
    return IdentityOptions(
        users={user.username: User(user.username, user.password.get_secret_value()) for user in settings.user},
        required=access.user_identity == "required",
        jwt_key=key,
        jwt_algorithms=("RS256", "ES256") if key.startswith("-----BEGIN") else ("HS256",),
        jwt_audience=access.jwt_audience,
    )


def _tls_options(settings: Settings) -> TlsOptions:
    tls = settings.tls
    return TlsOptions(
        certificate=tls.certificate,
        key=tls.key,
        key_password=tls.key_password.get_secret_value(),
        ca=tls.ca,
        client_certificate=tls.client_certificate,
        minimum_version=tls.minimum_version,
        check_names=tls.check_names,
    )


async def _access(settings: Settings, ae_title: str) -> Access:
    """Of a server that is ``ae_title`` until it is started again."""
    access, server = settings.access, settings.server
    remotes = [
        Remote(
            remote.ae_title,
            remote.host,
            remote.port if remote.is_destination else 0,
            _permissions(remote.allow),
            remote.tls,
            await _addresses(remote.host),
            remote.certificate_name,
        )
        for remote in settings.remote
    ]
    return Access(
        (ae_title, *server.called_ae_titles),
        any_called_ae_title=not access.check_called_ae_title or "*" in server.called_ae_titles,
        remotes=remotes,
        unknown=_permissions(access.unknown_allow) if access.unknown_peers == "anybody" else frozenset(),
        loopback=access.unknown_peers != "nobody",
    )


def _permissions(allow: Collection[str]) -> frozenset[str]:
    """Whoever may store may ask whether it is kept."""
    return frozenset(allow) | ({"commit"} if "store" in allow else set())


async def _addresses(host: str) -> tuple[str, ...]:
    """The addresses or the network that ``host`` stands for; a name that is not known now matches no peer."""
    try:
        return (str(ipaddress.ip_network(host, strict=False)),)
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        log.warning("remote not resolved", extra={"host": host, "why": error.strerror})
        return ("255.255.255.255",)
    return tuple(sorted({str(address[4][0]) for address in found}))
