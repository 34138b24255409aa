"""Association negotiation, PS3.8 §7.1.1 and §9.3.3, PS3.7 §D.3.3: what we answer, and what both sides then have.

Who may associate is not decided here: AE titles, hosts and user identities are looked at before ``negotiate``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import NamedTuple, Self

from pacslite.upper_layer.items import (
    AsynchronousOperationsWindow,
    ContextResult,
    ExtendedNegotiation,
    PresentationContext,
    PresentationContextResult,
    RoleSelection,
    UserInformation,
)
from pacslite.upper_layer.pdu import DICOM_APPLICATION_CONTEXT, AAssociateAC, AAssociateRJ, AAssociateRQ

__all__ = [
    "AbstractSyntaxOffer",
    "Acceptance",
    "AcceptedContext",
    "AcceptorPolicy",
    "Negotiated",
    "Unsound",
    "check_protocol_version",
    "check_request",
    "negotiate",
    "negotiated_from",
]

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

# PS3.5 §9.1, but for components that begin with 0, which devices do have. What is accepted is kept: it must be short.
_is_uid = re.compile(r"[0-9.]{1,64}").fullmatch

_CONVERTED_TO = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)  # Explicit VR keeps more (PS3.5 §6.2.2)
_UNCOMPRESSED = {*_CONVERTED_TO, EXPLICIT_VR_BIG_ENDIAN, ""}

_SCU_ONLY = (True, False)  # roles of the requestor where none are negotiated


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """An accepted presentation context. Roles are the association requestor's."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    scu_role: bool = True
    scp_role: bool = False


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What an association was opened with, the same on both sides but for ``peer_...``."""

    contexts: Mapping[int, AcceptedContext]
    calling_ae_title: str
    called_ae_title: str
    peer_maximum_length: int = 0  # PDU-length of P-DATA-TF that the peer accepts; 0: any
    peer_implementation_class_uid: str = ""
    peer_implementation_version: str = ""
    operations_invoked: int = 1  # outstanding at once, as seen by the association requestor; 0: unlimited
    operations_performed: int = 1
    extended: Mapping[str, bytes] = field(default_factory=dict)  # the answers, by SOP class
    user_identity_response: bytes | None = None


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An A-ASSOCIATE-AC as it is sent, and what the association then has: the same for every equal request."""

    pdu: bytes
    negotiated: Negotiated

    @classmethod
    def of(cls, request: AAssociateRQ, answer: AAssociateAC) -> Self:
        """Accept ``request`` with ``answer``.

        Raises:
            PDUError: It has more than an item can hold.
        """
        return cls(answer.encode(), negotiated_from(request, answer, is_requestor=False))


@dataclass(frozen=True, slots=True)
class AbstractSyntaxOffer:
    """What we do with one abstract syntax when somebody proposes it.

    Args:
        transfer_syntaxes: In order of our preference; None is any.
        scu: The requestor may be SCU.
        scp: The requestor may be SCP (storage for C-GET, commitment reports on an association of their own).
        decoded: What we can send uncompressed although it is stored in one of these, to a requestor that is SCP.
            Empty: everything is sent as it is stored.
        extended: Answer to its SOP Class Extended Negotiation information; None, also as the result, is no answer.
    """

    transfer_syntaxes: tuple[str, ...] | None
    scu: bool = True
    scp: bool = False
    decoded: frozenset[str] = frozenset()
    extended: Callable[[bytes], bytes | None] | None = None


@dataclass(frozen=True, slots=True)
class AcceptorPolicy:
    """What an acceptor answers from.

    Args:
        offer: Called with an abstract syntax and the service class a 57H item names for it, or None.
        operations_invoked: The requestor may have so many operations outstanding; 0 is unlimited.
        operations_performed: So many we may have outstanding at the requestor; 0 is unlimited.
    """

    offer: Callable[[str, str | None], AbstractSyntaxOffer | None]
    maximum_length: int
    implementation_class_uid: str
    implementation_version_name: str = ""
    operations_invoked: int = 1
    operations_performed: int = 1


class Unsound(NamedTuple):
    """A request that nobody could accept: the answer, and why in words."""

    rejection: AAssociateRJ
    why: str


def check_protocol_version(request: AAssociateRQ) -> AAssociateRJ | None:
    """The provider's part of AE-6. Bit 0 decides, other bits are other versions (PS3.8 §9.3.2)."""
    if not request.protocol_version & 1:
        return AAssociateRJ(result=1, source=2, reason=2)
    return None


def check_request(request: AAssociateRQ) -> Unsound | None:
    """What makes a request unacceptable whoever sent it."""
    if rejection := check_protocol_version(request):
        return Unsound(rejection, "protocol version")
    if request.application_context != DICOM_APPLICATION_CONTEXT:
        return Unsound(AAssociateRJ(result=1, source=1, reason=2), "application context is not DICOM's")
    if not request.calling_ae_title:  # "no Application Name specified": shall not be used (PS3.8 §9.3.2)
        return Unsound(AAssociateRJ(result=1, source=1, reason=3), "no calling AE title")
    if not request.presentation_contexts:  # one at least (PS3.8 §9.3.2): on such an association nothing can be said
        return Unsound(AAssociateRJ(result=1, source=1, reason=1), "no presentation context is proposed")
    if 0 < request.user_information.maximum_length < 8:  # no room for a PDV header and two bytes
        why = "the peer accepts PDUs only in which nothing can be sent"
        return Unsound(AAssociateRJ(result=1, source=1, reason=1), why)
    return None


def negotiate(
    request: AAssociateRQ, policy: AcceptorPolicy, user_identity_response: bytes | None = None
) -> AAssociateAC:
    """Answer an acceptable request; with no acceptable context it is still an A-ASSOCIATE-AC (PS3.8 §9.3.3).

    Args:
        user_identity_response: Server-response, given if the identity was verified. Sent if a positive response
            was requested (PS3.7 §D.3.3.7).
    """
    proposed = request.user_information
    service_classes = {item.sop_class_uid: item.service_class_uid or None for item in proposed.common_extended}
    role_proposals = {role.sop_class_uid: role for role in proposed.roles}
    for_conversions = _contexts_for_conversions(request.presentation_contexts) if role_proposals else {}
    results: list[PresentationContextResult] = []
    accepted: dict[str, AbstractSyntaxOffer] = {}
    for context in request.presentation_contexts:
        abstract_syntax = context.abstract_syntax
        service_class = service_classes.get(abstract_syntax)
        offer = policy.offer(abstract_syntax, service_class) if _is_uid(abstract_syntax) else None
        may_convert = for_conversions.get(abstract_syntax) == context.context_id
        result = _answer_context(context, offer, role_proposals.get(abstract_syntax), may_convert)
        results.append(result)
        if offer is not None and result.result == ContextResult.ACCEPTANCE:
            accepted[abstract_syntax] = offer
    identity = proposed.user_identity
    if identity is None or not identity.positive_response_requested:
        user_identity_response = None
    return AAssociateAC(
        presentation_contexts=tuple(results),
        user_information=UserInformation(
            maximum_length=policy.maximum_length,
            implementation_class_uid=policy.implementation_class_uid,
            implementation_version_name=policy.implementation_version_name,
            window=_answer_window(proposed.window, policy),
            roles=tuple(_agreed_role(role, accepted[uid]) for uid, role in role_proposals.items() if uid in accepted),
            extended=_answer_extended(proposed.extended, accepted),
            user_identity_response=user_identity_response,
        ),
        titles=request.titles(),
    )


def negotiated_from(request: AAssociateRQ, answer: AAssociateAC, *, is_requestor: bool) -> Negotiated:
    """What a request and its answer come to. Of an answer that offers more than was asked, the excess is ignored."""
    proposed, answered = request.user_information, answer.user_information
    peer = answered if is_requestor else proposed
    proposals = {context.context_id: context for context in request.presentation_contexts}
    roles = _agreed_roles(proposed, answered)
    contexts: dict[int, AcceptedContext] = {}
    for result in answer.presentation_contexts:
        context = proposals.get(result.context_id)
        if result.result != ContextResult.ACCEPTANCE or context is None:
            continue
        if result.transfer_syntax not in context.transfer_syntaxes:
            continue  # accepted with a transfer syntax nobody proposed: not usable
        scu_role, scp_role = roles.get(context.abstract_syntax, _SCU_ONLY)
        contexts[context.context_id] = AcceptedContext(
            context.context_id,
            intern(context.abstract_syntax),  # a thousand idle associations hold each UID once
            intern(result.transfer_syntax),
            scu_role,
            scp_role,
        )
    window = _agreed_window(proposed.window, answered.window)
    asked = {item.sop_class_uid for item in proposed.extended}
    return Negotiated(
        contexts=contexts,
        calling_ae_title=request.calling_ae_title,
        called_ae_title=request.called_ae_title,
        peer_maximum_length=peer.maximum_length,
        peer_implementation_class_uid=peer.implementation_class_uid,
        peer_implementation_version=peer.implementation_version_name,
        operations_invoked=window.operations_invoked,
        operations_performed=window.operations_performed,
        extended={item.sop_class_uid: item.information for item in answered.extended if item.sop_class_uid in asked},
        user_identity_response=answered.user_identity_response if proposed.user_identity is not None else None,
    )


def _answer_context(
    context: PresentationContext, offer: AbstractSyntaxOffer | None, role: RoleSelection | None, may_convert: bool
) -> PresentationContextResult:
    transfer_syntax = None
    preferred = offer.transfer_syntaxes if offer is not None else None
    if offer is not None and may_convert and _is_to_take_all(context, offer, role):
        preferred = _CONVERTED_TO
    if offer is None:
        result = ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
    elif not _has_a_role(offer, role):
        result = ContextResult.USER_REJECTION
    elif (transfer_syntax := _choose_transfer_syntax(context.transfer_syntaxes, preferred)) is None:
        result = ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
    else:
        result = ContextResult.ACCEPTANCE
    if transfer_syntax is None:  # a rejected context contains one all the same, not significant (PS3.8 §9.3.3.2)
        transfer_syntax = next(iter(context.transfer_syntaxes), IMPLICIT_VR_LITTLE_ENDIAN)
    return PresentationContextResult(context.context_id, result, transfer_syntax)


def _choose_transfer_syntax(proposed: tuple[str, ...], preferred: tuple[str, ...] | None) -> str | None:
    if preferred is not None:
        return next((uid for uid in preferred if uid in proposed), None)
    # Whatever the sender has, as it is, rather than its conversion to the default transfer syntax.
    last_resort = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
    chosen = next((uid for uid in proposed if uid not in last_resort and _is_uid(uid)), None)
    return chosen or next((uid for uid in last_resort if uid in proposed), None)


def _contexts_for_conversions(contexts: Sequence[PresentationContext]) -> dict[str, int]:
    """The one of each abstract syntax that can be uncompressed and leaves most others for what goes as it is stored."""
    best: dict[str, tuple[int, int]] = {}
    for context in contexts:
        if any(uid in context.transfer_syntaxes for uid in _CONVERTED_TO):
            rank = (len(_compressed(context)), -context.context_id)
            best[context.abstract_syntax] = min(rank, best.get(context.abstract_syntax, rank))
    return {abstract_syntax: -rank[1] for abstract_syntax, rank in best.items()}


def _is_to_take_all(context: PresentationContext, offer: AbstractSyntaxOffer, role: RoleSelection | None) -> bool:
    """A requestor that takes the SCP role is to get whatever we have (PS3.4 §C.4.3), and nothing can be compressed.

    Who proposes only what we cannot decode beside the uncompressed ones, a video say, wants that.
    """
    if not (offer.decoded and offer.scp and role is not None and role.scp):
        return False
    compressed = _compressed(context)
    return not compressed or not compressed.isdisjoint(offer.decoded)


def _compressed(context: PresentationContext) -> set[str]:
    return set(context.transfer_syntaxes) - _UNCOMPRESSED


def _has_a_role(offer: AbstractSyntaxOffer, role: RoleSelection | None) -> bool:
    """Without an item the requestor is SCU and nothing else (PS3.7 §D.3.3.4)."""
    if role is None:
        return offer.scu
    return (role.scu and offer.scu) or (role.scp and offer.scp)


def _agreed_role(role: RoleSelection, offer: AbstractSyntaxOffer) -> RoleSelection:
    return RoleSelection(role.sop_class_uid, scu=role.scu and offer.scu, scp=role.scp and offer.scp)


def _agreed_roles(proposed: UserInformation, answered: UserInformation) -> dict[str, tuple[bool, bool]]:
    """An unanswered proposal leaves the default; an answer counts for what was proposed (PS3.7 §D.3.3.4)."""
    answers = {role.sop_class_uid: role for role in answered.roles}
    return {
        role.sop_class_uid: (role.scu and answer.scu, role.scp and answer.scp)
        for role in proposed.roles
        if (answer := answers.get(role.sop_class_uid)) is not None
    }


def _answer_window(
    proposed: AsynchronousOperationsWindow | None, policy: AcceptorPolicy
) -> AsynchronousOperationsWindow | None:
    """Not returned if not requested (PS3.7 §D.3.3.3)."""
    if proposed is None:
        return None
    ours = AsynchronousOperationsWindow(policy.operations_invoked, policy.operations_performed)
    return _agreed_window(proposed, ours)


def _agreed_window(
    proposed: AsynchronousOperationsWindow | None, answered: AsynchronousOperationsWindow | None
) -> AsynchronousOperationsWindow:
    if proposed is None or answered is None:
        return AsynchronousOperationsWindow(1, 1)
    return AsynchronousOperationsWindow(
        _smaller(proposed.operations_invoked, answered.operations_invoked),
        _smaller(proposed.operations_performed, answered.operations_performed),
    )


def _smaller(one: int, other: int) -> int:
    """The smaller of two limits of which 0 is unlimited."""
    return min(one, other) if one and other else one or other


def _answer_extended(
    proposed: tuple[ExtendedNegotiation, ...], accepted: Mapping[str, AbstractSyntaxOffer]
) -> tuple[ExtendedNegotiation, ...]:
    answers: dict[str, ExtendedNegotiation] = {}
    for item in proposed:
        offer = accepted.get(item.sop_class_uid)
        information = offer.extended(item.information) if offer is not None and offer.extended is not None else None
        if information is not None:
            answers[item.sop_class_uid] = ExtendedNegotiation(item.sop_class_uid, information)
    return tuple(answers.values())
