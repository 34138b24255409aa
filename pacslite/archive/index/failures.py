"""Why a row is not taken: what the index tells the sender of an instance."""

from pacslite.errors import DimseError

__all__ = ["AlreadyThere", "IndexFailure", "IndexFull", "PatientConflict"]


class IndexFailure(DimseError):
    """The index did not take the row."""


class IndexFull(DimseError):
    """No room for the row: refused, PS3.4 §B.2.3."""

    status = 0xA700


class AlreadyThere(DimseError):
    """A row has its SOP Instance UID; ``look_up`` gives it."""

    status = 0x0111


class PatientConflict(DimseError):
    """The study belongs to another patient, and [storage] patient_conflict says reject."""

    status = 0xC001  # cannot understand: PS3.4 §B.2.3 leaves Cxxx to us
