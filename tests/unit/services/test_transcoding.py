"""Workers that hang, die or are killed: one instance fails by it, and nobody else notices."""

import asyncio
import multiprocessing
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pacslite.archive.instances.protocol import InstanceFile
from pacslite.dataset.transcode import CannotTranscode
from pacslite.services import transcoding
from pacslite.services.transcoding import Transcoder, TranscoderOptions
from tests.support import decoders

Send = Callable[[str], Coroutine[Any, Any, str]]


@pytest.fixture(autouse=True)
def obedient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcoding, "transcode", decoders.obey)


@asynccontextmanager
async def transcoder(folder: Path, seconds: float = 60, workers: int = 1) -> AsyncIterator[tuple[Transcoder, Send]]:
    """With a decoder that has worked, and who sends an instance that makes it do something; gives what went wrong."""
    one = Transcoder(TranscoderOptions(folder=folder, workers=workers, seconds=seconds))
    (folder / "stored").write_bytes(b"")
    fd = os.open(folder / "stored", os.O_RDONLY)
    stored = InstanceFile(fd, "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.5", 0, 0, None)

    async def send(orders: str) -> str:
        try:
            transcoded = await one.transcode(stored, orders)
        except CannotTranscode as error:
            return str(error)
        assert os.fstat(transcoded.fd).st_size == transcoded.length == decoders.LENGTH
        os.close(transcoded.fd)
        return ""

    try:
        await asyncio.gather(*(send("0") for _ in range(workers)))
        yield one, send
    finally:
        await one.stop()
        os.close(fd)
    async with asyncio.timeout(10):
        while multiprocessing.active_children():  # whose end the pool's own thread may be about to note
            await asyncio.sleep(0.01)


async def test_decoder_that_was_killed_while_idle_fails_nothing(tmp_path: Path) -> None:
    """The kernel ends the largest process where memory is short."""
    async with transcoder(tmp_path) as (_, send):
        (idle,) = multiprocessing.active_children()
        idle.kill()
        idle.join()
        assert [await send("0") for _ in range(3)] == [""] * 3


async def test_decoder_that_dies_of_an_instance_fails_no_other(tmp_path: Path) -> None:
    async with transcoder(tmp_path) as (_, send):
        outcomes = await asyncio.gather(*(send(orders) for orders in ("0", "die", "0", "die", "0")))
        assert outcomes == ["", "the decoder died of it", "", "the decoder died of it", ""]


@pytest.mark.parametrize("name", ["ArithmeticError", "SystemExit", "KeyboardInterrupt"])
async def test_decoder_that_raises_anything_fails_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Ctrl-C, too, comes to the workers of a server in the foreground."""
    async with transcoder(tmp_path) as (_, send):
        outcomes = await asyncio.gather(*(send(orders) for orders in ("0", name, "0")))
        assert outcomes == ["", f"the decoder failed: {name}", ""]
    (record,) = [record for record in caplog.records if record.name == "pacslite.transcode"]
    assert record.levelname == "ERROR"
    assert record.exc_info


async def test_waiting_for_a_worker_is_not_counted(tmp_path: Path) -> None:
    async with transcoder(tmp_path, seconds=1.5) as (_, send):
        assert await asyncio.gather(*(send("0.5") for _ in range(5))) == [""] * 5


@pytest.mark.parametrize(("workers", "orders"), [(1, "0.5"), (2, "2.2")])
async def test_decoder_that_hangs_fails_no_other(tmp_path: Path, workers: int, orders: str) -> None:
    """Neither what waits for it nor what another decodes meanwhile."""
    async with transcoder(tmp_path, seconds=4, workers=workers) as (_, send):
        outcomes = await asyncio.gather(*(send(each) for each in ("600", orders, orders, "0")))
        assert outcomes == ["not decompressed within 4 s", "", "", ""]


async def test_what_is_given_up_is_decoded_no_further(tmp_path: Path) -> None:
    """Its worker would open a descriptor that by then may be another file's."""
    async with transcoder(tmp_path) as (_, send):
        (worker,) = multiprocessing.active_children()
        task = asyncio.create_task(send("600"))
        waiting = asyncio.create_task(send("0"))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not worker.is_alive()
        assert await waiting == ""


async def test_the_end_of_the_server_cancels_nobody(tmp_path: Path) -> None:
    async with transcoder(tmp_path) as (one, send):
        tasks = [asyncio.create_task(send("600")) for _ in range(3)]
        await asyncio.sleep(0.2)
        await one.stop()
        assert await asyncio.gather(*tasks) == ["the server is stopping"] * 3
