"""Each kind of matching, in the index and by its rule (PS3.4 §C.2.2.2): a stored value, a key, whether they match."""

import struct
from pathlib import Path

import pytest

from pacslite.archive.matching import acceptor, compile_pattern, parse_match
from pacslite.archive.normalise import normalise
from pacslite.archive.query import QueryOptions
from pacslite.dataset.decode import IdentifierError
from pacslite.dataset.dictionary import tag_of, vr_of
from tests.support.index import ask, extra_keys_of, make_index, parse

UTF_8 = "ISO_IR 192"
LEVELS = {"SeriesNumber": "SERIES", "OperatorsName": "SERIES", "NumberOfFrames": "IMAGE", "Rows": "IMAGE"}

# keyword, stored value, value of the key, do they match
TABLE = [
    # §C.2.2.2.1 single value: by meaning where the VR has one, else character by character
    ("PatientID", "A1", "A1", True),
    ("PatientID", "A1", "a1", False),
    ("PatientID", "A1", "A", False),
    ("PatientID", "A1", "A1 ", True),  # padding is no part of the value (PS3.5 §6.2)
    ("AccessionNumber", "0012", "12", False),
    ("StudyDate", "20240131", "20240131", True),
    ("StudyDate", "1998.01.28", "19980128", True),
    ("StudyDate", "19980128", "1998.01.28", True),
    ("StudyDate", "20240131", "20240130", False),
    ("StudyTime", "223000", "2230", True),
    ("StudyTime", "2230", "223000.000000", True),
    ("StudyTime", "22:30:00", "223000", True),
    ("StudyTime", "223015", "2230", False),
    ("StudyTime", "22", "220000", True),
    ("SeriesNumber", "3", "003", True),
    ("SeriesNumber", "+3", "3", True),
    ("SeriesNumber", "3", "30", False),
    ("PatientWeight", "75.0", "7.5E1", True),
    ("PatientWeight", "75.1", "75", False),
    ("PatientSex", "M", "m", False),
    ("PatientAge", "045Y", "045Y", True),
    # §C.2.2.2.2 list of UID
    ("StudyInstanceUID", "1.2.3", "1.2.4\\1.2.3", True),
    ("StudyInstanceUID", "1.2.3", "1.2.4\\1.2.30", False),
    ("StudyInstanceUID", "1.2.3", "1.2.3*", False),  # no wildcards in UI
    # §C.2.2.2.3 universal
    ("StudyDescription", "Head", "", True),
    ("StudyDescription", "", "", True),
    ("StudyDescription", "", "*", True),
    ("StudyDescription", "", "**", True),
    ("StudyDescription", "", "?", False),
    ("StudyDescription", "", "*a*", False),
    ("PatientName", "", "*", True),
    ("StudyDate", "", "*", True),  # not in the standard, and sent
    # §C.2.2.2.4 wildcards
    ("StudyDescription", "Head", "H*", True),
    ("StudyDescription", "Head", "*d", True),
    ("StudyDescription", "Head", "*ea*", True),
    ("StudyDescription", "Head", "H??d", True),
    ("StudyDescription", "Head", "H?d", False),
    ("StudyDescription", "Head", "h*", False),
    ("StudyDescription", "Head", "*Head*", True),
    ("StudyDescription", "Head?", "Head?", True),
    ("StudyDescription", "100% [a_b]", "*% [a_b]", True),
    ("StudyDescription", "100x [a_b]", "100% *", False),  # % _ [ are characters
    ("StudyDescription", "aXb", "a_b*", False),
    ("StudyDescription", "a", "[a]*", False),
    ("StudyDescription", "[a]", "[a]*", True),
    ("StudyDescription", "a]b", "a]*", True),
    ("StudyDescription", "Kopfüber", "Kopf?ber", True),  # one character, not one byte
    ("PatientID", "1234", "1234*", True),
    ("PatientID", "_1234", "?1234", True),
    ("PatientID", "_1234", "1234*", False),
    ("AccessionNumber", "A-1", "A?1", True),
    # §C.2.2.2.5 ranges
    ("StudyDate", "20240131", "20240101-20240131", True),
    ("StudyDate", "20240101", "20240101-20240131", True),
    ("StudyDate", "20240201", "20240101-20240131", False),
    ("StudyDate", "20240201", "20240101-", True),
    ("StudyDate", "20231231", "20240101-", False),
    ("StudyDate", "20231231", "-20240101", True),
    ("StudyDate", "20240102", "-20240101", False),
    ("StudyDate", "", "-20240101", False),
    ("StudyDate", "", "20240101-", False),
    ("StudyDate", "1998.01.28", "19980101-19981231", True),
    ("StudyDate", "20240131", "20240131-20240101", False),  # ends in the wrong order hold nothing
    ("StudyTime", "103000", "1000-1100", True),
    ("StudyTime", "110000", "1000-1100", True),
    ("StudyTime", "110059.999999", "1000-1100", True),  # 1100 is the whole minute
    ("StudyTime", "110100", "1000-1100", False),
    ("StudyTime", "095959.999999", "1000-1100", False),
    ("StudyTime", "23", "22-", True),
    ("StudyTime", "000000", "-0000", True),
    # person names: case, accents, component groups
    ("PatientName", "Doe^John", "DOE^JOHN", True),
    ("PatientName", "Doe^John", "doe^john^^", True),
    ("PatientName", "Doe^John", "Doe", False),
    ("PatientName", "Doe^John", "Doe*", True),
    ("PatientName", "Doe^John", "Doe^*", True),
    ("PatientName", "Doe", "Doe^*", True),  # trailing delimiters may be left out
    ("PatientName", "Doering", "Doe^*", False),
    ("PatientName", "Doe^John", "*oh*", True),
    ("PatientName", "Doe^John", "Doe^J?hn", True),
    ("PatientName", "Müller^Jörg", "muller^jorg", True),
    ("PatientName", "Muller^Jorg", "MÜLLER*", True),
    ("PatientName", "Müller^Jörg", "*ülle*", True),
    ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "yamada*", True),
    ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "山田*", True),
    ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "山*", True),
    ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "やまだ^たろう", True),
    ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "山田^太郎", True),
    ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "yamada*=山田*", True),
    ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "=山田*", True),
    ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "=やまだ*", False),  # that is the third group
    ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "==やまだ*", True),
    ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "yamada*太郎", False),  # a star ends with its group
    ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "*た?う", True),
    ("PatientName", "=山田^太郎", "山田*", True),
    # a group of stars only asks for nothing, whether the name has that group or not
    ("PatientName", "Doe^John", "*doe*==*", True),
    ("PatientName", "Doe^John", "doe^john=*", True),
    ("PatientName", "Doe^John", "*=*", True),
    ("PatientName", "Doe^John", "roe*=*", False),
    ("PatientName", "Doe^John", "doe*=?*", False),
    ("PatientName", "Yamada^Tarou=山田^太郎", "yamada*=*=*", True),
    ("PatientName", "Yamada^Tarou=山田^太郎", "*=山田*=*", True),
    ("PatientName", "Yamada^Tarou=山田^太郎", "山田*=*", False),  # that is the second group
    ("PatientName", "Yamada^Tarou==やまだ^たろう", "yamada*=*=やまだ*", True),
    ("ReferringPhysicianName", "Doe^John", "*oe*==*", True),
    ("OperatorsName", "Roe^Rick\\Doe^John", "doe*=*", True),
    ("OperatorsName", "Roe^Rick\\Doe^John", "*=*", True),
    ("OperatorsName", "Roe^Rick=x\\Doe^John", "doe*=x", False),
    # and one of stars only in all groups is universal: any component, any group
    ("PatientName", "^^", "=*", True),
    ("PatientName", "^^", "*=*=*", True),
    ("PatientName", "^^", "*^*", True),
    ("PatientName", "", "=*", True),
    ("PatientName", "", "*^*^*", True),
    ("PatientName", "Doe^John", "*^*", True),
    ("PatientName", "", "*^*=?*", False),
    ("PatientName", "", "Doe*\\=*", True),
    ("OperatorsName", "^", "*^*=*", True),
    ("RequestingPhysician", "^^", "=*", True),
    ("RequestingPhysician", "", "*^*", True),
    ("PatientName", "Wang^Xiaodong=王^小东", "王*", True),
    ("PatientName", "[x]^y", "[X]*", True),
    ("ReferringPhysicianName", "Müller^J", "MULLER*", True),
    ("ReferringPhysicianName", "Yamada^Tarou=山田^太郎", "山田*", True),
    # lists of values, and attributes of several values (§C.2.2.3)
    ("AccessionNumber", "A2", "A1\\A2", True),
    ("AccessionNumber", "A3", "A1\\A2", False),
    ("AccessionNumber", "B9", "A1\\B*", True),
    ("StudyDate", "20240105", "20230101\\20240101-20240110", True),
    ("PatientName", "Doe^John", "Smith*\\Doe*", True),
    ("OtherPatientIDs", "X1\\X2", "X2", True),
    ("OtherPatientIDs", "X1\\X22", "X2", False),
    ("OtherPatientIDs", "X1\\Y2", "X*2", False),  # a star ends with its value
    ("OtherPatientIDs", "X1\\Y2", "Y*", True),
    ("OtherPatientNames", "Doe^Jane\\Roe^Rick", "roe*", True),
    ("OtherPatientNames", "Doe^Jane\\Roe^Rick", "doe*rick", False),
    # attributes that stand in no column
    ("PatientReligiousPreference", "None", "N*", True),
    ("PatientReligiousPreference", "None", "none", False),
    ("RequestingPhysician", "Grün^A", "GRUN^A", True),
    ("RequestingPhysician", "", "GRUN^A", False),
    ("MedicalAlerts", "Latex\\Iodine", "Iodine", True),
    ("LastMenstrualDate", "20240105", "20240101-20240131", True),
    ("LastMenstrualDate", "20240205", "20240101-20240131", False),
    ("PregnancyStatus", 4, 4, True),
    ("PregnancyStatus", 4, 3, False),
    ("NumberOfFrames", "12", "012", True),
    ("Rows", 512, 512, True),
    ("Rows", 512, 256, False),
]


@pytest.mark.parametrize(("keyword", "stored", "key", "matches"), TABLE)
async def test_key_matches_in_the_index(tmp_path: Path, keyword: str, stored: str, key: str, *, matches: bool) -> None:
    level = LEVELS.get(keyword, "STUDY")
    path = make_index(tmp_path, [{"SpecificCharacterSet": UTF_8, keyword: stored}])
    asked = {"SpecificCharacterSet": UTF_8, keyword: key}
    answers = await ask(path, asked, level=level, relational=True)
    assert len(answers) == int(matches)
    if matches:
        assert answers[0][keyword] == stored


@pytest.mark.parametrize(("keyword", "stored", "key", "matches"), TABLE)
def test_key_matches_by_its_rule(keyword: str, stored: str, key: str, *, matches: bool) -> None:
    tag = tag_of(keyword)
    assert tag is not None
    vr = vr_of(tag) or ""
    match = parse_match(tag, vr, str(key).strip()) if key != "" else None
    vr = "IS" if vr == "US" else vr  # numbers are compared as numbers
    if match is None:
        assert matches
        return
    multiple = keyword in {"OtherPatientIDs", "OtherPatientNames", "OperatorsName", "MedicalAlerts"}
    value = normalise(vr, str(stored)) if stored != "" else None
    assert acceptor(match, multiple=multiple)(value) is matches


@pytest.mark.parametrize(("keyword", "stored", "key", "matches"), TABLE)
async def test_unknown_values_match_if_configured(
    tmp_path: Path, keyword: str, stored: str, key: str, *, matches: bool
) -> None:
    """§C.2.2.1.2: a key that is empty in the archive matches whatever is asked, all others as ever."""
    level = LEVELS.get(keyword, "STUDY")
    path = make_index(tmp_path, [{"SpecificCharacterSet": UTF_8, keyword: stored}])
    asked = {"SpecificCharacterSet": UTF_8, keyword: key}
    answers = await ask(path, asked, level=level, relational=True, options=QueryOptions(match_unknown=True))
    assert len(answers) == int(matches or stored == "")


@pytest.mark.parametrize(
    ("keyword", "stored", "key", "matches"),
    [
        ("EffectiveEchoTime", [115.0], [115.0], True),
        ("EffectiveEchoTime", [2.0], [115.0], False),  # 115.0 is four zeros, a backslash and an ``@`` as text
        ("EffectiveEchoTime", [2.0], [0.0], False),
        ("EffectiveEchoTime", [0.0], [0.0], True),
        ("EffectiveEchoTime", [0.0], [-0.0], True),
        ("EffectiveEchoTime", [1.5, 115.0], [115.0], True),
        ("EffectiveEchoTime", [1.5, 115.0], [2.0, 1.5], True),
        ("EffectiveEchoTime", [1.5, 115.0], [2.0], False),
        ("EffectiveEchoTime", [], [0.0], False),
        ("RecommendedDisplayFrameRateInFloat", [0.1], [0.1], True),
        ("RecommendedDisplayFrameRateInFloat", [0.1], [0.2], False),
    ],
)
async def test_floating_point_is_compared_as_numbers(
    tmp_path: Path, keyword: str, stored: list[float], key: list[float], *, matches: bool
) -> None:
    code = "f" if keyword.endswith("Float") else "d"
    received, asked = ({keyword: struct.pack(f"<{len(some)}{code}", *some)} for some in (stored, key))
    path = make_index(tmp_path, [received])
    for options in (QueryOptions(), QueryOptions(match_unknown=True)):
        answers = await ask(path, asked, level="IMAGE", relational=True, options=options)
        assert len(answers) == int(matches or (options.match_unknown and not stored))
    assert refused(keyword, asked[keyword][:-2]).offending == (tag_of(keyword),)


def refused(keyword: str, value: bytes) -> IdentifierError:
    with pytest.raises(IdentifierError) as caught:
        parse({keyword: value}, level="IMAGE", relational=True)
    return caught.value


@pytest.mark.parametrize("keyword", ["ImageComments", "PatientComments"])  # what is kept, and a column
@pytest.mark.parametrize("extra", [(), ("ImageComments",)])
@pytest.mark.parametrize(
    ("stored", "key", "matches"),
    [
        ("  note \\ x", "  note \\ x ", True),
        ("  note", "note", False),
        ("  note", "*note", True),
        ("note", "  note", False),
        ("note\r\n", "note\r\n", True),
        ("   ", "*note", False),
    ],
)
async def test_leading_spaces_belong_to_a_text(
    tmp_path: Path, extra: tuple[str, ...], keyword: str, stored: str, key: str, *, matches: bool
) -> None:
    """PS3.5 §6.2, LT ST UT: only trailing spaces are padding."""
    path = make_index(tmp_path, [{keyword: stored}], extra_keys=extra)
    options = QueryOptions(extra_keys=extra_keys_of(path))
    assert len(await ask(path, {keyword: key}, level="IMAGE", relational=True, options=options)) == int(matches)


@pytest.mark.parametrize(
    ("keyword", "key"),
    [
        ("StudyDate", "2024"),
        ("StudyDate", "20241301"),
        ("StudyDate", "-"),
        ("StudyDate", "2024*"),
        ("StudyDate", "20240101-20240102-20240103"),
        ("StudyTime", "25"),
        ("StudyTime", "10-99"),
        ("SeriesNumber", "three"),
        ("SeriesNumber", "1?"),
        ("PatientWeight", "heavy"),
        ("StudyDescription", "x" * 5000),
        ("StudyDescription", "\\".join(f"{n}*" for n in range(65))),
    ],
)
def test_key_that_is_none_of_its_vr_is_refused(keyword: str, key: str) -> None:
    tag = tag_of(keyword)
    assert tag is not None
    with pytest.raises(IdentifierError) as refused:
        parse_match(tag, vr_of(tag) or "", key)
    assert refused.value.status == 0xA900
    assert refused.value.offending == (tag,)
    assert f"{tag >> 16:04X},{tag & 0xFFFF:04X}" in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value", "matches"),
    [
        ("20240101120000-0500", "20240101170000", True),  # an offset, no range
        ("20240101120000", "20240101120000.000000", True),
        ("20240101120000-20240101130000", "20240101123000", True),
        ("2024-2025", "20251231235959.999999", True),  # 2025 is the whole year
        ("2024-202502", "20250301", False),
        ("20240101120000+0100-20240101120000+0000", "20240101113000", True),
        ("-20240101", "20231231", True),
        ("20240101-", "20240101", True),
        ("20240101-", "20231231", False),
    ],
)
def test_datetime_matching(key: str, value: str, *, matches: bool) -> None:
    match = parse_match(0x0008002A, "DT", key)
    assert match is not None
    assert acceptor(match, multiple=True)(normalise("DT", value)) is matches


def test_no_pattern_takes_more_than_linear_time() -> None:
    pattern = compile_pattern("*a" * 500 + "*b")
    assert pattern.fullmatch("a" * 20_000) is None
    assert pattern.fullmatch("a" * 20_000 + "b") is not None
