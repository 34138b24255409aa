"""What an association tells its user: the indications and confirmations of PS3.8 §7 that need an answer or an end.

``AssociationRejected``, ``Aborted`` and ``ConnectionClosed`` end an association, and so does ``Released`` but for one
case: after a release collision the acceptor of the association still owes its ``respond_release`` (Sta12).
"""

from dataclasses import dataclass
from typing import NamedTuple

from pacslite.upper_layer.negotiation import Negotiated
from pacslite.upper_layer.pdu import AAssociateRQ

__all__ = [
    "Aborted",
    "AssociationAccepted",
    "AssociationEvent",
    "AssociationRejected",
    "AssociationRequested",
    "ConnectionClosed",
    "Fragment",
    "ReleaseRequested",
    "Released",
]


class Fragment(NamedTuple):
    """P-DATA indication: a piece of one PDV, delivered before its PDV and PDU are complete.

    A named tuple and no dataclass: it is made for every PDV of every object, in a third of the time.
    """

    context_id: int
    is_command: bool
    is_last: bool  # on the final piece of a PDV with bit 1 set: the command set or data set ends here
    data: memoryview  # valid until the next ``receive_bytes``


@dataclass(frozen=True, slots=True)
class AssociationRequested:
    """A-ASSOCIATE indication: answer with ``accept`` or ``reject``."""

    request: AAssociateRQ


@dataclass(frozen=True, slots=True)
class AssociationAccepted:
    """A-ASSOCIATE confirmation (accept), to the requestor."""

    negotiated: Negotiated


@dataclass(frozen=True, slots=True)
class AssociationRejected:
    """A-ASSOCIATE confirmation (reject), to the requestor; to the acceptor: its provider has rejected (AE-6)."""

    result: int
    source: int
    reason: int


@dataclass(frozen=True, slots=True)
class ReleaseRequested:
    """A-RELEASE indication: answer with ``respond_release``, in Sta10 (collision, acceptor) after ``Released``."""


@dataclass(frozen=True, slots=True)
class Released:
    """A-RELEASE confirmation."""


@dataclass(frozen=True, slots=True)
class Aborted:
    """A-ABORT or A-P-ABORT indication: the association no longer exists."""

    source: int  # 0 service-user, 2 service-provider
    reason: int
    by_peer: bool  # an A-ABORT PDU arrived; else we found ``problem`` and send one, or the connection was lost
    problem: str  # for a log: PDU, field, what is wrong


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The connection has ended, or is to be closed now, where the standard has no indication: AA-2, AA-5, AR-5."""


AssociationEvent = (
    Fragment
    | AssociationRequested
    | AssociationAccepted
    | AssociationRejected
    | ReleaseRequested
    | Released
    | Aborted
    | ConnectionClosed
)
