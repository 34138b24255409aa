"""Whole conversations between two associations, and between one and a peer that does as it likes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacslite.upper_layer.association import Association
from pacslite.upper_layer.events import (
    Aborted,
    AssociationAccepted,
    AssociationEvent,
    AssociationRejected,
    AssociationRequested,
    ConnectionClosed,
    Fragment,
    Released,
    ReleaseRequested,
)
from pacslite.upper_layer.items import PresentationContext, UserInformation
from pacslite.upper_layer.machine import State, StateError
from pacslite.upper_layer.negotiation import AbstractSyntaxOffer, Acceptance, AcceptorPolicy, negotiate
from pacslite.upper_layer.pdu import (
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRQ,
    PDUError,
    encode_p_data,
)

H = bytes.fromhex
USER_ABORT = AAbort(0).encode()
POLICY = AcceptorPolicy(lambda *_: AbstractSyntaxOffer(None), 131072, "1.2.3", "PACSLITE")
REQUEST = AAssociateRQ(
    "STORE",
    "CT01",
    (PresentationContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),),
    UserInformation(65536, "1.2.826"),
)


def feed(association: Association, *pdus: bytes | memoryview) -> list[AssociationEvent]:
    return association.receive_bytes(memoryview(b"".join(pdus)))


def carry(sender: Association, receiver: Association) -> list[AssociationEvent]:
    return feed(receiver, *sender.data_to_send())


def pair() -> tuple[Association, Association]:
    """A requestor and an acceptor with an association between them."""
    requestor, acceptor = Association.requestor(REQUEST), Association.acceptor(maximum_length=131072)
    requestor.transport_connected()
    assert carry(requestor, acceptor) == [AssociationRequested(REQUEST)]
    acceptor.accept(Acceptance.of(REQUEST, negotiate(REQUEST, POLICY)))
    (accepted,) = carry(acceptor, requestor)
    assert isinstance(accepted, AssociationAccepted)
    assert accepted.negotiated is requestor.negotiated
    return requestor, acceptor


def test_association_from_beginning_to_end() -> None:
    requestor, acceptor = pair()
    assert (requestor.peer_maximum_length, acceptor.peer_maximum_length) == (131072, 65536)
    assert (requestor.artim_running, acceptor.artim_running) == (False, False)
    requestor.send_p_data(encode_p_data(1, True, b"echo", requestor.peer_maximum_length))
    assert carry(requestor, acceptor) == [Fragment(1, True, True, memoryview(b"echo"))]
    acceptor.send_p_data(encode_p_data(1, True, b"done", acceptor.peer_maximum_length))
    assert carry(acceptor, requestor) == [Fragment(1, True, True, memoryview(b"done"))]
    requestor.request_release()
    assert carry(requestor, acceptor) == [ReleaseRequested()]
    acceptor.send_p_data(encode_p_data(1, False, b"late", 0))  # AR-7: allowed until we answer
    acceptor.respond_release()
    assert acceptor.artim_running
    assert carry(acceptor, requestor) == [Fragment(1, False, True, memoryview(b"late")), Released()]
    assert requestor.close_requested
    assert not acceptor.close_requested  # the requestor closes; ARTIM is for the case that it does not
    assert acceptor.connection_lost() == [ConnectionClosed()]
    assert requestor.connection_lost() == []
    assert {requestor.state, acceptor.state} == {State.STA1}
    assert not acceptor.artim_running


def test_limits_of_both_directions_are_apart() -> None:
    requestor, acceptor = pair()
    assert feed(acceptor, *encode_p_data(1, False, bytes(131066), 0))[0] == Fragment(
        1, False, True, memoryview(bytes(131066))
    )
    (aborted,) = feed(requestor, *encode_p_data(1, False, bytes(65532), 0))
    assert aborted == Aborted(
        2, 6, False, "P-DATA-TF, PDU-length: 65538 is over the maximum length of 65536 we announced"
    )  # fmt: skip


def test_release_collision() -> None:
    """AR-8: the requestor answers first, PS3.8 §7.2.2."""
    requestor, acceptor = pair()
    requestor.request_release()
    acceptor.request_release()
    from_requestor, from_acceptor = requestor.data_to_send(), acceptor.data_to_send()
    assert feed(requestor, *from_acceptor) == feed(acceptor, *from_requestor) == [ReleaseRequested()]
    assert (requestor.state, acceptor.state) == (State.STA9, State.STA10)
    with pytest.raises(StateError):
        acceptor.respond_release()
    requestor.respond_release()
    assert carry(requestor, acceptor) == [Released()]
    assert acceptor.state is State.STA12
    assert not acceptor.close_requested
    acceptor.respond_release()
    assert carry(acceptor, requestor) == [Released()]
    assert requestor.close_requested
    assert acceptor.connection_lost() == [ConnectionClosed()]


def test_rejection() -> None:
    requestor, acceptor = Association.requestor(REQUEST), Association.acceptor(maximum_length=0)
    requestor.transport_connected()
    carry(requestor, acceptor)
    acceptor.reject(AAssociateRJ(1, 1, 7))
    assert carry(acceptor, requestor) == [AssociationRejected(1, 1, 7)]
    assert requestor.close_requested
    assert acceptor.artim_running
    assert acceptor.timed_out() == [ConnectionClosed()]
    assert acceptor.close_requested


@pytest.mark.parametrize("requestor_aborts", [True, False])
def test_abort_by_the_user(requestor_aborts: bool) -> None:
    one, other = pair() if requestor_aborts else reversed(pair())
    one.abort()
    assert one.artim_running
    assert carry(one, other) == [Aborted(0, 0, by_peer=True, problem="aborted by the service-user")]
    assert other.close_requested
    assert one.connection_lost() == [ConnectionClosed()]


def test_abort_with_a_reason_is_the_providers() -> None:
    requestor, acceptor = pair()
    acceptor.abort(5)
    problem = "aborted by the service-provider: unexpected-PDU-parameter"
    assert carry(acceptor, requestor) == [Aborted(2, 5, by_peer=True, problem=problem)]


def test_abort_of_what_no_longer_exists_is_nothing() -> None:
    """The bytes that made our user abort also brought the peer's A-ABORT."""
    _, acceptor = pair()
    events = feed(acceptor, *encode_p_data(7, False, b"what context?", 0), USER_ABORT)
    assert [type(event) for event in events] == [Fragment, Aborted]
    acceptor.abort()
    assert acceptor.data_to_send() == []
    assert acceptor.state is State.STA1


def test_connection_lost_in_mid_association() -> None:
    requestor, acceptor = pair()
    problem = "connection lost in Sta6, association established"
    assert acceptor.connection_lost() == [Aborted(2, 0, by_peer=False, problem=problem)]
    assert acceptor.connection_lost() == []
    requestor.request_release()
    assert requestor.connection_lost() == [Aborted(2, 0, False, "connection lost in Sta7, awaiting A-RELEASE-RP")]


def test_connection_that_never_came() -> None:
    requestor = Association.requestor(REQUEST)
    assert feed(requestor, USER_ABORT) == []  # nothing can arrive
    requestor.abort()
    assert requestor.close_requested
    assert requestor.connection_lost() == []
    with pytest.raises(StateError, match="no TRANSPORT_CONFIRMATION in Sta1, idle"):
        requestor.transport_connected()


def test_request_that_cannot_be_encoded_is_not_sent() -> None:
    requestor = Association.requestor(AAssociateRQ("", "CT01", ()))
    with pytest.raises(PDUError, match="Called-AE-title"):
        requestor.transport_connected()
    assert requestor.state is State.STA4


def test_answer_of_another_application_context_is_not_ours() -> None:
    """PS3.8 §7.1.1.2: a requestor that cannot operate in it aborts."""
    requestor = Association.requestor(REQUEST)
    requestor.transport_connected()
    requestor.data_to_send()
    events = feed(requestor, AAssociateAC((), application_context="1.2.3").encode())
    problem = "A-ASSOCIATE-AC, Application-context-name: 1.2.3 is none we can operate in"
    assert events == [Aborted(2, 6, by_peer=False, problem=problem)]
    assert requestor.data_to_send() == [AAbort(2, 6).encode()]
    assert requestor.negotiated is None


def test_answer_without_application_context_is_taken() -> None:
    requestor = Association.requestor(REQUEST)
    requestor.transport_connected()
    (accepted,) = feed(requestor, AAssociateAC((), application_context="").encode())
    assert isinstance(accepted, AssociationAccepted)


# before there is an association

NOT_YET = "PDU-type: not expected in Sta2, connection open, awaiting A-ASSOCIATE-RQ"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "PDU, PDU-type: 47H is not known here: this is an HTTP request"),
        (H("16 03 01 0200 01 00"), "PDU, PDU-type: 16H is not known here: this is TLS, which is not spoken here"),
        (H("01 00 FFFFFFFF"), "A-ASSOCIATE-RQ, PDU-length: 68 to 262144 expected, 4294967295 received"),
        (H("04 00 00000008 00000004 01 03 0000"), f"P-DATA-TF, {NOT_YET}"),
        (AReleaseRQ().encode(), f"A-RELEASE-RQ, {NOT_YET}"),
        (
            REQUEST.encode().replace(H("20 00 002E 01"), H("20 00 002E 02")),
            "A-ASSOCIATE-RQ, Presentation-context-ID: 2 is not odd and 1 to 255",
        ),
    ],
)
def test_anything_but_a_request_in_sta2(data: bytes, problem: str) -> None:
    """AA-1: source service-user, reason not significant; ARTIM starts anew."""
    acceptor = Association.acceptor(maximum_length=16384)
    starts = acceptor.artim_starts
    assert feed(acceptor, data) == [Aborted(0, 0, by_peer=False, problem=problem)]
    assert acceptor.data_to_send() == [USER_ABORT]
    assert acceptor.state is State.STA13
    assert acceptor.artim_running
    assert acceptor.artim_starts == starts + 1


def test_slow_bytes_do_not_stop_artim() -> None:
    acceptor = Association.acceptor(maximum_length=0)
    for byte in REQUEST.encode()[:-1]:
        assert feed(acceptor, bytes((byte,))) == []
        assert acceptor.artim_running
    assert acceptor.timed_out() == [ConnectionClosed()]
    assert acceptor.close_requested
    assert acceptor.data_to_send() == []  # AA-2 sends nothing
    assert feed(acceptor, REQUEST.encode()[-1:]) == []


def test_late_timer_is_nothing() -> None:
    _, acceptor = pair()
    assert acceptor.timed_out() == []
    assert acceptor.state is State.STA6


def test_data_behind_the_request_is_unexpected() -> None:
    acceptor = Association.acceptor(maximum_length=0)
    events = feed(acceptor, REQUEST.encode(), *encode_p_data(1, True, b"echo", 0))
    assert [type(event) for event in events] == [AssociationRequested, Aborted]
    with pytest.raises(StateError, match="no A_ASSOCIATE_RESPONSE_ACCEPT in Sta13"):
        acceptor.accept(Acceptance.of(REQUEST, negotiate(REQUEST, POLICY)))


# after it


def test_rest_of_a_pdu_after_our_abort_is_skipped_and_the_peers_abort_still_seen() -> None:
    _, acceptor = pair()
    frame = b"".join(encode_p_data(1, False, bytes(20_000), 0))
    assert len(feed(acceptor, frame[:5000])) == 1
    acceptor.abort()
    assert acceptor.data_to_send() == [USER_ABORT]
    assert feed(acceptor, frame[5000:], *encode_p_data(1, False, b"more", 0)) == []
    assert acceptor.data_to_send() == []  # AA-6
    assert feed(acceptor, AAbort(0).encode(), frame) == [ConnectionClosed()]
    assert acceptor.close_requested


def test_nothing_is_answered_behind_a_framing_error() -> None:
    """Where the next PDU begins is unknown: one A-ABORT, whatever comes."""
    _, acceptor = pair()
    assert len(feed(acceptor, b"GET / HTTP/1.1\r\n" * 1000)) == 1
    assert feed(acceptor, REQUEST.encode() * 1000) == []
    assert acceptor.data_to_send() == [AAbort(2, 1).encode()]
    assert acceptor.artim_running
    assert acceptor.timed_out() == [ConnectionClosed()]


def test_garbage_in_sta13_is_answered_once() -> None:
    """AA-7."""
    _, acceptor = pair()
    acceptor.abort()
    acceptor.data_to_send()
    assert feed(acceptor, H("99 00 00000000"), H("99 00 00000000")) == []
    assert acceptor.data_to_send() == [AAbort(2, 1).encode()]
    assert acceptor.artim_running


def test_request_without_a_cell_changes_nothing() -> None:
    requestor, _ = pair()
    requestor.request_release()
    requestor.data_to_send()
    for refused in (
        requestor.request_release,
        requestor.respond_release,
        lambda: requestor.send_p_data([b"frame"]),
        lambda: requestor.accept(Acceptance.of(REQUEST, AAssociateAC(()))),
        lambda: requestor.reject(AAssociateRJ(1, 1, 1)),
    ):
        with pytest.raises(StateError, match="in Sta7, awaiting A-RELEASE-RP"):
            refused()
    assert (requestor.state, requestor.data_to_send()) == (State.STA7, [])


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=5), st.booleans())
def test_receive_bytes_never_raises(pieces: list[bytes], is_open: bool) -> None:
    acceptor = pair()[1] if is_open else Association.acceptor(maximum_length=16384)
    ended = 0
    for piece in pieces:
        ended += sum(isinstance(event, Aborted) for event in feed(acceptor, piece))
    assert ended <= 1
    acceptor.connection_lost()
    assert acceptor.state is State.STA1
