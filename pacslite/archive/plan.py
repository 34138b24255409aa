"""What a retrieve sends: references to instances (PS3.4 §C.4.2)."""

from typing import NamedTuple

__all__ = ["InstanceRef"]


class InstanceRef(NamedTuple):
    """An instance as a sender needs it: which it is, and where its data set lies in the file."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str
    data_set_offset: int
    data_set_length: int
