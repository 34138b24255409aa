"""The client library: what becomes of operations that are left early, nested or begun together."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from pacslite.net.ended import AssociationEnded
from pacslite.scu import Client, OperationFailed
from pacslite.scu import responses as scu_responses
from tests.support.exchange import send_instances
from tests.support.instances import make_instance
from tests.support.processes import Pacslite, free_port, run
from tests.support.query_scp import QueryScp
from tests.support.storage_scp import StorageScp
from tests.support.wire import CT_IMAGE, STUDY_ROOT_GET


async def _all(items: AsyncIterator[object]) -> int:
    return len([item async for item in items])


# Leaving early


@pytest.mark.parametrize("kept", [False, True], ids=["iterator gone", "iterator kept"])
async def test_a_find_that_is_left_early_is_cancelled(kept: bool) -> None:
    """docs/client.md says so; the association is released in order, whatever became of the iterator."""
    with QueryScp(answers=200, pause=0.1) as scp:
        started = time.monotonic()
        async with Client(scp.address) as client:
            answers = client.find({"StudyInstanceUID": ""})
            async for _ in answers:
                break
            if not kept:
                del answers
        assert time.monotonic() - started < 5
        await asyncio.to_thread(scp.wait_for, "released")
        assert scp.events == ["accepted", "C-FIND", "C-CANCEL", "released"]


async def test_a_move_that_is_left_early_is_cancelled(server: Pacslite, destinations: Mapping[str, int]) -> None:
    count = 40
    await send_instances(server.port, [make_instance(n, seed=61, size=64) for n in range(count)])
    study = make_instance(0, seed=61).study_uid
    async with StorageScp(destinations["PYNETDICOM"], delay=0.2) as scp:
        async with Client(f"{server.ae_title}@127.0.0.1:{server.port}") as client:
            async for progress in client.move({"StudyInstanceUID": study}, to="PYNETDICOM"):
                if progress.completed:
                    break
        assert 0 < len(scp.received) < count / 2


async def test_what_reads_on_after_the_client_was_closed_is_told() -> None:
    with QueryScp(answers=200, pause=0.1) as scp:
        async with Client(scp.address) as client:
            answers = client.find({"StudyInstanceUID": ""})
            await anext(answers)
            waiting = asyncio.create_task(_all(answers))
            await asyncio.sleep(0)
        with pytest.raises(AssociationEnded, match="closed"):
            await waiting
        await asyncio.to_thread(scp.wait_for, "released")
        assert "C-CANCEL" in scp.events


async def test_a_peer_that_does_not_end_what_is_cancelled_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scu_responses, "_CANCEL_SECONDS", 0.3)
    with QueryScp(answers=200, pause=0.05, deaf=True) as scp:
        started = time.monotonic()
        async with Client(scp.address) as client:
            async for _ in client.find({"StudyInstanceUID": ""}):
                break
        assert time.monotonic() - started < 5
        await asyncio.to_thread(scp.wait_for, "aborted")


async def test_find_into_a_closed_pipe_cancels(server: Pacslite) -> None:
    with QueryScp(answers=200, pause=0.1) as scp:
        command = " ".join(server.command("find", scp.address, "StudyInstanceUID"))
        done = await run("sh", "-c", f"{command} | head -n 1", seconds=15, env={"PYTHONUNBUFFERED": ""})
        assert done.output == "# 1\n"
        await asyncio.to_thread(scp.wait_for, "released")
        assert scp.events == ["accepted", "C-FIND", "C-CANCEL", "released"]


@pytest.mark.parametrize("kept", [False, True], ids=["iterator gone", "iterator kept"])
async def test_a_store_that_is_left_early_is_given_up(kept: bool, ct_slice: Path, tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.dcm").write_bytes(ct_slice.read_bytes())
    async with StorageScp(free_port(), delay=0.1) as scp:
        async with Client(f"STORE@127.0.0.1:{scp.port}") as client:
            results = client.store([tmp_path])
            assert (await anext(results)).status == 0
            if not kept:
                del results
        await asyncio.sleep(0.3)
        assert len(scp.received) < 20
        if kept:
            assert {result.status async for result in results} == {None}


# How a find ends


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (0xFE00, "C-FIND: status FE00 (cancelled by the peer)"),  # Orthanc, where its limit of results is reached
        (0xB000, "C-FIND: status B000"),
        (0x0001, "C-FIND: status 0001"),
        (0xA700, "C-FIND: status A700"),
    ],
)
async def test_a_find_that_does_not_end_with_0000_fails_after_its_answers(
    server: Pacslite, status: int, told: str
) -> None:
    with QueryScp(answers=2, status=status) as scp:
        async with Client(scp.address) as client:
            answers = client.find({"StudyInstanceUID": ""})
            assert [(await anext(answers))["StudyInstanceUID"] for _ in range(2)] == ["1.2.1", "1.2.2"]
            with pytest.raises(OperationFailed) as caught:
                await anext(answers)
        assert caught.value.status == status
        done = await server.tool("find", scp.address, "StudyInstanceUID", expect=1)
        assert done.output.endswith(f"2 matches\npacslite: {scp.address}: {told}\n")
        done = await server.tool("find", scp.address, "StudyInstanceUID", "--json", expect=1)
        assert [line.startswith("{") for line in done.output.splitlines()] == [True, True, False]


# Several at once


async def test_a_find_for_an_answer_of_another_find() -> None:
    """More answers than are kept unread (1000): on one association the inner one would never be answered."""
    with QueryScp(answers=1200) as scp:
        async with asyncio.timeout(30), Client(scp.address) as client:
            outer = 0
            async for _ in client.find({"StudyInstanceUID": ""}):
                outer += 1
                if outer in (1, 1100):
                    assert await _all(client.find({"StudyInstanceUID": ""})) == 1200
        assert outer == 1200
        await asyncio.to_thread(scp.wait_for, "released", 2)
        assert scp.events.count("accepted") == 2, "the second inner one has the association of the first"


async def test_what_is_begun_together_leaves_no_association() -> None:
    with QueryScp(answers=3) as scp:
        async with Client(scp.address) as client:
            assert await asyncio.gather(*(client.echo() for _ in range(4))) == [0] * 4
            assert scp.events.count("accepted") == 1, "an echo waits for the one before"
            finds = [_all(client.find({"StudyInstanceUID": ""})) for _ in range(3)]
            assert await asyncio.gather(*finds) == [3] * 3
            assert scp.events.count("accepted") == 4
            assert await _all(client.find({"StudyInstanceUID": ""})) == 3
        await asyncio.to_thread(scp.wait_for, "released", 4)
        assert scp.events.count("accepted") == 4


async def test_an_association_that_opens_while_the_client_is_closed_is_released() -> None:
    with QueryScp() as scp:
        async with Client(scp.address) as client:
            echo = asyncio.create_task(client.echo())
            await asyncio.sleep(0)
        with pytest.raises(AssociationEnded, match="closed"):
            await echo
        await asyncio.to_thread(scp.wait_for, "released")


async def test_an_echo_that_is_not_waited_for_does_not_answer_the_next() -> None:
    with QueryScp() as scp:
        async with Client(scp.address) as client:
            await client.echo()
            echo = asyncio.create_task(client.echo())
            await asyncio.sleep(0)
            echo.cancel()
            assert await client.echo() == 0
        await asyncio.to_thread(scp.wait_for, "released")
        assert scp.events == ["accepted", "aborted", "accepted", "released"]


# C-GET


async def _get(scp: QueryScp, directory: Path, **keys: str) -> None:
    async with Client(scp.address) as client:
        async for progress in client.get(keys, directory):
            assert progress.status == 0


async def test_get_does_not_ask_for_all_studies_of_the_peer(tmp_path: Path) -> None:
    """Without a study or a patient there is nothing to ask the classes of; the usual ones are proposed."""
    with QueryScp() as scp:
        await _get(scp, tmp_path, SeriesInstanceUID="1.2.3")
        await _get(scp, tmp_path, SeriesInstanceUID="1.2.3", StudyInstanceUID="")
        assert scp.asked == []
        assert len(scp.proposed[0]) == 128
        async with Client(scp.address) as client:
            assert await _all(client.get({"0020,000D": "1.2.1"}, tmp_path)) == 1
        assert [asked.StudyInstanceUID for asked in scp.asked] == ["1.2.1"]


@pytest.mark.parametrize("key", ["SeriesInstanceUID", "StudyInstanceUID"])
async def test_get_from_a_peer_that_takes_one_association(tmp_path: Path, key: str) -> None:
    """What was used before it, its own C-FIND or an echo, is released first; the peer may notice a moment later."""
    with QueryScp(maximum_associations=1) as scp:
        async with Client(scp.address) as client:
            if key == "SeriesInstanceUID":
                assert await client.echo() == 0
            assert await _all(client.get({key: "1.2.1"}, tmp_path)) == 1
        assert scp.events.count("C-GET") == 1


async def test_get_proposes_what_fits_for_a_study_of_many_classes(tmp_path: Path) -> None:
    """JPEG baseline with five classes in the study: ultrasound beside reports is as frequent as that."""
    classes = [CT_IMAGE, *(f"1.2.840.10008.5.1.4.1.1.88.{n}" for n in (11, 22, 33, 59))]
    with QueryScp(classes=classes) as scp:
        await _get(scp, tmp_path, StudyInstanceUID="1.2.1")
        contexts = scp.proposed[-1]
        assert len(contexts) == 128
        assert (CT_IMAGE, ("1.2.840.10008.1.2.4.50",)) in contexts
        assert {uid for uid, _ in contexts} == {STUDY_ROOT_GET, *classes}
