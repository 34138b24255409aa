"""Text in all character sets of Specific Character Set (0008,0005), PS3.5 §6.1, PS3.3 §C.12.1.1.2.

Decoding is lenient and loses nothing it need not: an escape sequence works whether its set was announced or not, text
that announces nothing and is UTF-8 is read as such, Shift_JIS where JIS X 0201 was announced too. Encoding is strict.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from pacslite.dataset.names import fold_name, name_groups

__all__ = ["UTF_8", "answer_charset", "decode_text", "encode_text", "fold_name", "name_groups"]

UTF_8 = ("ISO_IR 192",)

# PS3.3 Tables C.12-2 and C.12-3: the sets that extend ASCII to the right half; final byte of ESC 02/13, codec
_RIGHT = {
    100: (b"A", "latin-1"),
    101: (b"B", "iso8859-2"),
    109: (b"C", "iso8859-3"),
    110: (b"D", "iso8859-4"),
    126: (b"F", "iso8859-7"),  # Greek
    127: (b"G", "iso8859-6"),  # Arabic
    138: (b"H", "iso8859-8"),  # Hebrew
    144: (b"L", "iso8859-5"),  # Cyrillic
    148: (b"M", "iso8859-9"),
    166: (b"T", "iso8859-11"),  # Thai
    203: (b"b", "iso8859-15"),
}
# Table C.12-4; GBK reads what is beyond GB 2312 and CP949 what is beyond KS X 1001: senders do not ask
_RIGHT_MULTI_BYTE = {58: (b"\x1b$)A", "gbk", "gb2312"), 149: (b"\x1b$)C", "cp949", "euc_kr")}
_KANJI = {87: b"\x1b$B", 159: b"\x1b$(D"}
_KATAKANA, _ROMAJI, _ASCII = b"\x1b)I", b"\x1b(J", b"\x1b(B"
_JIS = "shift_jis"
_STAND_ALONE = {"ISO_IR 192": "utf-8", "UTF-8": "utf-8", "UTF8": "utf-8", "GB18030": "gb18030", "GBK": "gbk"}  # C.12-5
_EXTENSION_ALIASES = {"ISO 2022 GBK": 58, "ISO 2022 58": 58}  # terms that were in the standard by mistake (CP 1234)

_YEN, _OVERLINE = "\u00a5", "\u203e"

_TEXT_VRS = frozenset({"LT", "ST", "UT"})  # one value: the backslash is a character (§6.2)
_ESCAPE = re.compile(rb"(\x1b(?:\$\)[AC]|\$\(D|\$[@B]|\([BJ]|\)I|-[ABCDFGHLMTb]))")
_CONTROL = re.compile(rb"[\x09\x0a\x0c\x0d]")  # each of these brings value 1 back (§6.1.2.5.3)
_DELIMITER = re.compile(rb"[\x09\x0a\x0c\x0d\\]")
_PN_DELIMITER = re.compile(rb"[\x09\x0a\x0c\x0d\\^=]")
_KANJI_RUN = re.compile(rb"((?:[\x21-\x7e]{2})+)")


class _State(NamedTuple):
    """What is invoked: the left half's single-byte set or kanji set, the right half's codec."""

    left: bytes  # the escape sequence that designates it
    right: str  # "" where nothing is
    right_escape: bytes


class _Repertoire(NamedTuple):
    """The meaning of (0008,0005)."""

    codec: str  # of text without escape sequences
    stand_alone: bool
    initial: _State
    sets: tuple[int, ...]  # ISO-IR numbers that code extension may use, in order; empty without code extension

    @property
    def is_jis(self) -> bool:
        return self.initial.left == _ROMAJI


@lru_cache(maxsize=256)
def _repertoire(charsets: tuple[str, ...]) -> _Repertoire:
    """Look at value 1, and for code extension at all; terms no one knows count as the default repertoire."""
    names = [_normalise(charset) for charset in charsets] or [""]
    codec = _STAND_ALONE.get(names[0])
    if codec is not None:
        return _Repertoire(codec, True, _State(_ASCII, "", b""), ())
    numbers = [_number(name) for name in names]
    sets = tuple(number for number in numbers if number) if len(names) > 1 else ()
    first = numbers[0]
    if first == 13:
        return _Repertoire(_JIS, False, _State(_ROMAJI, _JIS, _KATAKANA), sets)
    if first in _RIGHT:
        final, codec = _RIGHT[first]
        return _Repertoire(codec, False, _State(_ASCII, codec, b"\x1b-" + final), sets)
    if first in _RIGHT_MULTI_BYTE and len(names) == 1:  # not allowed, yet sent: as if after an empty value 1
        sets = (first,)
    return _Repertoire("ascii", False, _State(_ASCII, "", b""), sets)


def _normalise(charset: str) -> str:
    """Give a Defined Term as the standard writes it: ``ISO IR 100``, ``ISO-IR 100`` and ``iso_ir_100`` are seen too."""
    name = re.sub(r"[\s_-]+", " ", charset.strip(" \0").upper())
    name = re.sub(r"^ISO ?IR ?", "ISO_IR ", name)
    return {"UTF 8": "UTF-8"}.get(name, name)


def _number(name: str) -> int:
    if name in _EXTENSION_ALIASES:
        return _EXTENSION_ALIASES[name]
    found = re.fullmatch(r"ISO(?:_| 2022 )IR (\d{1,3})", name)
    return int(found[1]) if found else 0


# decoding


def decode_text(value: bytes, vr: str, charsets: Sequence[str]) -> str:
    """Decode a value of a VR that (0008,0005) affects; several values stay joined by backslashes, padding stays.

    Never raises: U+FFFD stands for bytes that mean nothing in the sets announced.
    """
    repertoire = _repertoire(tuple(charsets))
    if b"\x1b" in value and not repertoire.stand_alone:
        text = _decode_extended(value, vr, repertoire.initial)
    elif value.isascii():
        text = value.decode("ascii")
    elif repertoire.codec == "ascii":
        return _decode_undeclared(value)
    elif repertoire.codec == _JIS:
        text = _decode_jis(value)
    else:
        return value.decode(repertoire.codec, "replace")
    if repertoire.is_jis:
        return _show_romaji(text, vr)
    return text


def _show_romaji(text: str, vr: str) -> str:
    """ISO-IR 14 has a yen sign at 05/12, which separates values all the same, and an overline at 07/14 (§6.1.2.3)."""
    text = text.replace("~", _OVERLINE)
    return text.replace("\\", _YEN) if vr in _TEXT_VRS else text


def _decode_undeclared(value: bytes) -> str:
    """Decode bytes beyond ASCII that no set was announced for: hardly anything but UTF-8 is valid UTF-8."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _decode_jis(value: bytes) -> str:
    """Decode JIS X 0201, of which Shift_JIS is a superset; CP932 knows what vendors added."""
    try:
        return value.decode(_JIS)
    except UnicodeDecodeError:
        return value.decode("cp932", "replace")


def _decode_extended(value: bytes, vr: str, initial: _State) -> str:
    """Decode text with escape sequences (§6.1.2.5)."""
    delimiter = _PN_DELIMITER if vr == "PN" else _CONTROL if vr in _TEXT_VRS else _DELIMITER
    state = initial
    text: list[str] = []
    for position, piece in enumerate(_ESCAPE.split(value)):
        if position & 1:
            state = _designate(state, piece)
            continue
        # within kanji the bytes of delimiters are halves of characters; control characters never are
        found = (_CONTROL if state.left in _KANJI_ESCAPES else delimiter).search(piece)
        if found is None:
            text.append(_decode_run(piece, state))
        else:
            text += (_decode_run(piece[: found.start()], state), _decode_run(piece[found.start() :], initial))
            state = initial
    return "".join(text)


def _designate(state: _State, escape: bytes) -> _State:
    if escape in _CODEC_OF_ESCAPE:
        return _State(state.left, _CODEC_OF_ESCAPE[escape], escape)
    return _State(b"\x1b$B" if escape == b"\x1b$@" else escape, state.right, state.right_escape)


def _decode_run(run: bytes, state: _State) -> str:
    """Decode bytes under one designation."""
    if state.left not in _KANJI_ESCAPES:
        if run.isascii():
            return run.decode("ascii")
        if not state.right:
            return _decode_undeclared(run)
        return _decode_jis(run) if state.right == _JIS else run.decode(state.right, "replace")
    text: list[str] = []
    for index, part in enumerate(_KANJI_RUN.split(run)):
        if index & 1:
            text.append(_decode_kanji(part, state.left))
        elif part:  # spaces, and the right half
            text.append(_decode_run(part, _State(_ASCII, state.right, state.right_escape)))
    return "".join(text)


def _decode_kanji(pairs: bytes, escape: bytes) -> str:
    if escape == _KANJI[159]:
        euc = b"".join(b"\x8f" + bytes((pairs[at] | 0x80, pairs[at + 1] | 0x80)) for at in range(0, len(pairs), 2))
        return euc.decode("euc_jp", "replace")
    try:
        return bytes(byte | 0x80 for byte in pairs).decode("euc_jp")
    except UnicodeDecodeError:
        return "".join(_decode_pair(pairs[at], pairs[at + 1]) for at in range(0, len(pairs), 2))


def _decode_pair(row: int, cell: int) -> str:
    """Decode a JIS X 0208 pair by its place in CP932, where vendors filled the rows that the standard left empty."""
    lead = ((row - 0x21) >> 1) + (0x81 if row < 0x5F else 0xC1)
    trail = cell + ((0x1F if cell < 0x60 else 0x20) if row & 1 else 0x7E)
    return bytes((lead, trail)).decode("cp932", "replace")


# encoding


def answer_charset(requested: Sequence[str], texts: Iterable[str]) -> tuple[str, ...]:
    """Choose the sets of an answer: those requested if they represent all ``texts``, else UTF-8.

    Without a request: nothing to announce while all is ASCII (PS3.4 §C.4.1.1.3.2).
    """
    charsets = tuple(requested)
    for text in texts:
        if encode_text(text, "PN", charsets) is None:
            return UTF_8
    return charsets


def encode_text(text: str, vr: str, charsets: Sequence[str]) -> bytes | None:
    """Encode a value, with code extensions where several sets are given; None if they cannot represent it."""
    repertoire = _repertoire(tuple(charsets))
    if text.isascii() and not repertoire.is_jis and "\x1b" not in text:
        return text.encode("ascii")
    if repertoire.stand_alone:
        return _encode(text, repertoire.codec)
    if not repertoire.sets:
        return _encode_single_byte(text, vr, repertoire)
    delimiter = _PN_MARKS if vr == "PN" else _TEXT_MARKS if vr in _TEXT_VRS else _MARKS
    parts = [_encode_run(run, vr, repertoire) for run in delimiter.split(text)]
    return None if None in parts else b"".join(part for part in parts if part is not None)


_MARKS = re.compile(r"([\t\n\f\r\\])")
_PN_MARKS = re.compile(r"([\t\n\f\r\\^=])")
_TEXT_MARKS = re.compile(r"([\t\n\f\r])")


def _encode(text: str, codec: str) -> bytes | None:
    try:
        return text.encode(codec)
    except UnicodeEncodeError:
        return None


def _encode_single_byte(text: str, vr: str, repertoire: _Repertoire) -> bytes | None:
    if "\x1b" in text:
        return None
    if not repertoire.is_jis:
        return _encode(text, repertoire.codec)
    parts = [_romaji(char, vr) or _katakana(char) for char in text]
    return None if None in parts else b"".join(part for part in parts if part is not None)


def _encode_run(run: str, vr: str, repertoire: _Repertoire) -> bytes | None:
    """Encode what stands between two delimiters: it begins and ends with value 1 invoked (§6.1.2.5.3)."""
    initial = repertoire.initial
    left, right = initial.left, initial.right_escape
    available = [left, right, *(escape for number in repertoire.sets for escape in _escapes_of(number))]
    encoded: list[bytes] = []
    for char in run:
        for escape in (left, right, *available):
            code = _encode_char(char, escape, vr) if escape else None
            if code is None:
                continue
            if escape in _LEFT_ESCAPES:
                if escape != left:
                    encoded.append(escape)
                    left = escape
            elif escape != right:
                encoded.append(escape)
                right = escape
            encoded.append(code)
            break
        else:
            return None
    if left != initial.left:
        encoded.append(initial.left)
    if initial.right and right != initial.right_escape:
        encoded.append(initial.right_escape)
    return b"".join(encoded)


def _encode_char(char: str, escape: bytes, vr: str) -> bytes | None:
    """Encode a character in the set that ``escape`` designates."""
    if escape == _ASCII:
        return char.encode("ascii") if char.isascii() and char != "\x1b" else None
    if escape == _ROMAJI:
        return _romaji(char, vr)
    if escape == _KATAKANA:
        return _katakana(char)
    if char.isascii():
        return None
    if escape in _KANJI_ESCAPES:
        euc = _encode(char, "euc_jp") or b""
        if euc[:1] == b"\x8f":
            return bytes((euc[1] & 0x7F, euc[2] & 0x7F)) if escape == _KANJI[159] else None
        return bytes((euc[0] & 0x7F, euc[1] & 0x7F)) if euc[:1] > b"\x8f" and escape == _KANJI[87] else None
    return _encode(char, _STRICT_CODEC_OF_ESCAPE[escape])


def _romaji(char: str, vr: str) -> bytes | None:
    if char == _OVERLINE:
        return b"~"
    if char == _YEN:
        return b"\\" if vr in _TEXT_VRS else None
    return char.encode("ascii") if char.isascii() and char not in _NO_ROMAJI[vr in _TEXT_VRS] else None


def _katakana(char: str) -> bytes | None:
    return bytes((ord(char) - 0xFEC0,)) if "\uff61" <= char <= "\uff9f" else None


_NO_ROMAJI = ("\x1b~", "\x1b~\\")  # the backslash as a delimiter stays 05/12


def _escapes_of(number: int) -> tuple[bytes, ...]:
    """Give what designates an ISO-IR set."""
    if number == 6:
        return (_ASCII,)
    if number == 13:
        return (_KATAKANA, _ROMAJI)
    if number in _KANJI:
        return (_KANJI[number],)
    if number in _RIGHT_MULTI_BYTE:
        return (_RIGHT_MULTI_BYTE[number][0],)
    return (b"\x1b-" + _RIGHT[number][0],) if number in _RIGHT else ()


_KANJI_ESCAPES = frozenset(_KANJI.values())
_LEFT_ESCAPES = _KANJI_ESCAPES | {_ASCII, _ROMAJI}
_STRICT_CODEC_OF_ESCAPE = {b"\x1b-" + final: codec for final, codec in _RIGHT.values()} | {
    escape: strict for escape, _, strict in _RIGHT_MULTI_BYTE.values()
}
_CODEC_OF_ESCAPE = (
    {b"\x1b-" + final: codec for final, codec in _RIGHT.values()}
    | {escape: codec for escape, codec, _ in _RIGHT_MULTI_BYTE.values()}
    | {_KATAKANA: _JIS}
)
