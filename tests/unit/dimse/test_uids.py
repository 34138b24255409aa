"""The UIDs that we write by hand are those of PS3.6 Annex A."""

import pytest
from pydicom._uid_dict import UID_dictionary

from pacslite.dimse import uids

NAMES = [name for name in dir(uids) if name.isupper()]


@pytest.mark.parametrize("name", NAMES)
def test_each_is_what_its_name_says(name: str) -> None:
    entry = UID_dictionary[getattr(uids, name)]
    words = entry[0].upper().replace("-", " ").replace("/", " ").split()
    said = [word for word in name.split("_") if word not in {"FIND", "MOVE", "GET"}]
    assert all(any(found.startswith(word) for found in words) for word in said if word != "CLASS"), entry
    for operation in {"FIND", "MOVE", "GET"} & set(name.split("_")):
        assert operation in words


def test_there_are_no_others() -> None:
    assert len({getattr(uids, name) for name in NAMES}) == len(NAMES) > 15
