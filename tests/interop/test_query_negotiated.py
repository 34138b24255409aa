"""What SOP Class Extended Negotiation changes in a C-FIND (PS3.4 §C.5.1.1); and a findscu that cancels."""

import asyncio
import re
from collections.abc import Mapping, Sequence

import pytest

from tests.support.exchange import identifier, send_data_sets
from tests.support.peers import Dcmtk
from tests.support.processes import Pacslite
from tests.support.wire import (
    CT_IMAGE,
    STUDY_ROOT_FIND,
    VERIFICATION,
    Answer,
    Context,
    Wire,
    decode_elements,
    extended_negotiation,
)

ROOT = "1.2.826.0.1.3680043.8.498.80"
STUDY_INSTANCE_UID = 0x0020000D
RELATIONAL, DATE_TIME, FUZZY, TIMEZONE = b"\1", b"\0\1", b"\0\0\1", b"\0\0\0\1"
STUDIES: Mapping[str, Mapping[str, str]] = {
    "1": {"PatientName": "Schmidt^Hans", "StudyDate": "20240101", "StudyTime": "0900", "Modality": "MR"},
    "2": {"PatientName": "Smith^John", "StudyDate": "20240101", "StudyTime": "1500", "Modality": "CT"},
    "3": {"PatientName": "Zebra^Zoe", "StudyDate": "20240102", "StudyTime": "0900", "Modality": "CT"},
}
LONG = f"{ROOT}.9"
COUNT = 400  # answers of 30 KB each: more than all buffers between us and a client hold


def _instance(study: str, number: int, values: Mapping[str, str]) -> tuple[str, str, bytes]:
    uid = f"{study}.1.{number}"
    uids = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "SOPInstanceUID": uid}
    return CT_IMAGE, uid, identifier(None, SOPClassUID=CT_IMAGE, PatientID=study[-9:], **uids, **values)


@pytest.fixture(scope="module", autouse=True)
def _stored(server: Pacslite) -> None:
    instances = [_instance(f"{ROOT}.{number}", 1, values) for number, values in STUDIES.items()]
    instances += [_instance(LONG, number, {"ImageComments": "long " * 6000}) for number in range(COUNT)]
    asyncio.run(send_data_sets(server.port, instances))


async def _ask(server: Pacslite, data: bytes, negotiated: bytes = b"") -> list[Answer]:
    items = extended_negotiation(STUDY_ROOT_FIND, negotiated) if negotiated else b""
    contexts = [Context(1, VERIFICATION), Context(3, STUDY_ROOT_FIND)]
    async with await Wire.associate(server.port, contexts, user_items=items) as wire:
        await wire.start_query(STUDY_ROOT_FIND, data)
        answers = [answer async for answer in wire.answers()]
        assert await wire.echo() == 0
    return answers


def _studies(answers: Sequence[Answer]) -> list[str]:
    assert answers[-1].status == 0
    found = [decode_elements(answer.identifier or b"")[STUDY_INSTANCE_UID] for answer in answers[:-1]]
    return sorted(one.rstrip(b"\0").decode().removeprefix(f"{ROOT}.") for one in found)


@pytest.mark.parametrize(
    ("negotiated", "keys", "with_it", "without"),
    [
        # keys of levels below: matched, or told to be unsupported
        (RELATIONAL, {"Modality": "MR"}, ["1"], ["1", "2", "3", "9"]),
        # two ranges are one
        (DATE_TIME, {"StudyDate": "20240101-20240102", "StudyTime": "1200-1000"}, ["2", "3"], []),
        (DATE_TIME, {"StudyDate": "20240101-20240102", "StudyTime": "1000-1600"}, ["2", "3"], ["2"]),
        # by sound
        (FUZZY, {"PatientName": "Schmitt"}, ["1", "2"], []),
        # in the timezone of who asks: without an offset of its own a study is in that timezone too
        (TIMEZONE, {"StudyDate": "20240102", "TimezoneOffsetFromUTC": "+0100"}, ["3"], ["3"]),
    ],
)
async def test_it_counts_where_it_is_negotiated(
    server: Pacslite, negotiated: bytes, keys: Mapping[str, str], with_it: list[str], without: list[str]
) -> None:
    data = identifier("STUDY", StudyInstanceUID="", **keys)
    assert _studies(await _ask(server, data, negotiated)) == with_it
    assert _studies(await _ask(server, data)) == without
    assert _studies(await _ask(server, data, b"\0\0\0\0\0")) == without


async def test_relational_query_needs_no_upper_keys(server: Pacslite) -> None:
    data = identifier("IMAGE", StudyInstanceUID="", PatientName="SMITH*", SOPInstanceUID="")
    assert _studies(await _ask(server, data, RELATIONAL)) == ["2"]
    (refused,) = await _ask(server, data)
    assert refused.status == 0xA900
    assert "StudyInstanceUID(0020,000D)" in refused.comment
    assert refused.identifier is None


async def test_key_of_a_lower_level_is_told_to_be_unsupported(server: Pacslite) -> None:
    answers = await _ask(server, identifier("STUDY", StudyInstanceUID=f"{ROOT}.1", Modality="CT"))
    assert [answer.status for answer in answers] == [0xFF01, 0]


async def test_findscu_cancels_while_answers_come(server: Pacslite, dcmtk: Dcmtk) -> None:
    keys = ["QueryRetrieveLevel=IMAGE", f"StudyInstanceUID={LONG}", f"SeriesInstanceUID={LONG}.1", "ImageComments"]
    words = [word for key in keys for word in ("-k", key)]
    peer = ("-aec", server.ae_title, "127.0.0.1", server.port)
    done = await dcmtk("findscu", "-v", "-S", *peer, *words)
    assert len(re.findall(r"Find Response: \d+ \(Pending\)", done.output)) == COUNT
    done = await dcmtk("findscu", "-v", "-S", "--cancel", 3, *peer, *words)
    assert 3 <= len(re.findall(r"Find Response: \d+ \(Pending\)", done.output)) < COUNT
    assert "Received Final Find Response (Cancel" in done, done.output[-500:]
