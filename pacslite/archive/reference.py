"""What is needed to open a stored instance."""

from typing import NamedTuple

__all__ = ["InstanceRef"]


class InstanceRef(NamedTuple):
    """An instance as a query found it: where its file is and what is in it."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str
    data_set_offset: int
    data_set_length: int
    digest: bytes
