"""Storage Commitment Push Model (PS3.4 Annex J): what its N-ACTION and N-EVENT-REPORT carry, for both sides.

Decoding is bounded: a request names at most as many instances as the caller allows, and nothing of it nests.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pacslite.dataset.decode import Attribute, Identifier, IdentifierError, decode_identifier
from pacslite.dataset.encode import IdentifierEncoder
from pacslite.dimse.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from pacslite.errors import DimseError

__all__ = [
    "ACTION_TYPE_REQUEST",
    "COMMITMENT_SYNTAXES",
    "EVENT_TYPE_FAILURES",
    "EVENT_TYPE_SUCCESS",
    "CommitmentDataError",
    "CommitmentReport",
    "CommitmentRequest",
    "FailedReference",
    "Reference",
    "TooManyReferences",
    "decode_report",
    "decode_request",
    "encode_report",
    "encode_request",
]

ACTION_TYPE_REQUEST = 1  # Request Storage Commitment (Table J.3-1)
EVENT_TYPE_SUCCESS = 1  # Storage Commitment Request Successful (Table J.3-2)
EVENT_TYPE_FAILURES = 2  # Storage Commitment Request Complete - Failures Exist

COMMITMENT_SYNTAXES = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)

_RETRIEVE_AE_TITLE = 0x00080054
_REFERENCED_SOP_CLASS_UID = 0x00081150
_REFERENCED_SOP_INSTANCE_UID = 0x00081155
_TRANSACTION_UID = 0x00081195
_FAILURE_REASON = 0x00081197
_FAILED_SOP_SEQUENCE = 0x00081198
_REFERENCED_SOP_SEQUENCE = 0x00081199

_LONGEST_UID = 64
_ELEMENTS_PER_ITEM = 8  # an item may also carry file-set ID and UID, or what somebody added; three count as needed


class CommitmentDataError(DimseError):
    """An action or event information that is none: invalid argument value (PS3.7 Annex C)."""

    status = 0x0115


class TooManyReferences(DimseError):
    """More instances in one request than we take: resource limitation (PS3.7 Annex C)."""

    status = 0x0213


class Reference(NamedTuple):
    """An instance as a request names it."""

    sop_class_uid: str
    sop_instance_uid: str


class FailedReference(NamedTuple):
    """An instance that is not committed, and its Failure Reason (0008,1197)."""

    sop_class_uid: str
    sop_instance_uid: str
    reason: int


class CommitmentRequest(NamedTuple):
    """Action information (Table J.3-1); no instance occurs twice."""

    transaction_uid: str
    references: tuple[Reference, ...]


class CommitmentReport(NamedTuple):
    """Event information (Table J.3-2)."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[FailedReference, ...] = ()

    @property
    def event_type_id(self) -> int:
        return EVENT_TYPE_FAILURES if self.failed else EVENT_TYPE_SUCCESS


def encode_request(request: CommitmentRequest, transfer_syntax_uid: str) -> bytes:
    """The data set of an N-ACTION-RQ."""
    encoder = IdentifierEncoder(transfer_syntax_uid)
    items = [_reference(encoder, reference) for reference in request.references]
    return encoder.data_set(
        encoder.element(_TRANSACTION_UID, "UI", request.transaction_uid.encode("ascii"))
        + encoder.sequence(_REFERENCED_SOP_SEQUENCE, items)
    )


def encode_report(report: CommitmentReport, transfer_syntax_uid: str, retrieve_ae_title: str = "") -> bytes:
    """The data set of an N-EVENT-REPORT-RQ; a sequence that would be empty is absent."""
    encoder = IdentifierEncoder(transfer_syntax_uid)
    parts: list[bytes] = []
    if retrieve_ae_title and report.committed:
        parts.append(encoder.element(_RETRIEVE_AE_TITLE, "AE", retrieve_ae_title.encode("ascii", "replace")))
    parts.append(encoder.element(_TRANSACTION_UID, "UI", report.transaction_uid.encode("ascii")))
    if report.failed:
        failed = [
            _reference(encoder, Reference(one.sop_class_uid, one.sop_instance_uid))
            + encoder.element(_FAILURE_REASON, "US", one.reason.to_bytes(2, "little"))
            for one in report.failed
        ]
        parts.append(encoder.sequence(_FAILED_SOP_SEQUENCE, failed))
    if report.committed:
        committed = [_reference(encoder, reference) for reference in report.committed]
        parts.append(encoder.sequence(_REFERENCED_SOP_SEQUENCE, committed))
    return encoder.data_set(b"".join(parts))


def decode_request(data: bytes, transfer_syntax_uid: str, *, maximum_references: int = 50_000) -> CommitmentRequest:
    """Read the data set of an N-ACTION-RQ.

    Raises:
        CommitmentDataError: No data set, no Transaction UID, no or too many references, or a UID that cannot be one.
    """
    found = _decode(data, transfer_syntax_uid, maximum_references)
    items = _items(found, _REFERENCED_SOP_SEQUENCE)
    if not items:
        raise CommitmentDataError("no Referenced SOP Sequence", offending=(_REFERENCED_SOP_SEQUENCE,))
    if len(items) > maximum_references:
        raise TooManyReferences(f"{len(items)} instances, {maximum_references} at most in one request")
    return CommitmentRequest(_transaction_uid(found), tuple(dict.fromkeys(_references(items))))


def decode_report(data: bytes, transfer_syntax_uid: str, *, maximum_references: int = 50_000) -> CommitmentReport:
    """Read the data set of an N-EVENT-REPORT-RQ.

    Raises:
        CommitmentDataError: As of ``decode_request``; both sequences may be absent, though not together.
    """
    found = _decode(data, transfer_syntax_uid, maximum_references)
    committed, failed = _items(found, _REFERENCED_SOP_SEQUENCE), _items(found, _FAILED_SOP_SEQUENCE)
    if not committed and not failed:
        raise CommitmentDataError("no instance is reported", offending=(_REFERENCED_SOP_SEQUENCE,))
    reasons = [_reason(item) for item in failed]
    return CommitmentReport(
        _transaction_uid(found),
        tuple(_references(committed)),
        tuple(FailedReference(*one, reason) for one, reason in zip(_references(failed), reasons, strict=True)),
    )


# private


def _reference(encoder: IdentifierEncoder, reference: Reference) -> bytes:
    return encoder.element(_REFERENCED_SOP_CLASS_UID, "UI", reference.sop_class_uid.encode("ascii")) + encoder.element(
        _REFERENCED_SOP_INSTANCE_UID, "UI", reference.sop_instance_uid.encode("ascii")
    )


def _decode(data: bytes, transfer_syntax_uid: str, maximum_references: int) -> Identifier:
    try:
        return decode_identifier(
            data, transfer_syntax_uid, max_depth=4, max_elements=maximum_references * _ELEMENTS_PER_ITEM + 100
        )
    except IdentifierError as error:
        raise CommitmentDataError(str(error), offending=error.offending) from error


def _items(found: Identifier, tag: int) -> list[Identifier]:
    attribute = found.get(tag)
    if attribute is None or not attribute.value:
        return []
    if not isinstance(attribute.value, list):
        raise CommitmentDataError(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is no sequence", offending=(tag,))
    return attribute.value


def _references(items: Sequence[Identifier]) -> Iterable[Reference]:
    for item in items:
        yield Reference(
            _uid(item.get(_REFERENCED_SOP_CLASS_UID), _REFERENCED_SOP_CLASS_UID),
            _uid(item.get(_REFERENCED_SOP_INSTANCE_UID), _REFERENCED_SOP_INSTANCE_UID),
        )


def _transaction_uid(found: Identifier) -> str:
    return _uid(found.get(_TRANSACTION_UID), _TRANSACTION_UID)


def _uid(attribute: Attribute | None, tag: int) -> str:
    """A UID as it came, if it could be one at all: what is only ill-formed is answered as not stored."""
    value = attribute.value if attribute is not None and isinstance(attribute.value, bytes) else b""
    text = value.decode("latin-1").strip(" \0")
    if not text or len(text) > _LONGEST_UID or not text.isascii() or not text.isprintable() or "\\" in text:
        name = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
        raise CommitmentDataError(f"{name} is no UID" if text else f"{name} is missing", offending=(tag,))
    return text


def _reason(item: Identifier) -> int:
    attribute = item.get(_FAILURE_REASON)
    value = attribute.value if attribute is not None and isinstance(attribute.value, bytes) else b""
    return int.from_bytes(value[:2], "little") if len(value) >= 2 else 0x0110
