"""Load from several processes at once: all are made ready first, then started together.

Processes are forked, so that what the parent has encoded (up to 1 GB) is shared and costs nothing to hand over.
"""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

from benchmarks.processes import Usage

__all__ = ["LoadError", "Start", "run_workers"]

SAMPLE_SECONDS = 0.05
_FORK = multiprocessing.get_context("fork")

Result = TypeVar("Result")
Start = Callable[[], None]  # a worker calls it when it is ready; it returns when all are


class LoadError(Exception):
    """A worker failed, or did not end in time."""


class _Worker(Generic[Result]):
    def __init__(self, job: Callable[[Start], Result]) -> None:
        self.pipe, theirs = _FORK.Pipe()
        self.process = _FORK.Process(target=_main, args=(job, theirs), daemon=True)
        self.process.start()
        theirs.close()


def _main(job: Callable[[Start], object], pipe: Connection) -> None:
    def start() -> None:
        pipe.send(("ready", None))
        pipe.recv()

    try:
        pipe.send(("result", job(start)))
    except Exception as error:
        pipe.send(("error", f"{type(error).__name__}: {error}"))


def run_workers(
    jobs: Sequence[Callable[[Start], Result]], *, usage: Usage | None = None, seconds: float = 300.0
) -> list[Result]:
    """Run each job in a process of its own and give their results in order; ``usage`` is sampled meanwhile."""
    deadline = time.monotonic() + seconds
    workers = [_Worker(job) for job in jobs]
    try:
        _collect(workers, "ready", deadline, None)
        for worker in workers:
            worker.pipe.send(None)
        return _collect(workers, "result", deadline, usage)
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.process.join()
            worker.pipe.close()


def _collect(workers: Sequence[_Worker[Result]], wanted: str, deadline: float, usage: Usage | None) -> list[Result]:
    waiting = {worker.pipe: number for number, worker in enumerate(workers)}
    answers: dict[int, Result] = {}
    while waiting:
        if time.monotonic() > deadline:
            raise LoadError(f"{len(waiting)} of {len(workers)} clients did not end in time")
        for pipe in wait(list(waiting), SAMPLE_SECONDS):
            assert isinstance(pipe, Connection)
            kind, value = pipe.recv()
            if kind != wanted:
                raise LoadError(f"a client ended early: {value}")
            answers[waiting.pop(pipe)] = value
        if usage is not None:
            usage.sample()
    return [answers[number] for number in range(len(workers))]
