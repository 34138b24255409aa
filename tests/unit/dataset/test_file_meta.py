"""The File Meta Information we write, and that of others we read."""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import validate_file_meta
from xxhash import xxh3_128_digest

from pacslite.dataset.meta import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    PRIVATE_CREATOR_UID,
    FileMeta,
    FileMetaError,
    encode_file_meta,
    file_meta_size,
    private_information,
    read_file_meta,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DATA_SET = bytes.fromhex("08001600") + b"UI\x1a\x00" + CT.encode() + b"\0" + bytes.fromhex("08006000") + b"CS\x02\x00CT"


def header(data_set: bytes = DATA_SET, **changes: str) -> bytes:
    """Encode a header for a data set."""
    values = {
        "sop_class_uid": CT,
        "sop_instance_uid": "1.2.3",
        "transfer_syntax_uid": EXPLICIT,
        "source_ae_title": "CT01",
    } | changes
    return encode_file_meta(private=private_information(len(data_set), xxh3_128_digest(data_set)), **values)


UIDS = st.text("0123456789.", min_size=1, max_size=64)


@settings(deadline=None)
@given(UIDS, UIDS, st.text("ABCDEFGHIJ ", min_size=1, max_size=16).map(str.strip), st.binary(max_size=50))
def test_a_header_comes_back(sop_class: str, sop_instance: str, ae_title: str, data_set: bytes) -> None:
    encoded = header(data_set, sop_class_uid=sop_class, sop_instance_uid=sop_instance, source_ae_title=ae_title)
    assert len(encoded) == file_meta_size(
        sop_class_uid=sop_class,
        sop_instance_uid=sop_instance,
        transfer_syntax_uid=EXPLICIT,
        source_ae_title=ae_title,
    )
    digest = xxh3_128_digest(data_set)
    meta = FileMeta(sop_class, sop_instance, EXPLICIT, ae_title, len(encoded), len(data_set), digest)
    assert read_file_meta(encoded + data_set) == meta
    assert read_file_meta(memoryview(encoded)) == meta


def test_a_header_is_read_from_a_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "1.dcm"
    path.write_bytes(header() + DATA_SET)
    descriptor = os.open(path, os.O_RDONLY)
    os.lseek(descriptor, 7, os.SEEK_SET)
    try:
        assert read_file_meta(descriptor) == read_file_meta(header() + DATA_SET)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 7
    finally:
        os.close(descriptor)


def test_the_preamble_is_ours() -> None:
    assert header().startswith(bytes(128) + b"DICM")


def test_a_header_ends_where_ours_ends() -> None:
    """A sender's data set may begin with a group 0002 of its own: the file's length and digest count it in."""
    sent = bytes.fromhex("02001000") + b"UI\x14\x00" + b"1.2.840.10008.1.2.1\0" + DATA_SET
    meta = read_file_meta(header(sent) + sent)
    assert (meta.data_set_offset, meta.data_set_length) == (len(header(sent)), len(sent))


def test_pydicom_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "1.dcm"
    path.write_bytes(header() + DATA_SET)
    read = pydicom.dcmread(path)  # warnings are errors
    assert read.Modality == "CT"
    meta = read.file_meta
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert meta.FileMetaInformationGroupLength == len(header()) - 128 - 4 - 12
    assert meta.MediaStorageSOPClassUID == CT
    assert meta.TransferSyntaxUID == EXPLICIT
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SourceApplicationEntityTitle == "CT01"
    assert meta.PrivateInformationCreatorUID == PRIVATE_CREATOR_UID
    assert meta.PrivateInformation == private_information(len(DATA_SET), xxh3_128_digest(DATA_SET))
    validate_file_meta(meta)
    assert all(pydicom.uid.UID(uid).is_valid for uid in (IMPLEMENTATION_CLASS_UID, PRIVATE_CREATOR_UID))
    assert len(IMPLEMENTATION_VERSION_NAME) <= 16


def test_dcmtk_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "1.dcm"
    path.write_bytes(header() + DATA_SET)
    for command in (["dcmftest"], ["dcmdump", "-v"]):
        tool = shutil.which(command[0])
        assert tool, "DCMTK is missing"
        run = subprocess.run([tool, *command[1:], path], capture_output=True, text=True, check=True)
        assert "W:" not in run.stderr
        assert "E:" not in run.stderr
    assert f"{len(private_information(0, bytes(16)))}, 1 PrivateInformation\n" in run.stdout
    assert "(0008,0060) CS [CT]" in run.stdout


def group(*elements: bytes) -> bytes:
    """Give a header of the elements."""
    return bytes(128) + b"DICM" + b"".join(elements)


def element(number: int, vr: bytes, value: bytes) -> bytes:
    """Encode a short element of group 0002."""
    return struct.pack("<HH2sH", 2, number, vr, len(value)) + value


SYNTAX = element(0x0010, b"UI", b"1.2.840.10008.1.2.1\0")


@pytest.mark.parametrize(
    "encoded",
    [
        group(SYNTAX),  # no group length
        group(element(0, b"UL", b"\xff\xff\0\0"), SYNTAX),  # a wrong one
        group(SYNTAX, element(0x0016, b"AE", b"X" * 60_000 + b" ")),  # longer than one read
        group(SYNTAX, struct.pack("<HH2sHI", 2, 0x0102, b"OB", 0, 200_000) + bytes(200_000)),  # others' private part
        group(
            SYNTAX,
            element(0x0100, b"UI", PRIVATE_CREATOR_UID.encode() + b"\0" * (len(PRIVATE_CREATOR_UID) % 2)),
            struct.pack("<HH2sHI", 2, 0x0102, b"OB", 0, 4) + b"PLF0",  # a layout we do not know
        ),
    ],
    ids=range(5),
)
def test_headers_of_others_are_read(encoded: bytes) -> None:
    meta = read_file_meta(encoded + DATA_SET)
    assert meta.transfer_syntax_uid == EXPLICIT
    assert meta.data_set_offset == len(encoded)
    assert (meta.data_set_length, meta.digest) == (None, None)
    assert read_file_meta(encoded).data_set_offset == len(encoded)


@pytest.mark.parametrize("length", range(1820, 1900, 2))
def test_a_header_may_end_at_the_end_of_a_read(length: int) -> None:
    """The first read takes 2048 bytes; an element's header may be cut by it."""
    for last in (b"", element(0x0018, b"AE", b"LAST")):
        encoded = group(SYNTAX, element(0x0016, b"AE", b"X" * length), last)
        meta = read_file_meta(encoded + DATA_SET * 10)
        assert meta.data_set_offset == len(encoded)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no DICM prefix"),
        (bytes(200), "no DICM prefix"),
        (group(), "no Transfer Syntax UID"),
        (group(element(0x0002, b"UI", b"1.2\0")) + DATA_SET, "no Transfer Syntax UID"),
        (group(SYNTAX[:-3]), "leaves the file"),
        (group(SYNTAX, struct.pack("<HHI", 2, 0x0012, 4) + bytes(4)), "has no VR"),
        (group(SYNTAX, struct.pack("<HH2sHI", 2, 0x0102, b"OB", 0, 1 << 31)) + bytes(2 << 20), "goes on beyond"),
    ],
)
def test_what_is_no_header_is_told(content: bytes, problem: str) -> None:
    with pytest.raises(FileMetaError, match=problem):
        read_file_meta(content)


def test_every_cut_of_a_header_is_noticed() -> None:
    encoded = header()
    for length in range(len(encoded)):
        try:
            meta = read_file_meta(encoded[:length])
        except FileMetaError:
            continue
        assert meta.digest is None  # cut between two elements: a header, but not one that proves its file
