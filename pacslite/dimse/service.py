"""What a DIMSE service is to the rest: what it offers in negotiation, where a data set goes, what it answers.

To add a service, write one module in ``services/`` that fulfils ``Service`` and name it in ``app.py``.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pacslite.dimse.command import CommandSet, Value
from pacslite.dimse.messages import CommandField, Message
from pacslite.dimse.reader import DataSetSink
from pacslite.errors import DimseError
from pacslite.upper_layer.negotiation import AbstractSyntaxOffer, AcceptedContext, Negotiated

__all__ = ["DataSetSource", "ImmediateService", "Invoker", "Peer", "ReadFlow", "Reply", "Request", "Service"]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who sits at the other end of an association, and what it may do."""

    association_id: str
    calling_ae_title: str
    called_ae_title: str
    host: str
    allowed: frozenset[str]  # of "echo", "store", "find", "move", "get", "commit"
    user: str = ""  # the user identity, where one was verified

    def __str__(self) -> str:
        return f"{self.calling_ae_title}@{self.host}"


class ReadFlow(Protocol):
    """Back-pressure to the peer: calls may be nested, and come from the event loop's thread only."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class DataSetSource(Protocol):
    """A data set to send, read in pieces."""

    @property
    def length(self) -> int:
        """Bytes in all."""

    async def read(self, size: int, *, reuse: bool = False) -> memoryview:
        """The next ``size`` bytes, fewer only at the end; ``reuse``: what earlier calls returned has been sent."""


class Invoker(Protocol):
    """Sends requests of our own on an association: C-STORE sub-operations of a C-GET, N-EVENT-REPORT."""

    @property
    def negotiated(self) -> Negotiated: ...

    def next_message_id(self) -> int: ...

    async def invoke(
        self, context: AcceptedContext, command: Mapping[int, Value], source: DataSetSource | bytes | None = None
    ) -> Message:
        """Send the message and wait for its one response; a data set with it is read and forgotten.

        Raises:
            AssociationEnded: Before the response came (of ``net``).
        """


class Reply(Protocol):
    """Sends the responses of one request; waits while the peer does not read."""

    async def __call__(
        self,
        status: int,
        data_set: bytes | None = None,
        *,
        comment: str = "",
        offending: Sequence[int] = (),
        extra: CommandSet | None = None,
    ) -> None: ...

    async def batch(self, status: int, data_sets: Sequence[bytes]) -> None:
        """One response for each data set, all in one gathered write."""


class Request:
    """A request being performed."""

    __slots__ = (
        "_on_cancel",
        "abandoned",
        "cancelled",
        "facts",
        "flow",
        "invoker",
        "message",
        "peer",
        "refusal",
        "service",
        "sink",
    )

    def __init__(self, message: Message, peer: Peer, flow: ReadFlow, invoker: Invoker) -> None:
        self.message = message
        self.peer = peer
        self.flow = flow
        self.invoker = invoker
        self.sink: DataSetSink | None = None
        self.refusal: DimseError | None = None  # known before the data set has been read to its end
        self.service: Service | None = None  # None: nobody performs it, and ``refusal`` says why
        self.facts: dict[str, object] = {}  # for the log line of this request
        self.cancelled = False
        self.abandoned = False  # cancelled because its association is gone
        self._on_cancel: Callable[[], None] | None = None

    def cancel(self) -> None:
        """A C-CANCEL-RQ named this request."""
        self.cancelled = True
        if self._on_cancel is not None:
            self._on_cancel()

    def abandon(self) -> None:
        """Nobody is there any more to read the answer."""
        if not self.cancelled:  # else it was meant to end, whoever is there
            self.abandoned = True
            self.cancel()

    def when_cancelled(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` at once when the request is cancelled (now, if it is already)."""
        self._on_cancel = callback
        if self.cancelled:
            callback()


class Service(Protocol):
    """A service class provider."""

    @property
    def permission(self) -> str:
        """What a remote AE must be allowed: ``echo``, ``store``, ``find``, ``move``, ``get`` or ``commit``."""

    @property
    def commands(self) -> frozenset[CommandField]:
        """Requests it performs; others on its presentation contexts are answered 0211."""

    def offer(self, abstract_syntax: str, service_class: str | None) -> AbstractSyntaxOffer | None:
        """What we accept for ``abstract_syntax`` (``service_class``: of a 57H item), None if it is not ours."""

    def begin(self, request: Request) -> DataSetSink:
        """A sink for the data set of ``request``, as soon as its command set is there.

        Raises:
            DimseError: Refused; the data set is read and forgotten, then the error answered.
        """

    def handle(self, request: Request, reply: Reply) -> Awaitable[None]:
        """Perform ``request`` once it is complete, ``request.sink`` filled; a DimseError raised is answered."""


@runtime_checkable
class ImmediateService(Service, Protocol):
    """A service whose requests need no waiting: they are answered in the same breath, without a task."""

    def answer(self, message: Message, peer: Peer) -> int:
        """Perform the request that ``message`` is; gives the status of its one response, which has no data set."""
