"""No byte string becomes a way out of the root, and no two instances become one file."""

import os
from pathlib import PurePosixPath

from hypothesis import example, given
from hypothesis import strategies as st

from pacslite.archive.instances.layout import instance_path, safe_name

uids = st.one_of(
    st.from_regex(r"[0-2](\.(0|[1-9][0-9]{0,8})){1,6}", fullmatch=True),
    st.text(max_size=80),
    st.binary(max_size=80).map(lambda value: value.decode("latin-1")),
    st.binary(max_size=80).map(os.fsdecode),
)


@given(study=uids, series=uids, instance=uids)
@example(study="..", series=".", instance="")
@example(study="/", series="a/b", instance="1\0")
@example(study="1" * 65, series="-rf", instance="x-0")
def test_path_stays_below_the_root(study: str, series: str, instance: str) -> None:
    path = instance_path(study, series, instance)
    assert len(path) == 4
    for name in path:
        assert name not in {"", ".", ".."}
        assert not set(name) & {"/", "\0", "\\"}
        assert not name.startswith((".", "-"))
        assert name.isascii()
        assert name.isprintable()
        assert len(name) <= 68
    assert ".." not in PurePosixPath(str(path)).parts


@given(st.lists(uids, min_size=2, max_size=2, unique=True))
def test_two_uids_have_two_names(pair: list[str]) -> None:
    first, second = map(safe_name, pair)
    assert first != second


@given(st.from_regex(r"[0-2](\.(0|[1-9][0-9]{0,8})){1,6}", fullmatch=True))
def test_a_proper_uid_is_its_name(uid: str) -> None:
    assert safe_name(uid) == uid
