"""Time of what one C-FIND answer costs in the data set layer: a row encoded, an identifier decoded, text.

``python benchmarks/identifiers.py``: the best of seven rounds, microseconds.
"""

import timeit
from collections.abc import Callable

from pacslite.dataset.charset import decode_text, encode_text, fold_name
from pacslite.dataset.element import EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacslite.dataset.encode import IdentifierEncoder, convert_elements, decode_identifier

ROUNDS = 2000
VRS = ("PN", "LO", "UI", "DA", "CS")
COLUMNS = [(0x00100000 + number, VRS[number % len(VRS)]) for number in range(1, 21)]
ROW = [b"x" * (number * 3 % 40) for number in range(20)]
JAPANESE = ("", "ISO 2022 IR 87")
NAME = "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=\u3084\u307e\u3060^\u305f\u308d\u3046"


def main() -> None:
    """Print a line a case."""
    encoder = IdentifierEncoder(EXPLICIT_VR_LITTLE_ENDIAN)
    row = encoder.prepare(COLUMNS)
    implicit = IdentifierEncoder(IMPLICIT_VR_LITTLE_ENDIAN).prepare(COLUMNS)
    identifier = row.encode(ROW)
    japanese = encode_text(NAME, "PN", JAPANESE) or b""
    cases: dict[str, Callable[[], object]] = {
        "row of 20, explicit": lambda: row.encode(ROW),
        "row of 20, implicit": lambda: implicit.encode(ROW),
        "20 elements one by one": lambda: [
            encoder.element(tag, vr, value) for (tag, vr), value in zip(COLUMNS, ROW, strict=True)
        ],
        "identifier of 20 decoded": lambda: decode_identifier(identifier, EXPLICIT_VR_LITTLE_ENDIAN),
        "20 elements converted": lambda: convert_elements(
            identifier, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN
        ),
        "ASCII name decoded": lambda: decode_text(b"Doe^John", "PN", ("ISO_IR 100",)),
        "Latin name decoded": lambda: decode_text(b"M\xfcller^J\xf6rg", "PN", ("ISO_IR 100",)),
        "Japanese name decoded": lambda: decode_text(japanese, "PN", JAPANESE),
        "Japanese name encoded": lambda: encode_text(NAME, "PN", JAPANESE),
        "ASCII name folded": lambda: fold_name("Doe^John"),
        "Latin name folded": lambda: fold_name("M\u00fcller^J\u00f6rg"),
    }
    for name, call in cases.items():
        print(f"{name:25} {min(timeit.repeat(call, number=ROUNDS, repeat=7)) / ROUNDS * 1e6:7.2f} us")


if __name__ == "__main__":
    main()
