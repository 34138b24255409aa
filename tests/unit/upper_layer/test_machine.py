"""Table 9-10 against a copy typed from the page of PS3.8 §9.2.3, then a real association against the same copy."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

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
from pacslite.upper_layer.items import PresentationContext, PresentationContextResult
from pacslite.upper_layer.machine import TABLE_9_10, Action, Cell, Event, State, StateError
from pacslite.upper_layer.negotiation import Acceptance
from pacslite.upper_layer.pdu import AAssociateAC, AAssociateRJ, AAssociateRQ, encode_p_data

# Columns are Sta1 to Sta13. "-" is an empty cell; AR-8:9/10 is the page's "AR-8 Sta9 or 10".
GRID = """
A_ASSOCIATE_REQUEST    | AE-1:4 - - - - - - - - - - - -
TRANSPORT_CONFIRMATION | - - - AE-2:5 - - - - - - - - -
A_ASSOCIATE_AC_PDU     | - AA-1:13 AA-8:13 - AE-3:6 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-6:13
A_ASSOCIATE_RJ_PDU     | - AA-1:13 AA-8:13 - AE-4:1 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-6:13
TRANSPORT_INDICATION   | AE-5:2 - - - - - - - - - - - -
A_ASSOCIATE_RQ_PDU     | - AE-6:3/13 AA-8:13 - AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-7:13
A_ASSOCIATE_RESPONSE_ACCEPT | - - AE-7:6 - - - - - - - - - -
A_ASSOCIATE_RESPONSE_REJECT | - - AE-8:13 - - - - - - - - - -
P_DATA_REQUEST         | - - - - - DT-1:6 - AR-7:8 - - - - -
P_DATA_TF_PDU          | - AA-1:13 AA-8:13 - AA-8:13 DT-2:6 AR-6:7 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-6:13
A_RELEASE_REQUEST      | - - - - - AR-1:7 - - - - - - -
A_RELEASE_RQ_PDU       | - AA-1:13 AA-8:13 - AA-8:13 AR-2:8 AR-8:9/10 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-6:13
A_RELEASE_RP_PDU       | - AA-1:13 AA-8:13 - AA-8:13 AA-8:13 AR-3:1 AA-8:13 AA-8:13 AR-10:12 AR-3:1 AA-8:13 AA-6:13
A_RELEASE_RESPONSE     | - - - - - - - AR-4:13 AR-9:11 - - AR-4:13 -
A_ABORT_REQUEST        | - - AA-1:13 AA-2:1 AA-1:13 AA-1:13 AA-1:13 AA-1:13 AA-1:13 AA-1:13 AA-1:13 AA-1:13 -
A_ABORT_PDU            | - AA-2:1 AA-3:1 - AA-3:1 AA-3:1 AA-3:1 AA-3:1 AA-3:1 AA-3:1 AA-3:1 AA-3:1 AA-2:1
TRANSPORT_CLOSED       | - AA-5:1 AA-4:1 AA-4:1 AA-4:1 AA-4:1 AA-4:1 AA-4:1 AA-4:1 AA-4:1 AA-4:1 AA-4:1 AR-5:1
ARTIM_EXPIRED          | - AA-2:1 - - - - - - - - - - AA-2:1
INVALID_PDU            | - AA-1:13 AA-8:13 - AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-8:13 AA-7:13
"""
ROWS = [line.split("|") for line in GRID.strip().splitlines()]
CELLS = [(Event[name.strip()], State(n), cell) for name, row in ROWS for n, cell in enumerate(row.split(), start=1)]


def test_grid_has_every_cell_once() -> None:
    assert len(CELLS) == len({(event, state) for event, state, _ in CELLS}) == 19 * 13
    assert set(TABLE_9_10) == set(Event)


@pytest.mark.parametrize(("event", "state", "printed"), CELLS)
def test_cell_is_the_standards(event: Event, state: State, printed: str) -> None:
    cell = TABLE_9_10[event].get(state)
    assert ("-" if cell is None else str(cell)) == printed


def test_every_action_is_used() -> None:
    assert {cell.action for row in TABLE_9_10.values() for cell in row.values()} == set(Action)


def test_cell_prints_its_alternative() -> None:
    assert str(Cell(Action.AE_6, State.STA3, State.STA13)) == "AE-6:3/13"


def test_every_state_has_a_description() -> None:
    assert all(state.description.startswith(f"Sta{state.value}, ") for state in State)


def test_state_error_names_event_and_state() -> None:
    error = StateError(Event.A_RELEASE_REQUEST, State.STA8)
    assert str(error) == "no A_RELEASE_REQUEST in Sta8, awaiting the local answer to A-RELEASE-RQ"
    assert (error.event, error.state) == (Event.A_RELEASE_REQUEST, State.STA8)


# The second walk: an association in each state, each event fed to it.

REQUEST = AAssociateRQ("STORE", "CT01", (PresentationContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),))
ACCEPT = AAssociateAC((PresentationContextResult(1, 0, "1.2.840.10008.1.2"),), titles=REQUEST.titles())
ACCEPTANCE = Acceptance.of(REQUEST, ACCEPT)
REJECT = AAssociateRJ(2, 3, 1)
FRAME = encode_p_data(1, True, b"\x00\x00", 16384)[0]
RELEASE_RQ = bytes.fromhex("05 00 00000004 00000000")
RELEASE_RP = bytes.fromhex("06 00 00000004 00000000")
USER_ABORT = bytes.fromhex("07 00 00000004 0000 00 00")
PROVIDER_ABORT = bytes.fromhex("07 00 00000004 0000 02 00")
UNEXPECTED = bytes.fromhex("07 00 00000004 0000 02 02")
UNRECOGNIZED = bytes.fromhex("07 00 00000004 0000 02 01")
UNKNOWN_PDU = bytes.fromhex("08 00 00000004 00000000")


def feed(association: Association, *pdus: bytes) -> list[AssociationEvent]:
    return association.receive_bytes(memoryview(b"".join(pdus)))


def in_state(state: State, is_requestor: bool) -> Association:
    """Lead an association into ``state`` by the shortest way of its side."""
    association = Association.requestor(REQUEST) if is_requestor else Association.acceptor(maximum_length=0)
    for go in WAYS[is_requestor][state]:
        go(association)
    association.data_to_send()
    assert association.state is state
    return association


Step = Callable[[Association], object]
CONNECT: Step = Association.transport_connected
LOSE: Step = Association.connection_lost
RELEASE: Step = Association.request_release
RESPOND: Step = Association.respond_release


def receive(*pdus: bytes) -> Step:
    return lambda association: feed(association, *pdus)


OPEN_AS_REQUESTOR = (CONNECT, receive(ACCEPT.encode()))
OPEN_AS_ACCEPTOR: tuple[Step, ...] = (receive(REQUEST.encode()), lambda association: association.accept(ACCEPTANCE))
WAYS: dict[bool, dict[State, tuple[Step, ...]]] = {
    True: {
        State.STA1: (LOSE,),
        State.STA4: (),
        State.STA5: (CONNECT,),
        State.STA6: OPEN_AS_REQUESTOR,
        State.STA7: (*OPEN_AS_REQUESTOR, RELEASE),
        State.STA8: (*OPEN_AS_REQUESTOR, receive(RELEASE_RQ)),
        State.STA9: (*OPEN_AS_REQUESTOR, RELEASE, receive(RELEASE_RQ)),
        State.STA11: (*OPEN_AS_REQUESTOR, RELEASE, receive(RELEASE_RQ), RESPOND),
        State.STA13: (*OPEN_AS_REQUESTOR, Association.abort),
    },
    False: {
        State.STA1: (LOSE,),
        State.STA2: (),
        State.STA3: (receive(REQUEST.encode()),),
        State.STA6: OPEN_AS_ACCEPTOR,
        State.STA7: (*OPEN_AS_ACCEPTOR, RELEASE),
        State.STA8: (*OPEN_AS_ACCEPTOR, receive(RELEASE_RQ)),
        State.STA10: (*OPEN_AS_ACCEPTOR, RELEASE, receive(RELEASE_RQ)),
        State.STA12: (*OPEN_AS_ACCEPTOR, RELEASE, receive(RELEASE_RQ), receive(RELEASE_RP)),
        State.STA13: (*OPEN_AS_ACCEPTOR, receive(RELEASE_RQ), RESPOND),
    },
}


def step(event: Event) -> Step:
    """The constructors feed it; later there is no method for it."""
    return lambda association: association._step(event)


FEEDS: dict[Event, Step] = {
    Event.A_ASSOCIATE_REQUEST: step(Event.A_ASSOCIATE_REQUEST),
    Event.TRANSPORT_CONFIRMATION: CONNECT,
    Event.A_ASSOCIATE_AC_PDU: lambda association: feed(association, ACCEPT.encode()),
    Event.A_ASSOCIATE_RJ_PDU: lambda association: feed(association, REJECT.encode()),
    Event.TRANSPORT_INDICATION: step(Event.TRANSPORT_INDICATION),
    Event.A_ASSOCIATE_RQ_PDU: lambda association: feed(association, REQUEST.encode()),
    Event.A_ASSOCIATE_RESPONSE_ACCEPT: lambda association: association.accept(ACCEPTANCE),
    Event.A_ASSOCIATE_RESPONSE_REJECT: lambda association: association.reject(REJECT),
    Event.P_DATA_REQUEST: lambda association: association.send_p_data([FRAME]),
    Event.P_DATA_TF_PDU: lambda association: feed(association, bytes(FRAME)),
    Event.A_RELEASE_REQUEST: RELEASE,
    Event.A_RELEASE_RQ_PDU: lambda association: feed(association, RELEASE_RQ),
    Event.A_RELEASE_RP_PDU: lambda association: feed(association, RELEASE_RP),
    Event.A_RELEASE_RESPONSE: RESPOND,
    Event.A_ABORT_REQUEST: Association.abort,
    Event.A_ABORT_PDU: lambda association: feed(association, PROVIDER_ABORT),
    Event.TRANSPORT_CLOSED: LOSE,
    Event.ARTIM_EXPIRED: Association.timed_out,
    Event.INVALID_PDU: lambda association: feed(association, UNKNOWN_PDU),
}


def issued_by(event: Event, association: Association) -> list[AssociationEvent]:
    result = FEEDS[event](association)
    return result if isinstance(result, list) else []


OF_THE_USER = {  # asked for too early or too late it is refused; what happens, and an abort, is not
    Event.A_ASSOCIATE_REQUEST,
    Event.TRANSPORT_CONFIRMATION,
    Event.TRANSPORT_INDICATION,
    Event.A_ASSOCIATE_RESPONSE_ACCEPT,
    Event.A_ASSOCIATE_RESPONSE_REJECT,
    Event.P_DATA_REQUEST,
    Event.A_RELEASE_REQUEST,
    Event.A_RELEASE_RESPONSE,
}


class Effect(NamedTuple):
    """Tables 9-6 to 9-9. ``artim`` None leaves the timer as it is."""

    sends: bytes = b""
    issues: tuple[type[AssociationEvent], ...] = ()
    artim: bool | None = None
    closes: bool = False


EFFECTS: dict[str, Effect] = {
    "AE-1": Effect(),
    "AE-2": Effect(sends=REQUEST.encode()),
    "AE-3": Effect(issues=(AssociationAccepted,)),
    "AE-4": Effect(issues=(AssociationRejected,), closes=True),
    "AE-5": Effect(artim=True),
    "AE-6": Effect(issues=(AssociationRequested,), artim=False),
    "AE-7": Effect(sends=ACCEPT.encode()),
    "AE-8": Effect(sends=REJECT.encode(), artim=True),
    "DT-1": Effect(sends=bytes(FRAME)),
    "DT-2": Effect(issues=(Fragment,)),
    "AR-1": Effect(sends=RELEASE_RQ),
    "AR-2": Effect(issues=(ReleaseRequested,)),
    "AR-3": Effect(issues=(Released,), closes=True),
    "AR-4": Effect(sends=RELEASE_RP, artim=True),
    "AR-5": Effect(issues=(ConnectionClosed,), artim=False),
    "AR-6": Effect(issues=(Fragment,)),
    "AR-7": Effect(sends=bytes(FRAME)),
    "AR-8": Effect(issues=(ReleaseRequested,)),
    "AR-9": Effect(sends=RELEASE_RP),
    "AR-10": Effect(issues=(Released,)),
    "AA-1": Effect(sends=USER_ABORT, artim=True),
    "AA-2": Effect(issues=(ConnectionClosed,), artim=False, closes=True),
    "AA-3": Effect(issues=(Aborted,), closes=True),
    "AA-4": Effect(issues=(Aborted,)),
    "AA-5": Effect(issues=(ConnectionClosed,), artim=False),
    "AA-6": Effect(),
    "AA-7": Effect(sends=UNEXPECTED),
    "AA-8": Effect(sends=UNEXPECTED, issues=(Aborted,), artim=True),
}


def expected_effect(event: Event, state: State, action: str) -> Effect:
    effect = EFFECTS[action]
    if event is Event.INVALID_PDU and action in ("AA-7", "AA-8"):
        return effect._replace(sends=UNRECOGNIZED)
    if event is Event.A_ABORT_REQUEST and action == "AA-2":
        return effect._replace(issues=())  # the standard has no indication either: our user asked for it
    if action == "AA-1" and state is State.STA2:
        return effect._replace(issues=(Aborted,))  # no indication in the standard: for the log
    return effect


WALK = [(is_requestor, *cell) for cell in CELLS for is_requestor in (True, False) if cell[1] in WAYS[is_requestor]]


def test_walk_visits_every_cell() -> None:
    assert {(event, state) for _, event, state, _ in WALK} == {(event, state) for event, state, _ in CELLS}


@pytest.mark.parametrize(("is_requestor", "event", "state", "printed"), WALK)
def test_association_obeys_the_cell(is_requestor: bool, event: Event, state: State, printed: str) -> None:
    if event in (Event.A_ASSOCIATE_REQUEST, Event.TRANSPORT_INDICATION) and state is State.STA1:
        return check_constructors()
    association = in_state(state, is_requestor)
    artim, closes, starts = association.artim_running, association.close_requested, association.artim_starts
    if printed == "-":
        if event in OF_THE_USER:
            with pytest.raises(StateError):
                FEEDS[event](association)
        else:
            assert issued_by(event, association) == []
        assert association.state is state
        assert association.data_to_send() == []
        assert (association.artim_running, association.close_requested) == (artim, closes)
        return None
    action, states = printed.split(":")
    choices = [State(int(number)) for number in states.split("/")]
    expected = expected_effect(event, state, action)
    issued = issued_by(event, association)
    assert association.state is (choices[-1] if action == "AR-8" and not is_requestor else choices[0])
    assert b"".join(association.data_to_send()) == expected.sends
    assert tuple(type(each) for each in issued) == expected.issues
    assert association.artim_running is (artim if expected.artim is None else expected.artim)
    assert association.artim_starts == starts + (expected.artim is True)
    assert association.close_requested is (closes or expected.closes)
    return None


def check_constructors() -> None:
    """AE-1 and AE-5 are where an association begins."""
    requestor, acceptor = Association.requestor(REQUEST), Association.acceptor(maximum_length=0)
    assert (requestor.state, requestor.artim_running) == (State.STA4, False)
    assert (acceptor.state, acceptor.artim_running) == (State.STA2, True)
    assert requestor.data_to_send() == acceptor.data_to_send() == []


def test_ae_6_rejects_what_the_provider_cannot_accept() -> None:
    """Sta2, A-ASSOCIATE-RQ of another protocol version: the cell's other state."""
    association = in_state(State.STA2, is_requestor=False)
    other_version = bytearray(REQUEST.encode())
    other_version[6:8] = b"\x00\x02"  # bit 1, not bit 0
    assert feed(association, bytes(other_version)) == [AssociationRejected(result=1, source=2, reason=2)]
    assert association.state is State.STA13
    assert association.artim_running
    assert association.data_to_send() == [bytes.fromhex("03 00 00000004 00 01 02 02")]
