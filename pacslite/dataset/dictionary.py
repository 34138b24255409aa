"""Tags, VRs and keywords of the public data dictionary, PS3.6 §6, without pydicom's import (125 ms and more).

The table is split when first asked (about 2 ms); a lookup is a dict access afterwards.
"""

from functools import cache

from pacslite.dataset.dictionary_table import REPEATERS, TABLE

__all__ = ["keyword_of", "sign_varies", "tag_of", "vr_choice_of", "vr_of"]

_ANY_DIGIT = "x"
_HEX_DIGITS = frozenset("0123456789ABCDEFabcdef")
_NO_KEYWORD = "-"  # a few retired elements have a VR only


def tag_of(name: str) -> int | None:
    """Give the tag of a keyword (``PatientName``) or of digits (``0010,0010``, ``(0010,0010)``, ``00100010``).

    None for what is neither. The keyword of a repeating group (``OverlayData``) means its first group.
    """
    tag = _by_keyword().get(name)
    if tag is not None:
        return tag
    digits = name.strip().removeprefix("(").removesuffix(")").replace(",", "")
    return int(digits, 16) if len(digits) == 8 and set(digits) <= _HEX_DIGITS else None


def keyword_of(tag: int) -> str | None:
    """Give the keyword, None for private and unknown tags."""
    entry = _entry(tag)
    return entry[1] if entry and entry[1] != _NO_KEYWORD else None


def vr_of(tag: int) -> str | None:
    """Give the VR, None for private and unknown tags.

    Where the dictionary leaves a choice: OW before others (PS3.5 §A.1: so in Implicit VR), US before SS. Group lengths
    are UL, private creators LO (PS3.5 §7.2, §7.8.1).
    """
    entry = _entry(tag)
    if entry is not None:
        return entry[0]
    if tag & 0xFFFF == 0:
        return "UL"
    if tag & 0x10000 and 0x10 <= tag & 0xFFFF <= 0xFF:
        return "LO"
    return None


def vr_choice_of(tag: int) -> tuple[str, ...]:
    """Give the VRs between which the dictionary leaves a choice (``US``, ``SS``); none where it leaves none."""
    return _choices().get(tag, ())


def sign_varies(tag: int) -> bool:
    """Is it US or SS, as Pixel Representation (0028,0103) says?"""
    return vr_choice_of(tag)[:2] == ("US", "SS")


def _entry(tag: int) -> tuple[str, str] | None:
    entry = _by_tag().get(tag)
    if entry is None and not tag & 0x10000:
        for mask, value, repeated in _repeaters():
            if tag & mask == value:
                return repeated
    return entry


def _choose(vrs: str) -> str:
    choice = vrs.split("/")
    return "OW" if "OW" in choice else choice[0]


@cache
def _by_tag() -> dict[int, tuple[str, str]]:
    table: dict[int, tuple[str, str]] = {}
    for line in TABLE.splitlines():
        tag, vr, keyword = line.split(" ")
        table[int(tag, 16)] = (vr if len(vr) == 2 else _choose(vr), keyword)
    return table


@cache
def _choices() -> dict[int, tuple[str, ...]]:
    rows = (line.split(" ") for line in TABLE.splitlines())
    return {int(tag, 16): tuple(vrs.split("/")) for tag, vrs, _ in rows if len(vrs) > 2}


@cache
def _by_keyword() -> dict[str, int]:
    table = {line.rpartition(" ")[2]: int(line[:8].replace(_ANY_DIGIT, "0"), 16) for line in REPEATERS.splitlines()}
    table |= {keyword: tag for tag, (_, keyword) in _by_tag().items()}
    table.pop(_NO_KEYWORD, None)
    return table


@cache
def _repeaters() -> tuple[tuple[int, int, tuple[str, str]], ...]:
    """Give (mask, value, (VR, keyword)) of each repeating group, PS3.5 §7.6."""
    rows = []
    for line in REPEATERS.splitlines():
        tag, vr, keyword = line.split(" ")
        mask = int("".join("0" if digit == _ANY_DIGIT else "F" for digit in tag), 16)
        rows.append((mask, int(tag.replace(_ANY_DIGIT, "0"), 16), (_choose(vr), keyword)))
    return tuple(rows)
