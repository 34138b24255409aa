"""Bad input is answered in the protocol's terms, logged once, and the next request works."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.support.exchange import QUERY_CONTEXTS, identifier, send_instances
from tests.support.instances import Instance, make_instance
from tests.support.peers import Dcmtk
from tests.support.processes import Pacslite
from tests.support.wire import (
    CT_IMAGE,
    EXPLICIT_LITTLE,
    PATIENT_ROOT_FIND,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    AbortedError,
    Answer,
    Context,
    RejectedError,
    Wire,
)


@pytest.fixture(scope="module")
def study(server: Pacslite) -> Sequence[Instance]:
    instances = [make_instance(n, seed=5) for n in range(3)]
    asyncio.run(send_instances(server.port, instances))
    return instances


@asynccontextmanager
async def logged_once(server: Pacslite, word: str) -> AsyncIterator[None]:
    """The block leads to exactly one log line that has this word."""
    before = len(server.text())
    yield
    lines: list[str] = []
    for _ in range(50):
        lines = [line for line in server.text()[before:].splitlines() if word.lower() in line.lower()]
        if lines:
            break
        await asyncio.sleep(0.02)
    assert len(lines) == 1, f"{word}: {lines or server.text()[before:]}"


async def _works(server: Pacslite) -> None:
    """The same server goes on to serve another peer."""
    async with await Wire.associate(server.port, QUERY_CONTEXTS) as wire:
        assert await wire.echo() == 0


async def _refused(wire: Wire, answer: Answer, status: int) -> None:
    """A failure carries a comment of at most 64 characters and no data set, and the association lives on."""
    assert answer.status == status, answer
    assert answer.comment
    assert len(answer.comment) <= 64
    assert answer.identifier is None
    assert await wire.echo() == 0


async def _find(wire: Wire, data: bytes, model: str = STUDY_ROOT_FIND) -> list[Answer]:
    await wire.start_query(model, data)
    return [answer async for answer in wire.answers()]


# associations


async def test_wrong_called_ae_title(server: Pacslite, dcmtk: Dcmtk) -> None:
    async with logged_once(server, "WRONG"):
        with pytest.raises(RejectedError) as caught:
            await Wire.associate(server.port, QUERY_CONTEXTS, called="WRONG")
    assert caught.value.codes == (1, 1, 7)
    done = await dcmtk("echoscu", "-v", "-aec", "WRONG2", "127.0.0.1", server.port, expect=1)
    assert "Called AE Title Not Recognized" in done
    await _works(server)


async def test_nothing_that_is_offered_is_known(server: Pacslite) -> None:
    """The association is accepted with all contexts rejected (PS3.8 §9.3.3.2)."""
    contexts = [Context(1, "1.2.840.10008.5.1.4.31.9"), Context(3, VERIFICATION, ("1.2.3.4.5",))]
    async with await Wire.associate(server.port, contexts) as wire:
        assert wire.accepted == {}
        assert wire.results == {1: 3, 3: 4}


async def test_http_on_the_dicom_port(server: Pacslite) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n")
    answer = await asyncio.wait_for(reader.readexactly(10), 10)  # it waits for us to close
    writer.close()
    assert answer[:1] == b"\x07"  # A-ABORT
    assert answer[8] == 0  # AA-1 in Sta2: by the service-user
    await _works(server)


# queries


async def test_identifier_without_a_level(server: Pacslite) -> None:
    async with await Wire.associate(server.port, QUERY_CONTEXTS) as wire, logged_once(server, "A900"):
        (answer,) = await _find(wire, identifier(None, PatientID=""))
        await _refused(wire, answer, 0xA900)


@pytest.mark.parametrize(
    ("model", "level"), [(STUDY_ROOT_FIND, "PATIENT"), (STUDY_ROOT_FIND, "FRAME"), (PATIENT_ROOT_FIND, "WORKLIST")]
)
async def test_level_that_the_model_does_not_have(server: Pacslite, model: str, level: str) -> None:
    async with await Wire.associate(server.port, QUERY_CONTEXTS) as wire:
        (answer,) = await _find(wire, identifier(level, PatientID=""), model)
        await _refused(wire, answer, 0xA900)


async def test_noise_as_an_identifier(server: Pacslite) -> None:
    async with await Wire.associate(server.port, QUERY_CONTEXTS) as wire:
        (answer,) = await _find(wire, b"\xff" * 100)
        assert answer.status == 0xA900 or 0xC000 <= answer.status <= 0xCFFF
        await _refused(wire, answer, answer.status)


async def test_find_under_another_services_class(server: Pacslite) -> None:
    """A C-FIND on the context of C-MOVE with its class, or with one that nobody negotiated."""
    async with await Wire.associate(server.port, QUERY_CONTEXTS) as wire:
        command = {0x0002: STUDY_ROOT_MOVE.encode() + b"\0" * (len(STUDY_ROOT_MOVE) % 2), 0x0100: b"\x20\0"}
        await wire.send(5, {**command, 0x0110: b"\x01\0", 0x0700: b"\0\0"}, identifier("STUDY", PatientID=""))
        try:
            answer = Answer.of(await wire.receive())
        except AbortedError:
            pass  # PS3.7 §10.1: a command that the abstract syntax does not have
        else:
            assert answer.status in (0x0122, 0x0211), answer
    await _works(server)


async def test_sop_class_that_differs_from_the_context(server: Pacslite) -> None:
    async with await Wire.associate(server.port, QUERY_CONTEXTS) as wire:
        other = "1.2.840.10008.5.1.4.31"
        command = {0x0002: other.encode(), 0x0100: b"\x20\0", 0x0110: b"\x01\0", 0x0700: b"\0\0"}
        await wire.send(3, command, identifier("STUDY", PatientID=""))
        answer = Answer.of(await wire.receive())
        await _refused(wire, answer, 0x0122)


async def test_no_match_is_success_alone(server: Pacslite) -> None:
    async with await Wire.associate(server.port, QUERY_CONTEXTS) as wire:
        (answer,) = await _find(wire, identifier("STUDY", PatientID="NOBODY-HAS-THIS"))
        assert (answer.status, answer.identifier) == (0, None)


# retrieves


async def test_unknown_move_destination(server: Pacslite, study: Sequence[Instance], dcmtk: Dcmtk) -> None:
    key = identifier("STUDY", StudyInstanceUID=study[0].study_uid)
    async with await Wire.associate(server.port, QUERY_CONTEXTS) as wire, logged_once(server, "A801"):
        (answer,) = await wire.move(STUDY_ROOT_MOVE, key, "UNHEARD_OF")
        await _refused(wire, answer, 0xA801)
        assert "UNHEARD_OF" in answer.comment
    words = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study[0].study_uid}")
    peer = ("-aec", server.ae_title, "-aem", "UNHEARD_OF", "127.0.0.1", server.port)
    done = await dcmtk("movescu", "-S", "-v", *peer, *words, expect=69)
    assert "MoveDestinationUnknown" in done


async def test_destination_that_does_not_listen(server: Pacslite, study: Sequence[Instance]) -> None:
    """A702 with every instance failed, and their UIDs (PS3.4 Table C.4-2)."""
    key = identifier("STUDY", StudyInstanceUID=study[0].study_uid)
    async with await Wire.associate(server.port, QUERY_CONTEXTS) as wire:
        answers = await wire.move(STUDY_ROOT_MOVE, key, "NOBODY")
        final = answers[-1]
        assert (final.status, final.completed, final.failed, final.warning) == (0xA702, 0, len(study), 0)
        assert final.remaining is None
        assert final.comment
        assert await wire.echo() == 0


async def test_move_of_nothing(server: Pacslite, storescp: object) -> None:
    async with await Wire.associate(server.port, QUERY_CONTEXTS) as wire:
        (final,) = await wire.move(STUDY_ROOT_MOVE, identifier("STUDY", StudyInstanceUID="1.2.3.4.5.6"), "STORESCP")
        assert (final.status, final.completed, final.failed, final.warning) == (0, 0, 0, 0)
        assert final.remaining is None


async def test_move_without_unique_key(server: Pacslite, storescp: object) -> None:
    async with await Wire.associate(server.port, QUERY_CONTEXTS) as wire:
        (answer,) = await wire.move(STUDY_ROOT_MOVE, identifier("STUDY", PatientID="X"), "STORESCP")
        await _refused(wire, answer, 0xA900)


async def test_get_without_storage_context(server: Pacslite, study: Sequence[Instance]) -> None:
    """Every sub-operation fails, the association lives, the UIDs come back."""
    async with await Wire.associate(server.port, [Context(1, STUDY_ROOT_GET), Context(3, VERIFICATION)]) as wire:
        received, final = await wire.get(STUDY_ROOT_GET, identifier("STUDY", StudyInstanceUID=study[0].study_uid))
        assert received == []
        assert (final.status, final.failed) == (0xA702, len(study))
        assert final.identifier is not None
        for instance in study:
            assert instance.sop_instance_uid.encode() in final.identifier
        assert await wire.echo() == 0


# storage

STORE = [Context(1, CT_IMAGE), Context(3, VERIFICATION)]


async def test_data_set_that_is_not_dicom(server: Pacslite) -> None:
    async with await Wire.associate(server.port, STORE) as wire, logged_once(server, "C000"):
        answer = await wire.store(CT_IMAGE, "1.2.3.4.5.6.7", b"this is no data set, just a line of text " * 100)
        await _refused(wire, answer, 0xC000)


@pytest.mark.parametrize("cut", [1, 7, 9, 100])
async def test_data_set_that_ends_early(server: Pacslite, cut: int) -> None:
    instance = make_instance(1, seed=6, study=cut, size=0)
    async with await Wire.associate(server.port, STORE) as wire:
        answer = await wire.store(CT_IMAGE, instance.sop_instance_uid, instance.data[: 200 + cut])
        assert answer.status == 0xA900 or 0xC000 <= answer.status <= 0xCFFF, answer
        await _refused(wire, answer, answer.status)


async def test_no_data_at_all(server: Pacslite) -> None:
    async with await Wire.associate(server.port, STORE) as wire:
        answer = await wire.store(CT_IMAGE, "1.2.3.4.5.6.8", b"")
        assert answer.status == 0xA900 or 0xC000 <= answer.status <= 0xCFFF, answer
        await _refused(wire, answer, answer.status)


@pytest.mark.parametrize("what", ["instance", "class"])
async def test_command_and_data_set_disagree(server: Pacslite, what: str) -> None:
    instance = make_instance(2, seed=6)
    other_class = "1.2.840.10008.5.1.4.1.1.4"
    contexts = [*STORE, Context(5, other_class)]
    async with await Wire.associate(server.port, contexts) as wire, logged_once(server, "A900"):
        if what == "instance":
            answer = await wire.store(CT_IMAGE, instance.sop_instance_uid + ".9", instance.data)
        else:
            answer = await wire.store(other_class, instance.sop_instance_uid, instance.data)
        await _refused(wire, answer, 0xA900)


async def test_store_of_another_class_than_its_context(server: Pacslite) -> None:
    """PS3.7 §C.5.6, whether or not that class has a context of its own here: no file, no row."""
    instance = make_instance(4, seed=6)
    mr_image = "1.2.840.10008.5.1.4.1.1.4"
    for contexts in (STORE, [*STORE, Context(5, mr_image)]):
        async with await Wire.associate(server.port, contexts) as wire, logged_once(server, "0122"):
            answer = await wire.store(mr_image, instance.sop_instance_uid, instance.data, context_id=1)
            await _refused(wire, answer, 0x0122)
    async with await Wire.associate(server.port, QUERY_CONTEXTS) as wire:
        keys = {"StudyInstanceUID": instance.study_uid, "SeriesInstanceUID": instance.series_uid}
        key = identifier("IMAGE", SOPInstanceUID=instance.sop_instance_uid, **keys)
        assert await wire.find(STUDY_ROOT_FIND, key) == []
    uid = instance.sop_instance_uid.encode()
    assert not [path for path in server.data_dir.rglob("*") if path.is_file() and uid in path.read_bytes()]


async def test_the_right_instance_is_stored_after_all_this(server: Pacslite) -> None:
    instance = make_instance(2, seed=6)
    await send_instances(server.port, [instance])


async def test_abort_in_mid_data_set(server: Pacslite) -> None:
    """Nothing of it is visible, in the index or in the files."""
    instance = make_instance(3, seed=6, size=3_000_000)
    wire = await Wire.associate(server.port, STORE)
    command = {0x0002: CT_IMAGE.encode() + b"\0", 0x0100: b"\x01\0", 0x0110: b"\x01\0", 0x0700: b"\0\0"}
    uid = instance.sop_instance_uid.encode()
    await wire.send(1, {**command, 0x1000: uid + b"\0" * (len(uid) % 2), 0x0800: b"\0\0"})
    await wire.send_part(1, instance.data[:1_000_000])
    await wire.abort()
    async with await Wire.associate(server.port, QUERY_CONTEXTS) as other:
        key = identifier(
            "IMAGE", StudyInstanceUID=instance.study_uid, SeriesInstanceUID=instance.series_uid, SOPInstanceUID=""
        )
        found = await other.find(STUDY_ROOT_FIND, key)
    assert instance.sop_instance_uid not in [row[0x00080018].decode().rstrip("\0") for row in found]
    for _ in range(100):
        if not any(path.stat().st_size > 900_000 for path in server.data_dir.rglob("*.*") if path.is_file()):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the half instance still lies in the data directory")


async def test_explicit_little_is_preferred_to_implicit(server: Pacslite) -> None:
    syntaxes = ("1.2.840.10008.1.2", EXPLICIT_LITTLE)
    async with await Wire.associate(server.port, [Context(1, CT_IMAGE, syntaxes)]) as wire:
        assert wire.accepted == {1: EXPLICIT_LITTLE}
