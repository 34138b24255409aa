"""What is answered to a request, and what both sides then have: PS3.8 §7.1.1, §9.3.3; PS3.7 §D.3.3."""

from dataclasses import replace

import pytest

from pacslite.upper_layer.items import (
    AsynchronousOperationsWindow,
    CommonExtendedNegotiation,
    ContextResult,
    ExtendedNegotiation,
    PresentationContext,
    PresentationContextResult,
    RoleSelection,
    UserIdentity,
    UserInformation,
)
from pacslite.upper_layer.negotiation import (
    AbstractSyntaxOffer,
    AcceptedContext,
    AcceptorPolicy,
    Negotiated,
    check_protocol_version,
    check_request,
    negotiate,
    negotiated_from,
)
from pacslite.upper_layer.pdu import AAssociateAC, AAssociateRJ, AAssociateRQ

VERIFICATION, CT, FIND, PRIVATE = (
    "1.2.840.10008.1.1",
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.2.2.1",
    "1.3.9",
)
STORAGE_SERVICE_CLASS = "1.2.840.10008.4.2"
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
JPEG, J2K, DEFLATED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1.99"

STORAGE = AbstractSyntaxOffer(None, scu=True, scp=True)


def offers(abstract_syntax: str, service_class: str | None) -> AbstractSyntaxOffer | None:
    if service_class == STORAGE_SERVICE_CLASS:
        return STORAGE
    return {
        VERIFICATION: AbstractSyntaxOffer((EXPLICIT, IMPLICIT)),
        CT: STORAGE,
        FIND: AbstractSyntaxOffer((EXPLICIT, IMPLICIT), extended=lambda information: information[:1]),
    }.get(abstract_syntax)


POLICY = AcceptorPolicy(offers, 131072, "1.2.3", "PACSLITE", operations_invoked=8, operations_performed=4)


def request(*contexts: PresentationContext, information: UserInformation | None = None) -> AAssociateRQ:
    return AAssociateRQ("STORE", "CT01", contexts, information or UserInformation(16384, "1.2.826", None, (), "PEER_1"))


def context(context_id: int, abstract_syntax: str, *transfer_syntaxes: str) -> PresentationContext:
    return PresentationContext(context_id, abstract_syntax, transfer_syntaxes or (IMPLICIT,))


# acceptable requests

ONE = context(1, VERIFICATION)


@pytest.mark.parametrize(
    ("asked", "rejection"),
    [
        (request(ONE), None),
        (replace(request(ONE), protocol_version=3), None),  # bit 0 among others
        (replace(request(ONE), protocol_version=0xFFFF), None),
        (replace(request(ONE), protocol_version=2), AAssociateRJ(1, 2, 2)),
        (replace(request(ONE), protocol_version=0), AAssociateRJ(1, 2, 2)),
        (replace(request(ONE), application_context="1.2.840.10008.3.1.1.2"), AAssociateRJ(1, 1, 2)),
        (replace(request(ONE), application_context=""), AAssociateRJ(1, 1, 2)),
        (replace(request(ONE), calling_ae_title=""), AAssociateRJ(1, 1, 3)),  # 16 spaces
        (request(), AAssociateRJ(1, 1, 1)),  # without a presentation context
        (request(ONE, information=UserInformation(7)), AAssociateRJ(1, 1, 1)),  # no room for a fragment
        (request(ONE, information=UserInformation(8)), None),
        (request(ONE, information=UserInformation(0)), None),
    ],
)
def test_check_request(asked: AAssociateRQ, rejection: AAssociateRJ | None) -> None:
    unsound = check_request(asked)
    assert (unsound and unsound.rejection) == rejection
    assert (check_protocol_version(asked) is not None) is (rejection == AAssociateRJ(1, 2, 2))


# presentation contexts


@pytest.mark.parametrize(
    ("abstract_syntax", "proposed", "result", "transfer_syntax"),
    [
        (VERIFICATION, (IMPLICIT, EXPLICIT), 0, EXPLICIT),  # our order of preference
        (VERIFICATION, (JPEG, IMPLICIT), 0, IMPLICIT),
        (VERIFICATION, (JPEG, J2K), 4, JPEG),  # one sub-item all the same, not significant
        (VERIFICATION, (), 4, IMPLICIT),
        (CT, (J2K, JPEG, IMPLICIT), 0, J2K),  # anything: what the peer put first
        (CT, (IMPLICIT, JPEG), 0, JPEG),  # but what it need not convert to
        (CT, (IMPLICIT, EXPLICIT), 0, EXPLICIT),
        (CT, (BIG_ENDIAN, IMPLICIT), 0, IMPLICIT),
        (CT, (BIG_ENDIAN,), 0, BIG_ENDIAN),
        (CT, (IMPLICIT,), 0, IMPLICIT),
        (CT, ("1.3.9999.01",), 0, "1.3.9999.01"),
        (CT, ("1.3.private", IMPLICIT), 0, IMPLICIT),  # no UID
        (CT, ("1." + 63 * "9",), 4, "1." + 63 * "9"),
        (CT, ("1." + 62 * "9",), 0, "1." + 62 * "9"),
        (CT, ("", IMPLICIT), 0, IMPLICIT),
        (CT, (), 4, IMPLICIT),
        (PRIVATE, (EXPLICIT, IMPLICIT), 3, EXPLICIT),
        ("", (IMPLICIT,), 3, IMPLICIT),
    ],
)
def test_context_result(abstract_syntax: str, proposed: tuple[str, ...], result: int, transfer_syntax: str) -> None:
    answer = negotiate(request(PresentationContext(7, abstract_syntax, proposed)), POLICY)
    assert answer.presentation_contexts == (PresentationContextResult(7, result, transfer_syntax),)


def test_every_context_is_answered_even_if_none_is_accepted() -> None:
    answer = negotiate(request(context(1, PRIVATE), context(9, "1.3.7"), context(5, VERIFICATION, JPEG)), POLICY)
    assert [(each.context_id, each.result) for each in answer.presentation_contexts] == [
        (1, ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED),
        (9, ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED),
        (5, ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED),
    ]


def test_answer_says_who_we_are_and_repeats_the_titles() -> None:
    asked = request(context(1, VERIFICATION))
    answer = negotiate(asked, POLICY)
    assert answer.user_information == UserInformation(131072, "1.2.3", implementation_version_name="PACSLITE")
    assert answer.titles == b"STORE           CT01            " + bytes(32)
    assert answer.application_context == "1.2.840.10008.3.1.1.1"
    assert answer.protocol_version == 1


def test_private_class_is_accepted_by_its_service_class() -> None:
    """57H, PS3.7 §D.3.3.6; it is never answered."""
    common = (CommonExtendedNegotiation(PRIVATE, STORAGE_SERVICE_CLASS, (CT,)), CommonExtendedNegotiation("1.3.7", ""))
    asked = request(context(1, PRIVATE, JPEG), context(3, "1.3.7"), information=UserInformation(common_extended=common))
    answer = negotiate(asked, POLICY)
    assert [each.result for each in answer.presentation_contexts] == [0, 3]
    assert answer.user_information.common_extended == ()


def test_offer_is_asked_with_the_service_class_or_none() -> None:
    asked: list[tuple[str, str | None]] = []

    def offer(abstract_syntax: str, service_class: str | None) -> AbstractSyntaxOffer | None:
        asked.append((abstract_syntax, service_class))
        return None

    common = (CommonExtendedNegotiation(PRIVATE, STORAGE_SERVICE_CLASS), CommonExtendedNegotiation(CT, ""))
    information = UserInformation(common_extended=common)
    negotiate(
        request(context(1, PRIVATE), context(3, CT), context(5, FIND), context(7, ""), information=information),
        replace(POLICY, offer=offer),
    )
    assert asked == [(PRIVATE, STORAGE_SERVICE_CLASS), (CT, None), (FIND, None)]


@pytest.mark.parametrize(
    ("abstract_syntax", "result"),
    [("1." + 62 * "9", 0), ("1." + 63 * "9", 3), ("9." + 60_000 * "1", 3), ("1.2.private", 3), ("1.2.3\n", 3)],
)
def test_only_a_uid_is_offered(abstract_syntax: str, result: int) -> None:
    """PS3.5 §9.1: 64 characters at most. Who takes private classes keeps their names."""
    policy = replace(POLICY, offer=lambda *_: STORAGE)
    (answer,) = negotiate(request(context(1, abstract_syntax)), policy).presentation_contexts
    assert answer.result == result


# what a requestor that is SCP can be sent, PS3.4 §C.4.3

VIDEO = "1.2.840.10008.1.2.4.102"


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        ([(JPEG, EXPLICIT, BIG_ENDIAN, IMPLICIT)], [EXPLICIT]),  # getscu +xy: what is stored uncompressed must go, too
        ([(DEFLATED, IMPLICIT)], [IMPLICIT]),
        ([(IMPLICIT, JPEG, EXPLICIT)], [EXPLICIT]),
        ([(VIDEO, JPEG, EXPLICIT)], [EXPLICIT]),
        ([(VIDEO, EXPLICIT)], [VIDEO]),  # who asks so has videos in mind, and they cannot be decoded
        ([(JPEG,)], [JPEG]),
        ([(JPEG, BIG_ENDIAN)], [JPEG]),  # nothing is converted to it
        ([(JPEG,), (EXPLICIT,), (IMPLICIT,)], [JPEG, EXPLICIT, IMPLICIT]),
        ([(JPEG, EXPLICIT), (EXPLICIT, IMPLICIT)], [JPEG, EXPLICIT]),  # as it is stored, while one takes the rest
        ([(EXPLICIT, IMPLICIT), (JPEG, EXPLICIT)], [EXPLICIT, JPEG]),
        ([(JPEG, EXPLICIT), (J2K, EXPLICIT)], [JPEG, EXPLICIT]),
        ([(JPEG, J2K, EXPLICIT), (J2K, EXPLICIT)], [JPEG, EXPLICIT]),
    ],
)
def test_requestor_that_is_scp_can_be_sent_everything(proposed: list[tuple[str, ...]], chosen: list[str]) -> None:
    contexts = [context(2 * at + 1, CT, *syntaxes) for at, syntaxes in enumerate(proposed)]
    storage = replace(STORAGE, decoded=frozenset({JPEG, J2K, DEFLATED}))
    roles = UserInformation(roles=(RoleSelection(CT, scu=False, scp=True),))
    answer = negotiate(request(*contexts, information=roles), replace(POLICY, offer=lambda *_: storage))
    assert [each.transfer_syntax for each in answer.presentation_contexts] == chosen


@pytest.mark.parametrize(("decodes", "is_scp"), [(True, False), (False, True)])
def test_as_stored_where_the_requestor_sends_or_nothing_is_decoded(decodes: bool, is_scp: bool) -> None:
    storage = replace(STORAGE, decoded=frozenset({JPEG} if decodes else ()))
    roles = UserInformation(roles=(RoleSelection(CT, scu=not is_scp, scp=is_scp),))
    asked = request(context(1, CT, JPEG, EXPLICIT), information=roles)
    answer = negotiate(asked, replace(POLICY, offer=lambda *_: storage))
    assert [each.transfer_syntax for each in answer.presentation_contexts] == [JPEG]


# roles, PS3.7 §D.3.3.4


@pytest.mark.parametrize("we_take_scu", [True, False])
@pytest.mark.parametrize("we_take_scp", [True, False])
@pytest.mark.parametrize("proposed", [None, (True, False), (False, True), (True, True), (False, False)])
def test_roles(proposed: tuple[bool, bool] | None, we_take_scu: bool, we_take_scp: bool) -> None:
    policy = replace(POLICY, offer=lambda *_: AbstractSyntaxOffer(None, scu=we_take_scu, scp=we_take_scp))
    roles = () if proposed is None else (RoleSelection(CT, scu=proposed[0], scp=proposed[1]),)
    asked = request(context(1, CT), information=UserInformation(roles=roles))
    answer = negotiate(asked, policy)
    agreed = (we_take_scu, False) if proposed is None else (proposed[0] and we_take_scu, proposed[1] and we_take_scp)
    if agreed == (False, False):  # nobody could do anything on it
        assert answer.presentation_contexts[0].result == ContextResult.USER_REJECTION
        assert answer.user_information.roles == ()
        return
    assert answer.presentation_contexts[0].result == ContextResult.ACCEPTANCE
    expected = () if proposed is None else (RoleSelection(CT, scu=agreed[0], scp=agreed[1]),)
    assert answer.user_information.roles == expected
    accepted = negotiated_from(asked, answer, is_requestor=False).contexts[1]
    assert (accepted.scu_role, accepted.scp_role) == agreed


def test_role_of_a_class_without_accepted_context_is_not_answered() -> None:
    roles = tuple(RoleSelection(uid, scu=True, scp=True) for uid in (CT, PRIVATE, FIND))
    answer = negotiate(request(context(1, CT), context(3, PRIVATE), information=UserInformation(roles=roles)), POLICY)
    assert answer.user_information.roles == (RoleSelection(CT, scu=True, scp=True),)


@pytest.mark.parametrize(
    ("proposed", "answered", "roles"),
    [
        (None, (True, True), (True, False)),  # not proposed: the answer is ignored
        ((True, True), None, (True, False)),  # not answered: the default
        ((True, False), (True, True), (True, False)),  # 1 for what was not proposed is ignored
        ((True, True), (False, True), (False, True)),
        ((False, True), (False, True), (False, True)),
    ],
)
def test_requestor_reads_roles(
    proposed: tuple[bool, bool] | None, answered: tuple[bool, bool] | None, roles: tuple[bool, bool]
) -> None:
    def information(pair: tuple[bool, bool] | None) -> UserInformation:
        return UserInformation(roles=() if pair is None else (RoleSelection(CT, scu=pair[0], scp=pair[1]),))

    asked = request(context(1, CT), information=information(proposed))
    answer = AAssociateAC((PresentationContextResult(1, 0, IMPLICIT),), information(answered))
    assert negotiated_from(asked, answer, is_requestor=True).contexts == {1: AcceptedContext(1, CT, IMPLICIT, *roles)}


# asynchronous operations window, PS3.7 §D.3.3.3; the policy is 8 invoked, 4 performed


@pytest.mark.parametrize(
    ("policy", "proposed", "agreed"),
    [
        ((8, 4), (1, 1), (1, 1)),
        ((8, 4), (3, 20), (3, 4)),
        ((8, 4), (20, 3), (8, 3)),
        ((8, 4), (0, 0), (8, 4)),  # unlimited is negotiated down
        ((0, 0), (0, 0), (0, 0)),
        ((0, 0), (5, 0), (5, 0)),
        ((1, 1), (0, 9), (1, 1)),
    ],
)
def test_window(policy: tuple[int, int], proposed: tuple[int, int], agreed: tuple[int, int]) -> None:
    asked = request(context(1, CT), information=UserInformation(window=AsynchronousOperationsWindow(*proposed)))
    ours = replace(POLICY, operations_invoked=policy[0], operations_performed=policy[1])
    answer = negotiate(asked, ours)
    assert answer.user_information.window == AsynchronousOperationsWindow(*agreed)
    for is_requestor in (True, False):
        negotiated = negotiated_from(asked, answer, is_requestor=is_requestor)
        assert (negotiated.operations_invoked, negotiated.operations_performed) == agreed


@pytest.mark.parametrize(("proposed", "answered"), [(None, None), (None, (9, 9)), ((9, 9), None)])
def test_window_of_one_side_only_is_none(proposed: tuple[int, int] | None, answered: tuple[int, int] | None) -> None:
    def information(pair: tuple[int, int] | None) -> UserInformation:
        return UserInformation(window=None if pair is None else AsynchronousOperationsWindow(*pair))

    asked = request(context(1, CT), information=information(proposed))
    negotiated = negotiated_from(asked, AAssociateAC((), information(answered)), is_requestor=True)
    assert (negotiated.operations_invoked, negotiated.operations_performed) == (1, 1)
    if proposed is None:
        assert negotiate(asked, POLICY).user_information.window is None


# extended negotiation, PS3.7 §D.3.3.5


def test_extended_negotiation_is_answered_for_accepted_classes_that_know_it() -> None:
    extended = tuple(ExtendedNegotiation(uid, b"\x01\x01\x01") for uid in (FIND, CT, PRIVATE, VERIFICATION))
    asked = request(
        context(1, FIND), context(3, CT), context(5, PRIVATE), information=UserInformation(extended=extended)
    )
    answer = negotiate(asked, POLICY)
    assert answer.user_information.extended == (ExtendedNegotiation(FIND, b"\x01"),)
    assert negotiated_from(asked, answer, is_requestor=True).extended == {FIND: b"\x01"}


@pytest.mark.parametrize(
    ("information", "answered"),
    [(None, ()), (b"", (ExtendedNegotiation(FIND, b""),)), (b"\0", (ExtendedNegotiation(FIND, b"\0"),))],
)
def test_no_answer_is_not_an_empty_answer(information: bytes | None, answered: tuple[ExtendedNegotiation, ...]) -> None:
    policy = replace(POLICY, offer=lambda *_: AbstractSyntaxOffer(None, extended=lambda _: information))
    asked = request(context(1, FIND), information=UserInformation(extended=(ExtendedNegotiation(FIND, b"\x01"),)))
    assert negotiate(asked, policy).user_information.extended == answered


def test_extended_answer_to_no_question_is_ignored() -> None:
    answer = AAssociateAC((), UserInformation(extended=(ExtendedNegotiation(FIND, b"\x01"),)))
    assert negotiated_from(request(context(1, FIND)), answer, is_requestor=True).extended == {}


# user identity, PS3.7 §D.3.3.7


@pytest.mark.parametrize(
    ("identity", "response", "answered"),
    [
        (None, b"", None),  # not asked
        (UserIdentity(1, b"anna"), b"", None),  # no positive response requested
        (UserIdentity(1, b"anna", positive_response_requested=True), b"", b""),
        (UserIdentity(3, b"krb", positive_response_requested=True), b"ticket", b"ticket"),
        (UserIdentity(4, b"<saml/>", positive_response_requested=True), None, None),  # not verified here
    ],
)
def test_user_identity_response(identity: UserIdentity | None, response: bytes | None, answered: bytes | None) -> None:
    asked = request(context(1, CT), information=UserInformation(user_identity=identity))
    answer = negotiate(asked, POLICY, user_identity_response=response)
    assert answer.user_information.user_identity_response == answered
    assert negotiated_from(asked, answer, is_requestor=True).user_identity_response == answered


def test_identity_response_to_no_identity_is_ignored() -> None:
    answer = AAssociateAC((), UserInformation(user_identity_response=b"x"))
    assert negotiated_from(request(), answer, is_requestor=True).user_identity_response is None


# what both sides have


def test_both_sides_have_the_same_but_for_the_peer() -> None:
    asked = request(context(1, VERIFICATION), context(3, CT, JPEG), context(5, PRIVATE))
    answer = negotiate(asked, POLICY)
    contexts = {1: AcceptedContext(1, VERIFICATION, IMPLICIT), 3: AcceptedContext(3, CT, JPEG)}
    at_acceptor = Negotiated(contexts, "CT01", "STORE", 16384, "1.2.826", "PEER_1")
    assert negotiated_from(asked, answer, is_requestor=False) == at_acceptor
    assert negotiated_from(asked, answer, is_requestor=True) == replace(
        at_acceptor,
        peer_maximum_length=131072,
        peer_implementation_class_uid="1.2.3",
        peer_implementation_version="PACSLITE",
    )


@pytest.mark.parametrize(
    "result",
    [
        PresentationContextResult(3, 0, IMPLICIT),  # never proposed
        PresentationContextResult(1, 0, JPEG),  # accepted with what was not proposed
        PresentationContextResult(1, 0, ""),
        PresentationContextResult(1, 1, IMPLICIT),
        PresentationContextResult(1, 77, IMPLICIT),
    ],
)
def test_context_that_cannot_be_used(result: PresentationContextResult) -> None:
    assert negotiated_from(request(context(1, CT)), AAssociateAC((result,)), is_requestor=True).contexts == {}
