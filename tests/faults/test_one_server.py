"""A data directory belongs to one server; descriptors and bad files are survived."""

import asyncio
import json
import os
import random
from pathlib import Path

from tests.faults.checker import observe
from tests.support.exchange import QUERY_CONTEXTS, send_instances
from tests.support.instances import make_instance
from tests.support.processes import Pacslite, ServerFactory, free_port, need
from tests.support.wire import Wire


async def test_second_server_is_refused(new_server: ServerFactory) -> None:
    first = new_server()
    async with first.running():
        second = Pacslite(first.data_dir, first.log.with_name("second.log"), port=free_port())
        second.launch()
        code = await asyncio.to_thread(second.process.wait, 10)
        assert code not in (0, -9)
        assert "in use" in second.text()
        assert str(first.pid) in second.text()
        assert "Traceback" not in second.text()
        await send_instances(first.port, [make_instance(1, seed=91)])


async def test_out_of_descriptors(new_server: ServerFactory) -> None:
    """EMFILE in accept: those inside go on, those outside wait or are refused, and nothing spins."""
    server = new_server()
    server.prefix = (need("prlimit"), "--nofile=64")
    server.expected = ["descriptor", "Too many open files"]
    server.start()
    inside = await Wire.associate(server.port, QUERY_CONTEXTS)
    crowd = []
    for _ in range(120):
        try:
            crowd.append(await asyncio.wait_for(asyncio.open_connection("127.0.0.1", server.port), 2))
        except (OSError, TimeoutError):
            break
    before = _cpu_seconds(server.pid)
    await asyncio.sleep(1)
    assert _cpu_seconds(server.pid) - before < 0.5
    assert len(server.text()) < 100_000
    assert await asyncio.wait_for(inside.echo(), 5) == 0
    for _, writer in crowd:
        writer.close()
    await asyncio.sleep(1.2)
    async with await asyncio.wait_for(Wire.associate(server.port, QUERY_CONTEXTS), 5) as wire:
        assert await wire.echo() == 0
    await inside.release()
    inside.close()
    await send_instances(server.port, [make_instance(2, seed=91)])
    await asyncio.to_thread(server.stop)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_deep_check_names_every_flipped_byte(new_server: ServerFactory) -> None:
    """One bit in each of 100 files out of 150."""
    server = new_server()
    instances = [make_instance(n, seed=92, series=n % 5, size=5_000) for n in range(150)]
    async with server.running():
        await send_instances(server.port, instances)
    chance = random.Random(7)
    damaged = chance.sample(instances, 100)
    for instance in damaged:
        (path,) = server.data_dir.rglob(f"{instance.sop_instance_uid}.dcm")
        content = bytearray(path.read_bytes())
        at = chance.randrange(len(content) - len(instance.data), len(content))
        content[at] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
    done = await server.tool("check", "--deep", "--data-dir", server.data_dir, expect=1)
    unnamed = [item.sop_instance_uid for item in damaged if item.sop_instance_uid not in done]
    assert not unnamed
    whole = {item.sop_instance_uid for item in instances} - {item.sop_instance_uid for item in damaged}
    assert not [uid for uid in whole if f"{uid}.dcm" in done or f"{uid}\n" in done.output]


async def test_missing_and_surplus_files_are_named(new_server: ServerFactory) -> None:
    server = new_server()
    instances = [make_instance(n, seed=93, size=500) for n in range(6)]
    async with server.running():
        await send_instances(server.port, instances)
    (missing,) = server.data_dir.rglob(f"{instances[0].sop_instance_uid}.dcm")
    missing.unlink()
    done = await server.tool("check", "--data-dir", server.data_dir, expect=1)
    assert instances[0].sop_instance_uid in done
    report = json.loads((await server.tool("check", "--json", "--data-dir", server.data_dir, expect=1)).output)
    assert (report["instances"], report["files"], report["clean"], report["repair"]) == (6, 5, False, False)
    (difference,) = report["differences"]
    assert (difference["kind"], difference["name"]) == ("missing", instances[0].sop_instance_uid)
    await server.tool("check", "--repair", "--data-dir", server.data_dir, expect=(0, 1))
    await server.tool("check", "--deep", "--data-dir", server.data_dir)
    async with server.running():
        assert set((await observe(server.port)).content) == {item.sop_instance_uid for item in instances[1:]}


async def test_reindex_rebuilds_the_index_from_the_files(new_server: ServerFactory) -> None:
    server = new_server()
    instances = [make_instance(n, seed=94, study=n % 4, series=n % 3, size=500) for n in range(60)]
    async with server.running():
        await send_instances(server.port, instances)
        before = await observe(server.port)
    for path in server.data_dir.glob("index.sqlite*"):
        path.unlink()
    await server.tool("reindex", "--data-dir", server.data_dir)
    async with server.running():
        after = await observe(server.port)
        assert sorted(after.rows) == sorted(before.rows)
        assert after.content == before.content
        assert after.study_counts == before.study_counts
