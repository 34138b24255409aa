"""An index made of data sets as senders encode them, and identifiers asked of it as a C-FIND asks them."""

import sqlite3
import struct
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from functools import cache
from pathlib import Path
from typing import Any

from pacslite.archive.extra import ExtraKeys, parse_extra_keys
from pacslite.archive.index.extra_values import extra_states
from pacslite.archive.index.file import IndexFile
from pacslite.archive.index.reader import IndexReader
from pacslite.archive.index.upgrade import upgrade_index
from pacslite.archive.index.writer import Entry, IndexWriter
from pacslite.archive.options import StorageOptions
from pacslite.archive.query import Model, Query, QueryOptions, parse_query
from pacslite.archive.record import make_record
from pacslite.dataset.charset import decode_text, encode_text
from pacslite.dataset.decode import Attribute, Identifier, decode_identifier
from pacslite.dataset.dictionary import keyword_of, tag_of, vr_of
from pacslite.dataset.encode import IdentifierEncoder
from pacslite.dataset.scan import scan_header

__all__ = [
    "EXPLICIT",
    "IMPLICIT",
    "Values",
    "ask",
    "decode",
    "encode",
    "extra_keys_of",
    "find",
    "make_index",
    "parse",
    "reading",
    "uid",
]

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"

Values = Mapping[str, Any]  # keyword to text, number, bytes, a list of items, or an Attribute with its VR

_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_NUMBERS = {"US": "<H", "SS": "<h", "UL": "<I", "SL": "<i", "FL": "<f", "FD": "<d"}


def uid(*numbers: int) -> str:
    """A UID under a root of our own."""
    return ".".join(["1.2.826.0.1.3680043.9.7433.99", *map(str, numbers)])


def encode(values: Values, transfer_syntax_uid: str = EXPLICIT) -> bytes:
    """A data set; its text in the character sets that it says."""
    encoder = IdentifierEncoder(transfer_syntax_uid)
    return encoder.data_set(_encode(values, encoder, ()))


def _encode(values: Values, encoder: IdentifierEncoder, charsets: tuple[str, ...]) -> bytes:
    charset = values.get("SpecificCharacterSet")
    charsets = tuple(charset.split("\\")) if charset else charsets
    tags: dict[int, Any] = {}
    for keyword, value in values.items():
        tag = tag_of(keyword)
        assert tag is not None, keyword
        tags[tag] = value
    parts = []
    for tag, value in sorted(tags.items()):
        vr = vr_of(tag) or "UN"
        if isinstance(value, Attribute):
            assert isinstance(value.value, bytes)
            parts.append(encoder.element(tag, value.vr, value.value))
        elif isinstance(value, list):
            parts.append(encoder.sequence(tag, [_encode(item, encoder, charsets) for item in value]))
        else:
            parts.append(encoder.element(tag, vr, _raw(vr, value, charsets)))
    return b"".join(parts)


def _raw(vr: str, value: str | int | bytes | None, charsets: tuple[str, ...]) -> bytes:
    if value is None or value == "":
        return b""
    if isinstance(value, bytes):
        return value
    if vr in _NUMBERS:
        return struct.pack(_NUMBERS[vr], value)
    if vr in _TEXT_VRS:
        encoded = encode_text(str(value), vr, charsets)
        assert encoded is not None, (value, charsets)
        return encoded
    return str(value).encode("ascii")


def decode(encoded: bytes, transfer_syntax_uid: str = IMPLICIT) -> dict[str, Any]:
    """Keyword to text (in the character set that is said), number, or list of items."""
    return _values(decode_identifier(encoded, transfer_syntax_uid, detect=False), ())


def _values(identifier: Identifier, charsets: tuple[str, ...]) -> dict[str, Any]:
    charsets = identifier.charsets or charsets
    values: dict[str, Any] = {}
    for tag, (vr, value) in identifier.items():
        keyword = keyword_of(tag) or f"{tag:08X}"
        if isinstance(value, list):
            values[keyword] = [_values(item, charsets) for item in value]
        elif vr in _NUMBERS and value:
            values[keyword] = struct.unpack_from(_NUMBERS[vr], value)[0]
        elif vr in _TEXT_VRS:
            values[keyword] = decode_text(value, vr, charsets).strip(" \0")
        else:
            values[keyword] = value.decode("ascii").strip(" \0")
    return values


@cache
def _empty_index() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.sqlite"
        upgrade_index(path)
        return path.read_bytes()


def make_index(
    folder: Path, data_sets: Iterable[Values], transfer_syntax_uid: str = EXPLICIT, *, extra_keys: Sequence[str] = ()
) -> Path:
    """An index that holds these instances, in the order given; UIDs that are not given are the number's own.

    ``extra_keys``: as configured, there before the instances.
    """
    path = folder / "index.sqlite"
    for name in ("index.sqlite-wal", "index.sqlite-shm"):
        (folder / name).unlink(missing_ok=True)
    path.write_bytes(_empty_index())
    writer = IndexWriter(path, StorageOptions(data_dir=folder, durability="none"))
    try:
        writer.set_extra_keys(parse_extra_keys(extra_keys))
        outcomes = writer.commit(
            [_entry(values, number, transfer_syntax_uid) for number, values in enumerate(data_sets)]
        )
    finally:
        writer.close()
    assert not any(outcomes), outcomes
    return path


def extra_keys_of(path: Path) -> ExtraKeys:
    """The extra keys of an index, as a query sees them."""
    with closing(sqlite3.connect(path)) as connection:
        return ExtraKeys(one.key for one in extra_states(connection))


def _entry(values: Values, number: int, transfer_syntax_uid: str) -> Entry:
    own = {
        "SOPClassUID": CT_IMAGE,
        "SOPInstanceUID": uid(3, number),
        "StudyInstanceUID": uid(1, number),
        "SeriesInstanceUID": uid(2, number),
    }
    values = own | dict(values)
    record = make_record(
        scan_header(encode(values, transfer_syntax_uid), transfer_syntax_uid),
        sop_class_uid=values["SOPClassUID"],
        sop_instance_uid=values["SOPInstanceUID"],
        transfer_syntax_uid=transfer_syntax_uid,
        source_ae_title="TEST",
    )
    record.digest = bytes(16)
    return Entry(record)


def parse(
    values: Values,
    *,
    model: Model = "study",
    level: str | None = "STUDY",
    options: QueryOptions | None = None,
    transfer_syntax_uid: str = IMPLICIT,
    **negotiated: bool,
) -> Query:
    """The query that an identifier is."""
    if level is not None:
        values = {"QueryRetrieveLevel": level, **values}
    return parse_query(
        encode(values, transfer_syntax_uid),
        model=model,
        transfer_syntax_uid=transfer_syntax_uid,
        options=options or QueryOptions(),
        **negotiated,
    )


@asynccontextmanager
async def reading(path: Path, connections: int = 1, page: int = 256) -> AsyncIterator[IndexReader]:
    """A reader, started and stopped."""
    reader = IndexReader(IndexFile(path), connections=connections, page=page)
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()


async def find(reader: IndexReader, query: Query) -> list[dict[str, Any]]:
    """All answers, decoded."""
    async with aclosing(reader.find(query)) as batches:
        return [decode(one, query.transfer_syntax_uid) async for batch in batches for one in batch]


async def ask(path: Path, values: Values, **how: Any) -> list[dict[str, Any]]:
    """``parse`` and ``find``."""
    async with reading(path) as reader:
        return await find(reader, parse(values, **how))
