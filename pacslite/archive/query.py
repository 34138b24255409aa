"""Identifiers of C-FIND, C-MOVE and C-GET requests read as queries (PS3.4 §C.4.1.1.3, §C.4.1.3, §C.4.2.2.1)."""

from collections.abc import Mapping

from pacslite.archive.criteria import (
    AVAILABILITY,
    CHARSET,
    LEVEL,
    RETRIEVE_AE_TITLE,
    TIMEZONE,
    Filter,
    ItemMatch,
    KeptFilter,
    Model,
    Query,
    QueryOptions,
    RetrieveRequest,
    ReturnKey,
)
from pacslite.archive.extra import AnyKey, ExtraKey, is_private
from pacslite.archive.keys import COLUMN_OF_TAG, KEY_OF_TAG, UNIQUE_KEY, Level, level_of
from pacslite.archive.matching import Like, Match, OneOf, is_exact, parse_match, tag_text
from pacslite.archive.moments import combine
from pacslite.archive.normalise import FLOAT_SIZES, NUMBER_SIZES, floats_as_text, strip_padding
from pacslite.archive.timezone import parse_offset
from pacslite.dataset.charset import decode_text
from pacslite.dataset.decode import Attribute, Identifier, IdentifierError, decode_identifier
from pacslite.dataset.dictionary import keyword_of, sign_varies, vr_of
from pacslite.dataset.element import IMPLICIT_VR_LITTLE_ENDIAN

__all__ = ["Model", "Query", "QueryOptions", "RetrieveRequest", "parse_query", "parse_retrieve"]


def parse_query(
    identifier: bytes,
    *,
    model: Model,
    transfer_syntax_uid: str,
    relational: bool = False,
    datetime_matching: bool = False,
    fuzzy: bool = False,
    timezone: bool = False,
    options: QueryOptions,
) -> Query:
    """Read the identifier of a C-FIND request.

    Args:
        relational: And the other three: what was negotiated (§C.5.1.1).
    Raises:
        IdentifierError: Not an identifier of this SOP class (A900), or no data set at all (C000).
    """
    request = decode_identifier(identifier, transfer_syntax_uid)
    level = _level(request, model)
    reader = _KeyReader(
        request,
        level,
        is_implicit=transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN,
        relational=relational,
        fuzzy=fuzzy,
        timezone=timezone,
        options=options,
    )
    for tag, attribute in request.items():
        if not tag & 0xFFFF or tag in _NEVER_KEYS:
            continue
        reader.read(tag, attribute)
    filters = tuple(reader.filters)
    if options.require_upper_keys and not relational:
        filters = _require_upper_keys(filters, level, model)
    offset = _offset(request) if timezone else None
    if timezone and level > Level.PATIENT and all(one.tag != TIMEZONE for one in reader.return_keys):
        reader.return_keys.append(ReturnKey(TIMEZONE, "SH"))  # of what zone the dates and times of the answer are
    parts = combine(filters, reader.kept_filters, datetime_matching=datetime_matching, offset=offset)
    lower = combine(reader.lower_filters, (), datetime_matching=datetime_matching, offset=offset)
    return Query(
        level=level,
        filters=parts.filters,
        lower_filters=tuple(one for one in lower.filters if one.key.tag not in lower.apart),
        moments=parts.moments,
        lower_moments=tuple(one for one in lower.moments if one.offset is None),  # SQL knows no other timezone
        kept_filters=parts.kept_filters,
        kept_moments=parts.kept_moments,
        return_keys=tuple(sorted(reader.return_keys, key=_tag)),
        unsupported_keys=tuple(dict.fromkeys((*reader.unsupported_keys, *parts.apart))),
        timezone=timezone,
        charsets=request.charsets,
        transfer_syntax_uid=transfer_syntax_uid,
        options=options,
    )


def parse_retrieve(
    identifier: bytes,
    *,
    model: Model,
    transfer_syntax_uid: str,
    relational: bool = False,
    options: QueryOptions,
) -> RetrieveRequest:
    """Read the identifier of a C-MOVE or C-GET request: unique keys only, others are ignored unless ``strict``.

    Raises:
        IdentifierError: No unique key of its level, or (unless relational) none of a level above. Status A900.
    """
    request = decode_identifier(identifier, transfer_syntax_uid)
    level = _level(request, model)
    filters = []
    for tag, attribute in request.items():
        key = KEY_OF_TAG.get(tag)
        if key is None or key.kind != "U":
            if options.strict and tag & 0xFFFF and tag not in _NEVER_KEYS:
                raise IdentifierError(f"{_name(tag)} is no unique key", offending=(tag,))
            continue
        text = _text(tag, key.vr, attribute, request.charsets)
        if not text:
            continue
        match = parse_match(tag, key.vr, text) if key.vr == "UI" else _one_value(text)
        if not isinstance(match, OneOf):
            raise IdentifierError(f"{_name(tag)} of a retrieve takes no wildcard or list", offending=(tag,))
        if key.level > level:
            if options.strict:
                raise IdentifierError(f"{_name(tag)} is below level {level.name}", offending=(tag,))
            continue
        filters.append(Filter(key, match))
    unique = UNIQUE_KEY[level]
    if all(one.key is not unique for one in filters):
        raise IdentifierError(f"retrieve at level {level.name} without {_name(unique.tag)}", offending=(unique.tag,))
    if options.require_upper_keys and not relational and model != "composite":
        _require_upper_keys(tuple(filters), level, model)
    return RetrieveRequest(level, tuple(filters))


_LEVELS: Mapping[Model, tuple[Level, ...]] = {  # §C.6.1.1, §C.6.2.1, §C.6.3.1, §Y.6.1
    "patient": (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE),
    "study": (Level.STUDY, Level.SERIES, Level.IMAGE),
    "patient_study_only": (Level.PATIENT, Level.STUDY),
    "composite": (Level.STUDY, Level.SERIES, Level.IMAGE),
}
_NEVER_KEYS = frozenset({CHARSET, LEVEL, 0x00080053, RETRIEVE_AE_TITLE})  # 0053: Query/Retrieve View
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT"})  # matched by nothing but universal matching
_FIRST_PRIVATE = 0x1000  # element; those before are creators of blocks (PS3.5 §7.8.1)


class _KeyReader:
    """Sorts the attributes of a request into filters, return keys and what is not supported."""

    def __init__(
        self,
        request: Identifier,
        level: Level,
        *,
        is_implicit: bool,
        relational: bool,
        fuzzy: bool,
        timezone: bool,
        options: QueryOptions,
    ) -> None:
        self._charsets = request.charsets
        self._level = level
        self._is_implicit = is_implicit
        self._relational = relational
        self._fuzzy = fuzzy
        self._timezone = timezone
        self._strict = options.strict
        self._extra_keys = options.extra_keys
        self._request = request
        self.filters: list[Filter] = []
        self.lower_filters: list[Filter] = []
        self.kept_filters: list[KeptFilter] = []
        self.return_keys: list[ReturnKey] = []
        self.unsupported_keys: list[int] = []

    def read(self, tag: int, attribute: Attribute) -> None:
        if tag == AVAILABILITY:  # §C.4.1.1.3.1: in answers only
            self.return_keys.append(ReturnKey(tag, "CS"))
            return None
        if is_private(tag) and tag & 0xFFFF < 0x100 and self._extra_keys.has_creator(tag >> 16, self._creator(tag)):
            self.return_keys.append(ReturnKey(tag, "LO", text=self._creator(tag)))
            return None
        extra = None if tag in COLUMN_OF_TAG else self._extra_key(tag)
        key: AnyKey | None = COLUMN_OF_TAG.get(tag) or extra
        level = key.level if key else level_of(tag)
        vr = key.vr if key else "SS" if attribute.vr == "SS" and sign_varies(tag) else vr_of(tag) or "UN"
        if key is None and not _is_kept(tag, vr):
            self.unsupported_keys.append(tag)
            return None
        if level > self._level:
            return None if tag == TIMEZONE and self._timezone else self._below(tag, attribute, key)
        if isinstance(attribute.value, bytes) == (vr == "SQ") and attribute.value:
            raise IdentifierError(f"{_name(tag)} is of VR {vr}", offending=(tag,))
        items = attribute.value[0] if isinstance(attribute.value, list) and attribute.value else Identifier()
        self.return_keys.append(ReturnKey(tag, vr, items, extra))
        if tag == TIMEZONE:
            return None  # it says how keys are meant
        if _is_unmatched(vr, attribute.value):
            self.unsupported_keys.append(tag)  # for matching; it is returned
        match = self._match(tag, vr, attribute, self._charsets)
        if match is None:
            return None
        if key is not None and not isinstance(match, ItemMatch):
            self.filters.append(Filter(key, match))
        else:
            self.kept_filters.append(KeptFilter(tag, vr, level, match))
        return None

    def _below(self, tag: int, attribute: Attribute, key: AnyKey | None) -> None:
        """A key of a lower level: in a relational query it is matched, it has no one value to return."""
        self.unsupported_keys.append(tag)
        if self._relational and key is not None:
            match = self._match(tag, key.vr, attribute, self._charsets)
            if match is not None and not isinstance(match, ItemMatch) and is_exact(key, match):
                self.lower_filters.append(Filter(key, match))
        elif self._strict and not self._relational:
            raise IdentifierError(f"{_name(tag)} is below level {self._level.name}", offending=(tag,))

    def _extra_key(self, tag: int) -> ExtraKey | None:
        """What the configuration made a key and all that is stored has by now."""
        return self._extra_keys.find(tag, self._creator(tag) if is_private(tag) else "")

    def _creator(self, tag: int) -> str:
        """Who has the block of a private attribute in this request (PS3.5 §7.8.1); of a creator, itself."""
        element = tag & 0xFFFF
        if 0x100 <= element < 0x1000:  # in no block
            return ""
        attribute = self._request.get(tag & 0xFFFF0000 | (element >> 8 if element >= 0x1000 else element))
        if attribute is None or not isinstance(attribute.value, bytes):
            return ""
        return attribute.value.decode("latin-1").strip(" \0")

    def _match(self, tag: int, vr: str, attribute: Attribute, charsets: tuple[str, ...]) -> Match | ItemMatch | None:
        if isinstance(attribute.value, list):
            return self._item_match(tag, attribute.value, charsets)
        if vr in _BINARY:
            return None
        text = _text(tag, vr, attribute, charsets)
        if text and attribute.vr == "US" and self._is_implicit and sign_varies(tag):  # nobody says which it is
            text += "\\" + _text(tag, vr, Attribute("SS", attribute.value), charsets)
        return parse_match(tag, vr, text, fuzzy=self._fuzzy) if text else None

    def _item_match(self, tag: int, items: list[Identifier], charsets: tuple[str, ...]) -> ItemMatch | None:
        if len(items) > 1:
            raise IdentifierError(f"{_name(tag)} has {len(items)} items, a key has one", offending=(tag,))
        keys = []
        for inner, attribute in items[0].items() if items else ():
            if inner == CHARSET or is_private(inner):
                continue
            vr = vr_of(inner) or attribute.vr
            match = self._match(inner, vr, attribute, items[0].charsets or charsets)
            if match is not None:
                keys.append((inner, vr, match))
        return ItemMatch(tuple(keys)) if keys else None


def _level(request: Identifier, model: Model) -> Level:
    attribute = request.get(LEVEL)
    text = _text(LEVEL, "CS", attribute, ()) if attribute is not None else ""
    if not text:
        raise IdentifierError("Query/Retrieve Level (0008,0052) is missing", offending=(LEVEL,))
    levels = {level.name: level for level in _LEVELS[model]}
    if text not in levels:
        raise IdentifierError(f"Query/Retrieve Level is none of {' '.join(levels)}", offending=(LEVEL,))
    return levels[text]


def _require_upper_keys(filters: tuple[Filter, ...], level: Level, model: Model) -> tuple[Filter, ...]:
    """§C.4.1.3.1.1, §C.4.2.2.1: a single value for the unique key of each level above, and no pattern."""
    required = [UNIQUE_KEY[upper] for upper in _LEVELS[model] if upper < level]
    for key in required:
        match = next((one.match for one in filters if one.key is key), None)
        if match is None:
            raise IdentifierError(f"{level.name} level without {_name(key.tag)}", offending=(key.tag,))
        if len(match.values if isinstance(match, OneOf) else match.patterns if isinstance(match, Like) else ()) != 1:
            raise IdentifierError(f"{_name(key.tag)} takes one value at level {level.name}", offending=(key.tag,))
    return tuple(
        Filter(one.key, OneOf(one.match.patterns)) if one.key in required and isinstance(one.match, Like) else one
        for one in filters
    )


def _one_value(text: str) -> OneOf | None:
    """A Patient ID as it is: ``*`` and ``?`` are characters of LO (PS3.5 §6.2). Stars alone are what stands for any."""
    return None if "\\" in text or not text.strip("*") else OneOf((text,))


def _offset(request: Identifier) -> int | None:
    attribute = request.get(TIMEZONE)
    text = _text(TIMEZONE, "SH", attribute, ()) if attribute is not None else ""
    if not text:
        return None
    offset = parse_offset(text)
    if offset is None:
        raise IdentifierError(f"{_name(TIMEZONE)} is no offset", offending=(TIMEZONE,))
    return offset


def _is_unmatched(vr: str, value: bytes | list[Identifier]) -> bool:
    """Is a value of a key, or one in its item, compared with nothing?"""
    if isinstance(value, bytes):
        return bool(value) and vr in _BINARY
    return any(
        (tag & 0xFFFF >= _FIRST_PRIVATE and bool(inner.value))
        if is_private(tag)
        else _is_unmatched(vr_of(tag) or inner.vr, inner.value)
        for item in value
        for tag, inner in item.items()
    )


def _is_kept(tag: int, vr: str) -> bool:
    """May the attribute be among what is kept of a header?"""
    group = tag >> 16
    return vr != "UN" and not group & 1 and group < 0x7FE0 and keyword_of(tag) is not None


def _text(tag: int, vr: str, attribute: Attribute, charsets: tuple[str, ...]) -> str:
    """The value of a key without padding; packed numbers as digits, by the VR that the request says."""
    raw = attribute.value
    if not isinstance(raw, bytes):
        raise IdentifierError(f"{_name(tag)} is no sequence", offending=(tag,))
    if vr in NUMBER_SIZES and attribute.vr in NUMBER_SIZES:
        vr = attribute.vr
    if (size := NUMBER_SIZES.get(vr) or FLOAT_SIZES.get(vr)) is not None:
        if len(raw) % size:
            raise IdentifierError(f"{_name(tag)} has {len(raw)} bytes", offending=(tag,))
        if vr in FLOAT_SIZES:
            return "\\".join(floats_as_text(vr, raw))
        signed = vr.startswith("S")
        numbers = (raw[at : at + size] for at in range(0, len(raw), size))
        return "\\".join(str(int.from_bytes(number, "little", signed=signed)) for number in numbers)
    if vr in _TEXT_VRS:
        return strip_padding(vr, decode_text(raw, vr, charsets))
    return raw.decode("latin-1").strip(" \0")


_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})  # PS3.5 §6.1.2.2: these use the character set


def _tag(key: ReturnKey) -> int:
    return key.tag


def _name(tag: int) -> str:
    return f"{keyword_of(tag) or ''}{tag_text(tag)}"
