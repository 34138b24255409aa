"""From messages to P-DATA-TF PDUs, piece by piece: a data set is never held whole (PS3.7 §6.3, PS3.8 §9.3.5)."""

from collections.abc import Mapping
from typing import TypeAlias

from pacslite.dimse.command import Value, encode_command
from pacslite.upper_layer.pdu import encode_p_data

__all__ = ["Frames", "command_frames", "data_frames", "message_frames"]

Frames: TypeAlias = list[bytes | memoryview]


def command_frames(context_id: int, command: Mapping[int, Value] | bytes, maximum_length: int) -> Frames:
    """PDUs of a command set, encoded or not; ``maximum_length`` is the peer's (bytes, 0 = no limit)."""
    encoded = command if isinstance(command, bytes) else encode_command(command)
    return encode_p_data(context_id, True, encoded, maximum_length)


def data_frames(context_id: int, data: bytes | memoryview, maximum_length: int, *, is_last: bool) -> Frames:
    """PDUs of the next piece of a data set; views of ``data`` go out uncopied, so it must stay until they are sent."""
    return encode_p_data(context_id, False, data, maximum_length, is_last)


def message_frames(
    context_id: int, command: Mapping[int, Value] | bytes, data: bytes | memoryview | None, maximum_length: int
) -> Frames:
    """PDUs of a whole message with a data set that is at hand, or none."""
    frames = command_frames(context_id, command, maximum_length)
    if data is not None:
        frames += data_frames(context_id, data, maximum_length, is_last=True)
    return frames
