"""One association, either side, without socket, task or clock: PS3.8 §9.2 over ``machine`` and ``framing``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

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
from pacslite.upper_layer.framing import Found, Framing, PDataTF
from pacslite.upper_layer.machine import TABLE_9_10, Action, Event, State, StateError
from pacslite.upper_layer.negotiation import Acceptance, Negotiated, check_protocol_version, negotiated_from
from pacslite.upper_layer.pdu import (
    DICOM_APPLICATION_CONTEXT,
    PDU,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    PDUError,
)
from pacslite.upper_layer.reasons import abort_text

__all__ = ["Association"]

_EVENT_OF: Mapping[type[PDU | PDataTF], Event] = {
    AAssociateRQ: Event.A_ASSOCIATE_RQ_PDU,
    AAssociateAC: Event.A_ASSOCIATE_AC_PDU,
    AAssociateRJ: Event.A_ASSOCIATE_RJ_PDU,
    PDataTF: Event.P_DATA_TF_PDU,
    AReleaseRQ: Event.A_RELEASE_RQ_PDU,
    AReleaseRP: Event.A_RELEASE_RP_PDU,
    AAbort: Event.A_ABORT_PDU,
}
_P_DATA_CELLS = TABLE_9_10[Event.P_DATA_TF_PDU]
_DELIVERING = frozenset(state for state, cell in _P_DATA_CELLS.items() if cell.action in (Action.DT_2, Action.AR_6))
_SENDING = frozenset(TABLE_9_10[Event.P_DATA_REQUEST])
_UNCONNECTED = (State.STA1, State.STA4)
_NO_REQUEST = AAssociateRQ("", "", ())  # an acceptor's: what it is asked goes to its user
_RELEASE_RP = AReleaseRP().encode()
_RELEASE_REQUESTED = ReleaseRequested()
_CONNECTION_CLOSED = ConnectionClosed()


class Association:
    """One association, either side (PS3.8 §9.2). No socket, task or clock.

    After each call: write ``data_to_send()``, handle the events in order, run the ARTIM timer iff ``artim_running``,
    and close the transport connection if ``close_requested``, once everything is written.
    """

    __slots__ = (
        "_events", "_framing", "_output", "_request", "artim_running", "artim_starts", "close_requested", "held",
        "is_requestor", "negotiated", "state",
    )  # fmt: skip

    def __init__(self, *, is_requestor: bool, maximum_length: int, request: AAssociateRQ) -> None:
        """Use ``acceptor`` or ``requestor``."""
        self.is_requestor = is_requestor
        self.state = State.STA1
        self.negotiated: Negotiated | None = None
        self.artim_running = False
        self.artim_starts = 0  # a change while it runs is a restart
        self.close_requested = False
        self.held = 0  # bytes of a PDU that has not arrived completely
        self._request = request
        self._framing: Framing | None = Framing(maximum_length)  # None: what still arrives is noise
        self._events: list[AssociationEvent] = []
        self._output: list[bytes | memoryview] = []

    @classmethod
    def acceptor(cls, *, maximum_length: int) -> Self:
        """An association for a connection that was opened to us: Sta2.

        Args:
            maximum_length: What our answer will announce: the largest PDU-length of P-DATA-TF; 0 for no limit.
        """
        association = cls(is_requestor=False, maximum_length=maximum_length, request=_NO_REQUEST)
        association._step(Event.TRANSPORT_INDICATION)
        return association

    @classmethod
    def requestor(cls, request: AAssociateRQ) -> Self:
        """An association to be opened with ``request``: Sta4, until ``transport_connected``."""
        maximum_length = request.user_information.maximum_length
        association = cls(is_requestor=True, maximum_length=maximum_length, request=request)
        association._step(Event.A_ASSOCIATE_REQUEST)
        return association

    # receiving

    def receive_bytes(self, data: memoryview) -> list[AssociationEvent]:
        """Take what arrived. Views in the events live until the next call.

        Never raises: bad bytes end in one ``Aborted``, with the A-ABORT to send, and all after them is dropped.
        """
        if self._framing is None or self.state in _UNCONNECTED:
            return []
        events = self._events
        arrived: list[Found] = []
        problem: PDUError | None = None
        try:
            self._framing.split(data, arrived)
            self.held = self._framing.held
        except PDUError as error:  # behind what has arrived
            problem = error
        try:
            for found in arrived:
                if isinstance(found, Fragment):
                    if self.state in _DELIVERING:
                        events.append(found)
                elif not isinstance(found, PDataTF) or self.state not in _DELIVERING:
                    self._step(_EVENT_OF[type(found)], found)
                    if self.state is State.STA1:
                        break
        except PDUError as error:
            problem = error
        if problem is not None:
            self._framing = None
            self.held = 0
            if self.state is not State.STA1:
                self._step(Event.INVALID_PDU, problem)
        return self._take_events()

    def transport_connected(self) -> None:
        """Our connection is open: the requestor's Evt2. Sends A-ASSOCIATE-RQ."""
        self._step(Event.TRANSPORT_CONFIRMATION)

    def connection_lost(self) -> list[AssociationEvent]:
        """The connection has ended, whoever closed it: Evt17."""
        if self.state is not State.STA1:
            self._step(Event.TRANSPORT_CLOSED)
        return self._take_events()

    # sending

    def accept(self, answer: Acceptance) -> None:
        """Evt7. Our requests below raise StateError where the table has no cell for them."""
        self._step(Event.A_ASSOCIATE_RESPONSE_ACCEPT, answer)

    def reject(self, answer: AAssociateRJ) -> None:
        """Evt8."""
        self._step(Event.A_ASSOCIATE_RESPONSE_REJECT, answer)

    def send_p_data(self, frames: Sequence[bytes | memoryview]) -> None:
        """Evt9: P-DATA-TF PDUs as ``encode_p_data`` frames them. The buffers must not change until written."""
        if self.state not in _SENDING:
            raise StateError(Event.P_DATA_REQUEST, self.state)
        self._output += frames

    def request_release(self) -> None:
        """Evt11."""
        self._step(Event.A_RELEASE_REQUEST)

    def respond_release(self) -> None:
        """Evt14."""
        self._step(Event.A_RELEASE_RESPONSE)

    def abort(self, reason: int = 0) -> None:
        """Evt15. Where the table has no cell for it there is no association to abort, and nothing happens.

        That is not refused like other requests: a peer's A-ABORT may have been read in the same bytes as what we abort
        for. With a reason of PS3.8 Table 9-26 the source is the provider: a PDV broke a rule that is the provider's.
        """
        if self.state in TABLE_9_10[Event.A_ABORT_REQUEST]:
            self._step(Event.A_ABORT_REQUEST, AAbort(2, reason) if reason else AAbort(0))
            self._events.clear()  # our user knows

    def data_to_send(self) -> list[bytes | memoryview]:
        """Take the output in order: our headers, the caller's own buffers between them, for one gathered write."""
        output, self._output = self._output, []
        return output

    # time

    def timed_out(self) -> list[AssociationEvent]:
        """The ARTIM timer has expired: Evt18. Too late, when it was stopped in the meantime, is nothing."""
        if self.artim_running:
            self._step(Event.ARTIM_EXPIRED)
        return self._take_events()

    # inspection

    @property
    def peer_maximum_length(self) -> int:
        """The largest PDU-length of P-DATA-TF that the peer accepts; 0: any."""
        return self.negotiated.peer_maximum_length if self.negotiated is not None else 0

    # private

    def _step(self, event: Event, subject: Any = None) -> None:
        step = _STEPS.get((event, self.state))
        if step is None:
            raise StateError(event, self.state)
        action, state, otherwise = step
        self.state = otherwise if action(self, subject) and otherwise is not None else state

    def _take_events(self) -> list[AssociationEvent]:
        events, self._events = self._events, []
        return events

    def _send(self, pdu: PDU) -> None:
        self._output.append(pdu.encode())

    def _start_artim(self) -> None:
        self.artim_running = True
        self.artim_starts += 1

    def _violation(self, subject: PDU | PDataTF | PDUError) -> PDUError:
        if isinstance(subject, PDUError):
            return subject
        return PDUError(subject.name, "PDU-type", f"not expected in {self.state.description}", reason=2)

    # actions of PS3.8 Tables 9-6 to 9-9, each in the order of the page

    def _ae_1(self, _: None) -> None:
        """Issue TRANSPORT CONNECT: our user opens the connection."""

    def _ae_2(self, _: None) -> None:
        self._send(self._request)

    def _ae_3(self, answer: AAssociateAC) -> None:
        if answer.application_context not in ("", DICOM_APPLICATION_CONTEXT):  # PS3.8 §7.1.1.2: the requestor aborts
            problem = f"{answer.application_context} is none we can operate in"
            raise PDUError(answer.name, "Application-context-name", problem)
        self.negotiated = negotiated_from(self._request, answer, is_requestor=True)
        self._request = _NO_REQUEST  # with 128 contexts it has 60 KB
        self._events.append(AssociationAccepted(self.negotiated))

    def _ae_4(self, answer: AAssociateRJ) -> None:
        self._events.append(AssociationRejected(answer.result, answer.source, answer.reason))
        self.close_requested = True

    def _ae_5(self, _: None) -> None:
        self._start_artim()

    def _ae_6(self, request: AAssociateRQ) -> bool:
        self.artim_running = False
        rejection = check_protocol_version(request)
        if rejection is None:
            self._events.append(AssociationRequested(request))
            return False
        self._ae_8(rejection)
        self._events.append(AssociationRejected(rejection.result, rejection.source, rejection.reason))
        return True

    def _ae_7(self, answer: Acceptance) -> None:
        self._output.append(answer.pdu)
        self.negotiated = answer.negotiated

    def _ae_8(self, answer: AAssociateRJ) -> None:
        self._send(answer)
        self._start_artim()

    def _data_transfer(self, _: object) -> None:
        """DT-1, DT-2, AR-6, AR-7: ``send_p_data`` and ``receive_bytes`` have seen to the data."""

    def _ar_1(self, _: None) -> None:
        self._send(AReleaseRQ())

    def _ar_2(self, _: AReleaseRQ) -> None:
        self._events.append(_RELEASE_REQUESTED)

    def _ar_3(self, _: AReleaseRP) -> None:
        self._events.append(Released())
        self.close_requested = True

    def _ar_4(self, _: None) -> None:
        self._output.append(_RELEASE_RP)
        self._start_artim()

    def _ar_5(self, _: None) -> None:
        self.artim_running = False
        self._events.append(_CONNECTION_CLOSED)

    def _ar_8(self, _: AReleaseRQ) -> bool:
        self._events.append(_RELEASE_REQUESTED)
        return not self.is_requestor

    def _ar_9(self, _: None) -> None:
        self._output.append(_RELEASE_RP)

    def _ar_10(self, _: AReleaseRP) -> None:
        self._events.append(Released())

    def _aa_1(self, subject: AAbort | PDU | PDataTF | PDUError) -> None:
        if isinstance(subject, AAbort):  # our user's; the peer's is due wherever it arrives
            self._send(subject)
        else:  # Sta2: nobody has associated, so no indication in the standard; ours is for the log
            self._send(AAbort(0))
            self._events.append(Aborted(0, 0, by_peer=False, problem=str(self._violation(subject))))
        self._start_artim()

    def _aa_2(self, _: object) -> None:
        self.artim_running = False
        self.close_requested = True
        self._events.append(_CONNECTION_CLOSED)

    def _aa_3(self, abort: AAbort) -> None:
        problem = abort_text(abort.source, abort.reason)
        self._events.append(Aborted(abort.source, abort.reason, by_peer=True, problem=problem))
        self.close_requested = True

    def _aa_4(self, _: None) -> None:
        problem = f"connection lost in {self.state.description}"
        self._events.append(Aborted(2, 0, by_peer=False, problem=problem))

    def _aa_6(self, _: PDU | PDataTF) -> None:
        """Ignore PDU."""

    def _aa_7(self, subject: PDU | PDataTF | PDUError) -> None:
        self._send(AAbort(2, self._violation(subject).reason))

    def _aa_8(self, subject: PDU | PDataTF | PDUError) -> None:
        violation = self._violation(subject)
        self._send(AAbort(2, violation.reason))
        self._events.append(Aborted(2, violation.reason, by_peer=False, problem=str(violation)))
        self._start_artim()

    ACTIONS: ClassVar[Mapping[Action, Callable[[Any, Any], bool | None]]] = {
        Action.AE_1: _ae_1,
        Action.AE_2: _ae_2,
        Action.AE_3: _ae_3,
        Action.AE_4: _ae_4,
        Action.AE_5: _ae_5,
        Action.AE_6: _ae_6,
        Action.AE_7: _ae_7,
        Action.AE_8: _ae_8,
        Action.DT_1: _data_transfer,
        Action.DT_2: _data_transfer,
        Action.AR_1: _ar_1,
        Action.AR_2: _ar_2,
        Action.AR_3: _ar_3,
        Action.AR_4: _ar_4,
        Action.AR_5: _ar_5,
        Action.AR_6: _data_transfer,
        Action.AR_7: _data_transfer,
        Action.AR_8: _ar_8,
        Action.AR_9: _ar_9,
        Action.AR_10: _ar_10,
        Action.AA_1: _aa_1,
        Action.AA_2: _aa_2,
        Action.AA_3: _aa_3,
        Action.AA_4: _aa_4,
        Action.AA_5: _ar_5,
        Action.AA_6: _aa_6,
        Action.AA_7: _aa_7,
        Action.AA_8: _aa_8,
    }


# Table 9-10 with what its actions do: looked up once for each event
_STEPS = {
    (event, state): (Association.ACTIONS[cell.action], cell.state, cell.otherwise)
    for event, row in TABLE_9_10.items()
    for state, cell in row.items()
}
