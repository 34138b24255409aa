"""C-FIND (PS3.4 §C.4.1) as a client that takes the time: identifiers encoded by hand, answers kept as they came."""

import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.wire import Connection, data_pdus, encode_command

__all__ = ["PATIENT_ROOT_FIND", "STUDY_ROOT_FIND", "Answers", "encode_identifier", "find", "value_of"]

PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_LEVEL = 0x00080052
_VR = {
    0x00080018: "UI",
    0x00080020: "DA",
    0x00080030: "TM",
    0x00080050: "SH",
    0x00080052: "CS",
    0x00080060: "CS",
    0x00080061: "CS",
    0x00080090: "PN",
    0x00081030: "LO",
    0x00100010: "PN",
    0x00100020: "LO",
    0x0020000D: "UI",
    0x0020000E: "UI",
    0x00200010: "SH",
    0x00200011: "IS",
    0x00200013: "IS",
    0x00201206: "IS",
    0x00201208: "IS",
}
_PENDING = (b"\x00\xff", b"\x01\xff")


@dataclass(slots=True)
class Answers:
    first_seconds: float = float("nan")  # from the request to the first pending response, or to the last response
    total_seconds: float = float("nan")
    status: int = 0
    identifiers: list[bytes] = field(default_factory=list)


def encode_identifier(level: str, keys: Mapping[int, str]) -> bytes:
    """Explicit VR Little Endian, in ascending order of tags."""
    out = b""
    for tag, value in sorted({**keys, _LEVEL: level}.items()):
        vr = _VR[tag]
        raw = value.encode()
        raw += (b"\0" if vr == "UI" else b" ") * (len(raw) % 2)
        out += struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(raw)) + raw
    return out


def find(
    connection: Connection, model: str, identifier: bytes, message_id: int = 1, *, cancels: bool = False
) -> Answers:
    """One C-FIND to its end; ``cancels``: asked for with C-CANCEL once the first answer is there."""
    context_id, _ = connection.contexts[model]
    command = encode_command({0x0002: model, 0x0100: 0x0020, 0x0110: message_id, 0x0700: 0}, data_set=True)
    request = data_pdus(context_id, command, 0, is_command=True)
    request += data_pdus(context_id, identifier, connection.maximum_length)
    answers = Answers()
    began = time.perf_counter()
    connection.socket.sendall(request)
    command_set, data_set = connection.read_message()
    answers.first_seconds = time.perf_counter() - began
    if cancels and command_set[0x0900] in _PENDING:
        cancel = encode_command({0x0100: 0x0FFF, 0x0120: message_id}, data_set=False)
        connection.socket.sendall(data_pdus(context_id, cancel, 0, is_command=True))
    while command_set[0x0900] in _PENDING:
        answers.identifiers.append(data_set)
        command_set, data_set = connection.read_message()
    answers.total_seconds = time.perf_counter() - began
    answers.status = int.from_bytes(command_set[0x0900], "little")
    return answers


def value_of(identifier: bytes, tag: int) -> str:
    """The value of a top-level element with a short length; empty where it is missing."""
    at = identifier.find(struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, _VR[tag].encode()))
    if at < 0:
        return ""
    length = int.from_bytes(identifier[at + 6 : at + 8], "little")
    return identifier[at + 8 : at + 8 + length].rstrip(b"\0 ").decode()
