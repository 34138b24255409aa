"""Presentation contexts for what is to be sent or asked: at most 128 an association (PS3.8 §9.3.2.2)."""

from collections.abc import Iterable, Mapping, Sequence

from pacslite.dimse.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacslite.upper_layer.items import PresentationContext
from pacslite.upper_layer.negotiation import AcceptedContext

__all__ = ["MAXIMUM_CONTEXTS", "UNCOMPRESSED", "ContextMap", "presentation_contexts", "storage_contexts"]

MAXIMUM_CONTEXTS = 128
UNCOMPRESSED = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)

Pair = tuple[str, str]  # SOP class UID, transfer syntax UID


def presentation_contexts(proposals: Iterable[tuple[str, Sequence[str]]]) -> tuple[PresentationContext, ...]:
    """Number ``(abstract syntax, transfer syntaxes)`` with odd IDs from 1."""
    return tuple(
        PresentationContext(context_id, abstract_syntax, tuple(transfer_syntaxes))
        for context_id, (abstract_syntax, transfer_syntaxes) in zip(range(1, 256, 2), proposals, strict=False)
    )


def storage_contexts(pairs: Iterable[Pair]) -> list[tuple[PresentationContext, ...]]:
    """Contexts to send instances of all ``pairs``, an association an entry; none without pairs.

    Each transfer syntax has a context of its own, so that every instance can leave as it is stored; a SOP class that is
    stored compressed has one with the uncompressed syntaxes besides, for receivers that take no other. Contexts of one
    SOP class stay on one association.
    """
    syntaxes: dict[str, list[str]] = {}
    for sop_class_uid, transfer_syntax_uid in pairs:
        known = syntaxes.setdefault(sop_class_uid, [])
        if transfer_syntax_uid not in known:
            known.append(transfer_syntax_uid)
    associations: list[list[tuple[str, Sequence[str]]]] = []
    for sop_class_uid, stored in syntaxes.items():
        proposals: list[tuple[str, Sequence[str]]] = [(sop_class_uid, (syntax,)) for syntax in stored]
        if any(syntax not in UNCOMPRESSED for syntax in stored) or len(stored) == 1:
            proposals.append((sop_class_uid, UNCOMPRESSED))
        if not associations or len(associations[-1]) + len(proposals) > MAXIMUM_CONTEXTS:
            associations.append([])
        associations[-1] += proposals[:MAXIMUM_CONTEXTS]
    return [presentation_contexts(proposals) for proposals in associations]


class ContextMap:
    """Finds the accepted context for an instance."""

    __slots__ = ("_by_class", "_by_pair")

    def __init__(self, contexts: Mapping[int, AcceptedContext], *, as_scp: bool = False) -> None:
        """``as_scp``: of those for which the requestor took the SCP role, to send to it on its own association."""
        usable = [context for context in contexts.values() if (context.scp_role if as_scp else context.scu_role)]
        self._by_pair = {(context.abstract_syntax, context.transfer_syntax): context for context in reversed(usable)}
        self._by_class: dict[str, list[AcceptedContext]] = {}
        for context in usable:
            self._by_class.setdefault(context.abstract_syntax, []).append(context)

    def exact(self, sop_class_uid: str, transfer_syntax_uid: str) -> AcceptedContext | None:
        return self._by_pair.get((sop_class_uid, transfer_syntax_uid))

    def uncompressed(self, sop_class_uid: str) -> AcceptedContext | None:
        """A context to which any image can be transcoded; Explicit VR keeps more (PS3.5 §6.2.2)."""
        for syntax in UNCOMPRESSED:
            context = self._by_pair.get((sop_class_uid, syntax))
            if context is not None:
                return context
        return None

    def of_class(self, sop_class_uid: str) -> Sequence[AcceptedContext]:
        return self._by_class.get(sop_class_uid, ())
