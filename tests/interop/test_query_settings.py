"""What ``[query]`` changes, over a socket: leniency for old devices, the timezone of the archive, the most answers."""

import asyncio
from collections.abc import Mapping

import pytest

from tests.support.exchange import identifier
from tests.support.processes import Pacslite
from tests.support.wire import (
    CT_IMAGE,
    PATIENT_ROOT_FIND,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    VERIFICATION,
    Answer,
    Context,
    Wire,
    decode_elements,
    extended_negotiation,
)

MOST = 3
ROOT = "1.2.826.0.1.3680043.8.498.78"
SOP_INSTANCE_UID, STUDY_INSTANCE_UID, TIMEZONE_OFFSET = 0x00080018, 0x0020000D, 0x00080201
CONTEXTS = [
    Context(1, VERIFICATION),
    Context(3, STUDY_ROOT_FIND),
    Context(5, PATIENT_ROOT_FIND),
    Context(7, STUDY_ROOT_GET),
    Context(9, CT_IMAGE, scp_role=True),
]
# Study, date, time and offset from UTC as received
STUDIES = [
    ("1", "20240101", "233000", ""),  # of the archive's timezone: 22:30 UTC
    ("2", "20240101", "233000", "-0500"),  # the next day in UTC
    ("3", "20240301", "120000", ""),
    ("4", "20240302", "120000", ""),
]


@pytest.fixture(scope="module")
def settings() -> Mapping[str, Mapping[str, object]]:
    return {"query": {"require_upper_keys": False, "timezone_offset": "+0100", "max_results": MOST}}


@pytest.fixture(scope="module", autouse=True)
def _stored(server: Pacslite) -> None:
    async def store() -> None:
        async with await Wire.associate(server.port, [Context(1, CT_IMAGE)]) as wire:
            for number, date, time, offset in STUDIES:
                uids = {
                    "StudyInstanceUID": f"{ROOT}.{number}",
                    "SeriesInstanceUID": f"{ROOT}.{number}.1",
                    "SOPInstanceUID": f"{ROOT}.{number}.1.1",
                }
                when = {"StudyDate": date, "StudyTime": time} | ({"TimezoneOffsetFromUTC": offset} if offset else {})
                own = {"SOPClassUID": CT_IMAGE, "PatientID": number, "Modality": "CT"}
                data = identifier(None, **own, **uids, **when)
                assert (await wire.store(CT_IMAGE, uids["SOPInstanceUID"], data)).status == 0

    asyncio.run(store())


async def _ask(server: Pacslite, data: bytes, model: str = STUDY_ROOT_FIND, user_items: bytes = b"") -> list[Answer]:
    async with await Wire.associate(server.port, CONTEXTS, user_items=user_items) as wire:
        await wire.start_query(model, data)
        answers = [answer async for answer in wire.answers()]
        assert await wire.echo() == 0
    return answers


def _values(answers: list[Answer], tag: int) -> list[str]:
    return sorted(
        decode_elements(answer.identifier)[tag].rstrip(b"\0 ").decode()
        for answer in answers
        if answer.identifier is not None
    )


@pytest.mark.parametrize(
    ("model", "level", "keys", "found"),
    [
        (STUDY_ROOT_FIND, "IMAGE", {"SeriesInstanceUID": f"{ROOT}.1.1"}, ["1.1.1"]),  # no study
        (STUDY_ROOT_FIND, "IMAGE", {"StudyInstanceUID": f"{ROOT}.2"}, ["2.1.1"]),  # no series
        (PATIENT_ROOT_FIND, "IMAGE", {"PatientID": "3"}, ["3.1.1"]),  # neither
        (PATIENT_ROOT_FIND, "IMAGE", {"StudyInstanceUID": f"{ROOT}.1\\{ROOT}.4"}, ["1.1.1", "4.1.1"]),
    ],
)
async def test_devices_that_leave_out_upper_keys_are_answered(
    server: Pacslite, model: str, level: str, keys: Mapping[str, str], found: list[str]
) -> None:
    answers = await _ask(server, identifier(level, SOPInstanceUID="", **keys), model)
    assert [answer.status for answer in answers] == [0xFF00] * len(found) + [0]
    assert _values(answers, SOP_INSTANCE_UID) == [f"{ROOT}.{one}" for one in found]


async def test_retrieve_without_upper_keys_is_performed(server: Pacslite) -> None:
    async with await Wire.associate(server.port, CONTEXTS) as wire:
        received, final = await wire.get(STUDY_ROOT_GET, identifier("SERIES", SeriesInstanceUID=f"{ROOT}.2.1"))
    assert final.status == 0
    assert [one.sop_instance_uid for one in received] == [f"{ROOT}.2.1.1"]


@pytest.mark.parametrize(
    ("date", "time", "offset", "found"),
    [
        ("20240101", "", "+0100", ["1"]),
        ("20240101", "", "+0000", ["1"]),
        ("20240102", "", "+0200", ["1", "2"]),
        ("20240101", "2200-2300", "+0000", ["1"]),
        ("20240102", "0430", "+0000", ["2"]),
    ],
)
async def test_dates_without_an_offset_are_of_the_archives_timezone(
    server: Pacslite, date: str, time: str, offset: str, found: list[str]
) -> None:
    """Where timezone query adjustment is negotiated (PS3.4 §C.5.1.1)."""
    keys = {"StudyDate": date, "StudyTime": time, "TimezoneOffsetFromUTC": offset, "StudyInstanceUID": ""}
    negotiated = extended_negotiation(STUDY_ROOT_FIND, b"\0\0\0\1")
    answers = await _ask(server, identifier("STUDY", **keys), user_items=negotiated)
    assert answers[-1].status == 0
    zones = {number: zone or "+0100" for number, _, _, zone in STUDIES}
    assert _values(answers, TIMEZONE_OFFSET) == sorted(zones[one] for one in found)
    assert _values(answers, STUDY_INSTANCE_UID) == [f"{ROOT}.{one}" for one in found]


async def test_more_answers_than_allowed_end_in_a700(server: Pacslite) -> None:
    """Refused: out of resources (PS3.4 Table C.4-1), after as many as are allowed; never a silent cut."""
    answers = await _ask(server, identifier("STUDY", StudyInstanceUID=""))
    assert [answer.status for answer in answers] == [0xFF00] * MOST + [0xA700]
    assert str(MOST) in answers[-1].comment
    assert answers[-1].identifier is None
    as_many = await _ask(server, identifier("STUDY", StudyInstanceUID="\\".join(f"{ROOT}.{n}" for n in (1, 2, 3))))
    assert [answer.status for answer in as_many] == [0xFF00] * MOST + [0]
