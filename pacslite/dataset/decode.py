"""Decode identifiers and kept elements: whole data sets in memory, sequences included (PS3.5 §7).

Bounded: depth, number of elements and inflated size have limits, and the first impossible byte ends it. Values come out
in little endian whatever the transfer syntax, so that one reading serves all.
"""

from array import array
from typing import NamedTuple

from pacslite.dataset.dictionary import sign_varies, vr_of
from pacslite.dataset.element import (
    BIG,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    LITTLE,
    PIXEL_REPRESENTATION,
    UNDEFINED,
    DataSetError,
    Form,
    is_capitals,
    is_signed,
    measure_header,
    pass_leading,
    shows_vr,
    split_charsets,
)
from pacslite.dataset.inflate import Inflater
from pacslite.errors import DimseError

__all__ = [
    "WORD_SIZES",
    "Attribute",
    "Identifier",
    "IdentifierError",
    "IdentifierUndecodable",
    "decode_identifier",
    "inflate",
    "swap_bytes",
]

_INFLATED_LIMIT = 16 << 20
WORD_SIZES = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}
_ARRAY_TYPES = {2: "H", 4: "I", 8: "Q"}


class IdentifierError(DimseError):
    """An identifier that is none of its SOP Class (PS3.4 §C.4.1.1.4)."""

    status = 0xA900


class IdentifierUndecodable(IdentifierError):
    """Bytes that are no data set in their transfer syntax; the comment gives the offset."""

    status = 0xC000


class Attribute(NamedTuple):
    """An element: its value as encoded, padding included, or the items of a sequence."""

    vr: str
    value: "bytes | list[Identifier]"


class Identifier(dict[int, Attribute]):
    """Attributes by tag, in the order received; without group lengths (PS3.5 §7.2) and groups 0000 and 0002."""

    __slots__ = ()

    @property
    def charsets(self) -> tuple[str, ...]:
        """Values of Specific Character Set (0008,0005), unpadded."""
        attribute = self.get(0x00080005)
        return split_charsets(attribute.value) if attribute and isinstance(attribute.value, bytes) else ()


def decode_identifier(
    data: bytes,
    transfer_syntax_uid: str,
    *,
    max_depth: int = 16,
    max_elements: int = 50_000,
    detect: bool = True,
    signed: bool = False,
) -> Identifier:
    """Decode a data set, its sequences too.

    Args:
        detect: Notice explicit VR where implicit was promised, and the reverse; off where the syntax is certain.
        signed: Pixel Representation stands elsewhere and is 1: where nothing says if a value is US or SS, it is SS.
    Raises:
        IdentifierUndecodable: It ends inside an element, or has what cannot stand there. Status C000.
        IdentifierError: Too deep, too many elements, or an element twice. Status A900.
    """
    if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        data = inflate(data)
    form = BIG if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else LITTLE
    decoder = _Decoder(data, max_depth, max_elements, signed=signed)
    began, start = pass_leading(form, data, 0)
    _check_end(began, start, len(data))
    explicit = transfer_syntax_uid != IMPLICIT_VR_LITTLE_ENDIAN
    if detect and start + 8 <= len(data):  # in implicit VR two capitals may be the length of a list of UIDs
        explicit = is_capitals(data[start + 4 : start + 6]) if explicit else shows_vr(data, start, len(data))
    return decoder.data_set(form, start, len(data), explicit=explicit, depth=0, delimited=False)[0]


def inflate(data: bytes, limit: int = _INFLATED_LIMIT) -> bytes:
    """Inflate a data set of PS3.5 §A.5; what is beyond ``limit`` is refused."""
    inflater = Inflater(limit)
    try:
        inflated = b"".join(inflater.inflate(data))
    except DataSetError as error:
        raise IdentifierUndecodable(str(error)) from None
    if inflater.is_beyond:
        raise IdentifierError(f"deflated identifier exceeds {limit} bytes")
    if not inflater.has_ended:
        raise IdentifierUndecodable("deflated data set ends too early")
    return inflated


def swap_bytes(vr: str, value: bytes) -> bytes:
    """Turn a value from one byte order to the other (PS3.5 §7.3); text and unknown stay as they are."""
    size = WORD_SIZES.get(vr)
    if size is None or len(value) % size:
        return value
    words = array(_ARRAY_TYPES[size], value)
    words.byteswap()
    return words.tobytes()


class _Decoder:
    __slots__ = ("_data", "_left", "_max_depth", "_signed")

    def __init__(self, data: bytes, max_depth: int, max_elements: int, *, signed: bool) -> None:
        self._data = data
        self._max_depth = max_depth
        self._left = max_elements
        self._signed = signed  # by the Pixel Representation of the innermost data set or item that has one

    def data_set(
        self, form: Form, at: int, end: int, *, explicit: bool, depth: int, delimited: bool
    ) -> tuple[Identifier, int]:
        """Decode elements up to ``end``, or to the delimiter of the item; give the position behind."""
        data = self._data
        found = Identifier()
        while at < end:
            if at + 8 > end:
                if delimited or any(data[at:end]):  # a few zeros are somebody's padding
                    raise IdentifierUndecodable(f"identifier ends inside the element at byte {at}")
                break
            group, number, length = form.wide(data, at)
            if group == 0xFFFE:
                if delimited and number == 0xE00D:
                    return found, at + 8
                raise IdentifierUndecodable(f"(FFFE,{number:04X}) at byte {at}")
            tag = group << 16 | number
            header = 8
            vr = ""
            if explicit:
                header, length, is_implicit = measure_header(form, data, at)
                if not is_implicit:
                    vr = data[at + 4 : at + 6].decode("ascii")
            self._take(at)
            start = at + header
            at, vr, value = self._value(form, tag, vr, start, end, length, explicit=explicit, depth=depth)
            if number == 0 or group in {0x0000, 0x0002}:
                continue
            if tag in found:
                raise IdentifierError(f"({group:04X},{number:04X}) occurs twice", offending=(tag,))
            found[tag] = Attribute(vr, value)
            if tag == PIXEL_REPRESENTATION and isinstance(value, bytes):
                self._signed = is_signed(value)
        if delimited:
            raise IdentifierUndecodable(f"item without its delimiter before byte {end}")
        return found, end

    def _value(
        self, form: Form, tag: int, vr: str, start: int, end: int, length: int, *, explicit: bool, depth: int
    ) -> tuple[int, str, bytes | list[Identifier]]:
        """Give the position behind a value, its true VR, and the value."""
        is_unknown = vr == "UN"
        if vr in {"", "UN"}:
            if is_unknown:  # §6.2.2: little endian and implicit within, whatever is around
                form = LITTLE
            vr = vr_of(tag) or "UN"
            if vr == "US" and self._signed and sign_varies(tag):
                vr = "SS"
        if length == UNDEFINED:
            if vr not in {"SQ", "UN"}:
                raise IdentifierUndecodable(f"undefined length of VR {vr} before byte {start}")
            items, at = self._items(
                form, start, end, explicit=explicit, is_unknown=is_unknown, depth=depth + 1, delimited=True
            )
            return at, "SQ", items
        at = start + length
        _check_end(start, at, end)
        if vr == "SQ":
            items, _ = self._items(
                form, start, at, explicit=explicit, is_unknown=is_unknown, depth=depth + 1, delimited=False
            )
            return at, vr, items
        value = self._data[start:at]
        return at, vr, swap_bytes(vr, value) if form is BIG else value

    def _items(
        self, form: Form, at: int, end: int, *, explicit: bool, is_unknown: bool, depth: int, delimited: bool
    ) -> tuple[list[Identifier], int]:
        if depth > self._max_depth:
            raise IdentifierError(f"sequences nested more than {self._max_depth} deep")
        data = self._data
        items: list[Identifier] = []
        signed = self._signed
        while at < end:
            _check_end(at, at + 8, end)
            group, number, length = form.wide(data, at)
            if group != 0xFFFE or number not in {0xE000, 0xE0DD} or (number == 0xE0DD and not delimited):
                raise IdentifierUndecodable(f"({group:04X},{number:04X}) between items at byte {at}")
            at += 8
            if number == 0xE0DD:
                return items, at
            self._take(at)
            is_undefined = length == UNDEFINED
            item_end = end if is_undefined else at + length
            _check_end(at, item_end, end)
            # in explicit VR an item may be implicit, and in UN the reverse: its first element shows it
            if is_unknown:
                shown = at + 8 <= item_end and shows_vr(data, at, item_end)
            else:
                shown = explicit and (at + 8 > item_end or is_capitals(data[at + 4 : at + 6]))
            item, at = self.data_set(form, at, item_end, explicit=shown, depth=depth, delimited=is_undefined)
            items.append(item)
            self._signed = signed
        if delimited:
            raise IdentifierUndecodable(f"sequence without its delimiter before byte {end}")
        return items, at

    def _take(self, at: int) -> None:
        self._left -= 1
        if self._left < 0:
            raise IdentifierError(f"too many elements before byte {at}")


def _check_end(at: int, value_end: int, end: int) -> None:
    if value_end > end:
        raise IdentifierUndecodable(f"what begins at byte {at} ends {value_end - end} bytes too late")
