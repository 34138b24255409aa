"""Messages as streams of fragments, there and back: PS3.7 §6.3, PS3.8 Annex E."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacslite.dimse.command import Tag, encode_command
from pacslite.dimse.messages import CommandField, Message, request_command
from pacslite.dimse.reader import BoundedBuffer, Discard, IdentifierTooLong, MessageError, MessageReader
from pacslite.dimse.writer import Frames, message_frames
from pacslite.upper_layer.events import Fragment
from pacslite.upper_layer.negotiation import AcceptedContext

STORE, FIND = AcceptedContext(1, "1.2.3", "1.2.840.10008.1.2"), AcceptedContext(3, "1.2.4", "1.2.840.10008.1.2")
CONTEXTS = {1: STORE, 3: FIND}
REQUEST = request_command(CommandField.C_STORE_RQ, 1, sop_class_uid="1.2", sop_instance_uid="1.3", has_data_set=True)
ECHO = encode_command(request_command(CommandField.C_ECHO_RQ, 2, sop_class_uid="1.2"))


class Sinks:
    """Opens a buffer for each message and keeps it."""

    def __init__(self) -> None:
        self.opened: list[BoundedBuffer] = []

    def begin(self, message: Message) -> BoundedBuffer:
        assert message.has_data_set
        self.opened.append(BoundedBuffer(1 << 20))
        return self.opened[-1]


def fragment(data: bytes, *, context_id: int = 1, command: bool = False, last: bool = True) -> Fragment:
    return Fragment(context_id, command, last, memoryview(data))


def pdvs(frames: Frames) -> Iterator[Fragment]:
    """Take P-DATA-TF PDUs apart, by PS3.8 Tables 9-22 and 9-23."""
    stream = b"".join(frames)
    at = 0
    while at < len(stream):
        assert stream[at] == 4
        pdu_end = at + 6 + int.from_bytes(stream[at + 2 : at + 6], "big")
        at += 6
        while at < pdu_end:
            end = at + 4 + int.from_bytes(stream[at : at + 4], "big")
            context_id, control = stream[at + 4], stream[at + 5]
            yield Fragment(context_id, bool(control & 1), bool(control & 2), memoryview(stream[at + 6 : end]))
            at = end


@settings(deadline=None)
@given(
    data=st.one_of(st.none(), st.binary(min_size=0, max_size=3000).map(lambda data: data[: len(data) & ~1])),
    maximum_length=st.sampled_from([0, 16, 64, 4096]),
    cuts=st.lists(st.integers(1, 50), max_size=20),
)
def test_a_message_comes_back_whole_however_it_is_cut(data: bytes | None, maximum_length: int, cuts: list[int]) -> None:
    command = dict(REQUEST)
    if data is None:
        command[Tag.COMMAND_DATA_SET_TYPE] = 0x0101
    sinks = Sinks()
    reader = MessageReader(CONTEXTS, sinks.begin)
    messages = []
    for whole in pdvs(message_frames(1, command, data, maximum_length)):
        assert maximum_length == 0 or len(whole.data) + 6 <= maximum_length
        rest, sizes = whole.data, list(cuts)
        while sizes and sizes[0] < len(rest):
            piece = rest[: sizes[0]]
            assert reader.feed(whole._replace(data=piece, is_last=False)) is None
            rest = rest[sizes.pop(0) :]
        message = reader.feed(whole._replace(data=rest))
        if message is not None:
            messages.append(message)
    (message,) = messages
    assert message.command == command
    assert message.context is STORE
    assert reader.idle
    assert [sink.getvalue() for sink in sinks.opened] == ([] if data is None else [data])


def test_empty_fragments_and_both_kinds_in_a_row_are_accepted() -> None:
    """PS3.8 Annex E: receivers should accept a PDV of a header alone."""
    sinks = Sinks()
    reader = MessageReader(CONTEXTS, sinks.begin)
    for one in (
        fragment(b"", command=True, last=False),
        fragment(encode_command(REQUEST), command=True, last=False),
        fragment(b"", command=True),
        fragment(b"", last=False),
        fragment(b"ab", last=False),
    ):
        assert reader.feed(one) is None
        assert not reader.idle
    assert reader.feed(fragment(b"")) is not None
    assert sinks.opened[0].getvalue() == b"ab"


@pytest.mark.parametrize(
    ("fragments", "problem"),
    [
        ([fragment(b"ab")], "data set fragment without a command set"),
        ([fragment(ECHO, command=True), fragment(b"ab")], "data set fragment without a command set"),
        ([fragment(ECHO, command=True, context_id=5)], "presentation context 5 is not accepted"),
        (
            [fragment(encode_command(REQUEST), command=True), fragment(ECHO, command=True)],
            "command set in the middle of the data set of a C-STORE",
        ),
        (
            [fragment(encode_command(REQUEST), command=True), fragment(b"ab", context_id=3)],
            "data set on presentation context 3, its command on 1",
        ),
        (
            [fragment(ECHO[:8], command=True, last=False), fragment(ECHO[8:], command=True, context_id=3)],
            "command set on presentation contexts 1 and 3",
        ),
        ([fragment(bytes(10_000), command=True, last=False)] * 2, "command set longer than 16384 bytes"),
        ([fragment(b"GET / HTTP/1.1\r\n", command=True)], "command set: element"),
        ([fragment(encode_command({Tag.STATUS: 0}), command=True)], "command set without a Command Field"),
    ],
)
def test_fragments_that_form_no_message(fragments: list[Fragment], problem: str) -> None:
    reader = MessageReader(CONTEXTS, Sinks().begin)
    *before, wrong = fragments
    for one in before:
        reader.feed(one)
    with pytest.raises(MessageError, match=problem):
        reader.feed(wrong)


def test_an_abort_in_mid_data_set_reaches_the_sink() -> None:
    sinks = Sinks()
    reader = MessageReader(CONTEXTS, sinks.begin)
    reader.abort()  # nothing in flight: nothing to tell
    reader.feed(fragment(encode_command(REQUEST), command=True))
    reader.feed(fragment(b"half", last=False))
    reader.abort()
    assert sinks.opened[0].getvalue() == b""
    assert reader.idle


def test_a_buffer_keeps_no_more_than_its_limit_and_says_so() -> None:
    buffer = BoundedBuffer(4)
    buffer.write(memoryview(b"abcd"))
    assert buffer.getvalue() == b"abcd"
    buffer.write(memoryview(b"e"))
    buffer.write(memoryview(b"f"))
    with pytest.raises(IdentifierTooLong, match="longer than 4 bytes") as caught:
        buffer.getvalue()
    assert caught.value.status == 0xA700


class Account:
    """Books bytes up to a limit."""

    def __init__(self, limit: int) -> None:
        self.used, self._limit = 0, limit

    @property
    def pressed(self) -> bool:
        return self.used > self._limit

    def take(self, count: int) -> None:
        self.used += count

    def give(self, count: int) -> None:
        self.used -= count


def test_what_a_buffer_keeps_is_booked_until_it_is_forgotten() -> None:
    account = Account(10)
    first, second = BoundedBuffer(100), BoundedBuffer(100)
    for buffer in (first, second):
        buffer.charge(account)
        buffer.write(memoryview(b"abcdef"))
    assert account.used == first.held + second.held == 12
    second.write(memoryview(b"g"))  # there is no more: what it has is given back
    assert account.used == 6
    with pytest.raises(IdentifierTooLong, match="no memory left"):
        second.getvalue()
    assert first.getvalue() == b"abcdef"
    first.abort()
    first.abort()
    second.abort()
    assert account.used == 0


def test_values_that_the_provider_must_not_accept_have_its_reason() -> None:
    """PS3.8 Table 9-26: a presentation context that is not there is an invalid parameter value."""
    reader = MessageReader(CONTEXTS, Sinks().begin)
    with pytest.raises(MessageError) as caught:
        reader.feed(fragment(ECHO, command=True, context_id=99))
    assert caught.value.reason == 6
    with pytest.raises(MessageError) as caught:
        reader.feed(fragment(b"ab"))
    assert caught.value.reason == 0


def test_what_is_refused_is_read_all_the_same() -> None:
    """PS3.4 §B.2.3: the answer comes after the data set."""
    sink = Discard()
    sink.write(memoryview(b"abc"))
    sink.abort()
    reader = MessageReader(CONTEXTS, lambda _: sink)
    reader.feed(fragment(encode_command(REQUEST), command=True))
    assert reader.feed(fragment(b"abcd")) is not None
