"""The protocol data units of the upper layer, PS3.8 §9.3: one class each for both sides, P-DATA-TF as a function.

P-DATA-TF is millions of fragments and never an object: ``encode_p_data`` frames what we send, ``framing`` delivers what
arrives. All headers are big endian; reserved fields are sent as 00H and never tested.
"""

from dataclasses import dataclass, field
from struct import Struct
from typing import ClassVar, Self

from pacslite.upper_layer.fields import PDUError, decode_text, encode_item, encode_text, split_items
from pacslite.upper_layer.items import (
    APPLICATION_CONTEXT_ITEM,
    PRESENTATION_CONTEXT_ITEM,
    PRESENTATION_CONTEXT_RESULT_ITEM,
    USER_INFORMATION_ITEM,
    PresentationContext,
    PresentationContextResult,
    UserInformation,
)

__all__ = [
    "DICOM_APPLICATION_CONTEXT",
    "MAXIMUM_ASSOCIATE_LENGTH",
    "PDU",
    "PDU_HEADER",
    "P_DATA_TF",
    "AAbort",
    "AAssociateAC",
    "AAssociateRJ",
    "AAssociateRQ",
    "AReleaseRP",
    "AReleaseRQ",
    "PDUError",
    "decode_pdu",
    "decode_pdu_body",
    "decode_pdu_header",
    "encode_p_data",
]

DICOM_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # PS3.7 §A.2.1
MAXIMUM_ASSOCIATE_LENGTH = 1 << 18  # a request for 128 contexts of 20 transfer syntaxes has 80 KB, its user 64 at most

PDU_HEADER = Struct("!BxI")  # PDU-type, reserved, PDU-length
P_DATA_TF = 0x04
_P_DATA_HEADER = Struct("!BxIIBB")  # PDU header, Item-length, Presentation-context-ID, message control header
_JOIN_LIMIT = 4096  # copying so much costs less than one more buffer in the gathered write
_TINY_PIECE = 1024  # fragments of less go out in one buffer: the transport is slow with buffers by the thousand
_UNLIMITED_PIECE = 1 << 20  # fragments for a peer without a limit

_ASSOCIATE = Struct("!H2x64s")  # Protocol-version, reserved, bytes 11 to 74: AE titles and 32 reserved
_NO_INFORMATION = UserInformation()
_REJECT = Struct("!BxIxBBB")
_RELEASE = Struct("!BxI4x")
_ABORT = Struct("!BxIxxBB")


@dataclass(frozen=True, slots=True)
class AAssociateRQ:
    """A-ASSOCIATE-RQ, PS3.8 §9.3.2. AE titles are without their insignificant spaces."""

    name: ClassVar[str] = "A-ASSOCIATE-RQ"

    called_ae_title: str
    calling_ae_title: str
    presentation_contexts: tuple[PresentationContext, ...]
    user_information: UserInformation = _NO_INFORMATION
    application_context: str = DICOM_APPLICATION_CONTEXT
    protocol_version: int = 1  # one bit a version; bit 0 is the only one that means something
    received_titles: bytes = field(default=b"", compare=False, repr=False)

    def encode(self) -> bytes:
        for context in self.presentation_contexts:
            _check_context_id(context.context_id, self.name)
        return _encode_associate(
            0x01, self.protocol_version, self.titles(), self.application_context,
            self.presentation_contexts, self.user_information,
        )  # fmt: skip

    def titles(self) -> bytes:
        """Bytes 11 to 74 as received, else as they are sent: A-ASSOCIATE-AC repeats them (PS3.8 §9.3.3)."""
        if self.received_titles:
            return self.received_titles
        called = _encode_ae_title(self.called_ae_title, "Called-AE-title")
        return called + _encode_ae_title(self.calling_ae_title, "Calling-AE-title") + bytes(32)

    @classmethod
    def decode(cls, body: memoryview) -> "AAssociateRQ":
        """Devices send the same request each time, many of them for every image: some are kept decoded.

        None with a user identity: what a user proves who it is with is not for keeping.
        """
        data = bytes(body)
        request = _known_requests.get(data)
        if request is None:
            request = _decode_request(data)
            if len(data) <= _KEPT_REQUEST and request.user_information.user_identity is None:
                if len(_known_requests) >= _KNOWN_REQUESTS:
                    _known_requests.clear()
                _known_requests[data] = request
        return request


_KNOWN_REQUESTS = 64
_KEPT_REQUEST = 16_384  # bytes; 128 contexts of one transfer syntax each take about 11,000
_known_requests: dict[bytes, AAssociateRQ] = {}


@dataclass(frozen=True, slots=True)
class AAssociateAC:
    """A-ASSOCIATE-AC, PS3.8 §9.3.3. What a peer answers is taken as it is; ``negotiated_from`` takes what counts."""

    name: ClassVar[str] = "A-ASSOCIATE-AC"

    presentation_contexts: tuple[PresentationContextResult, ...]
    user_information: UserInformation = _NO_INFORMATION
    application_context: str = DICOM_APPLICATION_CONTEXT
    protocol_version: int = 1
    titles: bytes = field(default=bytes(64), repr=False)  # bytes 11 to 74 of the request; not tested when received

    def encode(self) -> bytes:
        return _encode_associate(
            0x02, self.protocol_version, self.titles, self.application_context,
            self.presentation_contexts, self.user_information,
        )  # fmt: skip

    @classmethod
    def decode(cls, body: memoryview) -> Self:
        version, titles, items = _decode_associate(body)
        contexts: list[PresentationContextResult] = []
        application_context = ""
        user_information = _NO_INFORMATION
        for item_type, value in split_items(items, cls.name, "Variable items"):
            if item_type == PRESENTATION_CONTEXT_RESULT_ITEM:
                contexts.append(PresentationContextResult.decode(value, cls.name))
            elif item_type == APPLICATION_CONTEXT_ITEM:
                application_context = decode_text(value)
            elif item_type == USER_INFORMATION_ITEM:
                user_information = UserInformation.decode(value, cls.name)
        return cls(tuple(contexts), user_information, application_context, version, titles)


@dataclass(frozen=True, slots=True)
class AAssociateRJ:
    """A-ASSOCIATE-RJ, PS3.8 §9.3.4."""

    name: ClassVar[str] = "A-ASSOCIATE-RJ"

    result: int  # 1 permanent, 2 transient
    source: int  # 1 service-user, 2 provider (ACSE), 3 provider (presentation)
    reason: int

    def encode(self) -> bytes:
        return _REJECT.pack(0x03, 4, self.result, self.source, self.reason)

    @classmethod
    def decode(cls, body: memoryview) -> Self:
        return cls(result=body[1], source=body[2], reason=body[3])


@dataclass(frozen=True, slots=True)
class AReleaseRQ:
    """A-RELEASE-RQ, PS3.8 §9.3.6."""

    name: ClassVar[str] = "A-RELEASE-RQ"

    def encode(self) -> bytes:
        return _RELEASE.pack(0x05, 4)

    @classmethod
    def decode(cls, _body: memoryview) -> Self:
        return cls()


@dataclass(frozen=True, slots=True)
class AReleaseRP:
    """A-RELEASE-RP, PS3.8 §9.3.7."""

    name: ClassVar[str] = "A-RELEASE-RP"

    def encode(self) -> bytes:
        return _RELEASE.pack(0x06, 4)

    @classmethod
    def decode(cls, _body: memoryview) -> Self:
        return cls()


@dataclass(frozen=True, slots=True)
class AAbort:
    """A-ABORT, PS3.8 §9.3.8. Odd codes are kept: a peer that aborts is not argued with."""

    name: ClassVar[str] = "A-ABORT"

    source: int  # 0 service-user, 2 service-provider
    reason: int = 0  # not significant unless source is 2

    def encode(self) -> bytes:
        return _ABORT.pack(0x07, 4, self.source, self.reason)

    @classmethod
    def decode(cls, body: memoryview) -> Self:
        return cls(source=body[2], reason=body[3])


PDU = AAssociateRQ | AAssociateAC | AAssociateRJ | AReleaseRQ | AReleaseRP | AAbort

_PDU_TYPES: dict[int, type[PDU]] = {
    0x01: AAssociateRQ,
    0x02: AAssociateAC,
    0x03: AAssociateRJ,
    0x05: AReleaseRQ,
    0x06: AReleaseRP,
    0x07: AAbort,
}


def decode_pdu(data: memoryview) -> PDU | None:
    """Decode the PDU at the start of ``data``; None if it is not there completely.

    Raises:
        PDUError: No valid PDU; also for P-DATA-TF, which ``framing`` delivers in fragments.
    """
    if len(data) < PDU_HEADER.size:
        return None
    pdu_type, length = decode_pdu_header(bytes(data[: PDU_HEADER.size]))
    if len(data) < PDU_HEADER.size + length:
        return None
    return decode_pdu_body(pdu_type, data[PDU_HEADER.size : PDU_HEADER.size + length])


def decode_pdu_header(header: bytes) -> tuple[int, int]:
    """PDU-type and PDU-length of any PDU but P-DATA-TF.

    A PDU is refused by its header, before anything is kept of it: what we buffer has a bound.
    """
    pdu_type, length = PDU_HEADER.unpack(header)
    kind = _PDU_TYPES.get(pdu_type)
    if kind is None:
        guess = next((f": this is {what}" for start, what in _GREETINGS if header.startswith(start)), "")
        raise PDUError("PDU", "PDU-type", f"{pdu_type:02X}H is not known here{guess}", reason=1)
    if pdu_type > 0x02:
        if length != 4:
            raise PDUError(kind.name, "PDU-length", f"4 expected, {length} received")
    elif not _ASSOCIATE.size <= length <= MAXIMUM_ASSOCIATE_LENGTH:
        limits = f"{_ASSOCIATE.size} to {MAXIMUM_ASSOCIATE_LENGTH}"
        raise PDUError(kind.name, "PDU-length", f"{limits} expected, {length} received")
    return pdu_type, length


def decode_pdu_body(pdu_type: int, body: memoryview) -> PDU:
    """Decode what follows a header that ``decode_pdu_header`` passed. Nothing in the result refers to ``body``."""
    return _PDU_TYPES[pdu_type].decode(body)


def encode_p_data(
    context_id: int, is_command: bool, data: bytes | memoryview, maximum_length: int, is_last: bool = True
) -> list[bytes | memoryview]:
    """Frame a command set, a data set or a piece of one as P-DATA-TF PDUs of one PDV each, PS3.8 §9.3.5, Annex E.

    Args:
        data: Pieces before the last must have an even length, so that every fragment has.
        maximum_length: The peer's limit for the PDU-length field; 0 is no limit.
        is_last: Whether the command set or data set ends with ``data``.
    Returns:
        Buffers for one gathered write: headers of ours, views of ``data`` between them; or one, of what is small.
    """
    if 0 < maximum_length < 8:
        raise PDUError("P-DATA-TF", "PDU-length", f"the peer's limit of {maximum_length} bytes leaves no room for data")
    piece = (maximum_length - 6) & ~1 if maximum_length else _UNLIMITED_PIECE
    size = len(data)
    more = 1 if is_command else 0  # bit 0 of the message control header: command; bit 1: last fragment
    last = more | 2 if is_last else more
    if size <= piece and size <= _JOIN_LIMIT:
        return [b"".join((_P_DATA_HEADER.pack(P_DATA_TF, size + 6, size + 2, context_id, last), data))]
    view = memoryview(data)
    frames: list[bytes | memoryview] = []
    header = _P_DATA_HEADER.pack(P_DATA_TF, piece + 6, piece + 2, context_id, more)
    at = 0
    while size - at > piece:
        frames += (header, view[at : at + piece])
        at += piece
    frames += (_P_DATA_HEADER.pack(P_DATA_TF, size - at + 6, size - at + 2, context_id, last), view[at:])
    return frames if piece >= _TINY_PIECE else [b"".join(frames)]


_GREETINGS = (  # what speaks another protocol, by its first bytes
    (b"\x16\x03", "TLS, which is not spoken here"),
    (b"GET ", "an HTTP request"),
    (b"HEAD ", "an HTTP request"),
    (b"POST ", "an HTTP request"),
    (b"PUT ", "an HTTP request"),
    (b"OPTION", "an HTTP request"),
    (b"SSH-", "an SSH client"),
)


def _decode_request(body: bytes) -> AAssociateRQ:
    name = AAssociateRQ.name
    version, titles, items = _decode_associate(memoryview(body))
    contexts: dict[int, PresentationContext] = {}
    application_context = ""
    user_information = _NO_INFORMATION
    for item_type, value in split_items(items, name, "Variable items"):
        if item_type == PRESENTATION_CONTEXT_ITEM:
            context = PresentationContext.decode(value, name)
            _check_context_id(context.context_id, name)
            if context.context_id in contexts:
                raise PDUError(name, "Presentation-context-ID", f"{context.context_id} is proposed twice")
            contexts[context.context_id] = context
        elif item_type == APPLICATION_CONTEXT_ITEM:
            application_context = decode_text(value)
        elif item_type == USER_INFORMATION_ITEM:
            user_information = UserInformation.decode(value, name)
    return AAssociateRQ(
        called_ae_title=decode_text(memoryview(titles)[:16]),
        calling_ae_title=decode_text(memoryview(titles)[16:32]),
        presentation_contexts=tuple(contexts.values()),
        user_information=user_information,
        application_context=application_context,
        protocol_version=version,
        received_titles=titles,
    )


def _check_context_id(context_id: int, pdu: str) -> None:
    if not context_id & 1 or context_id > 255:
        raise PDUError(pdu, "Presentation-context-ID", f"{context_id} is not odd and 1 to 255")


def _encode_ae_title(title: str, field: str) -> bytes:
    encoded = encode_text(title, field)
    if not 1 <= len(encoded.strip()) <= len(encoded) <= 16:
        raise PDUError(AAssociateRQ.name, field, f"{title!r} has not 1 to 16 characters")
    return encoded.ljust(16)


def _encode_associate(
    pdu_type: int,
    protocol_version: int,
    titles: bytes,
    application_context: str,
    contexts: tuple[PresentationContext, ...] | tuple[PresentationContextResult, ...],
    user_information: UserInformation,
) -> bytes:
    body = b"".join(
        (
            _ASSOCIATE.pack(protocol_version, titles),
            encode_item(APPLICATION_CONTEXT_ITEM, encode_text(application_context, "Application-context-name")),
            *(context.encode() for context in contexts),
            user_information.encode(),
        )
    )
    return PDU_HEADER.pack(pdu_type, len(body)) + body


def _decode_associate(body: memoryview) -> tuple[int, bytes, memoryview]:
    """Protocol-version, bytes 11 to 74, variable items."""
    version, titles = _ASSOCIATE.unpack_from(body)
    return version, titles, body[_ASSOCIATE.size :]
