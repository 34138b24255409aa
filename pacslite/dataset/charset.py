"""Text in all character sets of Specific Character Set (0008,0005), PS3.5 §6.1, PS3.3 §C.12.1.1.2.

Decoding is lenient and loses nothing it need not: an escape sequence works whether its set was announced or not, text
that announces nothing and is UTF-8 is read as such, Shift_JIS where JIS X 0201 was announced too. Encoding is strict.
"""

import re
from collections.abc import Sequence

from pacslite.dataset.names import fold_name, name_groups
from pacslite.dataset.repertoire import (
    ASCII,
    CODEC_OF_ESCAPE,
    JIS,
    KANJI,
    KANJI_ESCAPES,
    KATAKANA,
    LEFT_ESCAPES,
    ROMAJI,
    STRICT_CODEC_OF_ESCAPE,
    UTF_8,
    Repertoire,
    State,
    canonical_charsets,
    escapes_of,
    find_repertoire,
)

__all__ = ["UTF_8", "canonical_charsets", "decode_text", "encode_text", "fold_name", "has_ascii", "name_groups"]

_YEN, _OVERLINE = "\u00a5", "\u203e"

_TEXT_VRS = frozenset({"LT", "ST", "UT"})  # one value: the backslash is a character (§6.2)
_ESCAPE = re.compile(rb"(\x1b(?:\$\)[AC]|\$\(D|\$[@B]|\([BJ]|\)I|-[ABCDFGHLMTb]))")
_CONTROL = re.compile(rb"[\x09\x0a\x0c\x0d]")  # each of these brings value 1 back (§6.1.2.5.3)
_DELIMITER = re.compile(rb"[\x09\x0a\x0c\x0d\\]")
_PN_DELIMITER = re.compile(rb"[\x09\x0a\x0c\x0d\\^=]")
_KANJI_RUN = re.compile(rb"((?:[\x21-\x7e]{2})+)")


# decoding


def decode_text(value: bytes, vr: str, charsets: Sequence[str]) -> str:
    """Decode a value of a VR that (0008,0005) affects; several values stay joined by backslashes, padding stays.

    Never raises: U+FFFD stands for bytes that mean nothing in the sets announced.
    """
    repertoire = find_repertoire(tuple(charsets))
    if b"\x1b" in value and not repertoire.stand_alone:
        text = _decode_extended(value, vr, repertoire.initial)
    elif value.isascii():
        text = value.decode("ascii")
    elif repertoire.codec == "ascii":
        return _decode_undeclared(value)
    elif repertoire.codec == JIS:
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
        return value.decode(JIS)
    except UnicodeDecodeError:
        return value.decode("cp932", "replace")


def _decode_extended(value: bytes, vr: str, initial: State) -> str:
    """Decode text with escape sequences (§6.1.2.5)."""
    delimiter = _PN_DELIMITER if vr == "PN" else _CONTROL if vr in _TEXT_VRS else _DELIMITER
    state = initial
    text: list[str] = []
    for position, piece in enumerate(_ESCAPE.split(value)):
        if position & 1:
            state = _designate(state, piece)
            continue
        # within kanji the bytes of delimiters are halves of characters; control characters never are
        found = (_CONTROL if state.left in KANJI_ESCAPES else delimiter).search(piece)
        if found is None:
            text.append(_decode_run(piece, state))
        else:
            text += (_decode_run(piece[: found.start()], state), _decode_run(piece[found.start() :], initial))
            state = initial
    return "".join(text)


def _designate(state: State, escape: bytes) -> State:
    if escape in CODEC_OF_ESCAPE:
        return State(state.left, CODEC_OF_ESCAPE[escape], escape)
    return State(b"\x1b$B" if escape == b"\x1b$@" else escape, state.right, state.right_escape)


def _decode_run(run: bytes, state: State) -> str:
    """Decode bytes under one designation."""
    if state.left not in KANJI_ESCAPES:
        if run.isascii():
            return run.decode("ascii")
        if not state.right:
            return _decode_undeclared(run)
        return _decode_jis(run) if state.right == JIS else run.decode(state.right, "replace")
    text: list[str] = []
    for index, part in enumerate(_KANJI_RUN.split(run)):
        if index & 1:
            text.append(_decode_kanji(part, state.left))
        elif part:  # spaces, and the right half
            text.append(_decode_run(part, State(ASCII, state.right, state.right_escape)))
    return "".join(text)


def _decode_kanji(pairs: bytes, escape: bytes) -> str:
    if escape == KANJI[159]:
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


def has_ascii(charsets: Sequence[str]) -> bool:
    """Are ASCII characters the bytes of ASCII? In JIS X 0201 (ISO_IR 13) two are others."""
    return not find_repertoire(tuple(charsets)).is_jis


def encode_text(text: str, vr: str, charsets: Sequence[str]) -> bytes | None:
    """Encode a value, with code extensions where several sets are given; None if they cannot represent it."""
    repertoire = find_repertoire(tuple(charsets))
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


def _encode_single_byte(text: str, vr: str, repertoire: Repertoire) -> bytes | None:
    if "\x1b" in text:
        return None
    if not repertoire.is_jis:
        return _encode(text, repertoire.codec)
    parts = [_romaji(char, vr) or _katakana(char) for char in text]
    return None if None in parts else b"".join(part for part in parts if part is not None)


def _encode_run(run: str, vr: str, repertoire: Repertoire) -> bytes | None:
    """Encode what stands between two delimiters: it begins and ends with value 1 invoked (§6.1.2.5.3)."""
    initial = repertoire.initial
    left, right = initial.left, initial.right_escape
    available = [left, right, *(escape for number in repertoire.sets for escape in escapes_of(number))]
    encoded: list[bytes] = []
    for char in run:
        for escape in (left, right, *available):
            code = _encode_char(char, escape, vr) if escape else None
            if code is None:
                continue
            if escape in LEFT_ESCAPES:
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
    if escape == ASCII:
        return char.encode("ascii") if char.isascii() and char != "\x1b" else None
    if escape == ROMAJI:
        return _romaji(char, vr)
    if escape == KATAKANA:
        return _katakana(char)
    if char.isascii():
        return None
    if escape in KANJI_ESCAPES:
        euc = _encode(char, "euc_jp") or b""
        if euc[:1] == b"\x8f":
            return bytes((euc[1] & 0x7F, euc[2] & 0x7F)) if escape == KANJI[159] else None
        return bytes((euc[0] & 0x7F, euc[1] & 0x7F)) if euc[:1] > b"\x8f" and escape == KANJI[87] else None
    return _encode(char, STRICT_CODEC_OF_ESCAPE[escape])


def _romaji(char: str, vr: str) -> bytes | None:
    if char == _OVERLINE:
        return b"~"
    if char == _YEN:
        return b"\\" if vr in _TEXT_VRS else None
    return char.encode("ascii") if char.isascii() and char not in _NO_ROMAJI[vr in _TEXT_VRS] else None


def _katakana(char: str) -> bytes | None:
    return bytes((ord(char) - 0xFEC0,)) if "\uff61" <= char <= "\uff9f" else None


_NO_ROMAJI = ("\x1b~", "\x1b~\\")  # the backslash as a delimiter stays 05/12
