"""DIMSE messages: what the command sets of PS3.7 §9.3 and §10.3 carry."""

from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from struct import Struct

from pacslite.dimse.command import CommandSet, Tag, Value, encode_uid, with_group_length
from pacslite.upper_layer.negotiation import AcceptedContext

__all__ = [
    "NO_DATA_SET",
    "RESPONSE",
    "CommandField",
    "Message",
    "Priority",
    "cancel_request",
    "plain_response",
    "request_command",
    "response_to",
]

_PLAIN = Struct("<" + 4 * "HHIH")
NO_DATA_SET = 0x0101  # (0000,0800): any other value says that a data set follows (PS3.7 §9.3)
_DATA_SET = 0x0001
RESPONSE = 0x8000  # bit 15 of the Command Field
_NORMALIZED = 0x0100  # the first Command Field of the DIMSE-N services


class CommandField(IntEnum):
    """Command Field (0000,0100); a response is its request with bit 15 set."""

    C_STORE_RQ = 0x0001
    C_STORE_RSP = 0x8001
    C_GET_RQ = 0x0010
    C_GET_RSP = 0x8010
    C_FIND_RQ = 0x0020
    C_FIND_RSP = 0x8020
    C_MOVE_RQ = 0x0021
    C_MOVE_RSP = 0x8021
    C_ECHO_RQ = 0x0030
    C_ECHO_RSP = 0x8030
    N_EVENT_REPORT_RQ = 0x0100
    N_EVENT_REPORT_RSP = 0x8100
    N_GET_RQ = 0x0110
    N_GET_RSP = 0x8110
    N_SET_RQ = 0x0120
    N_SET_RSP = 0x8120
    N_ACTION_RQ = 0x0130
    N_ACTION_RSP = 0x8130
    N_CREATE_RQ = 0x0140
    N_CREATE_RSP = 0x8140
    N_DELETE_RQ = 0x0150
    N_DELETE_RSP = 0x8150
    C_CANCEL_RQ = 0x0FFF

    @property
    def label(self) -> str:
        """``C-STORE``, as the standard and our log lines spell it."""
        return self.name.rsplit("_", 1)[0].replace("_", "-")


class Priority(IntEnum):
    """Priority (0000,0700)."""

    MEDIUM = 0
    HIGH = 1
    LOW = 2


_REQUESTED = frozenset(
    {CommandField.N_GET_RQ, CommandField.N_SET_RQ, CommandField.N_ACTION_RQ, CommandField.N_DELETE_RQ}
)


class Message:
    """A received command set and the presentation context that it came on."""

    __slots__ = (
        "command",
        "command_field",
        "context",
        "has_data_set",
        "is_response",
        "message_id",
        "sop_class_uid",
        "sop_instance_uid",
    )

    def __init__(self, command: CommandSet, context: AcceptedContext) -> None:
        self.command = command
        self.context = context
        get = command.get  # here and not by the methods below: every message comes along
        field, message_id = get(0x00000100), get(0x00000110)
        self.command_field = field if isinstance(field, int) else 0
        self.is_response = self.command_field & RESPONSE != 0
        self.message_id = message_id if isinstance(message_id, int) else 0  # of a request; 0 where it is absent
        self.has_data_set = get(0x00000800, NO_DATA_SET) != NO_DATA_SET
        # affected, or requested
        sop_class, sop_instance = get(0x00000002) or get(0x00000003), get(0x00001000) or get(0x00001001)
        self.sop_class_uid = sop_class if isinstance(sop_class, str) else ""
        self.sop_instance_uid = sop_instance if isinstance(sop_instance, str) else ""

    @property
    def label(self) -> str:
        try:
            return CommandField(self.command_field).label
        except ValueError:
            return f"DIMSE-{self.command_field:04X}"

    @property
    def is_composite(self) -> bool:
        """Of a DIMSE-C service, whose responses name neither an Event Type nor an Action Type."""
        return self.command_field < _NORMALIZED

    @property
    def message_id_being_responded_to(self) -> int:
        return self._number(Tag.MESSAGE_ID_BEING_RESPONDED_TO)

    @property
    def priority(self) -> int:
        return self._number(Tag.PRIORITY)

    @property
    def move_destination(self) -> str:
        return self._text(Tag.MOVE_DESTINATION)

    @property
    def status(self) -> int:
        """Status of a response; a response without one counts as a failure (0110)."""
        return self._number(Tag.STATUS, 0x0110)

    @property
    def error_comment(self) -> str:
        return self._text(Tag.ERROR_COMMENT)

    @property
    def action_type_id(self) -> int:
        return self._number(Tag.ACTION_TYPE_ID)

    @property
    def event_type_id(self) -> int:
        return self._number(Tag.EVENT_TYPE_ID)

    def count(self, tag: int) -> int:
        """A Number of … Sub-operations; 0 where it is absent."""
        return self._number(tag)

    # private

    def _number(self, tag: int, default: int = 0) -> int:
        value = self.command.get(tag, default)
        return value if isinstance(value, int) else default

    def _text(self, tag: int) -> str:
        value = self.command.get(tag, "")
        return value if isinstance(value, str) else ""


def response_to(
    request: Message,
    status: int,
    *,
    has_data_set: bool = False,
    comment: str = "",
    offending: Sequence[int] = (),
    extra: CommandSet | None = None,
) -> CommandSet:
    """The command set that answers ``request`` (PS3.7 §9.3.1.2, §9.3.2.2, …): same ID, same SOP class and instance."""
    source = request.command
    command: dict[int, Value] = {
        Tag.COMMAND_FIELD: request.command_field | RESPONSE,
        Tag.MESSAGE_ID_BEING_RESPONDED_TO: request.message_id,
        Tag.COMMAND_DATA_SET_TYPE: _DATA_SET if has_data_set else NO_DATA_SET,
        Tag.STATUS: status,
    }
    if request.sop_class_uid:
        command[Tag.AFFECTED_SOP_CLASS_UID] = request.sop_class_uid
    if request.sop_instance_uid:
        command[Tag.AFFECTED_SOP_INSTANCE_UID] = request.sop_instance_uid
    for tag in (Tag.EVENT_TYPE_ID, Tag.ACTION_TYPE_ID):
        if tag in source:
            command[tag] = source[tag]
    if comment:
        command[Tag.ERROR_COMMENT] = comment
    if offending:
        command[Tag.OFFENDING_ELEMENT] = tuple(offending)
    if extra:
        command.update(extra)
    return command


def plain_response(request: Message, status: int) -> bytes:
    """The same for a composite service (C-...), encoded, without a data set or a comment: at a third of the cost."""
    sop_class, sop_instance = request.sop_class_uid, request.sop_instance_uid
    numbers = _PLAIN.pack(
        0, Tag.COMMAND_FIELD, 2, request.command_field | RESPONSE,
        0, Tag.MESSAGE_ID_BEING_RESPONDED_TO, 2, request.message_id,
        0, Tag.COMMAND_DATA_SET_TYPE, 2, NO_DATA_SET,
        0, Tag.STATUS, 2, status,
    )  # fmt: skip
    return with_group_length(
        (_encode_known_uid(Tag.AFFECTED_SOP_CLASS_UID, sop_class) if sop_class else b"")
        + numbers
        + (encode_uid(Tag.AFFECTED_SOP_INSTANCE_UID, sop_instance) if sop_instance else b"")
    )


_encode_known_uid = lru_cache(256)(encode_uid)


def request_command(
    field: CommandField,
    message_id: int,
    *,
    sop_class_uid: str,
    sop_instance_uid: str = "",
    has_data_set: bool = False,
    priority: int | None = None,
    extra: CommandSet | None = None,
) -> CommandSet:
    """The command set of a request; N-services name a Requested SOP class where §10.3 has it so."""
    requested = field in _REQUESTED
    command: dict[int, Value] = {
        Tag.REQUESTED_SOP_CLASS_UID if requested else Tag.AFFECTED_SOP_CLASS_UID: sop_class_uid,
        Tag.COMMAND_FIELD: field,
        Tag.MESSAGE_ID: message_id,
        Tag.COMMAND_DATA_SET_TYPE: _DATA_SET if has_data_set else NO_DATA_SET,
    }
    if sop_instance_uid:
        command[Tag.REQUESTED_SOP_INSTANCE_UID if requested else Tag.AFFECTED_SOP_INSTANCE_UID] = sop_instance_uid
    if priority is not None:
        command[Tag.PRIORITY] = priority
    if extra:
        command.update(extra)
    return command


def cancel_request(message_id: int) -> CommandSet:
    """C-CANCEL-RQ: no Message ID of its own (PS3.7 §9.3.2.3)."""
    return {
        Tag.COMMAND_FIELD: CommandField.C_CANCEL_RQ,
        Tag.MESSAGE_ID_BEING_RESPONDED_TO: message_id,
        Tag.COMMAND_DATA_SET_TYPE: NO_DATA_SET,
    }
