"""Properties of the codec: what is encoded decodes to the same, and any bytes decode or raise PDUError."""

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from pacslite.upper_layer.items import (
    AsynchronousOperationsWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    PresentationContext,
    PresentationContextResult,
    RoleSelection,
    UserIdentity,
    UserInformation,
)
from pacslite.upper_layer.pdu import (
    PDU,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    PDUError,
    decode_pdu,
)

bytes_1 = st.integers(0, 255)
words = st.integers(0, 0xFFFF)
uids = st.lists(st.integers(0, 99_999), min_size=1, max_size=6).map(lambda arcs: ".".join(map(str, arcs)))
names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=16)


def tuples_of(each: SearchStrategy[str], most: int = 4) -> SearchStrategy[tuple[str, ...]]:
    return st.lists(each, max_size=most).map(tuple)


user_informations = st.builds(
    UserInformation,
    maximum_length=st.integers(0, 0xFFFFFFFF),
    implementation_class_uid=uids,
    window=st.none() | st.builds(AsynchronousOperationsWindow, words, words),
    roles=st.lists(st.builds(RoleSelection, uids, scu=st.booleans(), scp=st.booleans()), max_size=3).map(tuple),
    implementation_version_name=st.just("") | names,
    extended=st.lists(st.builds(ExtendedNegotiation, uids, st.binary(max_size=9)), max_size=3).map(tuple),
    common_extended=st.lists(st.builds(CommonExtendedNegotiation, uids, uids, tuples_of(uids)), max_size=3).map(tuple),
    user_identity=st.none()
    | st.builds(UserIdentity, bytes_1, st.binary(max_size=50), st.binary(max_size=9), st.booleans()),
    user_identity_response=st.none() | st.binary(max_size=50),
)
odd_ids = st.integers(0, 127).map(lambda number: 2 * number + 1)
requests = st.builds(
    AAssociateRQ,
    called_ae_title=names,
    calling_ae_title=names,
    presentation_contexts=st.lists(
        st.builds(PresentationContext, odd_ids, uids, tuples_of(uids)),
        max_size=9,
        unique_by=lambda context: context.context_id,
    ).map(tuple),
    user_information=user_informations,
    application_context=uids,
    protocol_version=words,
)
results = st.builds(PresentationContextResult, bytes_1, st.just(0), uids) | st.builds(
    PresentationContextResult, bytes_1, st.integers(1, 255), st.just("")
)
answers = st.builds(
    AAssociateAC,
    presentation_contexts=st.lists(results, max_size=9).map(tuple),
    user_information=user_informations,
    application_context=uids,
    protocol_version=words,
    titles=st.binary(min_size=64, max_size=64),
)
pdus: SearchStrategy[PDU] = st.one_of(
    requests,
    answers,
    st.builds(AAssociateRJ, bytes_1, bytes_1, bytes_1),
    st.builds(AReleaseRQ),
    st.builds(AReleaseRP),
    st.builds(AAbort, bytes_1, bytes_1),
)


@settings(deadline=None)
@given(pdus)
def test_round_trip(pdu: PDU) -> None:
    encoded = pdu.encode()
    assert decode_pdu(memoryview(encoded)) == pdu
    assert int.from_bytes(encoded[2:6], "big") == len(encoded) - 6


@settings(deadline=None)
@given(pdus, st.binary(max_size=20))
def test_what_follows_a_pdu_is_not_looked_at(pdu: PDU, more: bytes) -> None:
    assert decode_pdu(memoryview(pdu.encode() + more)) == pdu


@settings(deadline=None)
@given(requests)
def test_decoded_request_keeps_nothing_of_the_buffer(request: AAssociateRQ) -> None:
    buffer = bytearray(request.encode())
    decoded = decode_pdu(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert decoded == request
    buffer.clear()  # BufferError if a view were left


def decodes_or_refuses(data: bytes) -> None:
    with suppress(PDUError):
        decode_pdu(memoryview(data))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_decode_or_raise_pdu_error(data: bytes) -> None:
    decodes_or_refuses(data)


@settings(deadline=None)
@given(st.sampled_from([1, 2]), st.binary(max_size=400))
def test_any_items_decode_or_raise_pdu_error(pdu_type: int, items: bytes) -> None:
    body = bytes(68) + items
    decodes_or_refuses(bytes((pdu_type, 0)) + len(body).to_bytes(4, "big") + body)


@settings(max_examples=300, deadline=None)
@given(requests | answers, st.data())
def test_damaged_pdu_decodes_or_raises_pdu_error(pdu: AAssociateRQ | AAssociateAC, data: st.DataObject) -> None:
    damaged = bytearray(pdu.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(6, len(damaged) - 1))] = data.draw(bytes_1)
    decodes_or_refuses(bytes(damaged))
