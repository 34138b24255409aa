"""Identifiers of C-FIND responses, PS3.4 §C.4.1.1.3.2: a row of the index becomes the bytes of a data set.

What does not depend on the row is encoded once a query. Most answers are ASCII and take the short way; others are in
the requested character set if it has all their characters, else in UTF-8 (ISO_IR 192), labelled.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from struct import pack
from typing import NamedTuple

from pacslite.archive.criteria import (
    AVAILABILITY,
    CHARSET,
    LEVEL,
    RETRIEVE_AE_TITLE,
    TIMEZONE,
    ItemMatch,
    Query,
    ReturnKey,
)
from pacslite.archive.keys import COLUMN_OF_TAG, Key, Level, level_of
from pacslite.archive.normalise import NUMBER_SIZES
from pacslite.archive.sieve import Cell, KeptValues, item_acceptor
from pacslite.dataset.charset import UTF_8, canonical_charsets, decode_text, encode_text, has_ascii
from pacslite.dataset.decode import Attribute, Identifier
from pacslite.dataset.element import IMPLICIT_VR_LITTLE_ENDIAN, LONG_VRS, SHORT_VRS
from pacslite.dataset.encode import IdentifierEncoder, RowEncoder

__all__ = ["AnswerEncoder"]

_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_VALUE_VRS = (SHORT_VRS | LONG_VRS) - {"SQ", "UN"}  # what is none of these no receiver may know
_MOST_KINDS = 64
_OtherVRs = tuple[tuple[int, str], ...]  # place in the answer, VR


class _Prepared(NamedTuple):
    """Encoders of rows alike."""

    with_charset: RowEncoder
    plain: RowEncoder


class AnswerEncoder:
    """Encodes the answers to one query.

    Args:
        place: Gives the place of a column in a row, adding it where needed.
    """

    def __init__(self, query: Query, place: Callable[[Level, str], int]) -> None:
        constants = {
            LEVEL: ("CS", query.level.name.encode("ascii")),
            RETRIEVE_AE_TITLE: ("AE", query.options.retrieve_ae_title.encode("ascii", "replace")),
        }
        constants |= {one.tag: (one.vr, one.text.encode("ascii", "replace")) for one in query.return_keys if one.text}
        keys = [one for one in query.return_keys if one.tag not in constants]
        if any(one.tag == AVAILABILITY for one in keys):
            constants[AVAILABILITY] = ("CS", b"ONLINE")  # what is in the index is on a disk of ours
        attributes = {CHARSET: "CS", **{tag: vr for tag, (vr, _) in constants.items()}}
        attributes |= {one.tag: one.vr for one in keys if one.tag != CHARSET}
        order = sorted(attributes)
        at = {tag: number for number, tag in enumerate(order)}
        self._encoder = IdentifierEncoder(query.transfer_syntax_uid)
        self._columns = [(tag, attributes[tag]) for tag in order]
        self._charset_at = at[CHARSET]
        self._prepared = self._prepare(())
        self._prepared_others: dict[_OtherVRs, _Prepared] = {}
        self._template: list[bytes | None] = [constants[tag][1] if tag in constants else None for tag in order]
        if query.timezone and TIMEZONE in at:  # of what has no offset of its own
            self._template[at[TIMEZONE]] = query.options.timezone_offset.encode("ascii") or None
        self._charsets = canonical_charsets(query.charsets)  # what nobody knows is not announced
        self._is_ascii_first = has_ascii(self._charsets)
        self._sequence_header = 8 if query.transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN else 12
        self._texts: list[tuple[int, int, str]] = []  # place in the answer, place in the row, VR
        self._numbers: list[tuple[int, int]] = []
        self._digits: list[tuple[int, int, str]] = []  # the same of numbers as text
        self._kept: list[tuple[int, ReturnKey]] = []
        self._fitting = {
            one.tag: item_acceptor(one.match) for one in query.kept_filters if isinstance(one.match, ItemMatch)
        }
        self.kept_tags: dict[Level, set[int]] = {}
        for one in keys:
            key = COLUMN_OF_TAG.get(one.tag) or one.key
            if key is not None:
                place_in_row = place(key.level, key.column)
                if isinstance(key, Key) and key.vr == "US":
                    self._numbers.append((at[one.tag], place_in_row))
                elif key.vr in NUMBER_SIZES:
                    self._digits.append((at[one.tag], place_in_row, key.vr))
                else:
                    self._texts.append((at[one.tag], place_in_row, key.vr))
            elif one.tag not in constants:
                self._kept.append((at[one.tag], one))
                self.kept_tags.setdefault(level_of(one.tag), set()).add(one.tag)

    def encode(self, row: Sequence[Cell], kept: KeptValues) -> bytes:
        """One identifier."""
        values = self._template.copy()
        for at, place in self._numbers:
            number = row[place]
            values[at] = pack("<H", number) if isinstance(number, int) and 0 <= number < 65536 else None
        other_vrs: dict[int, str] = {}
        for at, place, vr in self._digits:
            packed_vr, values[at] = _pack_digits(row[place], vr)
            if packed_vr != vr:
                other_vrs[at] = packed_vr
        charsets = self._charsets
        if not (self._is_ascii_first and self._fill_ascii(values, row)):
            charsets = self._fill_texts(values, row)
        if self._kept:
            charsets = self._fill_kept(values, row, kept, charsets, other_vrs)
        prepared = self._other(tuple(other_vrs.items())) if other_vrs else self._prepared
        if charsets:
            values[self._charset_at] = "\\".join(charsets).encode("ascii")
            encoded = prepared.with_charset.encode(values)
        else:
            del values[self._charset_at]
            encoded = prepared.plain.encode(values)
        return self._encoder.data_set(encoded)

    def _fill_ascii(self, values: list[bytes | None], row: Sequence[Cell]) -> bool:
        try:
            for at, place, _ in self._texts:
                cell = row[place]
                if cell is not None:
                    values[at] = (cell if type(cell) is str else str(cell)).encode("ascii")
        except UnicodeEncodeError:
            return False
        return True

    def _fill_texts(self, values: list[bytes | None], row: Sequence[Cell]) -> tuple[str, ...]:
        """Encode texts in the requested set, or in UTF-8; give which it is."""
        for charsets in (self._charsets, UTF_8):
            for at, place, vr in self._texts:
                cell = row[place]
                if cell is None:
                    continue
                encoded = _encode(str(cell), vr, charsets)
                if encoded is None:
                    break
                values[at] = encoded
            else:
                return charsets
        return UTF_8

    def _fill_kept(
        self,
        values: list[bytes | None],
        row: Sequence[Cell],
        kept: KeptValues,
        charsets: tuple[str, ...],
        other_vrs: dict[int, str],
    ) -> tuple[str, ...]:
        """Encode kept values, each in the VR in which it came."""
        for candidate in dict.fromkeys((charsets, UTF_8)):
            for at, key in self._kept:
                found = kept.get(key.tag)
                if found is None:
                    values[at] = None
                    continue
                attribute, stored = found
                if attribute.vr != key.vr:
                    if attribute.vr == "SQ" or key.vr == "SQ":  # items where a value is due, or the reverse
                        values[at] = None
                        continue
                    if attribute.vr in _VALUE_VRS:
                        other_vrs[at] = attribute.vr
                encoded = self._encode_kept(key, attribute, stored, candidate)
                if encoded is None:
                    break
                values[at] = encoded
            else:
                if candidate != charsets:
                    self._refill(values, row)
                return candidate
        return UTF_8

    def _other(self, other_vrs: _OtherVRs) -> _Prepared:
        """Rows of one query are of few kinds, unless somebody stored what is of many."""
        prepared = self._prepared_others.get(other_vrs)
        if prepared is None:
            if len(self._prepared_others) >= _MOST_KINDS:
                self._prepared_others.clear()
            prepared = self._prepared_others[other_vrs] = self._prepare(other_vrs)
        return prepared

    def _prepare(self, other_vrs: _OtherVRs) -> _Prepared:
        columns = self._columns.copy()
        for at, vr in other_vrs:
            columns[at] = (columns[at][0], vr)
        without = columns[: self._charset_at] + columns[self._charset_at + 1 :]
        return _Prepared(self._encoder.prepare(columns), self._encoder.prepare(without))

    def _refill(self, values: list[bytes | None], row: Sequence[Cell]) -> None:
        """UTF-8 after all: a kept text needs it."""
        for at, place, vr in self._texts:
            if (cell := row[place]) is not None:
                values[at] = _encode(str(cell), vr, UTF_8)

    def _encode_kept(
        self, key: ReturnKey, attribute: Attribute, stored: Sequence[str], charsets: Sequence[str]
    ) -> bytes | None:
        fits = self._fitting.get(key.tag)
        if fits is not None and isinstance(attribute.value, list):  # §C.2.2.2.6: the matching items are returned
            attribute = Attribute("SQ", [item for item in attribute.value if fits(item, stored)])
        recoded = _recode(attribute, key.items, stored, charsets)
        if recoded is None:
            return None
        if isinstance(recoded.value, bytes):
            return recoded.value
        whole = self._encoder.sequence(key.tag, [self._encoder.identifier(item) for item in recoded.value])
        return whole[self._sequence_header :]


def _pack_digits(cell: Cell, vr: str) -> tuple[str, bytes | None]:
    """Numbers that are joined by backslashes, in a VR that has them: of the same size, signed or not."""
    if isinstance(cell, str):
        size = NUMBER_SIZES[vr]
        for sign in (vr[0], "S", "U"):
            with suppress(ValueError, OverflowError):  # received as text, or as larger numbers
                numbers = [int(digits) for digits in cell.split("\\") if digits]
                return sign + vr[1], b"".join(one.to_bytes(size, "little", signed=sign == "S") for one in numbers)
    return vr, None


def _recode(
    attribute: Attribute, asked: Identifier, stored: Sequence[str], charsets: Sequence[str]
) -> Attribute | None:
    """An attribute with its text in another character set, of its items what is asked; None: it cannot be."""
    vr, value = attribute
    if isinstance(value, bytes):
        if vr not in _TEXT_VRS:
            return attribute
        if value.isascii() and b"\x1b" not in value and has_ascii(stored) and has_ascii(charsets):
            return attribute
        encoded = encode_text(decode_text(value, vr, stored).rstrip(" \0"), vr, charsets)
        return None if encoded is None else Attribute(vr, encoded)
    items = []
    for item in value:
        own = item.charsets or stored
        answer = Identifier()
        for tag in sorted(asked or item):
            inner = item.get(tag)
            if tag == CHARSET:
                continue
            if inner is None:
                answer[tag] = Attribute(asked[tag].vr, b"")
                continue
            nested = asked[tag].value if asked else []
            wanted = nested[0] if isinstance(nested, list) and nested else Identifier()
            recoded = _recode(inner, wanted, own, charsets)
            if recoded is None:
                return None
            answer[tag] = recoded
        items.append(answer)
    return Attribute(vr, items)


def _encode(text: str, vr: str, charsets: Sequence[str]) -> bytes | None:
    if vr in _TEXT_VRS:
        return encode_text(text, vr, charsets)
    return text.encode("ascii", "replace")
