"""Which SOP classes are storage, judged by pydicom's dictionary of the standard's UIDs."""

from pydicom._uid_dict import UID_dictionary

from pacslite.services.sop_classes import is_standard_storage, is_unknown_to_the_standard

SOP_CLASSES = {uid: name for uid, (name, kind, *_) in UID_dictionary.items() if kind == "SOP Class"}
# Named "Storage" and none: a directory that is never sent, and two services about storage
NO_STORAGE = {"1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2"}


def test_every_storage_class_of_the_standard_is_known() -> None:
    unknown = [
        uid
        for uid, name in SOP_CLASSES.items()
        if "Storage" in name and uid not in NO_STORAGE and not is_standard_storage(uid)
    ]
    assert unknown == []


def test_no_other_class_is_taken_for_storage() -> None:
    taken = [uid for uid, name in SOP_CLASSES.items() if name and "Storage" not in name and is_standard_storage(uid)]
    assert taken == []
    assert not any(is_standard_storage(uid) for uid in NO_STORAGE)


def test_private_classes_are_those_outside_the_standards_root() -> None:
    assert is_unknown_to_the_standard("1.3.12.2.1107.5.9.1")
    assert not any(is_unknown_to_the_standard(uid) for uid in SOP_CLASSES)
