"""Linear time and bounded memory of the header scan and of identifiers, whatever the bytes."""

import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Sequence

import pytest

from pacslite.dataset.decode import IdentifierError, decode_identifier
from pacslite.dataset.layout import Layout
from pacslite.dataset.scan import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    DataSetError,
    HeaderScanner,
)

SEQUENCE = struct.pack("<HH2sHI", 0x0008, 0x2112, b"SQ", 0, 0xFFFFFFFF)
IMPLICIT_SEQUENCE = struct.pack("<HHI", 0x0008, 0x2112, 0xFFFFFFFF)
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
SHORT = struct.pack("<HH2sH", 0x0008, 0x0100, b"SH", 4) + b"CODE"
PIXELS = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 0)
PATIENT_ID = struct.pack("<HH2sH", 0x0010, 0x0020, b"LO", 4) + b"ID12"


def private(count: int, length: int, group: int = 0x0009) -> bytes:
    """Give private elements, each of its own tag; public ones if the group is even."""
    value = bytes(length)
    return b"".join(
        struct.pack("<HH2sH", group + 2 * (number >> 15), 0x1000 + (number & 0x7FFF), b"LO", length) + value
        for number in range(count)
    )


SHAPES: dict[str, tuple[Callable[[int], bytes], str, int]] = {
    "nested": (lambda n: (SEQUENCE + ITEM) * n + (ITEM_END + SEQUENCE_END) * n, EXPLICIT_VR_LITTLE_ENDIAN, 5_000),
    "nested, implicit": (lambda n: (IMPLICIT_SEQUENCE + ITEM) * n, IMPLICIT_VR_LITTLE_ENDIAN, 5_000),
    "nested, never closed": (lambda n: (SEQUENCE + ITEM) * n, EXPLICIT_VR_LITTLE_ENDIAN, 5_000),
    "empty items": (lambda n: SEQUENCE + EMPTY_ITEM * n + SEQUENCE_END, EXPLICIT_VR_LITTLE_ENDIAN, 100_000),
    "open items": (lambda n: SEQUENCE + (ITEM + ITEM_END) * n + SEQUENCE_END, EXPLICIT_VR_LITTLE_ENDIAN, 30_000),
    "long item": (lambda n: SEQUENCE + ITEM + SHORT * n + ITEM_END + SEQUENCE_END, EXPLICIT_VR_LITTLE_ENDIAN, 50_000),
    "empty sequences": (lambda n: (SEQUENCE + SEQUENCE_END) * n, EXPLICIT_VR_LITTLE_ENDIAN, 10_000),
    "private elements": (lambda n: private(n, 4), EXPLICIT_VR_LITTLE_ENDIAN, 10_000),
    "one element again and again": (lambda n: SHORT * n, EXPLICIT_VR_LITTLE_ENDIAN, 20_000),
    "values of 64 KiB": (lambda n: private(n, 65534), EXPLICIT_VR_LITTLE_ENDIAN, 20),
}


def scan(data: bytes, syntax: str, piece: int, layout: Layout | None = None) -> tuple[HeaderScanner, str]:
    """Scan in pieces; give the scanner and what it refused."""
    scanner = HeaderScanner(syntax, layout=layout)
    view = memoryview(data)
    try:
        for at in range(0, len(view), piece):
            if scanner.feed(view[at : at + piece]):
                break
        scanner.finish()
    except DataSetError as error:
        return scanner, str(error)
    return scanner, ""


def seconds(data: bytes, syntax: str, piece: int, layout: Layout | None = None) -> float:
    """Give the CPU time of one scan, the best of three."""

    def once() -> float:
        start = time.process_time()
        scan(data, syntax, piece, layout)
        return time.process_time() - start

    return min(once() for _ in range(3))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("piece", [1 << 17, 1000])
def test_ten_times_the_bytes_cost_ten_times_the_time(shape: str, piece: int) -> None:
    make, syntax, count = SHAPES[shape]
    small, large = seconds(make(count), syntax, piece), seconds(make(count * 10), syntax, piece)
    assert large < 10 * small * 3 + 0.01, (small, large)  # caches and neighbours count; the square would be a hundred
    assert large / len(make(count * 10)) < 2e-6  # 2 us a byte, for the densest on the slowest machine


@pytest.mark.parametrize("shape", SHAPES)
def test_single_bytes_cost_linear_time_too(shape: str) -> None:
    make, syntax, count = SHAPES[shape]
    data = make(count)[:60_000]
    small, large = seconds(data[: len(data) // 10], syntax, 1), seconds(data, syntax, 1)
    assert large < 10 * small * 3 + 0.01, (small, large)  # caches and neighbours count; the square would be a hundred


def peak_memory(call: Callable[[], object]) -> int:
    """Give the most that was allocated during the call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("20,000 levels", (SEQUENCE + ITEM) * 20_000 + (ITEM_END + SEQUENCE_END) * 20_000 + PATIENT_ID),
        ("200,000 empty items", SEQUENCE + EMPTY_ITEM * 200_000 + SEQUENCE_END + PATIENT_ID),
        ("a long item", SEQUENCE + ITEM + SHORT * 100_000 + ITEM_END + SEQUENCE_END + PATIENT_ID),
        ("a long value", struct.pack("<HH2sHI", 0x0008, 0x2112, b"OB", 0, 1 << 24) + bytes(1 << 24) + PATIENT_ID),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_kept_costs_no_memory(name: str, data: bytes) -> None:
    found: list[HeaderScanner] = []

    def run() -> None:
        scanner, refused = scan(data, EXPLICIT_VR_LITTLE_ENDIAN, 1 << 17)
        assert refused == ""
        found.append(scanner)

    assert peak_memory(run) < 1 << 20, name
    assert found[0].get(0x00100020) == b"ID12"
    assert list(found[0].elements) == [0x00100020]


@pytest.mark.parametrize("vr", [b"OB", b"SQ", b"UN", b"UT"])
def test_four_gigabytes_announced_cost_nothing(vr: bytes) -> None:
    data = struct.pack("<HH2sHI", 0x0008, 0x2112, vr, 0, 0xFFFFFFFE)
    sent = data + bytes(1 << 22)
    assert peak_memory(lambda: scan(sent, EXPLICIT_VR_LITTLE_ENDIAN, 1 << 17)) < 1 << 20
    _, refused = scan(data, EXPLICIT_VR_LITTLE_ENDIAN, 1 << 17)
    assert refused == "data set ends inside the element at byte 0"


def test_more_than_the_limit_is_refused_and_never_held() -> None:
    data = private(300_000, 0, group=0x0042)
    scanners: list[HeaderScanner] = []

    def run() -> None:
        scanner, refused = scan(data, EXPLICIT_VR_LITTLE_ENDIAN, 1 << 17)
        assert refused.startswith("header beyond 16777216 bytes")
        scanners.append(scanner)

    assert peak_memory(run) < 20 << 20
    assert scanners[0].held < 18 << 20


SHORT_PRIVATE, LONG_PRIVATE = private(3, 64, group=0x0011), private(40, 65534, group=0x0013)
SHORT_PUBLIC, LONG_PUBLIC = private(3, 64, group=0x0042), private(6, 65534, group=0x0044)
MANY_PRIVATE, MANY_LONG_PUBLIC = private(20_000, 0, group=0x0015), private(30, 65534, group=0x0044)
SEQUENCES = b"".join(
    struct.pack("<HH2sHI", 0x0017, number, b"SQ", 0, 0xFFFFFFFF) + ITEM + SHORT * 4000 + ITEM_END + SEQUENCE_END
    for number in range(0x1000, 0x1000 + 40)
)


@pytest.mark.parametrize(
    ("parts", "kept"),
    [
        ((SHORT_PRIVATE, SHORT_PUBLIC, LONG_PUBLIC), (SHORT_PRIVATE, SHORT_PUBLIC, LONG_PUBLIC)),  # not too much
        ((SHORT_PRIVATE, LONG_PRIVATE, SHORT_PUBLIC, LONG_PUBLIC), (SHORT_PRIVATE, SHORT_PUBLIC, LONG_PUBLIC)),
        ((SHORT_PRIVATE, SEQUENCES, SHORT_PUBLIC, LONG_PUBLIC), (SHORT_PRIVATE, SHORT_PUBLIC, LONG_PUBLIC)),
        ((SHORT_PRIVATE, SHORT_PUBLIC, MANY_LONG_PUBLIC), (SHORT_PUBLIC,)),
        ((SHORT_PRIVATE, MANY_PRIVATE, SHORT_PUBLIC, LONG_PUBLIC), (SHORT_PUBLIC,)),
    ],
    ids=range(5),
)
def test_what_is_private_or_long_is_given_up_first(parts: Sequence[bytes], kept: Sequence[bytes]) -> None:
    """A header may be as large as it likes; no query asks for such values."""
    data = b"".join(parts) + PATIENT_ID
    limit = 1 << 20

    def run(piece: int) -> HeaderScanner:
        scanner = HeaderScanner(EXPLICIT_VR_LITTLE_ENDIAN, header_limit=limit)
        for at in range(0, len(data), piece):
            scanner.feed(memoryview(data)[at : at + piece])
            assert scanner.held < limit + (128 << 10)
        scanner.finish()
        return scanner

    assert peak_memory(lambda: run(1 << 17)) < 2 * limit
    scanner, in_pieces = run(1 << 17), run(50_001)
    assert scanner.raw_many(scanner.tags) == b"".join(kept) + PATIENT_ID
    assert (scanner.elements, scanner.held) == (in_pieces.elements, in_pieces.held)


def test_a_hundred_thousand_private_elements_are_a_header() -> None:
    scanner, refused = scan(private(100_000, 4), EXPLICIT_VR_LITTLE_ENDIAN, 1 << 17)
    assert refused == ""
    assert len(scanner.elements) == 100_000


def deflated(head: bytes, zeros: int) -> bytes:
    """Give a deflated data set that begins with ``head`` and goes on with megabytes of zeros."""
    deflater = zlib.compressobj(9, wbits=-15)
    return b"".join(
        [deflater.compress(head), *(deflater.compress(bytes(1 << 20)) for _ in range(zeros)), deflater.flush()]
    )


def test_a_deflate_bomb_is_inflated_so_far_and_no_further() -> None:
    long_value = struct.pack("<HH2sHI", 0x0042, 0x0011, b"OB", 0, 0xFFFFFFFE)
    bomb = deflated(PATIENT_ID + long_value, zeros=200)
    scanner = HeaderScanner(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert peak_memory(lambda: scanner.feed(bomb)) < 1 << 20
    assert scanner.complete
    assert scanner.truncated
    assert scanner.group == 0x0042
    assert scanner.get(0x00100020) == b"ID12"
    scanner.finish()


def test_a_deflated_header_may_have_long_values_that_are_not_kept() -> None:
    """The limit of what is kept is none of what is inflated and passed over."""
    scanner = HeaderScanner(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    value = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 17 << 20) + bytes(17 << 20)
    scanner.feed(zlib.compress(value + PATIENT_ID + PIXELS, wbits=-15))
    assert (scanner.complete, scanner.truncated) == (True, False)
    assert scanner.get(0x00100020) == b"ID12"


def test_a_deflated_header_within_the_limit_is_whole() -> None:
    limit = 1 << 16
    rest = limit - len(PATIENT_ID) - 12
    for length, is_truncated in ((rest, False), (rest + 1, True)):
        value = struct.pack("<HH2sHI", 0x0042, 0x0011, b"OB", 0, length) + bytes(length)
        for piece in (1, 7, 1 << 16):
            scanner = HeaderScanner(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, keep_limit=64, inflate_limit=limit)
            data = zlib.compress(PATIENT_ID + value, wbits=-15)
            for at in range(0, len(data), piece):
                scanner.feed(data[at : at + piece])
            scanner.finish()
            assert scanner.truncated is is_truncated


def defined_nesting(depth: int) -> bytes:
    """Give sequences of defined length in each other."""
    data = b""
    for _ in range(depth):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data
        data = struct.pack("<HH2sHI", 0x0008, 0x2112, b"SQ", 0, len(item)) + item
    return data


@pytest.mark.parametrize(
    ("data", "syntax", "status"),
    [
        ((SEQUENCE + ITEM) * 50_000, EXPLICIT_VR_LITTLE_ENDIAN, 0xA900),
        ((IMPLICIT_SEQUENCE + ITEM) * 50_000, IMPLICIT_VR_LITTLE_ENDIAN, 0xA900),
        (defined_nesting(2000), EXPLICIT_VR_LITTLE_ENDIAN, 0xA900),
        (SEQUENCE + EMPTY_ITEM * 1_000_000 + SEQUENCE_END, EXPLICIT_VR_LITTLE_ENDIAN, 0xA900),
        (private(200_000, 0), EXPLICIT_VR_LITTLE_ENDIAN, 0xA900),
        (deflated(PATIENT_ID, zeros=64), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, 0xA900),
        (struct.pack("<HH2sHI", 8, 0x2112, b"SQ", 0, 0xFFFFFFFE), EXPLICIT_VR_LITTLE_ENDIAN, 0xC000),
        (random.Random(1).randbytes(1 << 20), EXPLICIT_VR_LITTLE_ENDIAN, 0xC000),
        (random.Random(2).randbytes(1 << 20), IMPLICIT_VR_LITTLE_ENDIAN, 0xC000),
        (random.Random(3).randbytes(1 << 20), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, 0xC000),
    ],
    ids=range(10),
)
def test_hostile_identifiers_are_refused_at_once(data: bytes, syntax: str, status: int) -> None:
    start = time.process_time()
    with pytest.raises(IdentifierError) as refusal:
        decode_identifier(data, syntax)
    assert time.process_time() - start < 0.5
    assert refusal.value.status == status
    assert len(str(refusal.value)) <= 100
