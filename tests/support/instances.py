"""Synthetic instances: any number of them, each reproducible from its number, no two alike."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.wire import CT_IMAGE, encode_elements

__all__ = ["UID_ROOT", "Instance", "digest_of", "make_instance"]

UID_ROOT = "1.2.826.0.1.3680043.8.498.77"


@dataclass(frozen=True)
class Instance:
    """One CT slice with the keys a test asks for, as explicit VR little endian."""

    patient_id: str
    study_uid: str
    series_uid: str
    sop_instance_uid: str
    data: bytes
    sop_class_uid: str = CT_IMAGE

    @property
    def digest(self) -> str:
        return digest_of(self.data)


def digest_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _text(value: str) -> bytes:
    raw = value.encode("ascii")
    return raw + b" " * (len(raw) % 2)


def _uid(value: str) -> bytes:
    raw = value.encode("ascii")
    return raw + b"\0" * (len(raw) % 2)


def make_instance(
    number: int,
    *,
    seed: int = 0,
    study: int = 0,
    series: int = 0,
    patient: int | None = None,
    size: int = 4096,
    salt: str = "",
) -> Instance:
    """Instance ``number`` of a series: ``size`` bytes of pixels that only this seed, number and salt give."""
    study_uid = f"{UID_ROOT}.{seed}.{study}"
    series_uid = f"{study_uid}.{series}"
    sop_instance_uid = f"{series_uid}.{number}"
    patient_id = f"P{seed}-{study if patient is None else patient}"
    block = random.Random(f"{seed}/{study}/{series}/{number}{salt}").randbytes(min(size, 4096))
    pixels = (block * (size // max(len(block), 1) + 1))[: size & ~1]
    elements: Sequence[tuple[int, str, bytes]] = (
        (0x00080005, "CS", b"ISO_IR 100"),
        (0x00080016, "UI", _uid(CT_IMAGE)),
        (0x00080018, "UI", _uid(sop_instance_uid)),
        (0x00080020, "DA", b"20240131"),
        (0x00080030, "TM", b"101500"),
        (0x00080050, "SH", _text(f"A{seed}.{study}")),
        (0x00080060, "CS", b"CT"),
        (0x00080090, "PN", b"Referring^Doctor"),
        (0x00081030, "LO", _text(f"Study {study} of {seed}")),
        (0x0008103E, "LO", _text(f"Series {series}")),
        (0x00100010, "PN", _text(f"Load^Number{seed}x{study}")),
        (0x00100020, "LO", _text(patient_id)),
        (0x00100030, "DA", b"19600229"),
        (0x00100040, "CS", b"O "),
        (0x0020000D, "UI", _uid(study_uid)),
        (0x0020000E, "UI", _uid(series_uid)),
        (0x00200010, "SH", _text(str(study))),
        (0x00200011, "IS", _text(str(series + 1))),
        (0x00200013, "IS", _text(str(number))),
        (0x7FE00010, "OW", pixels),
    )
    return Instance(patient_id, study_uid, series_uid, sop_instance_uid, encode_elements(elements))
