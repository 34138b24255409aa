"""The outbox's own thread: whatever touches its file, or the index for it, runs there in the order of the calls."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["Offload"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Offload:
    """One thread, named ``name``."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """Run ``function`` in the thread. Once begun it ends, even if who waits for it is cancelled."""
        return await asyncio.wrap_future(self._executor.submit(function, *args, **kwargs))

    async def stop(self) -> None:
        """Wait for what is running, forget what is not."""
        await asyncio.get_running_loop().run_in_executor(None, self._stop)

    def _stop(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
