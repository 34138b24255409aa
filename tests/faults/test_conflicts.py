"""Everything at once: the same instance twice, first objects of a new patient, deletes under readers and writers."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.faults.checker import observe
from tests.support.exchange import fetch, identifier, send_instances
from tests.support.instances import Instance, make_instance
from tests.support.processes import Pacslite, ServerFactory
from tests.support.wire import CT_IMAGE, PATIENT_ROOT_FIND, STUDY_ROOT_FIND, STUDY_ROOT_GET, Answer, Context, Wire


async def _store(server: Pacslite, instance: Instance) -> Answer:
    async with await Wire.associate(server.port, [Context(1, CT_IMAGE)]) as wire:
        return await wire.store(CT_IMAGE, instance.sop_instance_uid, instance.data)


async def _patients(server: Pacslite) -> list[str]:
    async with await Wire.associate(server.port, [Context(1, PATIENT_ROOT_FIND)]) as wire:
        rows = await wire.find(PATIENT_ROOT_FIND, identifier("PATIENT", PatientID=""))
    return [row[0x00100020].decode().strip() for row in rows]


async def test_first_objects_of_a_patient_on_sixteen_associations(new_server: ServerFactory) -> None:
    """One patient, one study, one series; ten times over."""
    server = new_server()
    async with server.running():
        for study in range(10):
            instances = [make_instance(n, seed=95, study=study, patient=0) for n in range(16)]
            answers = await asyncio.gather(*(_store(server, instance) for instance in instances))
            assert {answer.status for answer in answers} == {0}
        assert await _patients(server) == ["P95-0"]
        seen = await observe(server.port)
        assert len(seen.rows) == 160
        assert sorted(seen.study_counts.values()) == [16] * 10


@pytest.mark.parametrize(
    ("policy", "allowed"), [("keep", {0x0000}), ("replace", {0x0000}), ("reject", {0x0000, 0x0111})]
)
async def test_same_instance_at_the_same_moment(new_server: ServerFactory, policy: str, allowed: set[int]) -> None:
    """One file, one row, whoever wins."""
    server = new_server(storage={"duplicates": policy})
    async with server.running():
        for number in range(10):
            instance = make_instance(number, seed=96, size=100_000)
            answers = await asyncio.gather(*(_store(server, instance) for _ in range(8)))
            statuses = [answer.status for answer in answers]
            assert set(statuses) <= allowed
            assert statuses.count(0) >= 1
            if policy == "reject":
                assert statuses.count(0) == 1
        seen = await observe(server.port)
        assert len(seen.rows) == 10
    files = [path for path in server.data_dir.rglob("*.dcm") if path.is_file()]
    assert len(files) == 10
    await server.tool("check", "--deep", "--data-dir", server.data_dir)


async def test_keep_and_replace_decide_whose_bytes_stay(new_server: ServerFactory) -> None:
    first, second = (make_instance(1, seed=97, size=size) for size in (1000, 2000))
    for policy, winner in (("keep", first), ("replace", second)):
        server = new_server(storage={"duplicates": policy})
        async with server.running():
            assert [(await _store(server, item)).status for item in (first, second)] == [0, 0]
            assert (await observe(server.port)).content == {winner.sop_instance_uid: winner.digest}
        await server.tool("check", "--deep", "--data-dir", server.data_dir)


async def test_reader_in_progress_finishes_with_the_old_bytes(new_server: ServerFactory) -> None:
    """``replace`` while a C-GET has begun to read the instance."""
    old, new = make_instance(1, seed=98, size=12_000_000), make_instance(1, seed=98, size=11_000_000)
    server = new_server(storage={"duplicates": "replace"})
    async with server.running():
        await send_instances(server.port, [old])
        key = identifier("STUDY", StudyInstanceUID=old.study_uid)
        contexts = [Context(1, STUDY_ROOT_GET), Context(3, CT_IMAGE, scp_role=True)]
        async with await Wire.associate(server.port, contexts) as reader:
            await reader.start_query(STUDY_ROOT_GET, key)
            await asyncio.sleep(0.3)  # the socket buffers are full, the reader has read nothing
            assert (await _store(server, new)).status == 0
            received, answer = await reader.rest_of_get()
            assert [one.data for one in received] == [old.data]
            assert (answer.status, answer.completed) == (0, 1)
        assert (await observe(server.port)).content == {new.sop_instance_uid: new.digest}


@pytest.mark.parametrize("conflict", ["reject", "keep"])
async def test_uid_in_another_study(new_server: ServerFactory, conflict: str) -> None:
    """The same SOP Instance UID in another study: configured, never two rows."""
    first = make_instance(1, seed=99, study=1)
    other = make_instance(1, seed=99, study=2)
    second = Instance(
        other.patient_id,
        other.study_uid,
        other.series_uid,
        first.sop_instance_uid,
        other.data.replace(other.sop_instance_uid.encode(), first.sop_instance_uid.encode()),
    )
    server = new_server(storage={"uid_conflict": conflict})
    async with server.running():
        assert (await _store(server, first)).status == 0
        answer = await _store(server, second)
        assert answer.status == (0x0111 if conflict == "reject" else 0)
        seen = await observe(server.port)
        assert seen.content == {first.sop_instance_uid: first.digest}
        assert seen.rows == [(first.study_uid, first.series_uid, first.sop_instance_uid)]
    await server.tool("check", "--deep", "--data-dir", server.data_dir)


async def test_delete_leaves_nothing(new_server: ServerFactory) -> None:
    server = new_server()
    instances = [make_instance(n, seed=100, study=n % 2, series=n % 3, size=2000) for n in range(24)]
    async with server.running():
        await send_instances(server.port, instances)
    gone = instances[0].study_uid
    await server.tool("delete", "--study", gone, "--data-dir", server.data_dir)
    rest = {item.sop_instance_uid: item.digest for item in instances if item.study_uid != gone}
    async with server.running():
        assert (await observe(server.port)).content == rest
    assert len([path for path in server.data_dir.rglob("*.dcm") if path.is_file()]) == len(rest)
    await server.tool("check", "--deep", "--data-dir", server.data_dir)


async def test_retrieve_is_the_same_for_many_readers(new_server: ServerFactory) -> None:
    server = new_server()
    instances: Sequence[Instance] = [make_instance(n, seed=101, size=400_000) for n in range(12)]
    async with server.running():
        await send_instances(server.port, instances)
        key = identifier("STUDY", StudyInstanceUID=instances[0].study_uid)
        context = [Context(3, CT_IMAGE, scp_role=True)]
        results = await asyncio.gather(*(fetch(server.port, key, context) for _ in range(12)))
        expected = {item.sop_instance_uid: item.data for item in instances}
        for received, final in results:
            assert final.status == 0
            assert {item.sop_instance_uid: item.data for item in received} == expected


async def test_what_is_found_comes_back_at_once(new_server: ServerFactory) -> None:
    """While four associations store: visible to C-FIND is retrievable by C-GET, and what is acknowledged is visible."""
    server = new_server()
    numbers = iter(range(400))
    sent: dict[str, Instance] = {}
    acknowledged: set[str] = set()
    looked = 0

    async def send() -> None:
        async with await Wire.associate(server.port, [Context(1, CT_IMAGE)]) as wire:
            for number in numbers:
                instance = make_instance(number, seed=102, series=0, size=20_000 if number % 3 else 400_000)
                sent[instance.sop_instance_uid] = instance
                assert (await wire.store(CT_IMAGE, instance.sop_instance_uid, instance.data)).status == 0
                acknowledged.add(instance.sop_instance_uid)

    async def look() -> None:
        nonlocal looked
        contexts = [Context(1, STUDY_ROOT_FIND), Context(3, STUDY_ROOT_GET), Context(5, CT_IMAGE, scp_role=True)]
        place = {"StudyInstanceUID": make_instance(0, seed=102).study_uid}
        place["SeriesInstanceUID"] = make_instance(0, seed=102).series_uid
        known: set[str] = set()
        async with await Wire.associate(server.port, contexts) as wire:
            while len(known) < 400:
                promised = set(acknowledged)
                rows = await wire.find(STUDY_ROOT_FIND, identifier("IMAGE", **place, SOPInstanceUID=""))
                visible = {row[0x00080018].decode().rstrip("\0") for row in rows}
                assert promised <= visible
                for uid in list(visible - known)[:8]:
                    (received,), answer = await wire.get(
                        STUDY_ROOT_GET, identifier("IMAGE", **place, SOPInstanceUID=uid)
                    )
                    assert answer.status == 0
                    assert received.data == sent[uid].data
                    looked += 1
                known |= visible

    async with server.running(), asyncio.TaskGroup() as group:
        for work in (send, send, send, send, look):
            group.create_task(work())
    assert looked > 20
