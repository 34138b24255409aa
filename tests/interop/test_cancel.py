"""C-CANCEL (PS3.7 §9.3.2.3): what runs ends with FE00, what is over does not mind."""

import asyncio
import socket
from collections.abc import Mapping, Sequence

import pytest

from tests.support.exchange import QUERY_CONTEXTS, identifier, send_instances
from tests.support.instances import Instance, make_instance
from tests.support.processes import Pacslite
from tests.support.storage_scp import StorageScp
from tests.support.wire import (
    CT_IMAGE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    Answer,
    Context,
    Wire,
)

COUNT = 2000
KEYS = {
    "SOPInstanceUID": "",
    "SOPClassUID": "",
    "InstanceNumber": "",
    "PatientName": "",
    "PatientID": "",
    "StudyDescription": "",
    "SeriesDescription": "",
    "AccessionNumber": "",
    "ReferringPhysicianName": "",
    "PatientBirthDate": "",
    "StudyDate": "",
    "StudyTime": "",
    "Modality": "",
}


@pytest.fixture(scope="module")
def series(server: Pacslite) -> Sequence[Instance]:
    """One long series."""
    instances = [make_instance(n, seed=7, size=64) for n in range(COUNT)]

    async def store() -> None:
        await asyncio.gather(*(send_instances(server.port, instances[part::8]) for part in range(8)))

    asyncio.run(store())
    return instances


def _all(series: Sequence[Instance]) -> bytes:
    return identifier("IMAGE", StudyInstanceUID=series[0].study_uid, SeriesInstanceUID=series[0].series_uid, **KEYS)


async def test_find_is_cancelled_while_it_answers(server: Pacslite, series: Sequence[Instance]) -> None:
    async with await Wire.associate(server.port, QUERY_CONTEXTS) as wire:
        transport_socket: socket.socket = wire.writer.get_extra_info("socket")
        transport_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        message_id = await wire.start_query(STUDY_ROOT_FIND, _all(series))
        answers: list[Answer] = []
        async for answer in wire.answers():
            if not answers:
                await wire.cancel(STUDY_ROOT_FIND, message_id)
                await asyncio.sleep(0.1)
            answers.append(answer)
        assert answers[-1].status == 0xFE00
        assert answers[-1].identifier is None
        assert 1 < len(answers) < COUNT
        assert await wire.echo() == 0


async def test_get_is_cancelled_between_sub_operations(server: Pacslite, series: Sequence[Instance]) -> None:
    contexts = [Context(1, STUDY_ROOT_GET), Context(3, CT_IMAGE, scp_role=True), Context(5, VERIFICATION)]
    async with await Wire.associate(server.port, contexts) as wire:
        message_id = await wire.start_query(STUDY_ROOT_GET, identifier("STUDY", StudyInstanceUID=series[0].study_uid))
        received = 0
        while True:
            message = await wire.receive()
            if message.number(0x0100) == 0x0001:
                received += 1
                if received == 3:
                    await wire.cancel(STUDY_ROOT_GET, message_id)
                await wire.answer_store(message, 0)
                continue
            answer = Answer.of(message)
            if answer.status != 0xFF00:
                break
        assert answer.status == 0xFE00
        assert answer.completed == received < COUNT
        assert answer.remaining == COUNT - received
        assert await wire.echo() == 0


async def test_move_is_cancelled(server: Pacslite, series: Sequence[Instance], destinations: Mapping[str, int]) -> None:
    async with StorageScp(destinations["STORESCP"], delay=0.01) as scp:
        async with await Wire.associate(server.port, QUERY_CONTEXTS) as wire:
            key = identifier("STUDY", StudyInstanceUID=series[0].study_uid)
            message_id = await wire.start_query(STUDY_ROOT_MOVE, key, destination="STORESCP")
            answers: list[Answer] = []
            async for answer in wire.answers():
                if answer.completed and not any(earlier.completed for earlier in answers):
                    await wire.cancel(STUDY_ROOT_MOVE, message_id)
                answers.append(answer)
            answer = answers[-1]
            assert answer.status == 0xFE00
            assert answer.completed is not None
            assert 0 < answer.completed < COUNT
            assert answer.remaining == COUNT - answer.completed - (answer.failed or 0)
            assert await wire.echo() == 0
        assert len(scp.received) == answer.completed


async def test_late_cancel_is_ignored(server: Pacslite, series: Sequence[Instance]) -> None:
    async with await Wire.associate(server.port, QUERY_CONTEXTS) as wire:
        key = identifier("STUDY", StudyInstanceUID=series[0].study_uid)
        message_id = await wire.start_query(STUDY_ROOT_FIND, key)
        assert [answer.status async for answer in wire.answers()][-1] == 0
        await wire.cancel(STUDY_ROOT_FIND, message_id)
        assert await wire.echo() == 0
        await wire.cancel(STUDY_ROOT_FIND, 4711)  # of a request that never was
        assert len(await wire.find(STUDY_ROOT_FIND, key)) == 1
