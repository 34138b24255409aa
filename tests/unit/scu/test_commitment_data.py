"""Action and event information of Storage Commitment: round trips, pydicom's view of them, and bytes that are none."""

import zlib
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset

from pacslite.scu.commitment import (
    COMMITMENT_SYNTAXES,
    CommitmentDataError,
    CommitmentReport,
    CommitmentRequest,
    FailedReference,
    Reference,
    TooManyReferences,
    decode_report,
    decode_request,
    encode_report,
    encode_request,
)

IMPLICIT, EXPLICIT, BIG, DEFLATED = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)
UIDS = st.lists(st.integers(0, 2**31), min_size=1, max_size=5).map(lambda parts: ".".join(map(str, (1, *parts))))
REFERENCES = st.lists(st.builds(Reference, UIDS, UIDS), min_size=1, max_size=12, unique=True)
FAILURES = st.lists(st.builds(FailedReference, UIDS, UIDS, st.integers(0, 0xFFFF)), max_size=6)
CT = "1.2.840.10008.5.1.4.1.1.2"
REPORT = CommitmentReport("2.25.7", (Reference(CT, "1.2.3"),), (FailedReference(CT, "1.2.4", 0x0112),))


@given(st.builds(CommitmentRequest, UIDS, REFERENCES.map(tuple)), st.sampled_from(COMMITMENT_SYNTAXES))
def test_request_round_trip(request: CommitmentRequest, syntax: str) -> None:
    assert decode_request(encode_request(request, syntax), syntax) == request


@given(
    st.builds(CommitmentReport, UIDS, REFERENCES.map(tuple), FAILURES.map(tuple)), st.sampled_from(COMMITMENT_SYNTAXES)
)
def test_report_round_trip(report: CommitmentReport, syntax: str) -> None:
    assert decode_report(encode_report(report, syntax, "PACSLITE"), syntax) == report


@pytest.mark.parametrize(
    ("syntax", "implicit", "little"), [(IMPLICIT, True, True), (EXPLICIT, False, True), (BIG, False, False)]
)
def test_report_as_pydicom_reads_it(syntax: str, implicit: bool, little: bool) -> None:
    """PS3.4 Table J.3-2; elements ascend, as pydicom's reader of a file would insist."""
    data = encode_report(REPORT, syntax, "PACSLITE")
    found = read_dataset(BytesIO(data), is_implicit_VR=implicit, is_little_endian=little)
    assert [element.keyword for element in found] == [
        "RetrieveAETitle",
        "TransactionUID",
        "FailedSOPSequence",
        "ReferencedSOPSequence",
    ]
    assert (found.RetrieveAETitle, found.TransactionUID) == ("PACSLITE", "2.25.7")
    (failed,), (committed,) = found.FailedSOPSequence, found.ReferencedSOPSequence
    assert (failed.ReferencedSOPClassUID, failed.ReferencedSOPInstanceUID, failed.FailureReason) == (
        CT,
        "1.2.4",
        0x0112,
    )
    assert (committed.ReferencedSOPClassUID, committed.ReferencedSOPInstanceUID) == (CT, "1.2.3")
    assert len(data) % 2 == 0


@pytest.mark.parametrize(
    ("report", "event", "absent"),
    [
        (REPORT, 2, "SOPInstanceUID"),
        (REPORT._replace(failed=()), 1, "FailedSOPSequence"),
        (REPORT._replace(committed=()), 2, "ReferencedSOPSequence"),
    ],
)
def test_event_type_and_empty_sequences(report: CommitmentReport, event: int, absent: str) -> None:
    assert report.event_type_id == event
    found = read_dataset(BytesIO(encode_report(report, EXPLICIT)), is_implicit_VR=False, is_little_endian=True)
    assert absent not in found


def test_an_instance_named_twice_is_one() -> None:
    reference = Reference(CT, "1.2.3")
    request = CommitmentRequest("1.2", (reference, Reference(CT, "1.2.4"), reference))
    assert decode_request(encode_request(request, EXPLICIT), EXPLICIT).references == request.references[:2]


@pytest.mark.parametrize("syntax", COMMITMENT_SYNTAXES)
def test_too_many_references(syntax: str) -> None:
    data = encode_request(CommitmentRequest("1.2", tuple(Reference(CT, f"1.{n}") for n in range(101))), syntax)
    assert len(decode_request(data, syntax, maximum_references=101).references) == 101
    with pytest.raises(TooManyReferences):
        decode_request(data, syntax, maximum_references=100)
    with pytest.raises((TooManyReferences, CommitmentDataError)):
        decode_request(data, syntax, maximum_references=2)  # more elements than these may have


def test_a_bomb_does_not_go_off() -> None:
    deflater = zlib.compressobj(wbits=-15)
    bomb = deflater.compress(bytes(40 << 20)) + deflater.flush()
    with pytest.raises(CommitmentDataError):
        decode_request(bomb, DEFLATED)


@given(st.binary(max_size=400), st.sampled_from(COMMITMENT_SYNTAXES))
@example(b"", EXPLICIT)
def test_arbitrary_bytes_are_refused_or_read(data: bytes, syntax: str) -> None:
    for decode in (decode_request, decode_report):
        try:
            decode(data, syntax)
        except (CommitmentDataError, TooManyReferences):
            continue


@given(st.data())
def test_damaged_requests_are_refused_or_read(draw: st.DataObject) -> None:
    data = bytearray(
        encode_request(CommitmentRequest("1.2.3", (Reference(CT, "1.2.4"), Reference(CT, "1.5"))), EXPLICIT)
    )
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.integers(0, len(data)))
    with suppress(CommitmentDataError):
        found = decode_request(bytes(data[:cut]), EXPLICIT)
        assert all(0 < len(uid) <= 64 and uid.isascii() for one in found.references for uid in one)
