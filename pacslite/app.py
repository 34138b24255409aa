"""The composition root: builds the server from its settings, starts it, reloads it, and lets it end in order."""

import asyncio
import gc
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Callable

from pacslite.access import EVERYTHING, Access, Remote
from pacslite.archive.archive import Archive
from pacslite.archive.index.reader import IndexReader
from pacslite.archive.options import StorageOptions
from pacslite.archive.query import QueryOptions
from pacslite.budget import Budget
from pacslite.config import Settings
from pacslite.dataset.meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacslite.dimse.service import Service
from pacslite.errors import PacsliteError
from pacslite.net.acceptor import Acceptor, AcceptorOptions
from pacslite.net.connection import receive_buffer
from pacslite.net.dispatch import Dispatcher
from pacslite.net.identity import IdentityOptions, IdentityVerifier, User
from pacslite.net.limits import Limits, LimitsOptions
from pacslite.net.listener import Endpoint, Listener
from pacslite.net.timeouts import Timeouts
from pacslite.net.tls import Certificates, TlsOptions
from pacslite.scu.pool import Pool
from pacslite.scu.requestor import Requestor, RequestorOptions
from pacslite.services.query import FindService
from pacslite.services.retrieve import GetService, MoveService, RetrieveOptions
from pacslite.services.storage import StorageService
from pacslite.services.sub_operations import PendingPolicy
from pacslite.services.verification import VerificationService

__all__ = ["Server", "run"]

log = logging.getLogger("pacslite")

# A disk thread that has synced needs the interpreter to answer: Python's own 5 ms would have it wait for the loop
_SWITCH_INTERVAL_SECONDS = 0.0005


class CannotListen(PacsliteError):
    """An address is in use, or not ours."""


class Server:
    """Everything that runs. ``start`` before ``stop``; both once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ports: list[int] = []
        self._access = Access(())
        self._certificates: Certificates | None = None
        self._watch: asyncio.Task[None] | None = None
        self._archive = Archive(_storage_options(settings), budget=Budget(settings.limits.total_bytes))
        self._reader = IndexReader(self._archive.index_path, connections=settings.index.read_connections)
        self._listener: Listener | None = None
        self._pool: Pool | None = None

    async def start(self) -> None:
        """Open the archive and listen.

        Raises:
            PacsliteError: The data directory is in use, a certificate cannot be used, an address is taken.
        """
        settings = self.settings
        self._access = await _access(settings)
        if settings.tls.certificate is not None or any(remote.tls for remote in settings.remote):
            self._certificates = Certificates(_tls_options(settings))
        await self._archive.start()
        try:
            await self._reader.start()
            await self._listen()
        except BaseException:
            await self._close()
            raise

    async def stop(self) -> None:
        """Let running operations end within the drain time, then close everything."""
        if self._listener is not None:
            await self._listener.stop(self.settings.timeouts.drain_seconds)
        await self._close()

    async def reload(self, settings: Settings) -> None:
        """Take over what can change while associations run: remotes and access, certificates, the log level."""
        self._access = await _access(settings)
        logging.getLogger().setLevel(settings.log.level.upper())
        if self._certificates is not None:
            self._certificates.reload_if_changed()
        log.info("configuration reloaded", extra={"remotes": len(settings.remote)})

    # private

    async def _listen(self) -> None:
        settings = self.settings
        timeouts = _timeouts(settings)
        requestor = Requestor(self._requestor_options(timeouts), receive_buffer())
        self._pool = Pool(requestor, settings.retrieve.reuse_seconds)
        loop = asyncio.get_running_loop()
        acceptor = Acceptor(
            Dispatcher(self._services(self._pool)),
            lambda: self._access,
            IdentityVerifier(_identity_options(settings)),
            Limits(_limits_options(settings), loop.time),
            AcceptorOptions(
                maximum_length=settings.limits.maximum_length,
                operations=settings.limits.operations,
                implementation_class_uid=IMPLEMENTATION_CLASS_UID,
                implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            ),
        )
        self._listener = Listener(
            acceptor,
            timeouts,
            maximum_length=settings.limits.maximum_length,
            # some room above the associations, so that what is too much can be told so (2/3/2)
            maximum_connections=2 * settings.limits.maximum_associations + 100,
        )
        server = self._certificates.server if self._certificates is not None else None
        first = settings.server
        endpoints = [Endpoint(first.host, first.port, server if first.tls else None)]
        endpoints += [Endpoint(one.host, one.port, server if one.tls else None) for one in settings.listener]
        try:
            self.ports = await self._listener.start(endpoints)
        except OSError as error:
            raise CannotListen(f"cannot listen: {error.strerror or error}") from error
        if self._certificates is not None:
            self._watch = asyncio.create_task(self._certificates.watch())

    def _services(self, pool: Pool) -> tuple[Service, ...]:
        """Negotiation is computed from this tuple: to add a service, name it here."""
        settings = self.settings
        query_options = _query_options(settings)
        retrieve_options = RetrieveOptions(
            pending=PendingPolicy(
                seconds=settings.retrieve.pending_seconds,
                without_requestor=settings.retrieve.continue_without_requestor,
            ),
            parallel_associations=settings.retrieve.parallel_associations,
            operations=settings.retrieve.operations,
            identifier_bytes=settings.limits.identifier_bytes,
        )
        return (
            VerificationService(),
            FindService(self._reader, query_options, settings.limits.identifier_bytes),
            MoveService(
                self._archive, self._reader, query_options, retrieve_options, access=lambda: self._access, pool=pool
            ),
            GetService(self._archive, self._reader, query_options, retrieve_options),
            StorageService(self._archive, unknown_sop_classes=settings.storage.unknown_sop_classes),
        )

    def _requestor_options(self, timeouts: Timeouts) -> RequestorOptions:
        certificates = self._certificates
        return RequestorOptions(
            calling_ae_title=self.settings.server.ae_title,
            maximum_length=self.settings.limits.maximum_length,
            operations=self.settings.retrieve.operations,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            timeouts=timeouts,
            tls=(lambda: certificates.client) if certificates is not None else None,
        )

    async def _close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self._pool is not None:
            await self._pool.close()
        await self._reader.stop()
        await self._archive.stop()


async def run(settings: Settings, reload: Callable[[], Settings] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP takes over what ``reload`` gives. Exit code 0 after an orderly end."""
    sys.setswitchinterval(_SWITCH_INTERVAL_SECONDS)
    server = Server(settings)
    await server.start()
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    hung_up = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    gc.collect()
    gc.freeze()  # what is there now stays: collections need not look at it again
    _greet(settings, server.ports)
    reloading = asyncio.create_task(_reload_on(hung_up, server, reload))
    await ended.wait()
    log.info("stopping", extra={"drain_seconds": settings.timeouts.drain_seconds})
    reloading.cancel()
    await server.stop()
    log.info("stopped")
    return 0


async def _reload_on(hung_up: asyncio.Event, server: Server, reload: Callable[[], Settings] | None) -> None:
    while True:
        await hung_up.wait()
        hung_up.clear()
        try:
            await server.reload(reload() if reload is not None else server.settings)
        except PacsliteError as error:
            log.error("configuration not reloaded", extra={"why": str(error)})


def _greet(settings: Settings, ports: list[int]) -> None:
    """Say where we are, and what to type next."""
    server = settings.server
    host = server.host or "127.0.0.1"
    port = ports[0]
    print(
        f"pacslite serves {server.ae_title} at {server.host or 'all addresses'}, port {port}, "
        f"data in {server.data_dir.resolve()}\n"
        f"  storescu -aec {server.ae_title} {host} {port} IMAGE.dcm\n"
        f"  findscu -aec {server.ae_title} -S -k QueryRetrieveLevel=STUDY -k StudyInstanceUID -k PatientName "
        f"{host} {port}",
        flush=True,
    )
    log.info("serving", extra={"ae_title": server.ae_title, "ports": ",".join(map(str, ports))})


# Settings to what the parts take


def _storage_options(settings: Settings) -> StorageOptions:
    storage = settings.storage
    return StorageOptions(
        data_dir=settings.server.data_dir,
        durability=storage.durability,
        duplicates=storage.duplicates,
        uid_conflict=storage.uid_conflict,
        patient_conflict=storage.patient_conflict,
        min_free_bytes=storage.min_free_bytes,
        max_bytes=storage.max_bytes,
        disk_threads=storage.disk_threads,
        piece_bytes=storage.piece_bytes,
        unflushed_bytes=settings.limits.association_bytes,
        index_cache_bytes=settings.index.cache_bytes,
    )


def _query_options(settings: Settings) -> QueryOptions:
    query = settings.query
    return QueryOptions(
        retrieve_ae_title=settings.server.ae_title,
        relational=query.relational,
        fuzzy=query.fuzzy,
        strict=query.strict,
        match_unknown=query.match_unknown,
        maximum_results=query.max_results,
    )


def _timeouts(settings: Settings) -> Timeouts:
    timeouts = settings.timeouts
    return Timeouts(
        artim_seconds=timeouts.artim_seconds,
        idle_seconds=timeouts.idle_seconds,
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


async def _access(settings: Settings) -> Access:
    access, server = settings.access, settings.server
    remotes = [
        Remote(
            remote.ae_title,
            remote.host,
            remote.port,
            frozenset(remote.allow) | ({"commit"} if "store" in remote.allow else set()),
            remote.tls,
            await _addresses(remote.host),
        )
        for remote in settings.remote
    ]
    return Access(
        (server.ae_title, *server.called_ae_titles),
        any_called_ae_title=not access.check_called_ae_title or "*" in server.called_ae_titles,
        remotes=remotes,
        unknown=frozenset(access.unknown_allow) & EVERYTHING if access.unknown_peers == "anybody" else frozenset(),
        loopback=access.unknown_peers != "nobody",
    )


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
