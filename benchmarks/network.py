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
OPEN_SECONDS = 20.0
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
                rates.add(peer.name, started=server.started_in * 1e3, **_rates(server, 4 if quick else 1))
                idle.add(peer.name, **_idle(server))
    journal.save()
    names = [peer.name for peer in peers]
    yield _rates_table(rates, names, rounds)
    yield _idle_table(idle, names, rounds)


def _hard_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def _rates(server: Server, divisor: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    for clients in (1, 4):
        figures[f"associations_{clients}"] = _per_second(_associate, server, clients, 400 // divisor)
        figures[f"echoes_{clients}"] = _per_second(_echo, server, clients, 2000 // divisor)
    usage = server.usage()
    _per_second(_echo, server, 1, 2000 // divisor)
    figures["cpu_echo"] = usage.cpu_seconds / (2000 // divisor) * 1e6
    return figures


Client = Callable[[Server, int, Start], tuple[float, float]]


def _per_second(client: Client, server: Server, clients: int, count: int) -> float:
    times = run_workers([partial(client, server, count // clients) for _ in range(clients)])
    return count // clients * clients / (max(end for _, end in times) - min(begin for begin, _ in times))


def _associate(server: Server, count: int, start: Start) -> tuple[float, float]:
    """Associations of one echo each, with their release, one after the other."""
    start()
    began = time.perf_counter()
    for _ in range(count):
        connection = server.connect(ECHO)
        connection.echo()
        connection.release()
    return began, time.perf_counter()


def _echo(server: Server, count: int, start: Start) -> tuple[float, float]:
    connection = server.connect(ECHO)
    request = echo_request(connection.contexts[VERIFICATION][0], 1)
    start()
    began = time.perf_counter()
    for _ in range(count):
        connection.socket.sendall(request)
        connection.read_message()
    ended = time.perf_counter()
    connection.release()
    return began, ended


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
        "echoes/s, 1": "echoes_1",
        "4 at once ": "echoes_4",
        "CPU us an echo": "cpu_echo",
        "started in ms": "started",
    }
    lines: list[list[str | float]] = [
        [name, *(figures.median(name, figure) for figure in columns.values())] for name in servers
    ]
    for clients in (1, 4):
        ratio = figures.ratio("pacslite", "Orthanc", f"associations_{clients}")
        lines.append([f"pacslite : Orthanc, associations, {clients}", Target(1).judge(ratio), *[""] * 5])
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
