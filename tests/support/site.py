"""An acceptor in the test's own process: the network layer over loopback, with services that tests steer."""

import asyncio
import dataclasses
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pacslite.access import Access
from pacslite.budget import Budget, HostBudget
from pacslite.dimse.command import Value
from pacslite.dimse.messages import CommandField
from pacslite.dimse.reader import BoundedBuffer, DataSetSink, Discard
from pacslite.dimse.service import Reply, Request, Service
from pacslite.dimse.status import Status
from pacslite.dimse.uids import STORAGE_SERVICE_CLASS
from pacslite.errors import DimseError
from pacslite.net.acceptor import Acceptor, AcceptorOptions
from pacslite.net.dispatch import Dispatcher
from pacslite.net.identity import IdentityOptions, IdentityVerifier
from pacslite.net.limits import Limits, LimitsOptions
from pacslite.net.listener import Endpoint, Listener
from pacslite.net.sending import Sending
from pacslite.net.timeouts import Timeouts
from pacslite.services.identifiers import identifier_offer
from pacslite.services.sop_classes import is_standard_storage
from pacslite.services.verification import VerificationService
from pacslite.upper_layer.negotiation import AbstractSyntaxOffer
from tests.support.wire import STUDY_ROOT_FIND, STUDY_ROOT_GET

__all__ = ["Finder", "Getter", "MakeSite", "Sink", "Site", "Storage"]


class Sink:
    """The data set of one C-STORE, in memory."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.aborted = False
        self.taken = False

    def write(self, view: memoryview) -> None:
        self.data += view

    @property
    def held(self) -> int:
        return len(self.data)

    def end(self) -> None:
        """``data`` is all of it."""

    def abort(self) -> None:
        self.aborted = not self.taken


class Refused(DimseError):
    status = 0xA700


@dataclass
class Storage:
    """C-STORE SCP that remembers, and that a test can hold up or let fail."""

    permission: str = "store"
    commands: frozenset[CommandField] = frozenset({CommandField.C_STORE_RQ})
    go: asyncio.Event | None = None  # handling waits for it
    fail: Callable[[], None] | None = None  # called in handle
    refuse: bool = False  # in begin
    make_sink: Callable[[], Sink] = Sink
    sinks: list[Sink] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    running: int = 0
    most_running: int = 0

    def offer(self, abstract_syntax: str, service_class: str | None) -> AbstractSyntaxOffer | None:
        if is_standard_storage(abstract_syntax) or service_class == STORAGE_SERVICE_CLASS:
            return AbstractSyntaxOffer(transfer_syntaxes=None, scu=True, scp=True)
        return None

    def begin(self, _: Request) -> DataSetSink:
        if self.refuse:
            raise Refused("no room")
        self.sinks.append(self.make_sink())
        return self.sinks[-1]

    async def handle(self, request: Request, reply: Reply) -> None:
        assert isinstance(request.sink, Sink)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            if self.go is not None:
                await self.go.wait()
            if self.fail is not None:
                self.fail()
            request.sink.taken = True
            self.stored.append(request.message.sop_instance_uid)
        finally:
            self.running -= 1
        await reply(Status.SUCCESS)


@dataclass
class Finder:
    """C-FIND SCP with ``count`` answers of ``size`` bytes."""

    count: int = 3
    size: int = 100
    at_once: bool = False  # in a batch
    permission: str = "find"
    commands: frozenset[CommandField] = frozenset({CommandField.C_FIND_RQ})
    sent: int = 0
    ended: str = ""
    go: asyncio.Event | None = None
    identifiers: list[bytes] = field(default_factory=list)

    def offer(self, abstract_syntax: str, _: str | None) -> AbstractSyntaxOffer | None:
        return identifier_offer((True, True, False, True)) if abstract_syntax == STUDY_ROOT_FIND else None

    def begin(self, _: Request) -> DataSetSink:
        return BoundedBuffer(100_000)

    async def handle(self, request: Request, reply: Reply) -> None:
        assert isinstance(request.sink, BoundedBuffer)
        self.identifiers.append(request.sink.getvalue())
        try:
            if self.at_once:
                await reply.batch(Status.PENDING, [bytes(self.size)] * self.count)
                return await reply(Status.SUCCESS)
            for _ in range(self.count):
                if self.go is not None:
                    await self.go.wait()
                if request.cancelled:
                    self.ended = "cancelled"
                    return await reply(Status.CANCEL)
                await reply(Status.PENDING, b"\0" * self.size)
                self.sent += 1
            await reply(Status.SUCCESS)
            self.ended = "done"
        finally:
            self.ended = self.ended or "stopped"


@dataclass
class Getter:
    """C-GET SCP that sends back one instance a given number of times, some outstanding at once."""

    count: int = 1
    outstanding: int = 1
    data: bytes = b"\x08\0\x18\0UI\x04\x001.2\0"
    permission: str = "get"
    commands: frozenset[CommandField] = frozenset({CommandField.C_GET_RQ})
    statuses: list[int] = field(default_factory=list)

    def offer(self, abstract_syntax: str, _: str | None) -> AbstractSyntaxOffer | None:
        return identifier_offer((True,)) if abstract_syntax == STUDY_ROOT_GET else None

    def begin(self, _: Request) -> DataSetSink:
        return Discard()

    async def handle(self, request: Request, reply: Reply) -> None:
        invoker = request.invoker
        context = next(one for one in invoker.negotiated.contexts.values() if one.scp_role)
        gate = asyncio.Semaphore(self.outstanding)

        async def send(number: int) -> None:
            async with gate:
                command: dict[int, Value] = {
                    0x00000002: context.abstract_syntax,
                    0x00000100: int(CommandField.C_STORE_RQ),
                    0x00000110: invoker.next_message_id(),
                    0x00000700: 0,
                    0x00000800: 1,
                    0x00001000: f"1.2.{number}",
                }
                self.statuses.append((await invoker.invoke(context, command, self.data)).status)

        async with asyncio.TaskGroup() as group:
            for number in range(self.count):
                group.create_task(send(number))
        await reply(Status.SUCCESS)


class Site:
    """A listener with everything that belongs to it; ``port`` is its first."""

    def __init__(
        self,
        *,
        services: Sequence[Service] = (),
        access: Access | None = None,
        identity: IdentityOptions | None = None,
        limits: LimitsOptions | None = None,
        timeouts: Timeouts | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
        host: str = "127.0.0.1",
        maximum_length: int = 131_072,
        operations: int = 4,
        budget_bytes: int = 1 << 24,
        sending_bytes: int = 1 << 26,
        queue_bytes: int = 1 << 20,
    ) -> None:
        self.storage = Storage()
        self.finder = Finder()
        self.access = access or Access(("PACSLITE",))
        self.identity = IdentityVerifier(identity or IdentityOptions({}))
        self.budget = Budget(budget_bytes)
        self.unfinished = HostBudget(budget_bytes)
        self.sending = Sending(asyncio.get_running_loop(), sending_bytes)
        self.limits = Limits(limits or LimitsOptions(), asyncio.get_running_loop().time)
        self.ready = asyncio.Event()
        self.ready.set()
        self._endpoint = Endpoint(host, 0, tls)
        self.ports: list[int] = []
        self.dispatcher = Dispatcher((VerificationService(), *services, self.finder, self.storage), budget=self.budget)
        self.acceptor = Acceptor(
            self.dispatcher,
            lambda: self.access,
            lambda: self.identity,
            self.limits,
            AcceptorOptions(maximum_length, operations, "1.2.826.0.1.3680043.8.498.2", "SITE"),
            self.ready,
        )
        self.listener = Listener(
            self.acceptor,
            timeouts or Timeouts(),
            self.limits,
            self.unfinished,
            self.sending,
            maximum_length=maximum_length,
            queue_bytes=queue_bytes,
        )

    @property
    def port(self) -> int:
        return self.ports[0]

    def listen_on(self, port: int) -> None:
        """Not on a free port, but on this one."""
        self._endpoint = dataclasses.replace(self._endpoint, port=port)

    async def start(self) -> None:
        self.ports = await self.listener.start([self._endpoint])

    async def stop(self, drain_seconds: float = 0) -> None:
        if self.ports:
            await self.listener.stop(drain_seconds)

    def assert_clean(self) -> None:
        """Nothing that was counted or held for a connection is left."""
        assert self.listener.connections == 0
        assert self.acceptor.associations == 0
        assert self.budget.used == self.unfinished.used == 0
        assert not self.unfinished._by_host
        assert not self.sending._senders
        assert not self.limits._connections
        assert not self.limits._associations
        assert not self.limits._ae_titles
        assert all(sink.taken or sink.aborted for sink in self.storage.sinks)


MakeSite: TypeAlias = Callable[..., Site]
