"""After a restart everything is there; after SIGKILL in mid-transfer what was acknowledged is, half a file is not."""

import asyncio
from pathlib import Path

from tests.faults.checker import observe
from tests.support.corpus import generations
from tests.support.exchange import fetch, identifier, query, send, send_instances, storage_contexts
from tests.support.instances import Instance, digest_of, make_instance
from tests.support.processes import Pacslite, ServerFactory
from tests.support.wire import CT_IMAGE, Context, Wire


async def test_restart(new_server: ServerFactory) -> None:
    files = [file for file in generations()[0] if file.path.parent.name == "charset_files"]
    server = new_server()
    async with server.running():
        assert {answer.status for answer in await send(server.port, files)} == {0}
    async with server.running():
        studies = await query(server.port, identifier("STUDY", StudyInstanceUID="", PatientName=""))
        contexts = storage_contexts(files, scp_role=True, first=3)
        uids = "\\".join(str(study.StudyInstanceUID) for study in studies)
        received, final = await fetch(server.port, identifier("STUDY", StudyInstanceUID=uids), contexts)
        assert final.status == 0
        assert {item.sop_instance_uid: item.data for item in received} == {
            file.sop_instance_uid: file.data for file in files
        }


async def test_sigkill_in_mid_transfer(new_server: ServerFactory) -> None:
    server = new_server()
    server.start()
    done = [make_instance(n, seed=12, size=100_000) for n in range(10)]
    half = make_instance(99, seed=12, size=8_000_000)
    await send_instances(server.port, done)
    transfer = await _begin(server, half)
    await asyncio.sleep(0.3)
    server.kill()
    transfer.close()
    async with server.running():
        seen = await observe(server.port)
        assert seen.content == {item.sop_instance_uid: digest_of(item.data) for item in done}
        assert not list(_files_with(server.data_dir, half.data[-4096:]))
        await send_instances(server.port, [half])  # and it can be sent once more
    await server.tool("check", "--deep", "--data-dir", server.data_dir)


async def _begin(server: Pacslite, instance: Instance) -> Wire:
    """Send all of an instance but its end."""
    wire = await Wire.associate(server.port, [Context(1, CT_IMAGE)])
    uid = instance.sop_instance_uid.encode()
    command = {0x0002: CT_IMAGE.encode() + b"\0", 0x0100: b"\x01\0", 0x0110: b"\x01\0", 0x0700: b"\0\0"}
    await wire.send(1, {**command, 0x1000: uid + b"\0" * (len(uid) % 2), 0x0800: b"\0\0"})
    await wire.send_part(1, instance.data[: len(instance.data) * 3 // 4])
    return wire


def _files_with(directory: Path, content: bytes) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and content in path.read_bytes()]
