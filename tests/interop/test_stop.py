"""SIGTERM: nothing that does not run an operation holds up the stop, and what runs ends or is aborted in time."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.exchange import QUERY_CONTEXTS, identifier, send_instances
from tests.support.instances import make_instance
from tests.support.processes import Pacslite, ServerFactory, free_port, wait_for_port
from tests.support.storage_scp import StorageScp
from tests.support.wire import CT_IMAGE, STUDY_ROOT_MOVE, AbortedError, Context, Wire

SOON = 3.0


async def _stop_seconds(server: Pacslite) -> float:
    started = time.monotonic()
    await asyncio.to_thread(server.stop)
    return time.monotonic() - started


async def test_idle_server(new_server: ServerFactory) -> None:
    server = new_server()
    server.start()
    assert await _stop_seconds(server) < SOON


async def test_while_it_starts(new_server: ServerFactory) -> None:
    """From the moment it listens SIGTERM is an orderly end."""
    server = new_server()
    for _ in range(3):
        server.launch()
        await asyncio.to_thread(wait_for_port, server.port, server.process)
        assert await _stop_seconds(server) < SOON


# What replaces its standard output, before it is executed
_FULL_DISK = "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
_NOBODY_READS = "read, write = os.pipe(); os.close(read); os.dup2(write, 1)"


@pytest.mark.parametrize("output", [_FULL_DISK, _NOBODY_READS], ids=["full", "closed"])
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
async def test_a_greeting_that_cannot_be_written(new_server: ServerFactory, output: str, unbuffered: str) -> None:
    """It serves all the same, and nothing of the greeting is left for the end to fail at."""
    server = new_server()
    server.prefix = [sys.executable, "-c", f"import os, sys; {output}; os.execv(sys.argv[1], sys.argv[1:])"]
    server.env = {"PYTHONUNBUFFERED": unbuffered}
    server.start()
    wire = await Wire.associate(server.port, QUERY_CONTEXTS)
    assert await wire.echo() == 0
    wire.close()
    assert await _stop_seconds(server) < SOON
    assert "Exception ignored" not in server.text()


async def test_a_greeting_that_cannot_be_encoded(new_server: ServerFactory, tmp_path: Path) -> None:
    server = new_server(tmp_path / os.fsdecode(b"\xc3\xa9\xff"))
    server.env = {"PYTHONIOENCODING": "ascii"}
    server.start()
    assert await _stop_seconds(server) < SOON
    assert r"\xe9\udcff" in server.text()


async def test_idle_association_is_aborted(new_server: ServerFactory) -> None:
    """It runs no operation; a modality that keeps its association open for hours must not keep us."""
    server = new_server()
    server.start()
    wire = await Wire.associate(server.port, QUERY_CONTEXTS)
    assert await wire.echo() == 0
    assert await _stop_seconds(server) < SOON
    with pytest.raises(AbortedError):
        await wire.read_pdu()
    wire.close()


async def test_connection_without_association(new_server: ServerFactory) -> None:
    server = new_server()
    server.start()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await asyncio.sleep(0.1)
    assert await _stop_seconds(server) < SOON
    writer.close()


async def test_released_peer_that_does_not_close(new_server: ServerFactory) -> None:
    """It is in Sta13 and has ARTIM's 30 s; a stop does not wait for it."""
    server = new_server()
    server.start()
    wire = await Wire.associate(server.port, QUERY_CONTEXTS)
    await wire.release()
    assert await _stop_seconds(server) < SOON
    wire.close()


async def test_destination_that_does_not_answer_a_release(new_server: ServerFactory) -> None:
    """The association that is kept for the next C-MOVE is released or aborted, whatever the other side does."""
    server = new_server()
    port = free_port()
    server.remotes = [{"ae_title": "SILENT", "host": "127.0.0.1", "port": port}]
    server.start()
    instance = make_instance(1, seed=20)
    await send_instances(server.port, [instance])
    async with StorageScp(port, ignore_release=True), await Wire.associate(server.port, QUERY_CONTEXTS) as wire:
        key = identifier("STUDY", StudyInstanceUID=instance.study_uid)
        *_, final = await wire.move(STUDY_ROOT_MOVE, key, "SILENT")
        assert final.status == 0
        await wire.release()
        wire.close()
        assert await _stop_seconds(server) < SOON


@pytest.mark.parametrize("drain_seconds", [1, 20])
async def test_running_store_may_end(new_server: ServerFactory, drain_seconds: int) -> None:
    """Within the configured time it ends and is answered; after it it is aborted."""
    settings: Mapping[str, object] = {"drain_seconds": drain_seconds}
    server = new_server(timeouts=settings)
    server.start()
    wire = await Wire.associate(server.port, [Context(1, CT_IMAGE)])
    instance = make_instance(1, seed=21, size=400_000)
    uid = instance.sop_instance_uid.encode()
    command = {0x0002: CT_IMAGE.encode() + b"\0", 0x0100: b"\x01\0", 0x0110: b"\x01\0", 0x0700: b"\0\0"}
    await wire.send(1, {**command, 0x1000: uid + b"\0" * (len(uid) % 2), 0x0800: b"\0\0"})
    await wire.send_part(1, instance.data[:200_000])
    await asyncio.sleep(0.1)
    stopping = asyncio.create_task(_stop_seconds(server))
    await asyncio.sleep(2)
    if drain_seconds == 1:
        with pytest.raises(AbortedError):
            await wire.read_pdu()
        assert await stopping < drain_seconds + SOON
    else:
        await wire.send_rest(1, instance.data[200_000:])
        assert (await wire.receive()).number(0x0900) == 0
        assert await stopping < 2 + SOON
    wire.close()


async def test_no_new_association_while_stopping(new_server: ServerFactory) -> None:
    server = new_server(timeouts={"drain_seconds": 10})
    server.start()
    wire = await Wire.associate(server.port, [Context(1, CT_IMAGE)])
    command = {0x0002: CT_IMAGE.encode() + b"\0", 0x0100: b"\x01\0", 0x0110: b"\x01\0", 0x0700: b"\0\0"}
    await wire.send(1, {**command, 0x1000: b"1.2.3.4\0", 0x0800: b"\0\0"})
    await asyncio.sleep(0.1)
    stopping = asyncio.create_task(_stop_seconds(server))
    await asyncio.sleep(0.5)
    with pytest.raises((OSError, AbortedError)):
        await Wire.associate(server.port, QUERY_CONTEXTS)
    await wire.abort()
    assert await stopping < SOON
