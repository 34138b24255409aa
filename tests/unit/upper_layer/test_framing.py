"""From bytes to fragments: no copy, no dependence on how the stream is cut, nothing kept that was only announced."""

import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacslite.upper_layer.association import Association
from pacslite.upper_layer.events import Aborted, AssociationEvent, Fragment, ReleaseRequested
from pacslite.upper_layer.framing import Found, Framing
from pacslite.upper_layer.items import PresentationContext
from pacslite.upper_layer.machine import State
from pacslite.upper_layer.negotiation import Acceptance
from pacslite.upper_layer.pdu import AAbort, AAssociateAC, AAssociateRQ, AReleaseRQ

H = bytes.fromhex
MAXIMUM_LENGTH = 4096
REQUEST = AAssociateRQ("STORE", "CT01", (PresentationContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),))

PDV: TypeAlias = tuple[int, bool, bool, bytes]  # context ID, command, last, fragment


def p_data(*pdvs: PDV) -> bytes:
    """A P-DATA-TF PDU by PS3.8 Tables 9-22 and 9-23."""
    body = b"".join(
        (len(data) + 2).to_bytes(4, "big") + bytes((context_id, is_command | is_last << 1)) + data
        for context_id, is_command, is_last, data in pdvs
    )
    return H("04 00") + len(body).to_bytes(4, "big") + body


def split(framing: Framing, data: memoryview) -> list[Found]:
    found: list[Found] = []
    framing.split(data, found)
    return found


def established(maximum_length: int = MAXIMUM_LENGTH) -> Association:
    association = Association.acceptor(maximum_length=maximum_length)
    association.receive_bytes(memoryview(REQUEST.encode()))
    association.accept(Acceptance.of(REQUEST, AAssociateAC(())))
    association.data_to_send()
    return association


def joined(events: Iterable[AssociationEvent]) -> list[object]:
    """Fragments of one command set or data set put together; everything else as it is."""
    result: list[object] = []
    unfinished: PDV | None = None
    for event in events:
        if not isinstance(event, Fragment):
            result.append(event)
            unfinished = None
            continue
        data = bytes(event.data)
        if unfinished is not None and unfinished[:2] == event[:2]:
            data = unfinished[3] + data
            result.pop()
        piece: PDV = (event.context_id, event.is_command, event.is_last, data)
        result.append(piece)
        unfinished = None if event.is_last else piece
    return result


def cut(data: bytes, places: Sequence[int]) -> Iterator[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return (data[start:end] for start, end in pairwise(edges))


def kept(event: AssociationEvent) -> AssociationEvent:
    return event._replace(data=memoryview(bytes(event.data))) if isinstance(event, Fragment) else event


def conversation(pieces: Iterable[bytes]) -> tuple[list[object], bytes, State]:
    """What an established association makes of a stream that arrives in ``pieces``."""
    association = established()
    events: list[AssociationEvent] = []
    for piece in pieces:
        buffer = bytearray(piece)
        events.extend(kept(event) for event in association.receive_bytes(memoryview(buffer)))
        buffer[:] = b"\xff" * len(buffer)  # as the next bytes received would overwrite it
    return joined(events), b"".join(association.data_to_send()), association.state


pdvs = st.tuples(st.sampled_from([1, 3, 2, 255]), st.booleans(), st.booleans(), st.binary(max_size=40))
p_data_pdus = st.lists(pdvs, min_size=1, max_size=4).map(lambda each: p_data(*each))
other_pdus = st.sampled_from([AReleaseRQ().encode(), AAbort(2, 0).encode(), REQUEST.encode(), H("63 00 00000000")])
noise = st.binary(min_size=1, max_size=30)
streams = st.lists(st.one_of(p_data_pdus, p_data_pdus, p_data_pdus, other_pdus, noise), max_size=6).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(streams, st.lists(st.integers(0, 10_000), max_size=12))
def test_any_cutting_of_the_stream_gives_the_same(stream: bytes, places: list[int]) -> None:
    assert conversation(cut(stream, places)) == conversation([stream])


@settings(deadline=None)
@given(streams)
def test_byte_after_byte_gives_the_same(stream: bytes) -> None:
    assert conversation([stream[at : at + 1] for at in range(len(stream))]) == conversation([stream])


@settings(deadline=None)
@given(streams, st.data())
def test_damaged_streams_are_cut_like_others(stream: bytes, data: st.DataObject) -> None:
    damaged = bytearray(stream or b"\0")
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    places = data.draw(st.lists(st.integers(0, 10_000), max_size=12))
    assert conversation(cut(bytes(damaged), places)) == conversation([bytes(damaged)])


@settings(deadline=None)
@given(st.lists(st.lists(pdvs, min_size=1, max_size=4), max_size=5), st.lists(st.integers(0, 10_000), max_size=12))
def test_fragments_are_what_was_sent(pdus: list[list[PDV]], places: list[int]) -> None:
    stream = b"".join(p_data(*each) for each in pdus)
    sent = [Fragment(*pdv[:3], memoryview(pdv[3])) for each in pdus for pdv in each]
    assert conversation(cut(stream, places)) == (joined(sent), b"", State.STA6)


# Annex E.2: what receivers must accept


@pytest.mark.parametrize(
    ("pdvs", "fragments"),
    [
        (
            [(1, True, True, b"cmnd"), (1, False, False, b"data")],
            [(1, True, True, b"cmnd"), (1, False, False, b"data")],
        ),
        ([(1, True, False, b"aa"), (1, True, False, b"bb")], [(1, True, False, b"aa"), (1, True, False, b"bb")]),
        ([(1, False, False, b"aa"), (1, False, True, b"")], [(1, False, False, b"aa"), (1, False, True, b"")]),
        ([(1, False, False, b"")], [(1, False, False, b"")]),  # header only
        # and once more, which says nothing new; behind the last fragment, or on another context, it would be an error
        ([(1, False, False, b"aa"), *[(1, False, False, b"")] * 3], [(1, False, False, b"aa")]),
        ([(1, False, False, b"")] * 3 + [(1, False, True, b"")], [(1, False, False, b""), (1, False, True, b"")]),
        ([(1, False, True, b""), (1, False, False, b"")], [(1, False, True, b""), (1, False, False, b"")]),
        ([(1, False, False, b""), (1, True, False, b"")], [(1, False, False, b""), (1, True, False, b"")]),
        ([(1, False, False, b""), (3, False, False, b"")], [(1, False, False, b""), (3, False, False, b"")]),
        ([(0, False, False, b"")], [(0, False, False, b"")]),
        ([(1, False, True, b"odd")], [(1, False, True, b"odd")]),  # devices send odd lengths
    ],
)
def test_pdvs_of_one_pdu(pdvs: list[PDV], fragments: list[PDV]) -> None:
    events = established().receive_bytes(memoryview(p_data(*pdvs)))
    assert events == [Fragment(*each[:3], memoryview(each[3])) for each in fragments]


def test_control_header_bits_2_to_7_are_not_tested() -> None:
    events = established().receive_bytes(memoryview(H("04 00 00000008 00000004 01 FE AAAA")))
    assert events == [Fragment(1, False, True, memoryview(H("AAAA")))]


def test_fragments_are_views_of_the_receive_buffer() -> None:
    buffer = bytearray(p_data((1, False, False, bytes(1000)), (1, False, True, bytes(2000))))
    events = established().receive_bytes(memoryview(buffer))
    assert [isinstance(event, Fragment) and event.data.obj is buffer for event in events] == [True, True]


def test_fragment_comes_before_its_pdv_is_complete() -> None:
    association = established()
    pdu = memoryview(p_data((1, False, True, bytes(100))))
    assert association.receive_bytes(pdu[:12]) == []
    assert association.receive_bytes(pdu[12:40]) == [Fragment(1, False, False, pdu[12:40])]
    assert association.receive_bytes(pdu[40:111]) == [Fragment(1, False, False, pdu[40:111])]
    assert association.receive_bytes(pdu[111:]) == [Fragment(1, False, True, pdu[111:])]


def test_one_fragment_per_buffer_and_pdv() -> None:
    """The hot path: the number of Python objects is that of PDVs, whatever their size."""
    association = established(maximum_length=0)
    pdu = p_data((1, False, True, bytes(1 << 20)))
    pieces = [pdu[at : at + 262_144] for at in range(0, len(pdu), 262_144)]
    assert [len(association.receive_bytes(memoryview(piece))) for piece in pieces] == [1, 1, 1, 1, 1]


def test_memory_does_not_depend_on_the_pdu() -> None:
    association = established(maximum_length=0)
    association.receive_bytes(memoryview(H("04 00 FFFFFFF0 FFFFFFEC 01 00")))
    buffer = memoryview(bytes(65536))
    tracemalloc.start()
    try:
        for _ in range(1000):
            association.receive_bytes(buffer)
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()
    assert association.state is State.STA6


def test_announced_length_is_not_allocated() -> None:
    framing = Framing(0)
    tracemalloc.start()
    try:
        assert split(framing, memoryview(H("01 00 00040000") + bytes(100))) == []
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()
    assert framing.held == 106


def test_nothing_is_held_between_pdus() -> None:
    framing = Framing(0)
    request = memoryview(REQUEST.encode())
    assert split(framing, request[:50]) == []
    assert framing.held == 50
    assert split(framing, request[50:]) == [REQUEST]
    assert framing.held == 0


LONG = H("04 00 00001001")  # 4097
PDV_HEADER = "P-DATA-TF, Item-length: a PDV of"


@pytest.mark.parametrize(
    ("stream", "reason", "problem"),
    [
        (LONG, 6, "P-DATA-TF, PDU-length: 4097 is over the maximum length of 4096 we announced"),
        (H("04 00 FFFFFFFF"), 6, "P-DATA-TF, PDU-length: 4294967295 is over the maximum length of 4096 we announced"),
        (H("04 00 00000000"), 6, "P-DATA-TF, PDU-length: 0 bytes have no room for a PDV"),
        (H("04 00 00000005 00000001 01"), 6, "P-DATA-TF, PDU-length: 5 bytes have no room for a PDV"),
        (H("04 00 00000006 00000000 01 03"), 6, f"{PDV_HEADER} 0 bytes has no message control header"),
        (H("04 00 00000006 00000001 01 03"), 6, f"{PDV_HEADER} 1 bytes has no message control header"),
        (H("04 00 00000006 00000003 01 03"), 6, f"{PDV_HEADER} 3 bytes leaves its PDU by 1"),
        (H("04 00 00000006 FFFFFFFF 01 03"), 6, f"{PDV_HEADER} 4294967295 bytes leaves its PDU by 4294967293"),
        (H("04 00 00000008 00000003 01 03"), 6, "P-DATA-TF, Item-length: after a PDV of 3 bytes 1 are left, no PDV"),
        (H("04 00 0000000B 00000002 01 03"), 6, "P-DATA-TF, Item-length: after a PDV of 2 bytes 5 are left, no PDV"),
        (b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", 1, "PDU, PDU-type: 47H is not known here: this is an HTTP request"),
        (H("07 00 00000003 000000"), 6, "A-ABORT, PDU-length: 4 expected, 3 received"),
        (H("05 00 FFFFFFFF"), 6, "A-RELEASE-RQ, PDU-length: 4 expected, 4294967295 received"),
        (REQUEST.encode(), 2, "A-ASSOCIATE-RQ, PDU-type: not expected in Sta6, association established"),
        (H("06 00 00000004 00000000"), 2, "A-RELEASE-RP, PDU-type: not expected in Sta6, association established"),
    ],
)
def test_violation_ends_in_one_aborted(stream: bytes, reason: int, problem: str) -> None:
    expected = (
        [Aborted(2, reason, by_peer=False, problem=problem)],
        H(f"07 00 00000004 0000 02 0{reason}"),
        State.STA13,
    )
    assert conversation([stream]) == expected
    assert conversation([stream[at : at + 1] for at in range(len(stream))]) == expected


def test_nothing_of_a_pdv_that_leaves_its_pdu_is_delivered() -> None:
    good, bad = (1, False, True, b"good"), H("00000010 01 02") + bytes(8)
    body = p_data(good)[6:] + bad
    events, _, _ = conversation([H("04 00") + len(body).to_bytes(4, "big") + body])
    assert events[0] == good
    assert [type(event) for event in events[1:]] == [Aborted]


def test_largest_announced_length_is_accepted() -> None:
    events, output, state = conversation([p_data((1, False, True, bytes(4090)))])
    assert (events, output, state) == ([(1, False, True, bytes(4090))], b"", State.STA6)


def test_release_behind_data_in_one_buffer() -> None:
    stream = p_data((1, False, True, b"last")) + AReleaseRQ().encode()
    assert conversation([stream])[0] == [(1, False, True, b"last"), ReleaseRequested()]
