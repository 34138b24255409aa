"""The header scan against pydicom: every element of all real files, and of thousands of damaged headers."""

import importlib.util
import io
import logging
import os
import random
import warnings
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pydicom
import pytest
from pydicom.filereader import _is_implicit_vr as detect_implicit
from pydicom.filereader import data_element_generator, read_dataset

from pacslite.dataset.meta import FileMetaError, read_file_meta
from pacslite.dataset.scan import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    DataSetError,
    HeaderScanner,
)

UNLIMITED = 1 << 40
CASES = int(os.environ.get("PACSLITE_FUZZ_CASES", "10000"))  # `make soak` asks for more
SEED = int(os.environ.get("PACSLITE_FUZZ_SEED", "20000"))
KNOWN_VRS = {vr.value.encode() for vr in pydicom.valuerep.VR if len(vr.value) == 2}

# Files without File Meta Information: where the data set begins, and its transfer syntax
BARE = {
    "ExplVR_BigEndNoMeta.dcm": (0, EXPLICIT_VR_BIG_ENDIAN),
    "ExplVR_LitEndNoMeta.dcm": (0, EXPLICIT_VR_LITTLE_ENDIAN),
    "OT-PAL-8-face.dcm": (0, IMPLICIT_VR_LITTLE_ENDIAN),
    "meta_missing_tsyntax.dcm": (202, IMPLICIT_VR_LITTLE_ENDIAN),
    "no_meta.dcm": (1, EXPLICIT_VR_LITTLE_ENDIAN),
    "rtstruct.dcm": (0, IMPLICIT_VR_LITTLE_ENDIAN),
}
NOT_DICOM = {"README", "crayons.icc", "rtplan.dump", "rtstruct.dump"}
# What pydicom reads and we refuse
REFUSED = {"rtplan_truncated.dcm": "it ends inside a sequence of defined length: pydicom gives what there is of it"}


class Theirs(NamedTuple):
    """An element as pydicom found it; ``is_cut`` if the data ended first."""

    start: int
    tag: int
    vr: str | None
    raw: bytes
    is_cut: bool


def read_with_pydicom(data: bytes, syntax: str) -> tuple[list[Theirs], Exception | None]:
    """Give the elements up to the pixel data as pydicom's own generator does, and what it raised."""
    little = syntax != EXPLICIT_VR_BIG_ENDIAN
    stream = io.BytesIO(data)
    found: list[Theirs] = []
    start = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        implicit = detect_implicit(stream, syntax == IMPLICIT_VR_LITTLE_ENDIAN, little, None, False)
        stream.seek(0)
        try:
            for element in data_element_generator(
                stream, implicit, little, lambda tag, _vr, _length: tag >= 0x7FE00000
            ):
                end = stream.tell()
                length = getattr(element, "length", 0)
                is_cut = length not in {0, 0xFFFFFFFF} and len(element.value or b"") < length
                found.append(Theirs(start, int(element.tag), element.VR, data[start:end], is_cut))
                start = end
        except Exception as error:
            return found, error
    return found, None


def scan(data: bytes, syntax: str, pieces: Iterator[int] | None = None) -> tuple[HeaderScanner, str]:
    """Scan ``data`` at once, or in pieces; give the scanner and what it refused."""
    scanner = HeaderScanner(syntax, keep_limit=UNLIMITED, header_limit=UNLIMITED)
    view = memoryview(data)
    at = 0
    try:
        while at < len(view):
            size = len(view) if pieces is None else next(pieces)
            if scanner.feed(view[at : at + size]):
                break
            at += size
        scanner.finish()
    except DataSetError as error:
        return scanner, str(error)
    return scanner, ""


def sizes(rng: random.Random, choice: Sequence[int]) -> Iterator[int]:
    """Give sizes of pieces without end."""
    while True:
        yield rng.choice(choice)


def real_files() -> list[Path]:
    """Give pydicom's own files and those of pydicom-data."""
    spec = importlib.util.find_spec("data_store")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    own = Path(pydicom.__file__).parent / "data"
    folders = (own / "test_files", own / "charset_files", Path(spec.submodule_search_locations[0]) / "data")
    skipped = {".py", ".pyc", ".json", ".txt", ".xml", ".gz", ".zip"}
    return sorted(
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in skipped and path.name not in NOT_DICOM
    )


FILES = real_files()


def data_set_of(path: Path) -> tuple[bytes, str]:
    """Give the data set of a file and its transfer syntax."""
    content = path.read_bytes()
    try:
        meta = read_file_meta(content)
    except FileMetaError:
        start, syntax = BARE[path.name]
        return content[start:], syntax
    return content[meta.data_set_offset :], meta.transfer_syntax_uid


@pytest.fixture(autouse=True)
def silent_pydicom() -> Iterator[None]:
    """Damaged character sets make pydicom warn thousands of times."""
    logger = logging.getLogger("pydicom")
    logger.disabled = True
    yield
    logger.disabled = False


def test_all_real_files_are_there() -> None:
    assert len(FILES) > 240


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_real_header_is_pydicoms(path: Path) -> None:
    data, syntax = data_set_of(path)
    is_deflated = syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    theirs, error = read_with_pydicom(zlib.decompress(data, -15) if is_deflated else data, syntax)
    assert error is None
    scanner, refused = scan(data, syntax)
    assert bool(refused) == (path.name in REFUSED), refused
    whole = {element.tag: element for element in theirs if not element.is_cut}
    assert dict.fromkeys(scanner.elements) == dict.fromkeys(whole)
    for tag, element in whole.items():
        assert scanner.raw(tag) == element.raw, hex(tag)
        ours = scanner.elements[tag]
        assert element.vr is None or ours.vr == element.vr or (ours.vr, element.vr) == ("UN", "SQ"), hex(tag)
    check_values(scanner, whole)


def check_values(scanner: HeaderScanner, whole: dict[int, Theirs]) -> None:
    """Compare values with pydicom's parse of one element at a time."""
    little, implicit = not scanner.big_endian, not scanner.explicit
    for tag in whole:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            single = read_dataset(io.BytesIO(scanner.raw(tag)), implicit, little).get_item(tag)
        value = scanner.get(tag)
        if isinstance(single.value, bytes | None):
            assert value == (single.value or b"")
        else:  # a sequence of undefined length, which pydicom has parsed: its value ends before the delimiter
            assert value is not None
            assert scanner.raw(tag).endswith(value + scanner.raw(tag)[-8:])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_pieces_make_no_difference(path: Path) -> None:
    data, syntax = data_set_of(path)
    data = data[: 1 << 18]
    at_once, refused = scan(data, syntax)
    rng = random.Random(path.name)
    for largest in (3, 100, 5000):
        in_pieces, refused_too = scan(data[: largest * 5000], syntax, sizes(rng, range(1, largest + 1)))
        if largest * 5000 >= len(data):
            assert refused_too == refused
        assert in_pieces.explicit == at_once.explicit
        for tag in in_pieces.elements:
            assert in_pieces.raw(tag) == at_once.raw(tag)
        assert len(in_pieces.elements) <= len(at_once.elements)


# fuzz


def small_headers() -> list[tuple[bytes, str]]:
    """Give whole short elements of every real file, to be mutated."""
    headers = []
    for path in FILES:
        data, syntax = data_set_of(path)
        scanner, _ = scan(data, syntax)
        raws = [scanner.raw(tag) for tag in sorted(scanner.elements) if len(scanner.raw(tag)) < 400]
        while sum(map(len, raws)) > 1200:
            raws.pop()
        if syntax not in {IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN}:
            syntax = EXPLICIT_VR_LITTLE_ENDIAN
        headers.append((b"".join(raws), syntax))
    return headers


INSERTED = (
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
    b"\xfe\xff\x00\xe0\0\0\0\0",
    b"\xfe\xff\x0d\xe0\0\0\0\0",
    b"\xfe\xff\xdd\xe0\0\0\0\0",
    b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff",
    b"\x08\x00\x15\x11UN\0\0\xff\xff\xff\xff",
    b"\x08\x00\x15\x11\xff\xff\xff\xff",
    b"\x00\x08\x11\x15SQ\0\0\xff\xff\xff\xff",
)


def mutate(header: bytes, rng: random.Random) -> bytes:
    """Damage a header in one to five places."""
    data = bytearray(header)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(data) or 1)
        match rng.randrange(7):
            case 0:
                data[at : at + 1] = rng.randbytes(1)
            case 1:
                data[at : at + 1] = bytes(byte ^ 1 << rng.randrange(8) for byte in data[at : at + 1])
            case 2:
                del data[at : at + rng.choice((1, 2, 4, 8, 16))]
            case 3:
                data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8)))
            case 4:
                del data[at:]
            case 5:
                data[at : at + 4] = b"\xff\xff\xff\xff"
            case _:
                data[at:at] = rng.choice(INSERTED)
    return bytes(data)


def why_different(scanner: HeaderScanner, theirs: list[Theirs], error: Exception | None) -> str:
    """Name the reason for which the first element that differs may differ; empty if there is none.

    Of duplicates all but the last are lost on both sides: one that differs may have a reason, but needs none.
    """
    last = {element.tag: element.start for element in theirs if not element.is_cut}
    for element in theirs:
        if element.is_cut or element.start < scanner.leading or scanner.raw(element.tag) == element.raw:
            continue
        reason = why_read_differently(element.raw, scanner)
        if reason or (error is None and element.start == last[element.tag]):
            return reason
    if error is not None:  # pydicom stopped: at a character set with a NUL in it, or inside a sequence
        return f"pydicom raised {type(error).__name__}"
    return ""


def why_read_differently(raw: bytes, scanner: HeaderScanner) -> str:
    """Name what is damaged in an element that pydicom understands in its own way."""
    vr = raw[4:6]
    if not scanner.explicit:
        return "undefined length" if raw[4:8] == b"\xff\xff\xff\xff" else ""
    if not (vr.isalpha() and vr.isupper()):
        # b"AA" <= vr <= b"ZZ" compares the first letter: b"C\xfe" counts as a VR, and so does a length of 0043H
        return "half a VR" if b"AA" <= vr <= b"ZZ" else "undefined length" * (raw[4:8] == b"\xff\xff\xff\xff")
    if vr not in KNOWN_VRS:  # PS3.5 §7.1.2: all VRs to come have a 32-bit length; pydicom takes 16 bits
        return "unknown VR"
    # what pydicom makes of a damaged item: any tag will do for it, a sequence's delimiter is an element
    return "undefined length" if raw[8:12] == b"\xff\xff\xff\xff" else ""


def test_mutated_headers_are_read_alike() -> None:
    """Nothing raised but DataSetError, pieces make no difference, every disagreement has its reason."""
    rng = random.Random(SEED)
    headers = small_headers()
    reasons: dict[str, int] = {}
    for _ in range(CASES):
        header, syntax = rng.choice(headers)
        data = mutate(header, rng)
        scanner, refused = scan(data, syntax)
        in_pieces, refused_too = scan(data, syntax, sizes(rng, (1, 7, 8, 30, 500)))
        assert (refused, scanner.elements) == (refused_too, in_pieces.elements)
        theirs, error = read_with_pydicom(data, syntax)
        leading = 0
        while leading < len(theirs) and theirs[leading].tag >> 16 in {0x0000, 0x0002}:
            leading += 1
        whole = {element.tag: element.raw for element in theirs[leading:] if not element.is_cut}
        if whole != {tag: scanner.raw(tag) for tag in scanner.elements}:
            reason = why_different(scanner, theirs, error)
            assert reason, (syntax, data, refused, error)
            reasons[reason] = reasons.get(reason, 0) + 1
    assert sum(reasons.values()) <= CASES // 20, reasons  # 5%: mutations that hit a VR or an item's header


def test_offsets_of_refusals_are_within_the_data() -> None:
    rng = random.Random(7)
    for header, syntax in small_headers()[:50]:
        for start, end in pairwise(sorted(rng.sample(range(len(header)), min(8, len(header))))):
            _, refused = scan(header[start:end], syntax)
            at = refused.rpartition(" ")[2]
            assert not refused or int(at) <= end - start
