"""The state machine of PS3.8 §9.2 as data: states, events, actions and Table 9-10, for requestor and acceptor.

``TABLE_9_10[event][state]`` is a cell of the page: the action and the next state; an absent key is an empty cell.
What an action does (Tables 9-6 to 9-9) is ``association``'s part.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum, auto
from typing import NamedTuple

from pacslite.errors import PacsliteError

__all__ = ["TABLE_9_10", "Action", "Cell", "Event", "State", "StateError"]


class State(IntEnum):
    """Tables 9-1 to 9-5."""

    STA1 = 1
    STA2 = 2
    STA3 = 3
    STA4 = 4
    STA5 = 5
    STA6 = 6
    STA7 = 7
    STA8 = 8
    STA9 = 9
    STA10 = 10
    STA11 = 11
    STA12 = 12
    STA13 = 13

    @property
    def description(self) -> str:
        return f"Sta{self.value}, {_DESCRIPTIONS[self]}"


_DESCRIPTIONS: Mapping[State, str] = {
    State.STA1: "idle",
    State.STA2: "connection open, awaiting A-ASSOCIATE-RQ",
    State.STA3: "awaiting the local answer to A-ASSOCIATE-RQ",
    State.STA4: "awaiting the transport connection",
    State.STA5: "awaiting the answer to A-ASSOCIATE-RQ",
    State.STA6: "association established",
    State.STA7: "awaiting A-RELEASE-RP",
    State.STA8: "awaiting the local answer to A-RELEASE-RQ",
    State.STA9: "release collision, awaiting the local answer",
    State.STA10: "release collision, awaiting A-RELEASE-RP",
    State.STA11: "release collision, awaiting A-RELEASE-RP",
    State.STA12: "release collision, awaiting the local answer",
    State.STA13: "awaiting the close of the connection",
}


class Event(IntEnum):
    """Rows of Table 9-10. The page's "request" and "response" come from our user, PDUs from the peer."""

    A_ASSOCIATE_REQUEST = auto()
    TRANSPORT_CONFIRMATION = auto()
    A_ASSOCIATE_AC_PDU = auto()
    A_ASSOCIATE_RJ_PDU = auto()
    TRANSPORT_INDICATION = auto()
    A_ASSOCIATE_RQ_PDU = auto()
    A_ASSOCIATE_RESPONSE_ACCEPT = auto()
    A_ASSOCIATE_RESPONSE_REJECT = auto()
    P_DATA_REQUEST = auto()
    P_DATA_TF_PDU = auto()
    A_RELEASE_REQUEST = auto()
    A_RELEASE_RQ_PDU = auto()
    A_RELEASE_RP_PDU = auto()
    A_RELEASE_RESPONSE = auto()
    A_ABORT_REQUEST = auto()
    A_ABORT_PDU = auto()
    TRANSPORT_CLOSED = auto()
    ARTIM_EXPIRED = auto()
    INVALID_PDU = auto()


class Action(Enum):
    """Tables 9-6 to 9-9."""

    AE_1 = "AE-1"
    AE_2 = "AE-2"
    AE_3 = "AE-3"
    AE_4 = "AE-4"
    AE_5 = "AE-5"
    AE_6 = "AE-6"
    AE_7 = "AE-7"
    AE_8 = "AE-8"
    DT_1 = "DT-1"
    DT_2 = "DT-2"
    AR_1 = "AR-1"
    AR_2 = "AR-2"
    AR_3 = "AR-3"
    AR_4 = "AR-4"
    AR_5 = "AR-5"
    AR_6 = "AR-6"
    AR_7 = "AR-7"
    AR_8 = "AR-8"
    AR_9 = "AR-9"
    AR_10 = "AR-10"
    AA_1 = "AA-1"
    AA_2 = "AA-2"
    AA_3 = "AA-3"
    AA_4 = "AA-4"
    AA_5 = "AA-5"
    AA_6 = "AA-6"
    AA_7 = "AA-7"
    AA_8 = "AA-8"


class Cell(NamedTuple):
    """A cell as printed: the action and the next state."""

    action: Action
    state: State
    otherwise: State | None = None  # AE-6: not acceptable to the provider; AR-8: we are the acceptor

    def __str__(self) -> str:
        states = self.state.value if self.otherwise is None else f"{self.state.value}/{self.otherwise.value}"
        return f"{self.action.value}:{states}"


class StateError(PacsliteError):
    """Our user asked for what the table has no cell for: the association is not, or no longer, in a state for it."""

    def __init__(self, event: Event, state: State) -> None:
        super().__init__(f"no {event.name} in {state.description}")
        self.event = event
        self.state = state


STA1, STA2, STA3, STA4, STA5, STA6, STA7, STA8, STA9, STA10, STA11, STA12, STA13 = State

_FROM_STA5 = (STA5, STA6, STA7, STA8, STA9, STA10, STA11, STA12)

_UNDUE: Mapping[State, Cell] = {  # a known PDU where none is due; a row overrides the states in which it is
    STA2: Cell(Action.AA_1, STA13),
    **dict.fromkeys((STA3, *_FROM_STA5), Cell(Action.AA_8, STA13)),
    STA13: Cell(Action.AA_6, STA13),
}

TABLE_9_10: Mapping[Event, Mapping[State, Cell]] = {
    Event.A_ASSOCIATE_REQUEST: {STA1: Cell(Action.AE_1, STA4)},
    Event.TRANSPORT_CONFIRMATION: {STA4: Cell(Action.AE_2, STA5)},
    Event.A_ASSOCIATE_AC_PDU: {**_UNDUE, STA5: Cell(Action.AE_3, STA6)},
    Event.A_ASSOCIATE_RJ_PDU: {**_UNDUE, STA5: Cell(Action.AE_4, STA1)},
    Event.TRANSPORT_INDICATION: {STA1: Cell(Action.AE_5, STA2)},
    Event.A_ASSOCIATE_RQ_PDU: {**_UNDUE, STA2: Cell(Action.AE_6, STA3, STA13), STA13: Cell(Action.AA_7, STA13)},
    Event.A_ASSOCIATE_RESPONSE_ACCEPT: {STA3: Cell(Action.AE_7, STA6)},
    Event.A_ASSOCIATE_RESPONSE_REJECT: {STA3: Cell(Action.AE_8, STA13)},
    Event.P_DATA_REQUEST: {STA6: Cell(Action.DT_1, STA6), STA8: Cell(Action.AR_7, STA8)},
    Event.P_DATA_TF_PDU: {**_UNDUE, STA6: Cell(Action.DT_2, STA6), STA7: Cell(Action.AR_6, STA7)},
    Event.A_RELEASE_REQUEST: {STA6: Cell(Action.AR_1, STA7)},
    Event.A_RELEASE_RQ_PDU: {**_UNDUE, STA6: Cell(Action.AR_2, STA8), STA7: Cell(Action.AR_8, STA9, STA10)},
    Event.A_RELEASE_RP_PDU: {
        **_UNDUE,
        STA7: Cell(Action.AR_3, STA1),
        STA10: Cell(Action.AR_10, STA12),
        STA11: Cell(Action.AR_3, STA1),
    },
    Event.A_RELEASE_RESPONSE: {
        STA8: Cell(Action.AR_4, STA13),
        STA9: Cell(Action.AR_9, STA11),
        STA12: Cell(Action.AR_4, STA13),
    },
    Event.A_ABORT_REQUEST: {
        STA4: Cell(Action.AA_2, STA1),
        **dict.fromkeys((STA3, *_FROM_STA5), Cell(Action.AA_1, STA13)),
    },
    Event.A_ABORT_PDU: {
        **dict.fromkeys((STA2, STA13), Cell(Action.AA_2, STA1)),
        **dict.fromkeys((STA3, *_FROM_STA5), Cell(Action.AA_3, STA1)),
    },
    Event.TRANSPORT_CLOSED: {
        STA2: Cell(Action.AA_5, STA1),
        **dict.fromkeys((STA3, STA4, *_FROM_STA5), Cell(Action.AA_4, STA1)),
        STA13: Cell(Action.AR_5, STA1),
    },
    Event.ARTIM_EXPIRED: dict.fromkeys((STA2, STA13), Cell(Action.AA_2, STA1)),
    Event.INVALID_PDU: {**_UNDUE, STA13: Cell(Action.AA_7, STA13)},
}
