"""Common exchanges over the tests' own requestor: identifiers by keyword, store files, fetch them back."""

import warnings
import zlib
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

from pydicom.charset import decode_element
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from tests.support.corpus import CorpusFile
from tests.support.instances import Instance
from tests.support.wire import (
    CT_IMAGE,
    PATIENT_ROOT_FIND,
    PATIENT_ROOT_MOVE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    Answer,
    Context,
    Received,
    Wire,
    encode_elements,
)

__all__ = [
    "QUERY_CONTEXTS",
    "decode_identifier",
    "encapsulated_file",
    "fetch",
    "identifier",
    "parse_data_set",
    "query",
    "send",
    "send_data_sets",
    "send_instances",
    "storage_contexts",
]

QUERY_CONTEXTS = (
    Context(1, VERIFICATION),
    Context(3, STUDY_ROOT_FIND),
    Context(5, STUDY_ROOT_MOVE),
    Context(7, PATIENT_ROOT_FIND),
    Context(9, PATIENT_ROOT_MOVE),
)


def identifier(level: str | None, *, encoding: str = "utf-8", **keys: str) -> bytes:
    """Explicit VR little endian; keys by keyword, encoded as given (name the set in SpecificCharacterSet yourself)."""
    elements: list[tuple[int, str, bytes]] = []
    if level is not None:
        keys = {**keys, "QueryRetrieveLevel": level}
    for keyword, value in keys.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None, keyword
        vr = dictionary_VR(tag)
        raw = value.encode(encoding)
        elements.append((tag, vr, raw + (b"\0" if vr == "UI" else b" ") * (len(raw) % 2)))
    return encode_elements(sorted(elements))


def decode_identifier(data: bytes) -> Dataset:
    """pydicom's view of an identifier in explicit VR little endian, text decoded by its Specific Character Set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data_set = read_dataset(BytesIO(data), is_implicit_VR=False, is_little_endian=True)
        charsets = data_set.get("SpecificCharacterSet") or "ISO_IR 6"
        for element in data_set:
            decode_element(element, charsets)
    return data_set


def parse_data_set(transfer_syntax_uid: str, data: bytes) -> Dataset:
    """pydicom's view of the bytes of a data set."""
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        data = zlib.decompress(data, -zlib.MAX_WBITS)
    implicit, big = transfer_syntax_uid == ImplicitVRLittleEndian, transfer_syntax_uid == ExplicitVRBigEndian
    return read_dataset(BytesIO(data), is_implicit_VR=implicit, is_little_endian=not big)


async def query(port: int, data: bytes, *, model: str = STUDY_ROOT_FIND) -> list[Dataset]:
    """The matches of one C-FIND on an association of its own."""
    async with await Wire.associate(port, [Context(1, model)]) as wire:
        await wire.start_query(model, data)
        answers = [answer async for answer in wire.answers()]
    assert answers[-1].status == 0, answers[-1]
    return [decode_identifier(answer.identifier or b"") for answer in answers[:-1]]


def storage_contexts(files: Iterable[CorpusFile], *, scp_role: bool = False, first: int = 1) -> list[Context]:
    """One presentation context for each pair of class and syntax."""
    pairs = dict.fromkeys((file.sop_class_uid, file.transfer_syntax_uid) for file in files)
    return [Context(first + 2 * i, sop, (syntax,), scp_role) for i, (sop, syntax) in enumerate(pairs)]


async def send(port: int, files: Sequence[CorpusFile]) -> list[Answer]:
    """C-STORE each file's data set as it is, on one association."""
    contexts = storage_contexts(files)
    ids = {(context.abstract_syntax, context.transfer_syntaxes[0]): context.context_id for context in contexts}
    async with await Wire.associate(port, contexts) as wire:
        return [
            await wire.store(
                file.sop_class_uid,
                file.sop_instance_uid,
                file.data,
                context_id=ids[file.sop_class_uid, file.transfer_syntax_uid],
            )
            for file in files
        ]


async def send_instances(port: int, instances: Iterable[Instance]) -> None:
    """C-STORE synthetic instances, each answered 0000."""
    async with await Wire.associate(port, [Context(1, CT_IMAGE)]) as wire:
        for instance in instances:
            answer = await wire.store(CT_IMAGE, instance.sop_instance_uid, instance.data)
            assert answer.status == 0, answer


async def send_data_sets(port: int, data_sets: Iterable[tuple[str, str, bytes]]) -> None:
    """C-STORE data sets of these SOP Class and Instance UIDs, in explicit VR little endian, each answered 0000."""
    data_sets = list(data_sets)
    contexts = [Context(1 + 2 * at, uid) for at, uid in enumerate(dict.fromkeys(uid for uid, _, _ in data_sets))]
    async with await Wire.associate(port, contexts) as wire:
        for sop_class, sop_instance, data in data_sets:
            answer = await wire.store(sop_class, sop_instance, data)
            assert answer.status == 0, answer


async def fetch(
    port: int, data: bytes, contexts: Iterable[Context], *, model: str = STUDY_ROOT_GET, maximum_length: int = 1 << 20
) -> tuple[list[Received], Answer]:
    """C-GET on an association of its own; ``contexts`` are the storage contexts, from ID 3 on."""
    proposed = [Context(1, model), *contexts]
    async with await Wire.associate(port, proposed, maximum_length=maximum_length) as wire:
        return await wire.get(model, data)


def encapsulated_file(path: Path, transfer_syntax_uid: str, sop_class_uid: str, uid: str) -> CorpusFile:
    """A file with encapsulated noise for pixels, for syntaxes that no sample file has."""
    noise = bytes(range(256)) * 8
    fragments = encode_elements([]) + b"".join(
        (0xFFFE).to_bytes(2, "little") + tag.to_bytes(2, "little") + len(body).to_bytes(4, "little") + body
        for tag, body in ((0xE000, b""), (0xE000, noise), (0xE0DD, b""))
    )
    data = (
        identifier(
            None,
            SOPClassUID=sop_class_uid,
            SOPInstanceUID=uid,
            StudyInstanceUID=uid + ".1",
            SeriesInstanceUID=uid + ".2",
            PatientID="ENCAPSULATED",
            PatientName="Encapsulated^Noise",
            Modality="OT",
        )
        + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
        + fragments
    )
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(uid)
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = UID("1.2.826.0.1.3680043.8.498.1")
    meta.FileMetaInformationVersion = b"\0\1"
    raw = DicomBytesIO()
    raw.is_little_endian, raw.is_implicit_VR = True, False

    write_file_meta_info(raw, meta)
    path.write_bytes(b"\0" * 128 + b"DICM" + raw.getvalue() + data)
    return CorpusFile(path, sop_class_uid, uid, transfer_syntax_uid, data)
