"""The upper layer under load: associations and echoes a second, and what an idle association costs."""

import math
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.peers import Server, available, running
from benchmarks.processes import proportional_set
from benchmarks.report import Figures, Journal, Target, percentile, table
from benchmarks.wire import VERIFICATION, Connection, Proposal, WireError, echo_request
from benchmarks.workers import Start, run_workers

__all__ = ["run"]

SERVERS = ("pacslite", "Orthanc", "dcmqrscp", "pynetdicom")
IDLE = (100, 500, 1000)
IDLE_KILOBYTES = 50
OPEN_SECONDS = 10.0
ECHO_SECONDS = 5.0
ECHO = [Proposal(VERIFICATION)]


def run(journal: Journal, folder: Path, rounds: int, quick: bool, only: Sequence[str]) -> Iterator[str]:
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, _hard_limit()), _hard_limit()))
    peers = available([name for name in SERVERS if not only or name in only])
    rates, idle = journal.figures("network", "rates"), journal.figures("network", "idle associations")
    for number in range(rounds):
        turn = number % len(peers)
        for peer in peers[turn:] + peers[:turn]:
            with running(peer, folder, associations=IDLE[-1]) as server:
                rates.add(peer.name, started=server.started_in * 1e3, **_rates(server, 0.3 if quick else 1.0))
            with running(peer, folder, associations=IDLE[-1]) as server:  # a fresh one: memory freed would be counted
                idle.add(peer.name, **_idle(server))
    journal.save()
    names = [peer.name for peer in peers]
    yield _rates_table(rates, names, rounds)
    yield _idle_table(idle, names, rounds)


def _hard_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def _rates(server: Server, seconds: float) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, client in {"associations": _associate, "echoes": _echo}.items():
        for clients in (1, 4):
            usage = server.usage()
            rate, count = _per_second(client, server, clients, seconds)
            figures[f"{name}_{clients}"] = rate
            figures[f"{name}_{clients}_cpu"] = usage.cpu_seconds / count * 1e6
    return figures


Client = Callable[[Server, float, Start], int]


def _per_second(client: Client, server: Server, clients: int, seconds: float) -> tuple[float, int]:
    count = sum(run_workers([partial(client, server, seconds) for _ in range(clients)]))
    return count / seconds, count


def _associate(server: Server, seconds: float, start: Start) -> int:
    """Associations of one echo each, with their release, one after the other."""
    start()
    count = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        connection = server.connect(ECHO)
        connection.echo()
        connection.release()
        count += 1
    return count


def _echo(server: Server, seconds: float, start: Start) -> int:
    connection = server.connect(ECHO)
    request = echo_request(connection.contexts[VERIFICATION][0], 1)
    start()
    count = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        connection.socket.sendall(request)
        connection.read_message()
        count += 1
    connection.release()
    return count


def _idle(server: Server) -> dict[str, float]:
    """Memory an association (proportional set, so that what forked processes share counts once), and echoes beside."""
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        active = server.connect(ECHO)
        figures["echo_p50_0"], figures["echo_p99_0"] = _latencies(active)
        empty = proportional_set(server.process.pid)
        opened: list[Connection] = []
        deadline = time.monotonic() + OPEN_SECONDS
        for count in IDLE:
            try:
                while len(opened) < count and time.monotonic() < deadline:
                    opened.append(server.connect(ECHO))
                    stack.callback(opened[-1].socket.close)
            except (OSError, WireError):
                break
            if len(opened) < count:
                break
            time.sleep(0.3)
            figures[f"kilobytes_{count}"] = (proportional_set(server.process.pid) - empty) / count / 1e3
        figures["opened"] = len(opened)
        active.socket.settimeout(ECHO_SECONDS)
        try:
            figures["echo_p50"], figures["echo_p99"] = _latencies(active)
        except (OSError, WireError):  # Orthanc's four threads wait a second at each idle association
            figures["echo_p50"] = figures["echo_p99"] = math.inf
        active.socket.close()
    return figures


def _latencies(connection: Connection) -> tuple[float, float]:
    latencies = []
    for _ in range(300):
        began = time.perf_counter()
        connection.echo()
        latencies.append((time.perf_counter() - began) * 1e3)
        time.sleep(0.001)
    return percentile(latencies, 50), percentile(latencies, 99)


def _rates_table(figures: Figures, servers: Sequence[str], rounds: int) -> str:
    columns = {
        "associations/s, 1": "associations_1",
        "4 at once": "associations_4",
        "CPU us each": "associations_4_cpu",
        "echoes/s, 1": "echoes_1",
        "4 at once ": "echoes_4",
        "CPU us each ": "echoes_4_cpu",
        "started in ms": "started",
    }
    lines: list[list[str | float]] = [
        [name, *(figures.median(name, figure) for figure in columns.values())] for name in servers
    ]
    for clients in (1, 4):
        ratio = figures.ratio("pacslite", "Orthanc", f"associations_{clients}")
        lines.append([f"pacslite : Orthanc, associations, {clients}", Target(1).judge(ratio), *[""] * 6])
    return table(f"Associations (with one echo) and echoes, medians of {rounds} rounds", ["server", *columns], lines)


def _idle_table(figures: Figures, servers: Sequence[str], rounds: int) -> str:
    lines: list[list[str | float]] = []
    for name in servers:
        memory: list[str | float] = [figures.median(name, f"kilobytes_{count}") for count in IDLE]
        beside: str | float = figures.median(name, "echo_p50")
        if name == "pacslite":
            limit = Target(IDLE_KILOBYTES, below=True, unit=" KB")
            memory[-1] = limit.judge(figures.median(name, f"kilobytes_{IDLE[-1]}"))
            beside = Target(figures.median("Orthanc", "echo_p50"), below=True, unit=" ms").judge(
                figures.median(name, "echo_p50")
            )
        alone = (figures.median(name, "echo_p50_0"), figures.median(name, "echo_p99_0"))
        lines.append([name, figures.median(name, "opened"), *memory, *alone, beside, figures.median(name, "echo_p99")])
    sizes = [f"KB each at {count}" for count in IDLE]
    columns = ["server", "opened", *sizes, "echo p50 ms", "p99", "p50 beside idle", "p99 beside idle"]
    return table(f"Idle associations, medians of {rounds} rounds", columns, lines)
