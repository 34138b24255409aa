"""Random archives, random identifiers: the index answers what a slow reading of PS3.4 §C.2.2.2 answers.

The model below shares no code with the archive: values are compared one by one, wildcards by recursion, names after
a folding of its own.
"""

import re
import tempfile
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pacslite.archive.query import QueryOptions
from tests.support.index import extra_keys_of, find, make_index, parse, reading, uid

# the model


def wildcard(pattern: str, value: str) -> bool:
    """§C.2.2.2.4."""
    if not pattern:
        return not value
    if pattern[0] == "*":
        return any(wildcard(pattern[1:], value[at:]) for at in range(len(value) + 1))
    return bool(value) and pattern[0] in {"?", value[0]} and wildcard(pattern[1:], value[1:])


def folded(name: str) -> str:
    letters = unicodedata.normalize("NFD", name)
    return "".join(letter for letter in letters if not unicodedata.combining(letter)).casefold()


def asks_nothing(group: str) -> bool:
    """A component group of stars only, whatever of its components they stand for."""
    return re.fullmatch(r"(\*[*^]*)?\^*", re.sub(" *\\^ *", "^", group).strip()) is not None


def name_matches(key: str, value: str) -> bool:
    """§C.2.2.2.1, PS3.5 §6.2.1: any component group, or each its own; components at the end may be left out.

    So ``doe^*`` is also plain ``doe``.
    """
    wanted = [group.rstrip("^") for group in folded(key).rstrip("=").split("=")]
    stored = [group.rstrip("^") for group in folded(value).split("=")]

    def group_matches(pattern: str, group: str) -> bool:
        given, anything = pattern, re.sub(r"(\^\*+)+$", "", pattern)
        return bool(group) and (wildcard(given, group) or wildcard(anything.rstrip("^"), group))

    if len(wanted) == 1:
        return any(group_matches(wanted[0], group) for group in stored)
    return all(
        asks_nothing(one) or (at < len(stored) and group_matches(one, stored[at])) for at, one in enumerate(wanted)
    )


def moment(text: str, width: int, fill: str) -> str:
    digits = text.replace(".", "") if len(text) == 10 and width == 8 else text
    whole, _, fraction = digits.partition(".")
    if width == 8:
        return whole
    return (whole + fill[len(whole) : 6]) + "." + (fraction + fill[6:][len(fraction) :])[:6]


def range_matches(key: str, value: str, width: int) -> bool:
    """§C.2.2.2.1 and §C.2.2.2.5: by meaning, both ends inclusive."""
    stored = moment(value, width, "000000000000")
    if "-" not in key:
        return moment(key, width, "000000000000") == stored
    low, _, high = key.partition("-")
    after = not low or moment(low, width, "000000000000") <= stored
    return after and (not high or stored <= moment(high, width, "595959999999"))


def value_matches(vr: str, key: str, value: str) -> bool:
    if vr == "PN":
        return name_matches(key, value)
    if vr == "DA":
        return range_matches(key, value, 8)
    if vr == "TM":
        return range_matches(key, value, 6)
    if vr == "IS":
        return int(key) == int(value)
    if vr == "UI":
        return key == value
    return wildcard(key, value) if "*" in key or "?" in key else key == value


def matches(vr: str, key: str, value: str, *, multiple: bool, unknown: bool) -> bool:
    """An attribute: universal, list of values, several stored values (§C.2.2.3), the unknown value (§C.2.2.1.2)."""
    wanted = [one for one in key.split("\\") if one and not (vr == "PN" and not one.strip("^="))]  # ``^`` is no name
    if not wanted or any(all(map(asks_nothing, one.split("="))) if vr == "PN" else set(one) == {"*"} for one in wanted):
        return True
    if not value:
        return unknown
    stored = value.split("\\") if multiple else [value]
    return any(value_matches(vr, one, of_stored) for one in wanted for of_stored in stored)


# archives and identifiers from few letters, so that they meet

LETTERS = "aAbBäÄß_%[]^ 12"
KANJI = "山田太"
words = st.text(LETTERS, max_size=4).map(lambda text: " ".join(text.split()).strip())
groups = st.one_of(words, st.text(KANJI + "^", max_size=3))
names = st.lists(groups, min_size=1, max_size=3).map(lambda some: "=".join(some).rstrip("=^ "))
dates = st.sampled_from(["20240101", "20240102", "20240131", "20240201", "1998.01.28", "19980128"])
times = st.sampled_from(["10", "1000", "1030", "103000", "103000.5", "103059.999999", "22", "000000"])
numbers = st.sampled_from(["1", "01", "2", "12", "+1", "-1"])

ATTRIBUTES: Mapping[str, tuple[str, bool, st.SearchStrategy[str]]] = {
    "PatientName": ("PN", False, names),
    "PatientID": ("LO", False, words),
    "PatientBirthDate": ("DA", False, dates),
    "OtherPatientIDs": ("LO", True, st.lists(words, max_size=3).map("\\".join)),
    "StudyDate": ("DA", False, dates),
    "StudyTime": ("TM", False, times),
    "AccessionNumber": ("SH", False, words),
    "StudyDescription": ("LO", False, words),
    "ReferringPhysicianName": ("PN", False, names),
    "Modality": ("CS", False, st.sampled_from(["CT", "MR", "SR"])),
    "SeriesNumber": ("IS", False, numbers),
    "BodyPartExamined": ("CS", False, st.sampled_from(["HEAD", "HAND", "HIP"])),
    # in no column
    "MedicalAlerts": ("LO", True, st.lists(words, max_size=2).map("\\".join)),
    "PhysiciansOfRecord": ("PN", True, st.lists(names, max_size=2).map("\\".join)),
    "LastMenstrualDate": ("DA", False, dates),
    "OtherStudyNumbers": ("IS", True, st.lists(numbers, max_size=2).map("\\".join)),
    "TimeOfLastCalibration": ("TM", True, st.lists(times, max_size=3).map("\\".join)),
}
EXTRA_KEYS = ("MedicalAlerts", "PhysiciansOfRecord", "LastMenstrualDate", "OtherStudyNumbers", "TimeOfLastCalibration")
instances = st.fixed_dictionaries(
    {keyword: st.one_of(st.just(""), values) for keyword, (_, _, values) in ATTRIBUTES.items()}
)
paddings = st.sampled_from(["", " ", "  "])  # PS3.5 §6.2: no part of a value, and senders pad each of several
patterns = st.text(LETTERS + "**??", min_size=1, max_size=4).map(lambda text: " ".join(text.split()).strip())
name_patterns = st.one_of(
    patterns, st.text("*^=", min_size=1, max_size=5), st.text(KANJI + "*^", min_size=1, max_size=3), names
)


def keys_of(keyword: str) -> st.SearchStrategy[str]:
    vr, multiple, values = ATTRIBUTES[keyword]
    if multiple:  # what is asked is one of them
        values = {"DA": dates, "TM": times, "IS": numbers, "PN": names}.get(vr, words).filter(bool)
    if vr in {"DA", "TM"}:
        ranges = st.tuples(values, values).map("-".join)
        return st.one_of(values, ranges, values.map("{}-".format), values.map("-{}".format))
    if vr == "IS":
        return values
    if vr == "CS":
        return st.one_of(values, st.text("ACDEHIMNPRST*?", min_size=1, max_size=4))
    if vr == "PN":
        return st.one_of(
            values,
            name_patterns,
            st.lists(st.one_of(name_patterns, st.just("*")), min_size=2, max_size=3).map("=".join),
        )
    return st.one_of(values, patterns, st.lists(patterns, min_size=2, max_size=2).map("\\".join))


identifiers = st.lists(st.sampled_from(sorted(ATTRIBUTES)), min_size=1, max_size=3, unique=True).flatmap(
    lambda keywords: st.fixed_dictionaries({keyword: keys_of(keyword) for keyword in keywords})
)


def padded(instance: Mapping[str, str], padding: str) -> dict[str, str]:
    return {
        keyword: "\\".join(f"{one}{padding}" for one in text.split("\\")) if ATTRIBUTES[keyword][0] != "UI" else text
        for keyword, text in instance.items()
    }


def expected(archive: list[dict[str, str]], asked: Mapping[str, str], *, unknown: bool) -> set[str]:
    return {
        uid(2, number)
        for number, instance in enumerate(archive)
        if all(
            matches(ATTRIBUTES[keyword][0], key, instance[keyword], multiple=ATTRIBUTES[keyword][1], unknown=unknown)
            for keyword, key in asked.items()
        )
    }


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],  # explaining takes minutes of SQL
)
@given(
    st.lists(instances, min_size=1, max_size=12),
    st.lists(identifiers, min_size=1, max_size=12),
    st.booleans(),
    st.sets(st.sampled_from(EXTRA_KEYS)),
    st.sampled_from([1, 2, 256]),
    paddings,
)
async def test_answers_are_the_models(
    archive: list[dict[str, str]], asked: list[dict[str, str]], unknown: bool, extra: set[str], page: int, padding: str
) -> None:
    """At SERIES level, where keys of three levels meet: each instance is a patient, a study and a series of its own.

    What is in no column is looked for in what is kept of the header, or by an extra key: the answers are the same.
    Small pages, so that walks are left and taken up again everywhere.
    """
    utf_8 = {"SpecificCharacterSet": "ISO_IR 192"}
    own = [{**utf_8, **padded(one, padding), "IssuerOfPatientID": str(number)} for number, one in enumerate(archive)]
    with tempfile.TemporaryDirectory() as folder:
        path = make_index(Path(folder), own, extra_keys=sorted(extra))
        async with reading(path, page=page) as reader:
            for one in asked:
                values: dict[str, Any] = {**utf_8, "SeriesInstanceUID": "", **one}
                options = QueryOptions(match_unknown=unknown, extra_keys=extra_keys_of(path))
                answers = await find(reader, parse(values, level="SERIES", relational=True, options=options))
                found = [answer["SeriesInstanceUID"] for answer in answers]
                assert sorted(found) == sorted(expected(archive, one, unknown=unknown)), one
