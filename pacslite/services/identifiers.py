"""What query and retrieve have in common: their transfer syntaxes and extended negotiation (PS3.4 §C.5)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pacslite.dimse.service import Request
from pacslite.dimse.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from pacslite.upper_layer.negotiation import AbstractSyntaxOffer

__all__ = ["Extended", "extended_of", "identifier_offer"]

_SYNTAXES = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)


class Extended(NamedTuple):
    """Service class application information, in the order of its bytes (PS3.4 Tables C.5-1 and C.5-2)."""

    relational: bool = False
    datetime_matching: bool = False
    fuzzy: bool = False
    timezone: bool = False


def identifier_offer(supported: Sequence[bool]) -> AbstractSyntaxOffer:
    """An offer that answers extended negotiation with what is proposed *and* ``supported``, byte by byte.

    As many bytes are answered as were proposed: peers of the 1990s propose, and expect, one (PS3.4 §C.5.1.1).
    """
    return AbstractSyntaxOffer(transfer_syntaxes=_SYNTAXES, scu=True, scp=False, extended=_answer(supported))


def extended_of(request: Request) -> Extended:
    """What was negotiated for the SOP class of ``request``; nothing if the peer did not ask."""
    answer = request.invoker.negotiated.extended.get(request.message.context.abstract_syntax, b"")
    return Extended(*(byte == 1 for byte in answer[: len(Extended._fields)]))


def _answer(supported: Sequence[bool]) -> Callable[[bytes], bytes | None]:
    def answer(proposed: bytes) -> bytes | None:
        return bytes(int(byte == 1 and at < len(supported) and supported[at]) for at, byte in enumerate(proposed))

    return answer
