"""Presentation contexts for what is to be sent: each pair its own, never more than 128 on an association."""

from hypothesis import given
from hypothesis import strategies as st

from pacslite.dimse.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacslite.scu.contexts import UNCOMPRESSED, ContextMap, storage_contexts
from pacslite.scu.storage_classes import retrieve_proposals
from pacslite.upper_layer.negotiation import AcceptedContext

JPEG, J2K = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"
PAIRS = st.lists(
    st.tuples(
        st.integers(1, 150).map(lambda n: f"1.2.{n}"), st.integers(1, 12).map(lambda n: f"1.2.840.10008.1.2.4.{n}")
    )
)


@given(PAIRS)
def test_every_pair_is_proposed_once_and_no_association_has_too_many(pairs: list[tuple[str, str]]) -> None:
    proposed = []
    for contexts in storage_contexts(pairs):
        assert 1 <= len(contexts) <= 128  # PS3.8 §9.3.2: one at least
        identifiers = [context.context_id for context in contexts]
        assert identifiers == list(range(1, 2 * len(contexts), 2))
        classes = {context.abstract_syntax for context in contexts}
        proposed += [
            (context.abstract_syntax, context.transfer_syntaxes[0])
            for context in contexts
            if len(context.transfer_syntaxes) == 1
        ]
        for sop_class_uid in classes:  # whatever is compressed can be decompressed for who wants it so
            assert any(
                len(context.transfer_syntaxes) == 2 for context in contexts if context.abstract_syntax == sop_class_uid
            )
    assert sorted(proposed) == sorted(set(pairs))


def test_no_association_of_a_class_that_fills_one_is_empty() -> None:
    assert [len(contexts) for contexts in storage_contexts(("1.2.3", f"1.2.{n}") for n in range(130))] == [128]


def test_a_class_stays_on_one_association() -> None:
    pairs = [(f"1.2.{number}", syntax) for number in range(60) for syntax in (JPEG, J2K)]
    first, second = storage_contexts(pairs)
    assert not {one.abstract_syntax for one in first} & {one.abstract_syntax for one in second}


def test_the_exact_syntax_is_found_first_then_explicit_then_implicit() -> None:
    accepted = {
        1: AcceptedContext(1, "1.2.3", JPEG),
        3: AcceptedContext(3, "1.2.3", IMPLICIT_VR_LITTLE_ENDIAN),
        5: AcceptedContext(5, "1.2.4", IMPLICIT_VR_LITTLE_ENDIAN),
        7: AcceptedContext(7, "1.2.4", EXPLICIT_VR_LITTLE_ENDIAN),
        9: AcceptedContext(9, "1.2.5", JPEG, scu_role=False, scp_role=True),
    }
    contexts = ContextMap(accepted)
    assert contexts.exact("1.2.3", JPEG) is accepted[1]
    assert contexts.exact("1.2.3", J2K) is None
    assert contexts.uncompressed("1.2.3") is accepted[3]
    assert contexts.uncompressed("1.2.4") is accepted[7]
    assert contexts.uncompressed("1.2.5") is None
    assert contexts.exact("1.2.5", JPEG) is None
    assert ContextMap(accepted, as_scp=True).exact("1.2.5", JPEG) is accepted[9]


@given(st.integers(0, 200))
def test_a_retrieve_proposes_every_class_uncompressed_and_fills_the_association(count: int) -> None:
    proposals = retrieve_proposals([f"1.2.{n}" for n in range(count)])
    assert len(proposals) == min(127, (count or 127) * 29)
    assert len(set(proposals)) == len(proposals)
    assert {uid for uid, syntaxes in proposals if syntaxes == UNCOMPRESSED} == {uid for uid, _ in proposals}
