"""From fragments to messages (PS3.7 §6.3, PS3.8 Annex E): one message at a time, its data set into a sink."""

from collections.abc import Callable, Mapping
from typing import Protocol

from pacslite.dimse.command import CommandError, decode_command
from pacslite.dimse.messages import Message
from pacslite.errors import DimseError, PacsliteError
from pacslite.upper_layer.events import Fragment
from pacslite.upper_layer.negotiation import AcceptedContext

__all__ = [
    "Account", "BoundedBuffer", "DataSetSink", "Discard", "IdentifierTooLong", "MessageError", "MessageReader",
]  # fmt: skip

_COMMAND_LIMIT = 16_384  # bytes; a C-STORE-RQ with all its UIDs has about 400, lists of attributes may be longer
_INVALID_VALUE = 6  # invalid-PDU-parameter value, PS3.8 Table 9-26


class MessageError(PacsliteError):
    """Fragments that form no message; the association is aborted, since both sides no longer agree where they are.

    ``reason`` is of PS3.8 Table 9-26 where a PDV has a value that the provider must not accept, else 0.
    """

    def __init__(self, problem: str, reason: int = 0) -> None:
        super().__init__(problem)
        self.reason = reason


class IdentifierTooLong(DimseError):
    """An identifier larger than the server is willing, or able, to hold."""

    status = 0xA700


class DataSetSink(Protocol):
    """Takes the data set of one message as it arrives. Synchronous: a view is only valid during the call."""

    def write(self, view: memoryview) -> None: ...

    @property
    def held(self) -> int:
        """Bytes of it in memory."""

    def end(self) -> None:
        """The data set is complete."""

    def abort(self) -> None:
        """The association ended in mid data set: nothing of it may remain."""


class Discard:
    """Reads a data set that is refused: PS3.4 §B.2.3 answers after the data set, not in its middle."""

    __slots__ = ()
    held = 0

    def write(self, view: memoryview) -> None:
        """Forget it."""

    def end(self) -> None:
        """It is forgotten."""

    def abort(self) -> None:
        """Nothing was kept."""


class Account(Protocol):
    """Where bytes that are held in memory are booked, for all associations together."""

    @property
    def pressed(self) -> bool:
        """There are too many."""

    def take(self, count: int) -> None: ...

    def give(self, count: int) -> None: ...


class BoundedBuffer:
    """Keeps a small data set (an identifier) up to ``limit`` bytes, and says so when there was more."""

    __slots__ = ("_account", "_data", "_limit", "_problem")

    def __init__(self, limit: int) -> None:
        self._data = bytearray()
        self._limit = limit
        self._problem = ""
        self._account: Account | None = None

    @property
    def held(self) -> int:
        """Bytes kept."""
        return len(self._data)

    def charge(self, account: Account) -> None:
        """Book the bytes on ``account`` until ``abort``."""
        self._account = account

    def write(self, view: memoryview) -> None:
        if self._problem:
            return
        account = self._account
        if len(self._data) + len(view) > self._limit:
            self._refuse(f"identifier longer than {self._limit} bytes")
        elif account is not None and account.pressed:
            self._refuse("no memory left for an identifier")
        else:
            self._data += view
            if account is not None:
                account.take(len(view))

    def end(self) -> None:
        """They wait for ``getvalue``."""

    def abort(self) -> None:
        """Forget the bytes."""
        if self._account is not None:
            self._account.give(len(self._data))
        self._data = bytearray()

    def getvalue(self) -> bytes:
        """The data set.

        Raises:
            IdentifierTooLong: It did not fit.
        """
        if self._problem:
            raise IdentifierTooLong(self._problem)
        return bytes(self._data)

    def _refuse(self, problem: str) -> None:
        self._problem = problem
        self.abort()


class MessageReader:
    """Assembles the fragments of one association.

    Args:
        contexts: Accepted presentation contexts by ID.
        begin: Called with a complete command set whose data set follows; gives the sink for it. Must not raise.
    """

    __slots__ = ("_begin", "_command", "_contexts", "_message", "_sink")

    def __init__(self, contexts: Mapping[int, AcceptedContext], begin: Callable[[Message], DataSetSink]) -> None:
        self._contexts = contexts
        self._begin = begin
        self._command: tuple[int, bytearray] | None = None  # context ID and bytes of an unfinished command set
        self._message: Message | None = None  # whose data set is arriving
        self._sink: DataSetSink | None = None

    @property
    def idle(self) -> bool:
        """Between two messages."""
        return self._message is None and self._command is None

    def feed(self, fragment: Fragment) -> Message | None:
        """Take ``fragment``; return the message that it completes.

        Raises:
            MessageError: Not in a message's order, or on a presentation context that is not accepted.
        """
        if not fragment.is_command:
            message = self._message
            if message is None or self._sink is None:
                raise MessageError("data set fragment without a command set")
            if fragment.context_id != message.context.context_id:
                raise MessageError(
                    f"data set on presentation context {fragment.context_id}, "
                    f"its command on {message.context.context_id}",
                    _INVALID_VALUE,
                )
            if fragment.data:
                self._sink.write(fragment.data)
            if not fragment.is_last:
                return None
            self._sink.end()
            self._message = self._sink = None
            return message
        return self._feed_command(fragment)

    def abort(self) -> None:
        """The association has ended: what is in flight ends with it."""
        if self._sink is not None:
            self._sink.abort()
        self._command = self._message = self._sink = None

    # private

    def _feed_command(self, fragment: Fragment) -> Message | None:
        if self._message is not None:
            raise MessageError(f"command set in the middle of the data set of a {self._message.label}")
        context = self._contexts.get(fragment.context_id)
        if context is None:
            raise MessageError(f"presentation context {fragment.context_id} is not accepted", _INVALID_VALUE)
        data: bytes | bytearray | memoryview = fragment.data
        if self._command is not None:
            context_id, begun = self._command
            if context_id != fragment.context_id:
                problem = f"command set on presentation contexts {context_id} and {fragment.context_id}"
                raise MessageError(problem, _INVALID_VALUE)
            begun += data
            data = begun
        if len(data) > _COMMAND_LIMIT:
            raise MessageError(f"command set longer than {_COMMAND_LIMIT} bytes")
        if not fragment.is_last:
            if self._command is None:
                self._command = (fragment.context_id, bytearray(data))
            return None
        self._command = None
        try:
            message = Message(decode_command(bytes(data)), context)
        except CommandError as error:
            raise MessageError(str(error)) from error
        if not message.command_field:
            raise MessageError("command set without a Command Field")
        if not message.has_data_set:
            return message
        self._message = message
        self._sink = self._begin(message)
        return None
