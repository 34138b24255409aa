"""C-MOVE and C-GET into a sink that only counts, and what a running C-MOVE does to others."""

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

from benchmarks.find import STUDY_ROOT_FIND, encode_identifier, find
from benchmarks.load import StoreLoad, store
from benchmarks.peers import Server, available, running
from benchmarks.query import STUDY_KEYS, STUDY_UID
from benchmarks.report import Figures, Journal, Target, percentile, table
from benchmarks.samples import identity, new_run, sample
from benchmarks.sink import Receiver, Sink, sink
from benchmarks.wire import Command, Proposal, WireError, data_pdus, encode_command
from benchmarks.workers import Start, run_workers

__all__ = ["run"]

STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
SERVERS = ("pacslite", "Orthanc", "dcmqrscp")
MEMORY_MEGABYTES = 100
FIND_MILLISECONDS = 20
_C_MOVE, _C_GET = 0x0021, 0x0010
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True)
class Study:
    """One study of ``count`` instances in every server under test."""

    number: int
    sample: str
    count: int
    faster: float  # than each of the peers

    @property
    def title(self) -> str:
        return f"{self.count:,} x {self.sample}"


STUDIES = (Study(0, "CT", 200, 2.0), Study(1, "SR", 2000, 1.0), Study(2, "1 GB", 1, 1.0))
QUICK = (Study(0, "CT", 200, 2.0), Study(1, "SR", 500, 1.0), Study(2, "200 MB", 1, 1.0))


def run(journal: Journal, folder: Path, rounds: int, quick: bool, only: Sequence[str]) -> Iterator[str]:
    studies = QUICK if quick else STUDIES
    uid_root = new_run()
    with ExitStack() as stack:
        target = stack.enter_context(sink())
        servers = []
        for peer in available([name for name in SERVERS if not only or name in only]):
            servers.append(stack.enter_context(running(peer, folder, sink_port=target.port)))
            for study in studies:
                _fill(servers[-1], study, uid_root)
        os.sync()
        several: list[tuple[Study, Figures]] = []
        for study in studies:
            for operation in ("C-MOVE", "C-GET"):
                figures = journal.figures("retrieve", f"{operation} {study.title}")
                several.append((study, figures))
                for number in range(rounds):
                    turn = number % len(servers)
                    for server in servers[turn:] + servers[:turn]:
                        _measure(operation, server, study, uid_root, target, figures)
            sample.cache_clear()
        yield _table(several, [server.peer.name for server in servers], rounds)
        beside = journal.figures("retrieve", "beside a C-MOVE")
        others = [
            server for server in servers if server.peer.name != "dcmqrscp"
        ]  # stores 6/s beside a move: no peer here
        for _ in range(rounds):
            for server in others:
                _beside(server, studies[0], uid_root, target, beside)
        journal.save()
        yield _beside_table(beside, [server.peer.name for server in others])


def _fill(server: Server, study: Study, uid_root: str) -> None:
    load = StoreLoad(study.sample, 1, study.count)
    result = store(server, load, run=uid_root, place=lambda _, n: (study.number, 0, n, 0), warm=False)
    if result.failures:
        raise RuntimeError(f"{server.peer.name} refused {result.failures} of {study.title}")


def _measure(operation: str, server: Server, study: Study, uid_root: str, target: Sink, figures: Figures) -> None:
    expected = (study.count, study.count * len(sample(study.sample).data))
    usage = server.usage()
    usage.reset()
    uid = identity(uid_root, study.number, 0, 0)["StudyInstanceUID"]
    if operation == "C-MOVE":
        before = target.instances, target.octets
        seconds, status = _move(server, uid)
        got = target.instances - before[0], target.octets - before[1]
    else:
        [(seconds, status, *rest)] = run_workers([partial(_get, server, uid)], usage=usage)
        got = rest[0], rest[1]
    usage.sample()
    exact = server.peer.name.startswith("pacslite")  # the peers write sequences anew, a report 12% shorter
    complete = (
        status == 0 and got[0] == expected[0] and (got[1] == expected[1] or (0.8 * expected[1] < got[1] and not exact))
    )
    figures.add(
        server.peer.name,
        seconds=seconds,
        rate=study.count / seconds,
        megabytes=expected[1] / seconds / 1e6,
        cpu_microseconds=usage.cpu_seconds / study.count * 1e6,
        memory=usage.peak_bytes / 1e6,
        wrong=not complete,
        instances=got[0],
        octets=got[1],
        status=status,
    )


def _request(model: str, operation: int, context_id: int, uid: str, maximum_length: int) -> bytes:
    elements: dict[int, int | str] = {0x0002: model, 0x0100: operation, 0x0110: 1, 0x0700: 0}
    if operation == _C_MOVE:
        elements[0x0600] = "SINK"
    request = data_pdus(context_id, encode_command(elements, data_set=True), 0, is_command=True)
    return request + data_pdus(context_id, encode_identifier("STUDY", {STUDY_UID: uid}), maximum_length)


def _status(command: Command) -> int:
    return int.from_bytes(command[0x0900], "little")


def _move(server: Server, uid: str) -> tuple[float, int]:
    connection = server.connect([Proposal(STUDY_ROOT_MOVE)])
    context_id, _ = connection.contexts[STUDY_ROOT_MOVE]
    began = time.perf_counter()
    connection.socket.sendall(_request(STUDY_ROOT_MOVE, _C_MOVE, context_id, uid, connection.maximum_length))
    while (status := _status(connection.read_message()[0])) == 0xFF00:
        pass
    seconds = time.perf_counter() - began
    connection.release()
    return seconds, status


def _get(server: Server, uid: str, start: Start) -> tuple[float, int, int, int]:
    classes = {sample(study.sample).sop_class_uid for study in (*STUDIES[:2], *QUICK[2:])}
    connection = server.connect([Proposal(STUDY_ROOT_GET), *(Proposal(one, scp_role=True) for one in sorted(classes))])
    context_id, _ = connection.contexts[STUDY_ROOT_GET]
    receiver = Receiver(connection.socket)
    start()
    began = time.perf_counter()
    connection.socket.sendall(_request(STUDY_ROOT_GET, _C_GET, context_id, uid, connection.maximum_length))
    status = 0xFF00
    while status == 0xFF00:
        command = receiver.next_message()
        if command is None:
            raise WireError("released in a C-GET")
        status = _status(command)
    seconds = time.perf_counter() - began
    connection.release()
    return seconds, status, receiver.instances, receiver.octets


def _table(several: Sequence[tuple[Study, Figures]], servers: Sequence[str], rounds: int) -> str:
    lines: list[list[str | float]] = []
    for study, figures in several:
        for name in servers:
            memory = figures.median(name, "memory")
            ratios: list[str | float] = ["", ""]
            if name == "pacslite":
                faster = Target(study.faster)
                ratios = [faster.judge(figures.ratio(name, other, "rate")) for other in ("Orthanc", "dcmqrscp")]
                memory_cell: str | float = Target(MEMORY_MEGABYTES, below=True, unit=" MB").judge(memory)
            else:
                memory_cell = memory
            lines.append(
                [
                    figures.load,
                    name,
                    *(figures.median(name, figure) for figure in ("rate", "megabytes", "cpu_microseconds")),
                    memory_cell,
                    *ratios,
                    "WRONG" if any(one["wrong"] for one in figures.rounds[name]) else "right",
                ]
            )
    columns = ["retrieve", "server", "instances/s", "MB/s", "CPU us each", "memory MB", ": Orthanc", ": dcmqrscp"]
    return table(f"C-MOVE and C-GET, medians of {rounds} rounds", [*columns, "outcome"], lines)


def _beside(server: Server, study: Study, uid_root: str, target: Sink, figures: Figures) -> None:
    """The same finds and stores first alone, then beside a client that moves the same study again and again."""
    load = StoreLoad("CT", 1, 200)
    alone_find = run_workers([partial(_finds, server, None)])[0]
    alone_store = store(server, load).per_second
    done = _FORK.Event()
    before, began = target.instances, time.perf_counter()
    latencies = run_workers([partial(_finds, server, done), partial(_moves, server, study, uid_root, done)])[0]
    moved = (target.instances - before) / (time.perf_counter() - began)
    done = _FORK.Event()
    mover = _FORK.Process(target=_moves, args=(server, study, uid_root, done, lambda: None), daemon=True)
    mover.start()
    time.sleep(0.1)
    beside_store = store(server, load).per_second
    done.set()
    mover.join()
    figures.add(
        server.peer.name,
        find_alone=percentile(alone_find, 99) * 1e3,
        find_beside=percentile(latencies, 99) * 1e3,
        moved=moved,
        store_alone=alone_store,
        store_beside=beside_store,
        share=beside_store / alone_store,
    )


def _finds(server: Server, done: Event | None, start: Start) -> list[float]:
    """Two hundred C-FINDs of one study, one every 5 ms."""
    connection = server.connect([Proposal(STUDY_ROOT_FIND)])
    identifier = encode_identifier("STUDY", STUDY_KEYS | {0x00100020: identity(new_run(), 1, 0, 0)["PatientID"]})
    start()
    time.sleep(0.1)
    latencies = []
    for _ in range(200):
        latencies.append(find(connection, STUDY_ROOT_FIND, identifier).total_seconds)
        time.sleep(0.005)
    if done is not None:
        done.set()
    connection.release()
    return latencies


def _moves(server: Server, study: Study, uid_root: str, done: Event, start: Start) -> list[float]:
    start()
    seconds = []
    while not done.is_set():
        seconds.append(_move(server, identity(uid_root, study.number, 0, 0)["StudyInstanceUID"])[0])
    return seconds


def _beside_table(figures: Figures, servers: Sequence[str]) -> str:
    lines: list[list[str | float]] = []
    for name in servers:
        beside, share = figures.median(name, "find_beside"), figures.median(name, "share")
        ours = name == "pacslite"
        lines.append(
            [
                name,
                figures.median(name, "find_alone"),
                Target(FIND_MILLISECONDS, below=True, unit=" ms").judge(beside) if ours else beside,
                figures.median(name, "moved"),
                figures.median(name, "store_alone"),
                figures.median(name, "store_beside"),
                Target(0.5).judge(share) if ours else share,
            ]
        )
    columns = ["server", "C-FIND p99 ms alone", "beside", "moved/s", "C-STORE CT/s alone", "beside", "share"]
    return table("Beside a running C-MOVE of 200 CT", columns, lines)
