"""Extra matching keys: attributes that the configuration makes keys of the index, ``[query] extra_keys``.

Their values stand in a table of their own, ``extra_value``: a row for each value of an entity, of a person name one for
each component group, under the normal form by which it is compared (archive/normalise.py). ``place`` numbers the rows
of an entity; the first is always there, and has the value as it is returned.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from pacslite.archive.keys import COLUMN_OF_TAG, Key, Level, Maintained, level_of
from pacslite.archive.normalise import NUMBER_SIZES, ONE_VALUE_VRS, normalise, strip_padding
from pacslite.dataset.charset import decode_text
from pacslite.dataset.dictionary import keyword_of, tag_of, vr_of
from pacslite.dataset.scan import HeaderScanner
from pacslite.errors import PacsliteError

__all__ = [
    "GROUPS",
    "AnyKey",
    "ExtraKey",
    "ExtraKeyError",
    "ExtraKeys",
    "ExtraRow",
    "extra_rows",
    "is_private",
    "parse_extra_keys",
]

GROUPS = 8  # places for each value of a person name; three component groups are the standard's (PS3.5 §6.2.1.1)

_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})  # PS3.5 §6.1.2.2: these use the character set
_MATCHED_VRS = _TEXT_VRS | NUMBER_SIZES.keys() | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"}
_OTHER_VRS = frozenset({"AT", "FD", "FL", "OB", "OD", "OF", "OL", "OV", "OW", "SQ"})
_OF_THE_ANSWER = frozenset({0x00080005, 0x00080052, 0x00080053, 0x00080054, 0x00080056})  # PS3.4 §C.4.1.1.3
_FIRST_GROUP, _END_GROUP = 0x0008, 0x7FE0  # of what the scanner reads
_FIRST_REPEATING = 0x5000  # curves and overlays are not kept
_BLOCK = 0xFF00


class ExtraKeyError(PacsliteError):
    """An attribute that cannot be a key."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class ExtraKey:
    """A key by configuration; to queries it is a key attribute like those of archive/keys.py.

    Args:
        tag: Of a private attribute with a ``creator`` the block is that creator's in each data set (PS3.5 §7.8.1).
        id: In the index; 0 before it is there.
        complete: All that is stored has its values; until then they are compared in what is kept of the header.
    """

    tag: int
    vr: str
    level: Level
    creator: str = ""
    id: int = 0
    complete: bool = False

    indexed: ClassVar[bool] = True
    multiple: ClassVar[bool] = False  # each of several values has a row of its own

    @property
    def keyword(self) -> str:
        return keyword_of(self.tag) or f"{self.tag:08X}{self.creator}"

    @property
    def column(self) -> str:
        """Where a row of a query has the value."""
        return f"extra {self.id}"

    @property
    def match(self) -> str:
        return self.column

    @property
    def is_kept(self) -> bool:
        """Has the index the attribute anyway, in what it keeps of the headers of that level?"""
        group = self.tag >> 16
        return not is_private(self.tag) and group < _FIRST_REPEATING and self.level is level_of(self.tag)

    @property
    def definition(self) -> tuple[int, str, Level, str]:
        """What it is by configuration."""
        return self.tag, self.vr, self.level, self.creator

    def __str__(self) -> str:
        name = keyword_of(self.tag) or f"({self.tag >> 16:04X},{self.tag & 0xFFFF:04X})"
        if self.creator:
            name = f"({self.tag >> 16:04X},xx{self.tag & 0xFF:02X},{self.creator})"
        return f"{name}@{self.level.name}"


AnyKey = Key | Maintained | ExtraKey


class ExtraKeys:
    """The extra keys of an archive as queries see them; replaced while they run."""

    def __init__(self, keys: Iterable[ExtraKey] = ()) -> None:
        self._keys: Mapping[tuple[int, str], ExtraKey] = {}
        self.replace(keys)

    def replace(self, keys: Iterable[ExtraKey]) -> None:
        """From now on these."""
        self._keys = {(key.tag & ~_BLOCK if key.creator else key.tag, key.creator): key for key in keys}

    def __iter__(self) -> Iterator[ExtraKey]:
        return iter(self._keys.values())

    def find(self, tag: int, creator: str = "") -> ExtraKey | None:
        """The key of an attribute; ``creator`` is who has its block in the request, if it is private.

        None while it is not complete and what is kept of the headers can be looked through as well.
        """
        key = self._keys.get((tag, "")) or (self._keys.get((tag & ~_BLOCK, creator)) if creator else None)
        return None if key is None or (key.is_kept and not key.complete) else key

    def has_creator(self, group: int, creator: str) -> bool:
        """Is there a key in a private block of that creator?"""
        return bool(creator) and any(key.creator == creator and key.tag >> 16 == group for key in self._keys.values())


class ExtraRow(NamedTuple):
    """A row of ``extra_value`` without key and entity."""

    place: int
    value: str | None
    form: str | None


def is_private(tag: int) -> bool:
    """PS3.5 §7.8: the group is odd."""
    return bool(tag & 0x10000)


# Reading the configuration

_ENTRY = re.compile(r"(?P<name>.+?)(?::(?P<vr>[A-Za-z]{2}))?(?:@(?P<level>\w+))?", re.DOTALL)
_PRIVATE = re.compile(r"\(?([0-9A-Fa-f]{4}), *(?:[xX]{2}|([0-9A-Fa-f]{2}))([0-9A-Fa-f]{2})(?:, *([^,\\]+?))? *\)?")


def parse_extra_keys(entries: Sequence[str]) -> tuple[ExtraKey, ...]:
    """Read ``NAME[:VR][@LEVEL]`` entries: a keyword, ``(gggg,eeee)``, or ``(gggg,xxee,CREATOR)`` of a private block.

    Raises:
        ExtraKeyError: Unknown, a key already, or of a VR that no query matches; says which entry and why.
    """
    keys: dict[tuple[int, str], ExtraKey] = {}
    for entry in entries:
        key = _parse(entry)
        if keys.setdefault((key.tag, key.creator), key) is not key:
            raise ExtraKeyError(f"{entry!r}: the attribute is named twice")
    return tuple(keys.values())


def _parse(entry: str) -> ExtraKey:
    found = _ENTRY.fullmatch(entry.strip())
    if found is None:
        raise ExtraKeyError(f"{entry!r}: an attribute is expected, as KVP, (0040,A027) or KVP@SERIES")
    name, vr, level_name = found["name"], (found["vr"] or "").upper(), found["level"]
    tag, creator = _attribute(entry, name)
    level = level_of(tag)
    if level_name is not None:
        levels = {one.name: one for one in Level}
        if level_name.upper() not in levels:
            raise ExtraKeyError(f"{entry!r}: the level is none of {', '.join(levels)}")
        level = levels[level_name.upper()]
    known = None if is_private(tag) else vr_of(tag)
    if known is None and not is_private(tag):
        raise ExtraKeyError(f"{entry!r}: no such attribute in the data dictionary (PS3.6)")
    if not vr and known is None:
        raise ExtraKeyError(f"{entry!r}: a private attribute needs its VR, as {name}:LO")
    if vr and known is not None and vr != known:
        raise ExtraKeyError(f"{entry!r}: the attribute is of VR {known}")
    vr = vr or known or ""
    if vr not in _MATCHED_VRS:
        raise ExtraKeyError(f"{entry!r}: VR {vr} is matched by no query")
    return ExtraKey(tag, vr, level, creator)


def _attribute(entry: str, name: str) -> tuple[int, str]:
    """Tag and private creator."""
    tag = tag_of(name)
    creator = ""
    if tag is None or is_private(tag):
        found = _PRIVATE.fullmatch(name)
        if found is None or not int(found[1], 16) & 1:
            if tag is None:
                raise ExtraKeyError(f"{entry!r}: no such attribute in the data dictionary (PS3.6)")
        else:
            creator = found[4] or ""
            if not creator and found[2] is None:
                raise ExtraKeyError(
                    f"{entry!r}: a block xx needs its private creator, as ({found[1]},xx{found[3]},NAME)"
                )
            tag = int(found[1], 16) << 16 | int(found[2] or "10", 16) << 8 | int(found[3], 16)
    group, element = tag >> 16, tag & 0xFFFF
    if tag in COLUMN_OF_TAG:
        raise ExtraKeyError(f"{entry!r}: is a key of the index already")
    if not _FIRST_GROUP <= group < _END_GROUP or not element or tag in _OF_THE_ANSWER:
        raise ExtraKeyError(f"{entry!r}: is no attribute that a query can ask for")
    if is_private(tag) and element < 0x1000:
        raise ExtraKeyError(f"{entry!r}: a private creator is no key")
    return tag, creator


# Values


def extra_rows(key: ExtraKey, scan: HeaderScanner, charsets: Sequence[str]) -> list[ExtraRow]:
    """What the index holds of a key for an entity whose header, or what is kept of it, was scanned."""
    tag: int | None = key.tag
    if key.creator:
        tag = _in_block_of(key, scan)
    element = scan.elements.get(tag) if tag is not None else None
    if element is None or element.vr in _OTHER_VRS:
        return []
    vr = key.vr if element.vr == "UN" else element.vr
    if vr in NUMBER_SIZES:
        text = _numbers(vr, element.value, "big" if scan.big_endian else "little")
    else:
        text = decode_text(element.value, vr, charsets) if vr in _TEXT_VRS else element.value.decode("latin-1")
        text = strip_padding(vr, text)
    if not text.strip():
        return []
    forms = {0: None} | _forms(key.vr, text)
    return [ExtraRow(place, text if place == 0 else None, form) for place, form in forms.items()]


def _in_block_of(key: ExtraKey, scan: HeaderScanner) -> int | None:
    """Where the data set has the attribute: in the block that its creator has reserved there (PS3.5 §7.8.1)."""
    group = key.tag & 0xFFFF0000
    for block in range(0x10, 0x100):
        name = scan.get(group | block)
        if name is not None and name.decode("latin-1").strip(" \0") == key.creator:
            tag = group | block << 8 | key.tag & 0xFF
            if scan.raw(tag):
                return tag
    return None


def _numbers(vr: str, value: bytes, order: Literal["little", "big"]) -> str:
    size = NUMBER_SIZES[vr]
    pieces = (value[at : at + size] for at in range(0, len(value) - size + 1, size))
    return "\\".join(str(int.from_bytes(one, order, signed=vr.startswith("S"))) for one in pieces)


def _forms(vr: str, text: str) -> dict[int, str | None]:
    """Normal forms by their places: values that are compared as the same are one, values of another VR none."""
    values = [text] if vr in ONE_VALUE_VRS else text.split("\\")
    forms: dict[int, str | None] = {}
    seen: set[str] = set()
    for number, padded in enumerate(values):
        value = strip_padding(vr, padded)
        form = normalise("IS" if vr in NUMBER_SIZES else vr, value) if value else None
        if form is None:
            continue
        if vr == "PN":
            for at, group in enumerate(str(form).split("=")[:GROUPS]):
                if group:
                    forms[number * GROUPS + at] = group
        elif (comparable := str(form)) not in seen:
            seen.add(comparable)
            forms[number] = comparable
    return forms
