"""Command sets: group 0000, always Implicit VR Little Endian (PS3.7 §6.3.1, Annex E)."""

import re
import struct
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from pacslite.errors import PacsliteError

__all__ = [
    "ELEMENTS",
    "CommandError",
    "CommandSet",
    "Tag",
    "Value",
    "decode_command",
    "encode_command",
    "encode_uid",
    "with_group_length",
]

Value: TypeAlias = int | str | tuple[int, ...]
CommandSet: TypeAlias = dict[int, Value]

_HEADER = struct.Struct("<HHI")
_US = struct.Struct("<H")
_US_ELEMENT = struct.Struct("<HHIH")
_NO_TEXT = re.compile(r"[^ -\[\]-~]")
_GROUP_LENGTH = struct.Struct("<HHII")


class CommandError(PacsliteError):
    """Bytes that are no command set; the association cannot go on, since the stream of messages is lost."""


class Tag:
    """Tags of the command elements (PS3.7 Table E.1-1)."""

    GROUP_LENGTH = 0x00000000
    AFFECTED_SOP_CLASS_UID = 0x00000002
    REQUESTED_SOP_CLASS_UID = 0x00000003
    COMMAND_FIELD = 0x00000100
    MESSAGE_ID = 0x00000110
    MESSAGE_ID_BEING_RESPONDED_TO = 0x00000120
    MOVE_DESTINATION = 0x00000600
    PRIORITY = 0x00000700
    COMMAND_DATA_SET_TYPE = 0x00000800
    STATUS = 0x00000900
    OFFENDING_ELEMENT = 0x00000901
    ERROR_COMMENT = 0x00000902
    ERROR_ID = 0x00000903
    AFFECTED_SOP_INSTANCE_UID = 0x00001000
    REQUESTED_SOP_INSTANCE_UID = 0x00001001
    EVENT_TYPE_ID = 0x00001002
    ATTRIBUTE_IDENTIFIER_LIST = 0x00001005
    ACTION_TYPE_ID = 0x00001008
    NUMBER_OF_REMAINING_SUBOPERATIONS = 0x00001020
    NUMBER_OF_COMPLETED_SUBOPERATIONS = 0x00001021
    NUMBER_OF_FAILED_SUBOPERATIONS = 0x00001022
    NUMBER_OF_WARNING_SUBOPERATIONS = 0x00001023
    MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE = 0x00001030
    MOVE_ORIGINATOR_MESSAGE_ID = 0x00001031


class _Element(NamedTuple):
    keyword: str
    vr: str


ELEMENTS: Mapping[int, _Element] = {
    Tag.GROUP_LENGTH: _Element("CommandGroupLength", "UL"),
    Tag.AFFECTED_SOP_CLASS_UID: _Element("AffectedSOPClassUID", "UI"),
    Tag.REQUESTED_SOP_CLASS_UID: _Element("RequestedSOPClassUID", "UI"),
    Tag.COMMAND_FIELD: _Element("CommandField", "US"),
    Tag.MESSAGE_ID: _Element("MessageID", "US"),
    Tag.MESSAGE_ID_BEING_RESPONDED_TO: _Element("MessageIDBeingRespondedTo", "US"),
    Tag.MOVE_DESTINATION: _Element("MoveDestination", "AE"),
    Tag.PRIORITY: _Element("Priority", "US"),
    Tag.COMMAND_DATA_SET_TYPE: _Element("CommandDataSetType", "US"),
    Tag.STATUS: _Element("Status", "US"),
    Tag.OFFENDING_ELEMENT: _Element("OffendingElement", "AT"),
    Tag.ERROR_COMMENT: _Element("ErrorComment", "LO"),
    Tag.ERROR_ID: _Element("ErrorID", "US"),
    Tag.AFFECTED_SOP_INSTANCE_UID: _Element("AffectedSOPInstanceUID", "UI"),
    Tag.REQUESTED_SOP_INSTANCE_UID: _Element("RequestedSOPInstanceUID", "UI"),
    Tag.EVENT_TYPE_ID: _Element("EventTypeID", "US"),
    Tag.ATTRIBUTE_IDENTIFIER_LIST: _Element("AttributeIdentifierList", "AT"),
    Tag.ACTION_TYPE_ID: _Element("ActionTypeID", "US"),
    Tag.NUMBER_OF_REMAINING_SUBOPERATIONS: _Element("NumberOfRemainingSuboperations", "US"),
    Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS: _Element("NumberOfCompletedSuboperations", "US"),
    Tag.NUMBER_OF_FAILED_SUBOPERATIONS: _Element("NumberOfFailedSuboperations", "US"),
    Tag.NUMBER_OF_WARNING_SUBOPERATIONS: _Element("NumberOfWarningSuboperations", "US"),
    Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: _Element("MoveOriginatorApplicationEntityTitle", "AE"),
    Tag.MOVE_ORIGINATOR_MESSAGE_ID: _Element("MoveOriginatorMessageID", "US"),
}
_US_TAGS = frozenset(tag for tag, element in ELEMENTS.items() if element.vr == "US")
_TEXT_TAGS = frozenset(tag for tag, element in ELEMENTS.items() if element.vr in {"UI", "AE", "LO"})
_UI_TAGS = frozenset(tag for tag, element in ELEMENTS.items() if element.vr == "UI")


def encode_command(command: Mapping[int, Value]) -> bytes:
    """Encode ``command`` with its group length: ascending tags, even lengths.

    UIDs and titles go back as they came; a comment of ours is sent as ASCII without control characters and backslash
    (PS3.5 §6.2), what is none becomes ``?``. LO is cut to 64 characters, AE to 16.
    """
    parts: list[bytes] = []
    for tag in sorted(command):
        value = command[tag]
        if tag in _US_TAGS:
            parts.append(_US_ELEMENT.pack(0, tag, 2, value))
            continue
        if tag in _UI_TAGS:
            parts.append(encode_uid(tag, str(value)))
            continue
        if tag in _TEXT_TAGS:
            text = str(value)
            if tag == Tag.ERROR_COMMENT:
                encoded = _NO_TEXT.sub("?", text[:64]).encode("ascii")
            else:
                encoded = text[:16].encode("latin-1", "replace")
            encoded += b" " * (len(encoded) & 1)
        else:
            tags = value if isinstance(value, tuple) else (int(value),)
            encoded = b"".join(struct.pack("<HH", at >> 16, at & 0xFFFF) for at in tags)
        parts.append(_HEADER.pack(0, tag, len(encoded)) + encoded)
    return with_group_length(b"".join(parts))


def encode_uid(tag: int, uid: str) -> bytes:
    """Encode an element of VR UI."""
    encoded = uid.encode("latin-1", "replace")
    encoded += b"\0" * (len(encoded) & 1)
    return _HEADER.pack(0, tag, len(encoded)) + encoded


def with_group_length(elements: bytes) -> bytes:
    """Make encoded elements a command set."""
    return _GROUP_LENGTH.pack(0, 0, 4, len(elements)) + elements


def decode_command(data: bytes) -> CommandSet:
    """Decode a command set. Unknown and retired elements are skipped; order and group length are not judged.

    A number of no length is as good as absent: devices send optional ones so, the Move Originator's in a C-STORE say.

    Raises:
        CommandError: An element leaves the command set, is not of group 0000, or a number has one byte.
    """
    command: CommandSet = {}
    at, end = 0, len(data)
    while at < end:
        if end - at < 8:
            raise CommandError(f"command set: {end - at} bytes left at byte {at}")
        group, tag, length = _HEADER.unpack_from(data, at)
        at += 8
        if group:
            raise CommandError(f"command set: element ({group:04X},{tag:04X}) at byte {at - 8}")
        if at + length > end:
            raise CommandError(f"command set: element (0000,{tag:04X}) of {length} bytes leaves the command set")
        if tag in _US_TAGS:
            if length >= 2:
                command[tag] = _US.unpack_from(data, at)[0]
            elif length:
                raise CommandError(f"command set: element (0000,{tag:04X}) of {length} bytes is no US")
        elif tag in _TEXT_TAGS:
            # latin-1 keeps every byte apart, whatever a device sends; padding is not significant (PS3.5 §6.2)
            command[tag] = data[at : at + length].decode("latin-1").strip(" \0")
        elif tag in ELEMENTS and tag != Tag.GROUP_LENGTH:
            pairs = struct.unpack_from(f"<{length // 4 * 2}H", data, at)
            command[tag] = tuple(pairs[i] << 16 | pairs[i + 1] for i in range(0, len(pairs), 2))
        at += length
    return command
