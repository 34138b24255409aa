"""Statuses of DIMSE responses (PS3.7 Annex C; PS3.4 Tables B.2-1, C.4-1 to C.4-3)."""

from enum import IntEnum

__all__ = ["Status", "is_done", "is_failure", "is_pending", "is_warning"]


class Status(IntEnum):
    """The statuses that we send, and those that we tell apart when received. Any other 16-bit value may arrive."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    INVALID_ARGUMENT_VALUE = 0x0115
    NO_SUCH_SOP_CLASS = 0x0118
    CLASS_INSTANCE_CONFLICT = 0x0119
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NO_SUCH_ACTION = 0x0123
    NOT_AUTHORIZED = 0x0124
    DUPLICATE_INVOCATION = 0x0210
    UNRECOGNIZED_OPERATION = 0x0211
    MISTYPED_ARGUMENT = 0x0212
    RESOURCE_LIMITATION = 0x0213
    OUT_OF_RESOURCES = 0xA700
    UNABLE_TO_COUNT_MATCHES = 0xA701
    UNABLE_TO_PERFORM_SUB_OPERATIONS = 0xA702
    MOVE_DESTINATION_UNKNOWN = 0xA801
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900
    SUB_OPERATIONS_WITH_FAILURES = 0xB000
    COERCION_OF_DATA_ELEMENTS = 0xB000
    ELEMENTS_DISCARDED = 0xB006
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS_WARNING = 0xB007
    CANNOT_UNDERSTAND = 0xC000
    CANCEL = 0xFE00
    PENDING = 0xFF00
    PENDING_WARNING = 0xFF01


def is_pending(status: int) -> bool:
    return status in (Status.PENDING, Status.PENDING_WARNING)


def is_warning(status: int) -> bool:
    """PS3.7 §C.3: 0001, Bxxx, 0107 and 0116."""
    return status in (0x0001, 0x0107, 0x0116) or status >> 12 == 0xB


def is_done(status: int) -> bool:
    """Success or a warning: what was asked for was done. Neither is a cancel, nor an answer that is not the last."""
    return status == Status.SUCCESS or is_warning(status)


def is_failure(status: int) -> bool:
    return not (status in (Status.SUCCESS, Status.CANCEL) or is_pending(status) or is_warning(status))
