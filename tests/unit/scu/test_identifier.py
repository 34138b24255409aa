"""Identifiers as a client writes and reads them."""

import pytest

from pacslite.dimse.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacslite.scu.identifier import UnknownKey, decode_answer, encode_keys


@pytest.mark.parametrize("syntax", [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PatientName", "M\u00fcller^J\u00fcrgen"),
        ("Rows", "512"),
        ("SelectorFDValue", "0.5\\-2.0"),
        ("FrameIncrementPointer", "0018,1063\\0018,1065"),
        ("StudyInstanceUID", "1.2.3"),
        ("StudyDate", ""),
    ],
)
def test_a_value_is_read_as_it_was_written(key: str, value: str, syntax: str) -> None:
    assert decode_answer(encode_keys({key: value}, "study", syntax), syntax)[key] == value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Rows", "abc"),
        ("Rows", "65536"),
        ("SelectorFLValue", "1e39"),
        ("SelectorFDValue", "x"),
        ("FrameIncrementPointer", "1063"),
        ("Nothing", ""),
        ("ReferencedStudySequence", "x"),
    ],
)
def test_what_cannot_be_written_is_told(key: str, value: str) -> None:
    with pytest.raises(UnknownKey, match=key):
        encode_keys({key: value}, "study", EXPLICIT_VR_LITTLE_ENDIAN)
