"""What the index keeps of one instance, taken from its header.

Most instances belong to a series the writer already knows: for them only the IMAGE level is decoded, ten short values.
Patient, study and series are decoded when the writer meets a new series (``Record.upper``).
"""

import hashlib
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pacslite.archive.instances.layout import InstancePath, instance_path
from pacslite.archive.kept import encode_kept
from pacslite.archive.keys import KEYS, Key, Level
from pacslite.archive.normalise import NORMALISERS, strip_padding
from pacslite.archive.phonetic import name_sounds
from pacslite.dataset.charset import decode_text
from pacslite.dataset.scan import DataSetError, HeaderScanner
from pacslite.errors import DimseError

__all__ = ["DataSetMismatch", "Record", "SeriesKey", "Upper", "check_uid", "columns_of", "make_record"]

Value = str | int | bytes | None

_ASCII_VRS = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"})  # PS3.5 §6.1.2.2: no character set
_LONGEST_UID = 255  # PS3.5 §9.1 allows 64
_REMEMBERED_UID = 64
_LAST_GROUP = 0x0020  # of these
_UID_TAGS = (0x00080016, 0x00080018, 0x0020000D, 0x0020000E, 0x00100020, 0x00100021)


class DataSetMismatch(DimseError):
    """The data set is not what the command announced, PS3.4 §B.2.3."""

    status = 0xA900


class SeriesKey(NamedTuple):
    """What an instance says of where it belongs; equal keys mean one series, study and patient."""

    study_instance_uid: str
    series_instance_uid: str
    patient_id: bytes | None
    issuer: bytes | None


class Upper(NamedTuple):
    """Columns of the levels above the instance, in the order of ``columns_of``, and what is kept beside them."""

    identity: str
    patient: list[Value]
    study: list[Value]
    series: list[Value]
    modality: str | None


@dataclass(slots=True)
class Record:
    """One instance, ready to be indexed."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    source_ae_title: str
    series_key: SeriesKey
    scan: HeaderScanner
    image: list[Value]
    attributes: bytes
    received_at: int
    data_set_offset: int = 0
    data_set_length: int = 0
    digest: bytes = b""

    @property
    def path(self) -> InstancePath:
        """Where its file belongs."""
        key = self.series_key
        return instance_path(key.study_instance_uid, key.series_instance_uid, self.sop_instance_uid)

    def upper(self) -> Upper:
        """Decode patient, study and series."""
        scan = self.scan
        key = self.series_key
        patient = _values(scan, Level.PATIENT)
        at = _POSITION[Level.PATIENT]
        patient_id, issuer = _text(patient[at["patient_id"]]), _text(patient[at["issuer_of_patient_id"]])
        patient.append(name_sounds(_text(patient[at["patient_name"]])))
        study, series = _values(scan, Level.STUDY), _values(scan, Level.SERIES)
        study[_POSITION[Level.STUDY]["study_instance_uid"]] = key.study_instance_uid
        series[_POSITION[Level.SERIES]["series_instance_uid"]] = key.series_instance_uid
        modality = _text(series[_POSITION[Level.SERIES]["modality"]])
        return Upper(
            identity=f"{patient_id}\\{issuer}" if patient_id else key.study_instance_uid,
            patient=[*patient, encode_kept(scan, Level.PATIENT)],
            study=[*study, encode_kept(scan, Level.STUDY)],
            series=[*series, encode_kept(scan, Level.SERIES)],
            modality=modality or None,
        )


def make_record(
    scan: HeaderScanner, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae_title: str
) -> Record:
    """Read an instance's place and its IMAGE level from a finished scan.

    Raises:
        DataSetMismatch: SOP Class or SOP Instance UID is not the command's (PS3.7 §9.1.1.1), or is missing.
        DataSetError: A UID is no text, or they were not reached in a deflated data set.
    """
    sop_class, sop_instance, of_study, of_series, patient_id, issuer = scan.values(_UID_TAGS)
    in_class = _known_uid("SOP Class UID", sop_class)
    in_instance = _uid("SOP Instance UID", sop_instance)
    study = _known_uid("Study Instance UID", of_study)
    series = _known_uid("Series Instance UID", of_series)
    if scan.truncated and scan.group <= _LAST_GROUP and not (study and series):
        raise DataSetError("too much stands before the UIDs of a deflated data set")
    if in_instance != sop_instance_uid:
        raise DataSetMismatch(
            "data set has another SOP Instance UID" if in_instance else "data set has no SOP Instance UID",
            offending=(0x00080018,),
        )
    if in_class != sop_class_uid:
        raise DataSetMismatch(
            "data set has another SOP Class UID" if in_class else "data set has no SOP Class UID",
            offending=(0x00080016,),
        )
    study = study or _stand_in("study", series or sop_instance_uid)
    series = series or _stand_in("series", study)
    return Record(
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        source_ae_title=source_ae_title,
        series_key=SeriesKey(study, series, patient_id, issuer),
        scan=scan,
        image=_image_values(scan, sop_class_uid, sop_instance_uid),
        attributes=encode_kept(scan, Level.IMAGE),
        received_at=int(time.time()),
    )


def check_uid(name: str, uid: str) -> None:
    """Refuse what cannot be a UID, or a part of a log line or a header; anything printable is let in.

    Raises:
        DataSetError: Status C000.
    """
    if not (uid and len(uid) <= _LONGEST_UID and uid.isascii() and uid.isprintable()):
        raise DataSetError(f"{name} is {'no text' if uid else 'missing'}")


def columns_of(level: Level) -> tuple[str, ...]:
    """The key columns of a level in the order of the values in records; of the upper levels with what is kept."""
    if level is Level.IMAGE:
        return _COLUMNS[level]
    extra = ("patient_name_sounds",) if level is Level.PATIENT else ()
    return (*_COLUMNS[level], *extra, "attributes")


# private


def _text(value: Value) -> str:
    return value if isinstance(value, str) else ""


_Decoder = Callable[[bytes, HeaderScanner], Value]


def _ascii(value: bytes, _scan: HeaderScanner) -> Value:
    return value.decode("latin-1").strip(" \0") or None


def _number(value: bytes, scan: HeaderScanner) -> Value:
    if len(value) < 2:
        return None
    return int(struct.unpack_from(">H" if scan.big_endian else "<H", value)[0])


def _text_decoder(vr: str) -> _Decoder:
    def decode(value: bytes, scan: HeaderScanner) -> Value:
        return strip_padding(vr, decode_text(value, vr, scan.charsets)) or None

    return decode


def _values_decoder(decode: _Decoder) -> _Decoder:
    """The same without the padding of each value, PS3.5 §6.2."""

    def decode_values(value: bytes, scan: HeaderScanner) -> Value:
        text = decode(value, scan)
        if isinstance(text, str) and " " in text and "\\" in text:
            return "\\".join(one.strip(" ") for one in text.split("\\"))
        return text

    return decode_values


def _decoder(key: Key) -> _Decoder:
    if key.vr == "US":
        return _number
    decode = _ascii if key.vr in _ASCII_VRS else _text_decoder(key.vr)
    return _values_decoder(decode) if key.multiple else decode


_TAGS: dict[Level, tuple[int, ...]] = {level: tuple(k.tag for k in KEYS if k.level is level) for level in Level}
_STEPS: dict[Level, list[tuple[_Decoder, Callable[[str], str | int | None] | None]]] = {
    level: [(_decoder(k), NORMALISERS[k.vr] if k.match != k.column else None) for k in KEYS if k.level is level]
    for level in Level
}
_COLUMNS: dict[Level, tuple[str, ...]] = {
    level: tuple(dict.fromkeys(name for k in KEYS if k.level is level for name in (k.column, k.match)))
    for level in Level
}
_POSITION = {level: {name: at for at, name in enumerate(columns)} for level, columns in _COLUMNS.items()}


def _values(scan: HeaderScanner, level: Level) -> list[Value]:
    row: list[Value] = []
    for value, (decode, normalise) in zip(scan.values(_TAGS[level]), _STEPS[level], strict=True):
        decoded = decode(value, scan) if value else None
        row.append(decoded)
        if normalise is not None:
            row.append(normalise(decoded) if isinstance(decoded, str) else None)
    return row


def _image_values(scan: HeaderScanner, sop_class_uid: str, sop_instance_uid: str) -> list[Value]:
    row = _values(scan, Level.IMAGE)
    row[_POSITION[Level.IMAGE]["sop_instance_uid"]] = sop_instance_uid
    row[_POSITION[Level.IMAGE]["sop_class_uid"]] = sop_class_uid
    return row


def _known_uid(name: str, value: bytes | None) -> str:
    """The same as ``_uid``, of what many instances have in common."""
    return _uid(name, value) if value is None or len(value) > _REMEMBERED_UID else _short_uid(name, value)


def _uid(name: str, value: bytes | None) -> str:
    """A UID as text, padding gone. Anything printable is let in: a peer's odd UID is its name nevertheless."""
    if not value:
        return ""
    text = value.decode("latin-1").strip(" \0")
    if text:
        check_uid(name, text)
    return text


_short_uid = lru_cache(1024)(_uid)


def _stand_in(level: str, of: str) -> str:
    """A UID for what has none (non-patient objects, broken ones): derived, so that a rebuilt index gives the same.

    The data set keeps its bytes. PS3.5 §B.2: 2.25 and a 128-bit integer.
    """
    return f"2.25.{int.from_bytes(hashlib.sha256(f'{level} of {of}'.encode()).digest()[:16], 'big')}"
