"""What follows the header is all there, or it is said what is not; what is merely odd is let in."""

import struct
import time

import pytest

from pacslite.dataset.remainder import Remainder
from pacslite.dataset.scan import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    DataSetError,
    HeaderScanner,
)

LITTLE, BIG, IMPLICIT = EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
PIXELS = 0x7FE00010
FRAGMENTS = bytes.fromhex("E07F1000 4F420000 FFFFFFFF FEFF00E000000000")  # PS3.5 §A.4, with an empty Basic Offset Table
DELIMITER = bytes.fromhex("FEFFDDE0 00000000")


def _element(tag: int, vr: str, value: bytes, syntax: str = LITTLE) -> bytes:
    order = ">" if syntax == BIG else "<"
    start = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT:
        return start + struct.pack("<I", len(value)) + value
    if vr in {"OB", "OW", "OV", "OF", "SQ"}:
        return start + vr.encode() + struct.pack(f"{order}xxI", len(value)) + value
    return start + vr.encode() + struct.pack(f"{order}H", len(value)) + value


def _fragment(size: int) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, size) + bytes(range(1, 256))[:size]


def _judge(data: bytes, syntax: str, piece: int) -> str:
    scan = HeaderScanner(syntax)
    remainder = None
    try:
        for at in range(0, len(data), piece):
            part = data[at : at + piece]
            if scan.feed(part):
                remainder = remainder or Remainder(scan)
                remainder.feed(part, at)
        scan.finish()
        if remainder is not None:
            remainder.finish(len(data))
    except DataSetError as error:
        return str(error)
    return ""


# what follows the header, and how many bytes at its end may be missing
WHOLE = [
    pytest.param(_element(PIXELS, "OW", bytes(range(100))), LITTLE, 0, id="pixels"),
    pytest.param(_element(PIXELS, "OW", bytes(range(100)), BIG), BIG, 0, id="big endian"),
    pytest.param(_element(PIXELS, "OW", bytes(range(100)), IMPLICIT), IMPLICIT, 0, id="implicit"),
    pytest.param(_element(0x7FE00008, "OF", bytes(range(100))), LITTLE, 0, id="floats"),
    pytest.param(_element(PIXELS, "OB", b"123"), LITTLE, 0, id="odd length"),
    pytest.param(
        _element(0x7FE00000, "UL", b"\x22\0\0\0") + _element(PIXELS, "OW", b"1234"), LITTLE, 0, id="group length"
    ),
    pytest.param(
        _element(0x7FE00001, "OV", bytes(8))
        + _element(0x7FE00002, "OV", bytes(8))
        + FRAGMENTS
        + _fragment(6)
        + DELIMITER,
        LITTLE,
        8,
        id="extended offset table",
    ),
    pytest.param(FRAGMENTS + _fragment(6) + _fragment(200) + DELIMITER, LITTLE, 8, id="fragments"),
    pytest.param(FRAGMENTS + _fragment(6) + _fragment(200), LITTLE, 0, id="fragments without a delimiter"),
    pytest.param(_element(0x7FE10010, "LO", b"ME") + _element(0x7FE11010, "OB", b"1234"), LITTLE, 0, id="private"),
]


@pytest.mark.parametrize("piece", [1, 3, 12, 13, 4096])
@pytest.mark.parametrize(("rest", "syntax", "spare"), WHOLE)
def test_it_may_end_nowhere_but_at_its_end(rest: bytes, syntax: str, spare: int, piece: int) -> None:
    """Of what stands there by itself, at least one byte before the last value's end makes it damage."""
    header = _element(0x00080060, "CS", b"CT", syntax)
    data = header + rest
    assert _judge(data, syntax, piece) == ""
    last = len(data) - spare
    for end in (last - 1, last - 2):
        assert "element at byte" in _judge(data[:end], syntax, piece)
    assert "element at byte 10" in _judge(data[: len(header) + 9], syntax, piece)


@pytest.mark.parametrize("piece", [1, 5, 4096])
@pytest.mark.parametrize(
    "behind",
    [
        bytes(3),
        bytes(300),
        b" " * 300,
        b"\xff" * 300,
        b"\xe0\x7f\x20\x00OB\0\0\xff\xff\xff\x7f",  # whatever it is, the pixels are there
        _element(0xFFFCFFFC, "OB", bytes(300))[:100],  # Data Set Trailing Padding
        bytes.fromhex("FEFFDDE0 FFFFFFFF"),
    ],
)
@pytest.mark.parametrize("rest", [_element(PIXELS, "OW", b"1234"), FRAGMENTS + _fragment(40)])
def test_what_stands_behind_the_pixels_is_nobodys_business(rest: bytes, behind: bytes, piece: int) -> None:
    assert _judge(rest + behind, LITTLE, piece) == ""


@pytest.mark.parametrize("rest", [DELIMITER, _element(0xFFFCFFFC, "OB", bytes(300))[:100], b""])
def test_a_data_set_without_pixels_lacks_nothing(rest: bytes) -> None:
    assert _judge(_element(0x00080060, "CS", b"CT") + rest, LITTLE, 4096) == ""


def test_it_is_said_what_is_missing() -> None:
    data = _element(0x00080060, "CS", b"CT") + _element(PIXELS, "OW", bytes(100_000))
    assert _judge(data[:60_022], LITTLE, 4096) == "element at byte 10 goes 40000 bytes beyond the data set"


def test_fragments_without_end_cost_no_time_without_end() -> None:
    scan = HeaderScanner(LITTLE)
    scan.feed(FRAGMENTS)
    remainder = Remainder(scan)
    remainder.feed(FRAGMENTS, 0)
    more = _fragment(0) * 65_536
    start = time.process_time()
    for turn in range(200):  # at a step a fragment 10 s and more
        remainder.feed(more, len(FRAGMENTS) + len(more) * turn)
    assert time.process_time() - start < 3
    assert remainder.done
