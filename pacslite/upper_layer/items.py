"""Items and sub-items of the A-ASSOCIATE PDUs: PS3.8 §9.3.2, §9.3.3 and Annex D, PS3.7 §D.3.3.

Items of unknown type are skipped (PS3.8 §9.3.1, §D.2). Values are copied out of the receive buffer, so a decoded item
outlives it. What devices pad, we strip: UIDs and names lose leading and trailing spaces and NULs.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from typing import Self

from pacslite.upper_layer.fields import (
    PDUError,
    decode_text,
    encode_counted,
    encode_item,
    encode_text,
    split_items,
    take_counted,
)

__all__ = [
    "APPLICATION_CONTEXT_ITEM",
    "PRESENTATION_CONTEXT_ITEM",
    "PRESENTATION_CONTEXT_RESULT_ITEM",
    "USER_INFORMATION_ITEM",
    "AsynchronousOperationsWindow",
    "CommonExtendedNegotiation",
    "ContextResult",
    "ExtendedNegotiation",
    "PresentationContext",
    "PresentationContextResult",
    "RoleSelection",
    "UserIdentity",
    "UserInformation",
]

APPLICATION_CONTEXT_ITEM = 0x10
PRESENTATION_CONTEXT_ITEM = 0x20
PRESENTATION_CONTEXT_RESULT_ITEM = 0x21
USER_INFORMATION_ITEM = 0x50

_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX = 0x30, 0x40
_MAXIMUM_LENGTH, _IMPLEMENTATION_CLASS_UID, _ASYNCHRONOUS_WINDOW, _ROLE_SELECTION = 0x51, 0x52, 0x53, 0x54
_IMPLEMENTATION_VERSION_NAME, _EXTENDED, _COMMON_EXTENDED = 0x55, 0x56, 0x57
_USER_IDENTITY, _USER_IDENTITY_RESPONSE = 0x58, 0x59

_CONTEXT = Struct("!BxBx")  # Presentation-context-ID, reserved, Result/Reason (reserved in a request), reserved
_MAXIMUM = Struct("!I")
_WINDOW = Struct("!HH")


class ContextResult(IntEnum):
    """Result/Reason of a presentation context, PS3.8 Table 9-18."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@dataclass(frozen=True, slots=True)
class PresentationContext:
    """A proposed context, item 20H, PS3.8 §9.3.2.2.

    A context without an abstract or transfer syntax decodes with an empty field: negotiation turns down that context
    alone.
    """

    context_id: int  # odd, 1 to 255
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]

    def encode(self) -> bytes:
        return encode_item(
            PRESENTATION_CONTEXT_ITEM,
            _CONTEXT.pack(self.context_id, 0),
            encode_item(_ABSTRACT_SYNTAX, encode_text(self.abstract_syntax, "Abstract-syntax-name")),
            *(
                encode_item(_TRANSFER_SYNTAX, encode_text(uid, "Transfer-syntax-name"))
                for uid in self.transfer_syntaxes
            ),
        )

    @classmethod
    def decode(cls, value: memoryview, pdu: str) -> Self:
        context_id, _ = _decode_context(value, pdu)
        abstract_syntax = ""
        transfer_syntaxes: list[str] = []
        for item_type, name in split_items(value[_CONTEXT.size :], pdu, f"Presentation Context {context_id}"):
            if item_type == _ABSTRACT_SYNTAX:
                abstract_syntax = decode_text(name)
            elif item_type == _TRANSFER_SYNTAX:
                transfer_syntaxes.append(decode_text(name))
        return cls(context_id, abstract_syntax, tuple(transfer_syntaxes))


@dataclass(frozen=True, slots=True)
class PresentationContextResult:
    """The answer to a proposed context, item 21H, PS3.8 §9.3.3.2.

    The transfer syntax is sent with every result, and significant with acceptance only.
    """

    context_id: int
    result: int  # a ContextResult, or whatever else a peer sends: not accepted
    transfer_syntax: str

    def encode(self) -> bytes:
        return encode_item(
            PRESENTATION_CONTEXT_RESULT_ITEM,
            _CONTEXT.pack(self.context_id, self.result),
            encode_item(_TRANSFER_SYNTAX, encode_text(self.transfer_syntax, "Transfer-syntax-name")),
        )

    @classmethod
    def decode(cls, value: memoryview, pdu: str) -> Self:
        context_id, result = _decode_context(value, pdu)
        transfer_syntax = ""
        if result == ContextResult.ACCEPTANCE:  # otherwise not significant, not tested: often absent or empty
            for item_type, name in split_items(value[_CONTEXT.size :], pdu, f"Presentation Context {context_id}"):
                if item_type == _TRANSFER_SYNTAX:
                    transfer_syntax = decode_text(name)
        return cls(context_id, result, transfer_syntax)


@dataclass(frozen=True, slots=True)
class AsynchronousOperationsWindow:
    """Item 53H, PS3.7 §D.3.3.3. Both numbers are as seen by the association requestor; 0 is unlimited."""

    operations_invoked: int = 1
    operations_performed: int = 1

    def encode(self) -> bytes:
        return encode_item(_ASYNCHRONOUS_WINDOW, _WINDOW.pack(self.operations_invoked, self.operations_performed))

    @classmethod
    def decode(cls, value: memoryview, pdu: str) -> Self:
        if len(value) != _WINDOW.size:
            raise PDUError(pdu, "Asynchronous Operations Window", f"4 bytes expected, {len(value)} received")
        return cls(*_WINDOW.unpack(value))


@dataclass(frozen=True, slots=True)
class RoleSelection:
    """Item 54H, PS3.7 §D.3.3.4: roles the requestor proposes, or those of them the acceptor agrees to."""

    sop_class_uid: str
    scu: bool
    scp: bool

    def encode(self) -> bytes:
        uid = encode_counted(encode_text(self.sop_class_uid, "SOP-class-uid"))
        return encode_item(_ROLE_SELECTION, uid, bytes((self.scu, self.scp)))

    @classmethod
    def decode(cls, value: memoryview, pdu: str) -> Self:
        uid, at = take_counted(value, 0, pdu, "SCP/SCU Role Selection, SOP-class-uid")
        if len(value) - at < 2:
            raise PDUError(pdu, "SCP/SCU Role Selection", "SCU-role or SCP-role is missing")
        return cls(decode_text(uid), scu=value[at] != 0, scp=value[at + 1] != 0)


@dataclass(frozen=True, slots=True)
class ExtendedNegotiation:
    """Item 56H, PS3.7 §D.3.3.5: application information that the service class defines."""

    sop_class_uid: str
    information: bytes

    def encode(self) -> bytes:
        return encode_item(
            _EXTENDED, encode_counted(encode_text(self.sop_class_uid, "SOP-class-uid")), self.information
        )

    @classmethod
    def decode(cls, value: memoryview, pdu: str) -> Self:
        uid, at = take_counted(value, 0, pdu, "SOP Class Extended Negotiation, SOP-class-uid")
        return cls(decode_text(uid), bytes(value[at:]))


@dataclass(frozen=True, slots=True)
class CommonExtendedNegotiation:
    """Item 57H, PS3.7 §D.3.3.6: the service class of a SOP class; requests only, never answered.

    Its second byte is a version: later versions add fields at the end, which are ignored.
    """

    sop_class_uid: str
    service_class_uid: str
    related_sop_class_uids: tuple[str, ...] = ()

    def encode(self) -> bytes:
        related = b"".join(encode_counted(encode_text(uid, "SOP-class-uid")) for uid in self.related_sop_class_uids)
        return encode_item(
            _COMMON_EXTENDED,
            encode_counted(encode_text(self.sop_class_uid, "SOP-class-uid")),
            encode_counted(encode_text(self.service_class_uid, "Service-class-uid")),
            encode_counted(related),
        )

    @classmethod
    def decode(cls, value: memoryview, pdu: str) -> Self:
        where = "SOP Class Common Extended Negotiation"
        sop_class, at = take_counted(value, 0, pdu, f"{where}, SOP-class-uid")
        service_class, at = take_counted(value, at, pdu, f"{where}, Service-class-uid")
        related, _ = take_counted(value, at, pdu, f"{where}, Related-general-sop-class-identification")
        uids: list[str] = []
        at = 0
        while at < len(related):
            uid, at = take_counted(related, at, pdu, f"{where}, Related-general-sop-class-uid")
            uids.append(decode_text(uid))
        return cls(decode_text(sop_class), decode_text(service_class), tuple(uids))


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """Item 58H, PS3.7 §D.3.3.7.1. Fields are bytes: what they are depends on the type. Never shown by ``repr``."""

    identity_type: int  # 1 username, 2 username and passcode, 3 Kerberos, 4 SAML, 5 JSON Web Token
    primary: bytes = field(repr=False)
    secondary: bytes = field(default=b"", repr=False)  # the passcode, type 2 only
    positive_response_requested: bool = False

    def encode(self) -> bytes:
        head = bytes((self.identity_type, self.positive_response_requested))
        return encode_item(_USER_IDENTITY, head, encode_counted(self.primary), encode_counted(self.secondary))

    @classmethod
    def decode(cls, value: memoryview, pdu: str) -> Self:
        if len(value) < 2:
            raise PDUError(pdu, "User Identity", f"{len(value)} bytes received where the type is due")
        primary, at = take_counted(value, 2, pdu, "User Identity, Primary-field")
        secondary = value[:0]
        if at < len(value):  # without a passcode some leave out its length too
            secondary, _ = take_counted(value, at, pdu, "User Identity, Secondary-field")
        return cls(value[0], bytes(primary), bytes(secondary), positive_response_requested=value[1] != 0)


@dataclass(frozen=True, slots=True)
class UserInformation:
    """The User Information item 50H of either A-ASSOCIATE PDU, PS3.8 §9.3.2.3. Absent sub-items have the defaults."""

    maximum_length: int = 0  # 51H, PS3.8 §D.1; limits the PDU-length of P-DATA-TF; 0: no limit
    implementation_class_uid: str = ""  # 52H
    window: AsynchronousOperationsWindow | None = None  # 53H
    roles: tuple[RoleSelection, ...] = ()  # 54H
    implementation_version_name: str = ""  # 55H
    extended: tuple[ExtendedNegotiation, ...] = ()  # 56H
    common_extended: tuple[CommonExtendedNegotiation, ...] = ()  # 57H, requests only
    user_identity: UserIdentity | None = None  # 58H, requests only
    user_identity_response: bytes | None = None  # 59H, answers only

    def encode(self) -> bytes:
        """Sub-items in ascending order of type, which older applications expect (PS3.8 §9.3.2.3)."""
        items = [
            encode_item(_MAXIMUM_LENGTH, _MAXIMUM.pack(self.maximum_length)),
            encode_item(
                _IMPLEMENTATION_CLASS_UID, encode_text(self.implementation_class_uid, "Implementation-class-uid")
            ),
        ]
        if self.window is not None:
            items.append(self.window.encode())
        items.extend(role.encode() for role in self.roles)
        if self.implementation_version_name:
            name = encode_text(self.implementation_version_name, "Implementation-version-name")
            items.append(encode_item(_IMPLEMENTATION_VERSION_NAME, name))
        items.extend(item.encode() for item in self.extended)
        items.extend(item.encode() for item in self.common_extended)
        if self.user_identity is not None:
            items.append(self.user_identity.encode())
        if self.user_identity_response is not None:
            items.append(encode_item(_USER_IDENTITY_RESPONSE, encode_counted(self.user_identity_response)))
        return encode_item(USER_INFORMATION_ITEM, *items)

    @classmethod
    def decode(cls, value: memoryview, pdu: str) -> Self:
        maximum_length, class_uid, version_name = 0, "", ""
        window: AsynchronousOperationsWindow | None = None
        identity: UserIdentity | None = None
        response: bytes | None = None
        roles: list[RoleSelection] = []
        extended: list[ExtendedNegotiation] = []
        common: list[CommonExtendedNegotiation] = []
        for item_type, item in split_items(value, pdu, "User Information"):
            match item_type:
                case 0x51:  # Maximum Length
                    if len(item) != _MAXIMUM.size:
                        raise PDUError(pdu, "Maximum Length", f"4 bytes expected, {len(item)} received")
                    (maximum_length,) = _MAXIMUM.unpack(item)
                case 0x52:  # Implementation Class UID
                    class_uid = decode_text(item)
                case 0x53:  # Asynchronous Operations Window
                    window = AsynchronousOperationsWindow.decode(item, pdu)
                case 0x54:  # SCP/SCU Role Selection
                    roles.append(RoleSelection.decode(item, pdu))
                case 0x55:  # Implementation Version Name
                    version_name = decode_text(item)
                case 0x56:  # SOP Class Extended Negotiation
                    extended.append(ExtendedNegotiation.decode(item, pdu))
                case 0x57:  # SOP Class Common Extended Negotiation
                    common.append(CommonExtendedNegotiation.decode(item, pdu))
                case 0x58:  # User Identity, request
                    identity = UserIdentity.decode(item, pdu)
                case 0x59:  # User Identity, answer
                    server_response, _ = take_counted(item, 0, pdu, "User Identity, Server-response")
                    response = bytes(server_response)
                case _:
                    pass  # PS3.8 §D.2: later editions add sub-items
        return cls(
            maximum_length=maximum_length,
            implementation_class_uid=class_uid,
            window=window,
            roles=tuple(roles),
            implementation_version_name=version_name,
            extended=tuple(extended),
            common_extended=tuple(common),
            user_identity=identity,
            user_identity_response=response,
        )


def _decode_context(value: memoryview, pdu: str) -> tuple[int, int]:
    if len(value) < _CONTEXT.size:
        raise PDUError(pdu, "Presentation Context", f"{len(value)} bytes received, no room for its ID")
    context_id, result = _CONTEXT.unpack_from(value)
    return context_id, result
