"""The sets of Specific Character Set (0008,0005), their escape sequences and codecs, PS3.3 §C.12.1.1.2."""

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "ASCII",
    "CODEC_OF_ESCAPE",
    "JIS",
    "KANJI",
    "KANJI_ESCAPES",
    "KATAKANA",
    "LEFT_ESCAPES",
    "ROMAJI",
    "STRICT_CODEC_OF_ESCAPE",
    "UTF_8",
    "Repertoire",
    "State",
    "canonical_charsets",
    "escapes_of",
    "find_repertoire",
]

UTF_8 = ("ISO_IR 192",)

# PS3.3 Tables C.12-2 and C.12-3: the sets that extend ASCII to the right half; final byte of ESC 02/13, codec
RIGHT = {
    100: (b"A", "latin-1"),
    101: (b"B", "iso8859-2"),
    109: (b"C", "iso8859-3"),
    110: (b"D", "iso8859-4"),
    126: (b"F", "iso8859-7"),  # Greek
    127: (b"G", "iso8859-6"),  # Arabic
    138: (b"H", "iso8859-8"),  # Hebrew
    144: (b"L", "iso8859-5"),  # Cyrillic
    148: (b"M", "iso8859-9"),
    166: (b"T", "tis-620"),  # Thai
    203: (b"b", "iso8859-15"),
}
# Table C.12-4; GBK reads what is beyond GB 2312 and CP949 what is beyond KS X 1001: senders do not ask
RIGHT_MULTI_BYTE = {58: (b"\x1b$)A", "gbk", "gb2312"), 149: (b"\x1b$)C", "cp949", "euc_kr")}
KANJI = {87: b"\x1b$B", 159: b"\x1b$(D"}
KATAKANA, ROMAJI, ASCII = b"\x1b)I", b"\x1b(J", b"\x1b(B"
JIS = "shift_jis"
_STAND_ALONE = {"ISO_IR 192": "utf-8", "UTF-8": "utf-8", "UTF8": "utf-8", "GB18030": "gb18030", "GBK": "gbk"}  # C.12-5
# terms that were in the standard by mistake (CP 1234), and one that senders made up
_EXTENSION_ALIASES = {"ISO 2022 GBK": 58, "ISO 2022 58": 58, "GB2312": 58}


class State(NamedTuple):
    """What is invoked: the left half's single-byte set or kanji set, the right half's codec."""

    left: bytes  # the escape sequence that designates it
    right: str  # "" where nothing is
    right_escape: bytes


class Repertoire(NamedTuple):
    """The meaning of (0008,0005)."""

    codec: str  # of text without escape sequences
    stand_alone: bool
    initial: State
    sets: tuple[int, ...]  # ISO-IR numbers that code extension may use, in order; empty without code extension

    @property
    def is_jis(self) -> bool:
        return self.initial.left == ROMAJI


@lru_cache(maxsize=256)
def find_repertoire(charsets: tuple[str, ...]) -> Repertoire:
    """Look at value 1, and for code extension at all; terms no one knows count as the default repertoire."""
    names = [_normalise(charset) for charset in charsets] or [""]
    codec = _STAND_ALONE.get(names[0])
    if codec is not None:
        return Repertoire(codec, True, State(ASCII, "", b""), ())
    numbers = _numbers(names)
    sets = tuple(number for number in numbers if number) if len(numbers) > 1 else ()
    first = numbers[0]
    if first == 13:
        return Repertoire(JIS, False, State(ROMAJI, JIS, KATAKANA), sets)
    if first in RIGHT:
        final, codec = RIGHT[first]
        return Repertoire(codec, False, State(ASCII, codec, b"\x1b-" + final), sets)
    # a right half without escape sequence is not allowed then, yet sent: it can only be the one that was announced
    right = next((RIGHT_MULTI_BYTE[number][1] for number in sets if number in RIGHT_MULTI_BYTE), "")
    return Repertoire(right or "ascii", False, State(ASCII, right, b""), sets)


def _normalise(charset: str) -> str:
    """Give a Defined Term as the standard writes it: ``ISO IR 100``, ``ISO-IR 100`` and ``iso_ir_100`` are seen too."""
    name = re.sub(r"[\s_-]+", " ", charset.strip(" \0").upper())
    name = re.sub(r"^ISO ?IR ?", "ISO_IR ", name)
    return {"UTF 8": "UTF-8"}.get(name, name)


def _numbers(names: list[str]) -> list[int]:
    """ISO-IR numbers; 0 is a term that no one knows, 6 an empty one."""
    numbers = [_number(name) if name else 6 for name in names]
    if numbers and (numbers[0] in KANJI or numbers[0] in RIGHT_MULTI_BYTE):
        numbers.insert(0, 6)  # value 1 may be none of these; some senders forget that
    return numbers


def _number(name: str) -> int:
    if name in _EXTENSION_ALIASES:
        return _EXTENSION_ALIASES[name]
    found = re.fullmatch(r"ISO(?:_| 2022 )IR (\d{1,3})", name)
    return int(found[1]) if found else 0


@lru_cache(maxsize=256)
def canonical_charsets(charsets: tuple[str, ...]) -> tuple[str, ...]:
    """Give Defined Terms of PS3.3 Tables C.12-2 to C.12-5, none if one is unknown."""
    names = [_normalise(charset) for charset in charsets]
    if names and names[0] in _STAND_ALONE:
        return ({"utf-8": UTF_8[0]}.get(codec := _STAND_ALONE[names[0]], codec.upper()),)
    numbers = _numbers(names)
    if not all(escapes_of(number) for number in numbers):
        return ()
    if len(numbers) < 2:
        return tuple(f"ISO_IR {number}" for number in numbers if number != 6)
    first, *others = (f"ISO 2022 IR {number}" for number in numbers)
    return ("" if numbers[0] == 6 else first, *others)


def escapes_of(number: int) -> tuple[bytes, ...]:
    """Give what designates an ISO-IR set."""
    if number == 6:
        return (ASCII,)
    if number == 13:
        return (KATAKANA, ROMAJI)
    if number in KANJI:
        return (KANJI[number],)
    if number in RIGHT_MULTI_BYTE:
        return (RIGHT_MULTI_BYTE[number][0],)
    return (b"\x1b-" + RIGHT[number][0],) if number in RIGHT else ()


KANJI_ESCAPES = frozenset(KANJI.values())
LEFT_ESCAPES = KANJI_ESCAPES | {ASCII, ROMAJI}
STRICT_CODEC_OF_ESCAPE = {b"\x1b-" + final: codec for final, codec in RIGHT.values()} | {
    escape: strict for escape, _, strict in RIGHT_MULTI_BYTE.values()
}
CODEC_OF_ESCAPE = (
    {b"\x1b-" + final: codec for final, codec in RIGHT.values()}
    | {escape: codec for escape, codec, _ in RIGHT_MULTI_BYTE.values()}
    | {KATAKANA: JIS}
)
