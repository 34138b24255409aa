"""Every real file goes in over the network and comes back with the same data set, byte for byte."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.corpus import CorpusFile, generations, read_file
from tests.support.exchange import fetch, identifier, query, send, storage_contexts
from tests.support.instances import make_instance
from tests.support.peers import StoreScp
from tests.support.processes import Pacslite, ServerFactory
from tests.support.wire import (
    CT_IMAGE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    Answer,
    Context,
    Wire,
)

# Name of a file that cannot make the way, and why
IMPOSSIBLE: Mapping[str, str] = {
    "rtplan_truncated.dcm": "ends inside an element of its header: answered C000",
    "MR_truncated.dcm": "ends inside its pixel data: the same",
}

FIRST = [file for file in generations()[0] if file.name not in IMPOSSIBLE]
VARIANTS = [file for part in generations()[1:] for file in part if file.name not in IMPOSSIBLE]


def _name(file: CorpusFile) -> str:
    return file.name


@pytest.fixture(scope="module")
def stored(server: Pacslite) -> Mapping[str, Answer]:
    """The answers to C-STORE by file name."""
    answers = asyncio.run(send(server.port, FIRST))
    return {file.name: answer for file, answer in zip(FIRST, answers, strict=True)}


@pytest.fixture(scope="module")
def fetched(server: Pacslite, stored: Mapping[str, Answer]) -> Mapping[str, bytes]:
    """Data sets by SOP Instance UID, as C-GET at STUDY level brings them."""

    async def get_all() -> dict[str, bytes]:
        studies = await query(server.port, identifier("STUDY", StudyInstanceUID=""))
        contexts = storage_contexts(FIRST, scp_role=True, first=3)
        uids = "\\".join(str(study.StudyInstanceUID) for study in studies)
        received, final = await fetch(server.port, identifier("STUDY", StudyInstanceUID=uids), contexts)
        assert (final.status, final.completed, final.failed, final.warning) == (0, len(received), 0, 0)
        return {instance.sop_instance_uid: instance.data for instance in received}

    return asyncio.run(get_all())


@pytest.fixture(scope="module")
def moved(server: Pacslite, stored: Mapping[str, Answer], destinations: Mapping[str, int]) -> Mapping[str, bytes]:
    """Data sets by SOP Instance UID, as C-MOVE brings them to DCMTK's storescp, which writes them bit for bit."""
    peer = StoreScp(server.data_dir.parent / "moved", port=destinations["STORESCP"], options=("+xa", "-pm", "-d"))
    peer.start()

    async def move_all() -> None:
        studies = await query(server.port, identifier("STUDY", StudyInstanceUID=""))
        async with await Wire.associate(server.port, [Context(1, STUDY_ROOT_MOVE)]) as wire:
            uids = "\\".join(str(study.StudyInstanceUID) for study in studies)
            *_, final = await wire.move(STUDY_ROOT_MOVE, identifier("STUDY", StudyInstanceUID=uids), "STORESCP")
        assert (final.status, final.completed, final.failed) == (0, len(FIRST), 0), final

    try:
        asyncio.run(move_all())
        files = [read_file(path) for path in peer.files()]
    finally:
        peer.stop()
    return {file.sop_instance_uid: file.data for file in files if file is not None}


@pytest.mark.parametrize("file", FIRST, ids=_name)
def test_file_is_stored(stored: Mapping[str, Answer], file: CorpusFile) -> None:
    assert stored[file.name].status == 0, stored[file.name]


@pytest.mark.parametrize("file", FIRST, ids=_name)
def test_data_set_comes_back_by_get(fetched: Mapping[str, bytes], file: CorpusFile) -> None:
    assert fetched[file.sop_instance_uid] == file.data


@pytest.mark.parametrize("file", FIRST, ids=_name)
def test_data_set_comes_back_by_move(moved: Mapping[str, bytes], file: CorpusFile) -> None:
    assert moved[file.sop_instance_uid] == file.data


async def test_instances_are_listed_under_their_series(server: Pacslite, stored: Mapping[str, Answer]) -> None:
    found: dict[str, tuple[str, str]] = {}
    for study in await query(server.port, identifier("STUDY", StudyInstanceUID="")):
        uid = str(study.StudyInstanceUID)
        for series in await query(server.port, identifier("SERIES", StudyInstanceUID=uid, SeriesInstanceUID="")):
            key = identifier(
                "IMAGE", StudyInstanceUID=uid, SeriesInstanceUID=str(series.SeriesInstanceUID), SOPInstanceUID=""
            )
            for image in await query(server.port, key):
                found[str(image.SOPInstanceUID)] = (uid, str(series.SeriesInstanceUID))
    missing = []
    for file in FIRST:
        header = file.header()
        expected = (str(header.get("StudyInstanceUID", "")), str(header.get("SeriesInstanceUID", "")))
        if all(expected) and found.get(file.sop_instance_uid) != expected:
            missing.append((file.name, found.get(file.sop_instance_uid), expected))
    assert not missing
    assert len(found) == len(FIRST)


@pytest.mark.parametrize("durability", ["full", "commit", "none"])
async def test_what_was_answered_is_found_and_fetched_at_once(new_server: ServerFactory, durability: str) -> None:
    """Also where rows follow their answers: whoever asks writes them first."""
    server = new_server(storage={"durability": durability})
    contexts = [
        Context(1, CT_IMAGE),
        Context(3, STUDY_ROOT_FIND),
        Context(5, STUDY_ROOT_GET),
        Context(7, CT_IMAGE, scp_role=True),
    ]
    async with server.running(), await Wire.associate(server.port, contexts) as wire:
        for number in range(40):
            instance = make_instance(number)
            answer = await wire.store(CT_IMAGE, instance.sop_instance_uid, instance.data, context_id=1)
            assert answer.status == 0
            keys = {"StudyInstanceUID": instance.study_uid, "SeriesInstanceUID": instance.series_uid}
            if number % 3 == 0:
                study = identifier("STUDY", StudyInstanceUID=instance.study_uid, NumberOfStudyRelatedInstances="")
                (found,) = await wire.find(STUDY_ROOT_FIND, study)
                assert int(found[0x00201208]) == number + 1
            elif number % 3 == 1:
                key = identifier("IMAGE", **keys, SOPInstanceUID=instance.sop_instance_uid)
                received, final = await wire.get(STUDY_ROOT_GET, key)
                assert (final.status, [one.data for one in received]) == (0, [instance.data])


async def test_variants_of_one_image_replace_each_other(new_server: ServerFactory) -> None:
    """Many files are one image in several encodings: under ``replace`` the one sent last comes back."""
    server = new_server(storage={"duplicates": "replace"})
    async with server.running():
        wrong: list[str] = []
        for file in VARIANTS:
            (answer,) = await send(server.port, [file])
            key = _instance_key(file)
            received, final = await fetch(server.port, key, storage_contexts([file], scp_role=True, first=3))
            if answer.status or final.status or [instance.data for instance in received] != [file.data]:
                wrong.append(f"{file.name}: stored {answer.status:04x}, got {len(received)}, {final}")
        assert not wrong, "\n".join(wrong)


async def test_odd_deflated_file_leaves_with_its_pad_byte(
    new_server: ServerFactory, corpus_by_name: Mapping[str, CorpusFile], tmp_path: Path
) -> None:
    """``pacslite import`` takes it as it lies there; on the way out fragments are even (PS3.8 Annex E, PS3.5 §A.5)."""
    file = corpus_by_name["image_dfl.dcm"]
    server = new_server()
    peer = StoreScp(tmp_path / "moved", options=("+xa",))
    server.remotes = [{"ae_title": "STORESCP", "host": "127.0.0.1", "port": peer.port}]
    await server.tool("import", file.path, "--data-dir", server.data_dir)
    peer.start()
    try:
        async with server.running(), await Wire.associate(server.port, [Context(1, STUDY_ROOT_MOVE)]) as wire:
            key = identifier("STUDY", StudyInstanceUID=str(file.header().StudyInstanceUID))
            *_, final = await wire.move(STUDY_ROOT_MOVE, key, "STORESCP")
            assert (final.status, final.completed) == (0, 1), final
        (received,) = (read_file(path) for path in peer.files())
    finally:
        peer.stop()
    assert received is not None
    assert received.data == file.data


def _instance_key(file: CorpusFile) -> bytes:
    header = file.header()
    keys: Sequence[str] = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    return identifier("IMAGE", **{keyword: str(header.get(keyword, "")) for keyword in keys})
