"""Every file call of a start, of a delete and of a reindexing fails in turn, and in turn is the last one.

Whatever happened, the next undisturbed start has every acknowledged instance, and what was deleted stays deleted.
"""

import asyncio
import os
import re
import shutil
from itertools import count
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from pacslite.archive.index.upgrade import current_revision, migrations_path
from tests.faults.checker import observe
from tests.support.exchange import send_instances
from tests.support.instances import make_instance
from tests.support.processes import Pacslite, ServerFactory, need, run

SOAK = int(os.environ.get("PACSLITE_TEST_KILL_ROUNDS", "30")) > 30
STEP = 1 if SOAK else 40
CALLS = (
    *("fdatasync", "fsync", "syncfs", "pwrite64", "pwritev2", "copy_file_range"),
    *("renameat", "renameat2", "rename", "unlinkat", "ftruncate"),
)
LIMIT = 200
DISTURBANCES = ["error=EIO", "signal=KILL"]


def _strace(trace: Path, disturbance: str, number: int) -> list[str]:
    names = ",".join(f"?{name}" for name in CALLS)
    quiet = ["-f", "-q", "-o", str(trace), "-e", f"trace={names}"]
    return [need("strace"), *quiet, "-e", f"inject={names}:{disturbance}:when={number}"]


def _injected(trace: Path) -> bool:
    return "(INJECTED)" in trace.read_text(errors="replace")


@pytest.fixture
def crashed(new_server: ServerFactory) -> tuple[Pacslite, Path, dict[str, str]]:
    """A data directory as SIGKILL leaves it: some instances settled, some only in ``incoming/``."""
    server = new_server()
    instances = [make_instance(n, seed=110, series=n % 3, size=3_000) for n in range(12)]

    async def fill() -> None:
        server.start()
        await send_instances(server.port, instances[:6])
        await asyncio.to_thread(server.stop)
        server.start()
        await send_instances(server.port, instances[6:])
        server.kill()

    asyncio.run(fill())
    original = server.data_dir.with_name("original")
    shutil.copytree(server.data_dir, original)
    return server, original, {item.sop_instance_uid: item.digest for item in instances}


@pytest.mark.timeout(3600 if SOAK else 300)
@pytest.mark.parametrize("disturbance", DISTURBANCES)
async def test_each_call_of_a_start(
    crashed: tuple[Pacslite, Path, dict[str, str]], tmp_path: Path, disturbance: str
) -> None:
    server, original, promised = crashed
    server.expected = ["."]  # what a start that fails says is its own affair; a traceback of the interpreter is not
    for number in count(1, STEP):
        reached = await _start_disturbed(server, original, tmp_path / "trace", disturbance, number)
        async with server.running():
            assert (await observe(server.port)).content == promised, f"call {number}"
        if not reached:
            break
    await server.tool("check", "--deep", "--data-dir", server.data_dir)


async def _start_disturbed(server: Pacslite, original: Path, trace: Path, disturbance: str, number: int) -> bool:
    """Start on a copy of ``original`` while call ``number`` fails or is the last; was there such a call?"""
    assert number < LIMIT
    shutil.rmtree(server.data_dir)
    shutil.copytree(original, server.data_dir)
    server.prefix = _strace(trace, disturbance, number)
    before = len(server.text())
    server.launch()
    ended = await _ends_before_it_serves(server, before)
    _kill_traced(server)
    said = server.text()[before:]
    assert "most recent call last" not in said.partition(" INFO ")[0], said
    server.prefix = ()
    return ended if disturbance == "signal=KILL" else _injected(trace)


async def _ends_before_it_serves(server: Pacslite, before: int) -> bool:
    """Half a second longer, in fact: for what it does off the hot path."""
    for _ in range(1500):
        if server.process.poll() is not None:
            return True
        if " serving " in server.text()[before:]:
            await asyncio.sleep(0.5)
            return server.process.poll() is not None
        await asyncio.sleep(0.01)
    raise AssertionError(f"neither serves nor ends\n{server.text()[before:]}")


def _kill_traced(server: Pacslite) -> None:
    """strace's child is the server: it must not outlive its tracer."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    for child in children.read_text().split() if children.exists() else []:
        os.kill(int(child), 9)
    server.process.wait(10)


def _make_older(index: Path) -> None:
    """Bring an index back to the first revision."""
    config = Config()
    config.set_main_option("script_location", str(migrations_path()))
    engine = create_engine(f"sqlite:///{index}")
    with engine.begin() as connection:
        connection.exec_driver_sql("BEGIN")
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    engine.dispose()


@pytest.mark.timeout(3600 if SOAK else 300)
@pytest.mark.parametrize("disturbance", DISTURBANCES)
async def test_each_call_of_a_start_that_migrates(new_server: ServerFactory, tmp_path: Path, disturbance: str) -> None:
    """The index is of the old revision or of the new one, with all that was in it."""
    server = new_server()
    server.expected = ["."]
    instances = [make_instance(n, seed=115, series=n % 3, size=3_000) for n in range(6)]
    promised = {item.sop_instance_uid: item.digest for item in instances}
    async with server.running():
        await send_instances(server.port, instances)
    original = server.data_dir.with_name("original")
    shutil.copytree(server.data_dir, original)
    await asyncio.to_thread(_make_older, original / "index.sqlite")
    old = 0
    for number in count(1, 1 if SOAK else 48):
        reached = await _start_disturbed(server, original, tmp_path / "trace", disturbance, number)
        old += current_revision(server.data_dir / "index.sqlite") == "0001"
        async with server.running():
            assert (await observe(server.port)).content == promised, f"call {number}"
        if not reached:
            break
    assert old
    await server.tool("check", "--deep", "--data-dir", server.data_dir)


@pytest.mark.timeout(3600 if SOAK else 300)
@pytest.mark.parametrize("disturbance", DISTURBANCES)
async def test_each_call_of_the_first_start(new_server: ServerFactory, tmp_path: Path, disturbance: str) -> None:
    """The data directory is being made: the next start makes the rest of it."""
    server = new_server()
    server.expected = ["."]
    instance = make_instance(1, seed=112, size=3_000)
    for number in count(1, 1 if SOAK else 120):
        assert number < 4 * LIMIT
        shutil.rmtree(server.data_dir, ignore_errors=True)
        trace = tmp_path / "trace"
        server.prefix = _strace(trace, disturbance, number)
        before = len(server.text())
        server.launch()
        ended = await _ends_before_it_serves(server, before)
        _kill_traced(server)
        reached = ended if disturbance == "signal=KILL" else _injected(trace)
        assert "most recent call last" not in server.text()[before:].partition(" INFO ")[0]
        server.prefix = ()
        async with server.running():
            await send_instances(server.port, [instance])
            assert (await observe(server.port)).content == {instance.sop_instance_uid: instance.digest}
        if not reached:
            break
    await server.tool("check", "--deep", "--data-dir", server.data_dir)


async def test_order_of_a_deletion(new_server: ServerFactory, tmp_path: Path) -> None:
    """Rows and notes are synced before the first file goes, the going of the last before the notes do."""
    server = new_server()
    instances = [make_instance(n, seed=113, size=2_000) for n in range(4)]
    async with server.running():
        await send_instances(server.port, instances)
    trace = tmp_path / "trace"
    strace = [
        need("strace"),
        "-f",
        "-q",
        "-yy",
        "-o",
        str(trace),
        "-e",
        f"trace={','.join(f'?{one}' for one in CALLS)}",
    ]
    words = ("delete", "--study", instances[0].study_uid, "--data-dir", str(server.data_dir))
    await run(*strace, *server.command(*words))
    lines = trace.read_text(errors="replace").splitlines()
    removed = [at for at, line in enumerate(lines) if "unlinkat(" in line and ".dcm" in line]
    assert len(removed) == len(instances), lines
    log = [at for at, line in enumerate(lines) if re.search(r"sync\(\d+<[^>]*index.sqlite-wal>", line)]
    assert any(at < removed[0] for at in log), lines
    written = [at for at, line in enumerate(lines) if re.search(r"pwrite64\(\d+<[^>]*index.sqlite-wal>", line)]
    assert max(at for at in written if at < removed[0]) < max(at for at in log if at < removed[0]), lines
    synced = next(at for at, line in enumerate(lines) if at > removed[-1] and "syncfs(" in line)
    assert not [at for at in written if removed[0] < at < synced], "the notes were dropped too early"


@pytest.mark.timeout(3600 if SOAK else 300)
@pytest.mark.parametrize("disturbance", DISTURBANCES)
async def test_each_call_of_a_reindexing(new_server: ServerFactory, tmp_path: Path, disturbance: str) -> None:
    """The server refuses what is half built and says what to do; the next run finishes it."""
    server = new_server()
    instances = [make_instance(n, seed=114, study=n % 2, series=n % 3, size=2_000) for n in range(12)]
    promised = {item.sop_instance_uid: item.digest for item in instances}
    async with server.running():
        await send_instances(server.port, instances)
    original = server.data_dir.with_name("original")
    shutil.copytree(server.data_dir, original)
    half = 0
    for number in count(1, 1 if SOAK else 120):
        assert number < 4 * LIMIT
        shutil.rmtree(server.data_dir)
        shutil.copytree(original, server.data_dir)
        trace = tmp_path / "trace"
        words = server.command("reindex", "--data-dir", str(server.data_dir))
        done = await run(*_strace(trace, disturbance, number), *words, expect=range(-20, 256))
        assert "most recent call last" not in done.output, done.output
        if (server.data_dir / "index.sqlite.new").exists():
            half += 1
            server.launch()
            assert await asyncio.to_thread(server.process.wait, 10) not in (0, -9)
            assert "run pacslite reindex" in server.text()
            await server.tool("reindex", "--data-dir", server.data_dir)
        async with server.running():
            assert (await observe(server.port)).content == promised, f"call {number}"
        await server.tool("check", "--deep", "--data-dir", server.data_dir)
        if done.code != -9 and not _injected(trace):
            break
    assert half


@pytest.mark.timeout(3600 if SOAK else 300)
@pytest.mark.parametrize("disturbance", DISTURBANCES)
async def test_each_call_of_a_delete(new_server: ServerFactory, tmp_path: Path, disturbance: str) -> None:
    """The series is gone or whole, its files and rows together; a second delete ends what the first began."""
    server = new_server()
    kept = [make_instance(n, seed=111, series=0, size=2_000) for n in range(4)]
    doomed = [make_instance(n, seed=111, series=1, size=2_000) for n in range(4)]
    async with server.running():
        await send_instances(server.port, [*kept, *doomed])
    original = server.data_dir.with_name("original")
    shutil.copytree(server.data_dir, original)
    for number in count(1, STEP):
        assert number < LIMIT
        shutil.rmtree(server.data_dir)
        shutil.copytree(original, server.data_dir)
        trace = tmp_path / "trace"
        words = ("delete", "--series", doomed[0].series_uid, "--data-dir", str(server.data_dir))
        done = await run(*_strace(trace, disturbance, number), *server.command(*words), expect=range(-20, 256))
        assert not re.search("most recent call last", done.output), done.output
        async with server.running():
            left = (await observe(server.port)).content
        assert {item.sop_instance_uid: item.digest for item in kept}.items() <= left.items()
        rest = set(left) - {item.sop_instance_uid for item in kept}
        assert rest in (set(), {item.sop_instance_uid for item in doomed}), f"call {number}: {rest}"
        if done.code == 0:
            assert not rest
        await server.tool("check", "--deep", "--data-dir", server.data_dir)
        if done.code != -9 and not _injected(trace):
            break
