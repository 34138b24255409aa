"""The C-STORE load generator: associations whose PDUs were encoded beforehand.

Of each instance only the identifying fields are overwritten in the first PDUs; the rest is one buffer shared by all
processes, handed to the kernel in one gathered write. An instance costs the generator about 30 us besides that write.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.peers import Server
from benchmarks.processes import Usage
from benchmarks.samples import Sample, identity, new_run, sample
from benchmarks.wire import Connection, Proposal, data_pdus, encode_command
from benchmarks.workers import Start, run_workers

__all__ = ["Frames", "Place", "StoreLoad", "StoreResult", "encode_frames", "series_of", "store"]

Place = tuple[int, int, int, int]  # numbers of study, series, instance, and of the day of the study
_FIXED = 6 + 6  # PDU header, PDV header


@dataclass(slots=True)
class Frames:
    """A C-STORE-RQ and its data set as P-DATA-TF PDUs: the part that changes, the part that does not."""

    head: bytearray
    tail: bytes
    slots: dict[str, list[int]]

    def fill(self, fields: dict[str, str]) -> None:
        for name, value in fields.items():
            for at in self.slots[name]:
                self.head[at : at + len(value)] = value.encode()


def encode_frames(source: Sample, context_id: int, maximum_length: int) -> Frames:
    """Encode once what is sent many times; the header of a sample has to fit the first data PDU."""
    sop_instance_uid = source.data[source.fields["SOPInstanceUID"] :].partition(b"\x08\x00")[0].rstrip(b"\0").decode()
    command = encode_command(
        {0x0002: source.sop_class_uid, 0x0100: 0x0001, 0x0110: 1, 0x0700: 0, 0x1000: sop_instance_uid}, data_set=True
    )
    command_pdu = data_pdus(context_id, command, 0, is_command=True)
    data = data_pdus(context_id, source.data, maximum_length)
    first = _FIXED + min(len(source.data), ((maximum_length or 1 << 20) - 6) & ~1)
    if max(source.fields.values()) + 64 > first:
        raise ValueError(f"{source.name}: a PDU of {maximum_length} is too small for its header")
    slots = {name: [len(command_pdu) + _FIXED + at] for name, at in source.fields.items()}
    slots["SOPInstanceUID"].append(command_pdu.index(sop_instance_uid.encode()))
    return Frames(bytearray(command_pdu + data[:first]), data[first:], slots)


@dataclass(frozen=True, slots=True)
class StoreLoad:
    sample: str
    associations: int
    instances: int  # per association

    @property
    def total(self) -> int:
        return self.associations * self.instances


@dataclass(slots=True)
class StoreResult:
    seconds: float
    instances: int
    bytes: int
    failures: int
    latencies: list[float]

    @property
    def per_second(self) -> float:
        return self.instances / self.seconds

    @property
    def megabytes_per_second(self) -> float:
        return self.bytes / self.seconds / 1e6


def series_of(length: int) -> Callable[[int, int], Place]:
    """Each association sends one study, in series of ``length`` instances."""
    return lambda association, number: (association, number // length, number % length, 0)


def store(
    server: Server,
    load: StoreLoad,
    *,
    run: str | None = None,
    place: Callable[[int, int], Place] | None = None,
    usage: Usage | None = None,
    warm: bool = True,
) -> StoreResult:
    """Send ``load`` to ``server``; the clock runs from the common start to the last answer.

    ``place`` tells where the nth instance of an association belongs; without it: a study each, in series of 200.
    """
    source = sample(load.sample)
    job = partial(_send, server, source, load.instances, run or new_run(), place or series_of(200), warm)
    parts = run_workers([partial(job, number) for number in range(load.associations)], usage=usage)
    return StoreResult(
        seconds=max(part.ended for part in parts) - min(part.started for part in parts),
        instances=load.total,
        bytes=load.total * len(source.data),
        failures=sum(part.failures for part in parts),
        latencies=[latency for part in parts for latency in part.latencies],
    )


@dataclass(slots=True)
class _Part:
    started: float
    ended: float
    failures: int
    latencies: list[float]


def _send(
    server: Server,
    source: Sample,
    instances: int,
    run: str,
    place: Callable[[int, int], Place],
    warm: bool,
    association: int,
    start: Start,
) -> _Part:
    connection = server.connect([Proposal(source.sop_class_uid, (source.transfer_syntax,))])
    context_id, _ = connection.contexts[source.sop_class_uid]
    frames = encode_frames(source, context_id, connection.maximum_length)
    connection.socket.settimeout(None)  # a write blocks until all is taken; the parent has the clock
    if warm:
        frames.fill(identity(run, 9_000_000 + association, 0, 0))
        _send_one(connection, frames)
    fields = [_fields(run, place(association, number)) for number in range(instances)]
    start()
    started = time.perf_counter()
    latencies, failures = _send_all(connection, frames, fields)
    ended = time.perf_counter()
    connection.release()
    return _Part(started, ended, failures, latencies)


def _fields(run: str, where: Place) -> dict[str, str]:
    study, series, instance, day = where
    return identity(run, study, series, instance, day=day)


def _send_all(connection: Connection, frames: Frames, fields: Sequence[dict[str, str]]) -> tuple[list[float], int]:
    latencies = []
    failures = 0
    for one in fields:
        began = time.perf_counter()
        frames.fill(one)
        failures += _send_one(connection, frames) != b"\0\0"
        latencies.append(time.perf_counter() - began)
    return latencies, failures


def _send_one(connection: Connection, frames: Frames) -> bytes:
    """One C-STORE; gives the status as it came (little endian)."""
    sent = connection.socket.sendmsg([frames.head, frames.tail])
    if sent < len(frames.head):
        connection.socket.sendall(memoryview(frames.head)[sent:])
        sent = len(frames.head)
    if sent < len(frames.head) + len(frames.tail):
        connection.socket.sendall(memoryview(frames.tail)[sent - len(frames.head) :])
    command, _ = connection.read_message()
    return command[0x0900]
