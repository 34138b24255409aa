"""Transcoding on the fly, in worker processes: neither the loop nor another association notices a codec at work."""

import asyncio
import logging
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
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
    seconds: float = 120.0  # for one instance
    pixel_bytes: int = 1 << 30  # decoded
    memory_bytes: int = 6 << 30  # address space of a worker, libraries included


@dataclass(frozen=True, slots=True)
class Transcoded:
    """A data set in a file without a name; whoever has it closes ``fd``."""

    fd: int
    length: int


class Transcoder:
    """Starts its workers when the first instance needs one, and others when one died or had to be ended."""

    def __init__(self, options: TranscoderOptions) -> None:
        self._options = options
        self._pool: ProcessPoolExecutor | None = None

    async def transcode(self, stored: InstanceFile, transfer_syntax_uid: str) -> Transcoded:
        """The data set of ``stored`` in another, uncompressed transfer syntax.

        Raises:
            CannotTranscode: It cannot be done; the text says why.
        """
        with tempfile.TemporaryFile(dir=self._options.folder, buffering=0) as output:
            length = await self._work(stored.fd, output.fileno(), transfer_syntax_uid)
            return Transcoded(os.dup(output.fileno()), length)

    async def stop(self) -> None:
        """End the workers."""
        await asyncio.to_thread(self._end)

    # private

    async def _work(self, source: int, target: int, transfer_syntax_uid: str) -> int:
        pool = self._pool
        if pool is None:
            pool = self._pool = ProcessPoolExecutor(
                self._options.workers,
                mp_context=multiprocessing.get_context("spawn"),  # a fork would take our threads' locks along
                initializer=limit_worker,
                initargs=(self._options.memory_bytes,),
            )
        # our descriptors, as the worker may open them: what was renamed or removed meanwhile is still the same file
        descriptors = f"/proc/{os.getpid()}/fd/"
        job = asyncio.get_running_loop().run_in_executor(
            pool,
            transcode,
            f"{descriptors}{source}",
            f"{descriptors}{target}",
            transfer_syntax_uid,
            self._options.pixel_bytes,
        )
        try:
            async with asyncio.timeout(self._options.seconds):
                return await job
        except TimeoutError as error:
            await asyncio.to_thread(self._end)
            raise CannotTranscode(f"not decompressed within {self._options.seconds:g} s") from error
        except BrokenProcessPool as error:
            await asyncio.to_thread(self._end)
            raise CannotTranscode("the decoder died of it") from error

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        processes = list((getattr(pool, "_processes", None) or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
