"""Transcoding on the fly, in worker processes: neither the loop nor another association notices a codec at work."""

import asyncio
import logging
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from pacslite.archive.instances.protocol import InstanceFile
from pacslite.dataset.transcode import CannotTranscode, limit_worker, transcode

__all__ = ["Transcoded", "Transcoder", "TranscoderOptions"]

log = logging.getLogger("pacslite.transcode")


@dataclass(frozen=True, slots=True)
class TranscoderOptions:
    """Bounds of the workers; what goes beyond fails alone.

    ``folder`` takes the decoded data sets, in files without a name.
    """

    folder: Path
    workers: int = 1
    seconds: float = 120.0  # for one instance, from when a worker has it
    pixel_bytes: int = 1 << 30  # decoded
    memory_bytes: int = 6 << 30  # address space of a worker, libraries included


@dataclass(frozen=True, slots=True)
class Transcoded:
    """A data set in a file without a name; whoever has it closes ``fd``."""

    fd: int
    length: int


class Transcoder:
    """Starts its workers when instances need them, and others for those that died or had to be ended.

    Each worker is a pool of its own, for a pool of several dies as a whole: an instance takes nobody along.
    """

    def __init__(self, options: TranscoderOptions) -> None:
        self._options = options
        self._free = asyncio.Semaphore(options.workers)
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._stopping = False

    async def transcode(self, stored: InstanceFile, transfer_syntax_uid: str) -> Transcoded:
        """The data set of ``stored`` in another, uncompressed transfer syntax.

        Raises:
            CannotTranscode: It cannot be done; the text says why.
        """
        async with self._free:  # the time limit is of the work, not of waiting for a worker
            with tempfile.TemporaryFile(dir=self._options.folder, buffering=0) as output:
                try:
                    length = await self._work(stored.fd, output.fileno(), transfer_syntax_uid)
                except TimeoutError as error:
                    raise CannotTranscode(f"not decompressed within {self._options.seconds:g} s") from error
                except BrokenProcessPool as error:
                    raise CannotTranscode("the decoder died of it") from error
                except _WorkerError as error:
                    log.error("a decoder has failed", exc_info=error.__cause__)
                    raise CannotTranscode(f"the decoder failed: {error}") from error
                return Transcoded(os.dup(output.fileno()), length)

    async def stop(self) -> None:
        """End the workers, and start no others."""
        self._stopping = True
        self._idle.clear()
        for worker in list(self._workers):
            await self._end(worker)

    # private

    async def _work(self, source: int, target: int, transfer_syntax_uid: str) -> int:
        if self._idle:
            try:
                return await self._work_with(self._idle.pop(), source, target, transfer_syntax_uid)
            except BrokenProcessPool:  # while it was idle, perhaps: where memory is short, the kernel ends the largest
                if not self._stopping:
                    log.warning("a decoder has died")
        return await self._work_with(self._start(), source, target, transfer_syntax_uid)

    async def _work_with(self, worker: "_Worker", source: int, target: int, transfer_syntax_uid: str) -> int:
        try:
            async with asyncio.timeout(self._options.seconds):
                length = await worker.transcode(source, target, transfer_syntax_uid, self._options.pixel_bytes)
        except CannotTranscode:
            self._idle.append(worker)
            raise
        except BaseException:  # it is dead, or takes too long, or nobody waits for it any more
            await self._end(worker)
            raise
        self._idle.append(worker)
        return length

    def _start(self) -> "_Worker":
        if self._stopping:
            raise CannotTranscode("the server is stopping")
        worker = _Worker(self._options.memory_bytes)
        self._workers.add(worker)
        return worker

    async def _end(self, worker: "_Worker") -> None:
        worker.kill()  # at once: whoever awaited it closes its files, and others are given their descriptors
        self._workers.discard(worker)
        await asyncio.to_thread(worker.join)


class _WorkerError(Exception):
    """A worker raised what nobody has thought of; the text names it."""


class _Worker:
    """A process, for one instance at a time."""

    def __init__(self, memory_bytes: int) -> None:
        self._pool = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),  # a fork would take our threads' locks along
            initializer=limit_worker,
            initargs=(memory_bytes,),
        )
        self._processes: list[BaseProcess] = []

    async def transcode(self, source: int, target: int, transfer_syntax_uid: str, pixel_bytes: int) -> int:
        """``dataset.transcode`` between two files of ours, given by their descriptors.

        Raises:
            CannotTranscode: As ``dataset.transcode`` does.
            BrokenProcessPool: The process is dead.
            _WorkerError: Anything else went wrong in it.
        """
        # our descriptors, as the worker may open them: what was renamed or removed meanwhile is still the same file
        descriptors = f"/proc/{os.getpid()}/fd/"
        arguments = (f"{descriptors}{source}", f"{descriptors}{target}", transfer_syntax_uid, pixel_bytes)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, transcode, *arguments)
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise BrokenProcessPool("ended before it had begun") from cancelled  # not our task was cancelled: the job
        except (CannotTranscode, BrokenProcessPool, GeneratorExit):
            raise
        except BaseException as error:  # Ctrl-C too: it ends a worker's work, not our loop
            raise _WorkerError(type(error).__name__) from error

    def kill(self) -> None:
        self._processes += (getattr(self._pool, "_processes", None) or {}).values()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()

    def join(self) -> None:
        """Wait until it is gone."""
        for process in self._processes:
            process.join()
