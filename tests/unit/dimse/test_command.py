"""Command sets: PS3.7 §6.3.1 and Annex E."""

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacslite.dimse.command import ELEMENTS, CommandError, Tag, Value, decode_command, encode_command

# Written from PS3.7 Table E.1-1 and PS3.5 §7.1.3, not from our encoder: tag, length, value, little endian
ECHO_REQUEST = bytes.fromhex(
    "0000 0000 04000000 38000000"  # (0000,0000) 56 bytes follow
    "0000 0200 12000000 312e322e3834302e31303030382e312e3100"  # (0000,0002) 1.2.840.10008.1.1, padded by NUL
    "0000 0001 02000000 3000"  # (0000,0100) C-ECHO-RQ
    "0000 1001 02000000 0700"  # (0000,0110) message 7
    "0000 0008 02000000 0101"  # (0000,0800) no data set
)
ECHO: dict[int, Value] = {
    Tag.AFFECTED_SOP_CLASS_UID: "1.2.840.10008.1.1",
    Tag.COMMAND_FIELD: 0x30,
    Tag.MESSAGE_ID: 7,
    Tag.COMMAND_DATA_SET_TYPE: 0x0101,
}


def element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def test_vector_of_the_standard_tables() -> None:
    assert encode_command(ECHO) == ECHO_REQUEST
    assert decode_command(ECHO_REQUEST) == ECHO


def _values(vr: str) -> st.SearchStrategy[Value]:
    if vr == "US":
        return st.integers(0, 65_535)
    if vr == "AT":
        return st.lists(st.integers(0, 0xFFFFFFFF), min_size=1, max_size=5).map(tuple)
    if vr == "UI":
        return st.from_regex(r"[0-9]{1,5}(\.[0-9]{1,5}){0,9}", fullmatch=True)
    printed = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\")  # PS3.5 §6.2: it parts values
    return st.text(printed, min_size=1, max_size=64 if vr == "LO" else 16)


COMMANDS = st.fixed_dictionaries(
    {}, optional={tag: _values(one.vr) for tag, one in ELEMENTS.items() if tag != Tag.GROUP_LENGTH}
)


@settings(deadline=None)
@given(COMMANDS)
def test_round_trip(command: dict[int, Value]) -> None:
    encoded = encode_command(command)
    assert decode_command(encoded) == command
    (length,) = struct.unpack_from("<I", encoded, 8)
    assert length == len(encoded) - 12


@settings(deadline=None)
@given(COMMANDS)
def test_tags_ascend_and_lengths_are_even(command: dict[int, Value]) -> None:
    encoded = encode_command(command)
    at, tags = 0, []
    while at < len(encoded):
        _, tag, length = struct.unpack_from("<HHI", encoded, at)
        tags.append(tag)
        assert length % 2 == 0
        at += 8 + length
    assert tags == sorted(set(tags))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_decode_or_raise_the_codecs_own_error(data: bytes) -> None:
    with contextlib.suppress(CommandError):
        decode_command(data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\0\0\0\1", "4 bytes left at byte 0"),
        (element(0x00080016, b"1.2 "), r"element \(0008,0016\) at byte 0"),
        (element(Tag.STATUS, b"\0\0")[:-1], r"\(0000,0900\) of 2 bytes leaves the command set"),
        (element(Tag.STATUS, b"\0"), r"\(0000,0900\) of 1 bytes is no US"),
    ],
)
def test_what_is_no_command_set_is_told(data: bytes, problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        decode_command(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (element(0x00000001, b"abcd") + element(Tag.STATUS, b"\0\0"), {Tag.STATUS: 0}),  # E.2: retired, skipped
        (element(Tag.MOVE_DESTINATION, b" WS7\0"), {Tag.MOVE_DESTINATION: "WS7"}),  # PS3.5 §6.2: padding
        (element(Tag.AFFECTED_SOP_CLASS_UID, b"1.2 "), {Tag.AFFECTED_SOP_CLASS_UID: "1.2"}),  # a UID padded by a space
        (element(Tag.MOVE_ORIGINATOR_MESSAGE_ID, b"") + element(Tag.STATUS, b"\0\0"), {Tag.STATUS: 0}),  # as if absent
        (element(Tag.STATUS, b"\1\0\2\0"), {Tag.STATUS: 1}),  # VM 1: the first of two
        (element(Tag.OFFENDING_ELEMENT, b"\x10\0\x20\0\1"), {Tag.OFFENDING_ELEMENT: (0x00100020,)}),  # half a tag
        (element(Tag.ERROR_COMMENT, b"\xe4"), {Tag.ERROR_COMMENT: "\xe4"}),  # not ASCII: kept, never an error
    ],
)
def test_what_devices_send_is_understood(data: bytes, expected: dict[int, Value]) -> None:
    assert decode_command(data) == expected


@pytest.mark.parametrize(
    ("tag", "value", "encoded"),
    [
        (Tag.ERROR_COMMENT, "x" * 70, b"x" * 64),  # LO: 64 characters
        (Tag.ERROR_COMMENT, "ä", b"? "),
        (Tag.ERROR_COMMENT, "A\r\nB\\C\x1b[1m", b"A??B?C?[1m"),  # PS3.5 §6.2: LO has no control characters
        (Tag.AFFECTED_SOP_INSTANCE_UID, "1.2\xe4", b"1.2\xe4"),  # goes back as it came
        (Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE, "\u20ac\xe4", b"?\xe4"),
        (Tag.MOVE_DESTINATION, "A" * 20, b"A" * 16),
        (Tag.OFFENDING_ELEMENT, 0x00100020, b"\x10\0\x20\0"),
    ],
)
def test_values_are_cut_to_what_their_vr_allows(tag: int, value: Value, encoded: bytes) -> None:
    assert encode_command({tag: value})[20:] == encoded
