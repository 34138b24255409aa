"""Time of one header scan: a CT slice of 120 elements, explicit VR little endian, as storage does it.

``python benchmarks/scan_header.py``: the best of seven rounds, microseconds.
"""

import struct
import timeit

from pacslite.dataset.element import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacslite.dataset.scan import HeaderScanner

ELEMENTS = 120
ROUNDS = 1000
VRS = (b"LO", b"UI", b"DS", b"US", b"PN", b"DA", b"CS", b"IS")


def header(explicit: bool, sequences: int = 4) -> bytes:
    """Make a header of ELEMENTS elements, some of them sequences, and the first 60 KiB of pixels."""
    parts = []
    for number in range(ELEMENTS):
        group, element = 0x0008 + number // 30 * 8, 0x0010 + number
        is_sequence = number % (ELEMENTS // sequences) == 1
        value = b"x" * (number % 20 * 2)
        if is_sequence:
            value = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 3
        if not explicit:
            parts.append(struct.pack("<HHI", group, element, len(value)))
        elif is_sequence:
            parts.append(struct.pack("<HH2sHI", group, element, b"SQ", 0, len(value)))
        else:
            parts.append(struct.pack("<HH2sH", group, element, VRS[number % len(VRS)], len(value)))
        parts.append(value)
    if explicit:
        parts.append(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 524288))
    else:
        parts.append(struct.pack("<HHI", 0x7FE0, 0x0010, 524288))
    parts.append(bytes(60 << 10))
    return b"".join(parts)


def measure(data: bytes, syntax: str, piece: int) -> float:
    """Give the microseconds of one scan that gets ``piece`` bytes at a time."""
    view = memoryview(data)
    pieces = [view[at : at + piece] for at in range(0, len(view), piece)]

    def scan() -> None:
        scanner = HeaderScanner(syntax)
        for part in pieces:
            if scanner.feed(part):
                return

    return min(timeit.repeat(scan, number=ROUNDS, repeat=7)) / ROUNDS * 1e6


def main() -> None:
    """Print a line a case."""
    for name, explicit, syntax in (
        ("explicit", True, EXPLICIT_VR_LITTLE_ENDIAN),
        ("implicit", False, IMPLICIT_VR_LITTLE_ENDIAN),
    ):
        data = header(explicit)
        for piece in (1 << 20, 1024):
            print(f"{name:9} pieces of {piece:8}: {measure(data, syntax, piece):6.1f} us")
    scanner = HeaderScanner(EXPLICIT_VR_LITTLE_ENDIAN)
    scanner.feed(header(True))
    tags = tuple(scanner.elements)
    for name, call in (
        (f"values of {len(tags)}", lambda: scanner.values(tags)),
        (f"raw_many of {len(tags)}", lambda: scanner.raw_many(tags)),
    ):
        print(f"{name:31}: {min(timeit.repeat(call, number=ROUNDS, repeat=7)) / ROUNDS * 1e6:6.1f} us")


if __name__ == "__main__":
    main()
