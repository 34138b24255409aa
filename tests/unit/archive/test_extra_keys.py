"""Keys by configuration: which attributes can be one, and what a query by them finds, by an index."""

import sqlite3
from collections.abc import Collection, Mapping
from contextlib import aclosing, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pacslite.archive.answer import AnswerEncoder
from pacslite.archive.extra import ExtraKey, ExtraKeyError, ExtraKeys, parse_extra_keys
from pacslite.archive.index.compiled import Page
from pacslite.archive.index.file import IndexFile
from pacslite.archive.index.reader import IndexReader
from pacslite.archive.index.select import Selection
from pacslite.archive.keys import Level
from pacslite.archive.query import QueryOptions
from pacslite.dataset.decode import Attribute, decode_identifier
from tests.support.index import EXPLICIT, ask, extra_keys_of, find, make_index, parse, reading, uid

CREATOR = "ACME HEADER"
PRIVATE = f"(0019,xx0C,{CREATOR})"


# the configuration


@pytest.mark.parametrize(
    ("entry", "definition"),
    [
        ("KVP", (0x00180060, "DS", Level.IMAGE, "")),
        ("(0018,0060)", (0x00180060, "DS", Level.IMAGE, "")),
        ("00180060", (0x00180060, "DS", Level.IMAGE, "")),
        ("KVP@SERIES", (0x00180060, "DS", Level.SERIES, "")),
        ("KVP:DS@study", (0x00180060, "DS", Level.STUDY, "")),
        ("PatientMotherBirthName", (0x00101060, "PN", Level.PATIENT, "")),
        ("Manufacturer", (0x00080070, "LO", Level.SERIES, "")),
        ("PregnancyStatus", (0x001021C0, "US", Level.STUDY, "")),
        ("(0019,100C):IS", (0x0019100C, "IS", Level.IMAGE, "")),
        (f"{PRIVATE}:IS@SERIES", (0x0019100C, "IS", Level.SERIES, CREATOR)),
        ("(0019,110c, A:B@C):lo", (0x0019110C, "LO", Level.IMAGE, "A:B@C")),
    ],
)
def test_entry_names_an_attribute(entry: str, definition: tuple[int, str, Level, str]) -> None:
    (key,) = parse_extra_keys([entry])
    assert key.definition == definition


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("KiloVoltPeak", "no such attribute"),
        ("(0018,FFF1)", "no such attribute"),
        ("", "an attribute is expected"),
        ("@SERIES", "no such attribute"),
        ("PatientName", "is a key of the index already"),
        ("ModalitiesInStudy", "is a key of the index already"),
        ("SpecificCharacterSet", "no attribute that a query can ask for"),
        ("RetrieveAETitle", "no attribute that a query can ask for"),
        ("TransferSyntaxUID", "no attribute that a query can ask for"),
        ("(0018,0000)", "no attribute that a query can ask for"),
        ("PixelData", "no attribute that a query can ask for"),
        ("RequestAttributesSequence", "VR SQ is matched by no query"),
        ("RedPaletteColorLookupTableData", "VR OW is matched by no query"),
        ("DiffusionBValue", "VR FD is matched by no query"),
        ("FrameIncrementPointer", "VR AT is matched by no query"),
        ("KVP@FRAME", "PATIENT, STUDY, SERIES, IMAGE"),
        ("KVP:IS", "is of VR DS"),
        ("(0019,100C)", "needs its VR"),
        (PRIVATE, "needs its VR"),
        ("(0019,100C):OB", "VR OB is matched by no query"),
        ("(0019,xx0C):IS", "needs its private creator"),
        ("(0019,0010):LO", "a private creator is no key"),
    ],
)
def test_entry_that_can_be_no_key_is_refused(entry: str, why: str) -> None:
    with pytest.raises(ExtraKeyError, match=why) as caught:
        parse_extra_keys(["Manufacturer", entry])
    assert repr(entry) in str(caught.value)


def test_an_attribute_is_one_key() -> None:
    with pytest.raises(ExtraKeyError, match="named twice"):
        parse_extra_keys(["KVP", "(0018,0060)@SERIES"])


# queries


UTF_8 = {"SpecificCharacterSet": "ISO_IR 192"}
# entry, what is asked, and whether these stored values fit
MATCHES: list[tuple[str, str, Mapping[str, bool]]] = [
    ("Manufacturer", "ACME", {"ACME": True, "ACME ": True, "acme": False, "ACME Ltd": False, "": False}),
    ("Manufacturer", "AC*", {"ACME": True, "BACME": False, "": False}),
    ("Manufacturer", "*C?E*", {"ACME Ltd": True, "ACE": False}),
    ("Manufacturer", "100%_[a]", {"100%_[a]": True, "100x_a": False}),
    ("Manufacturer", "A*\\B", {"AC": True, "B": True, "BC": False}),
    ("Allergies", "NUTS", {"NUTS": True, "MILK\\NUTS": True, "NUTS\\MILK": True, "MILK": False}),
    ("Allergies", "M*\\N*", {"MILK\\NUTS": True, "EGGS\\NUTS\\MILK": True, "EGGS": False}),
    ("SmokingStatus", "Y?S", {"YES": True, "NO": False}),
    ("PatientMotherBirthName", "muller^*", {"Müller^Anna": True, "MULLER": True, "Mullerin^Anna": False}),
    ("PatientMotherBirthName", "山田*", {"Yamada^A=山田^太郎": True, "山田": True, "Yamada": False}),
    ("PatientMotherBirthName", "=山田*", {"Yamada^A=山田^太郎": True, "山田": False}),
    ("PatientMotherBirthName", "yam*=*田^*", {"Yamada^A=山田^太郎=x": True, "Yam=太": False, "Tam=山田^太郎": False}),
    ("PatientMotherBirthName", "*mada^a*", {"Yamada^A=山田^太郎": True, "Yamada=^a": False}),
    ("PatientMotherBirthName", "*=*", {"Yamada": True, "=山田": True, "^^": True, "": True}),
    ("PatientMotherBirthName", "yamada^b\\yamada^a", {"Yamada^A": True, "Yamada^C": False}),
    ("PhysiciansOfRecord", "Two^Doc", {"One^Doc\\Two^Doc": True, "Two^Doc": True, "One^Doc": False}),
    ("PhysiciansOfRecord", "a*=b*", {"A=C\\X=B": False, "X=Y\\AA=BB": True}),
    ("LastMenstrualDate", "19980128", {"1998.01.28": True, "19980128": True, "19980129": False, "yesterday": False}),
    ("LastMenstrualDate", "20240101-20240131", {"20240101": True, "20240131": True, "20240201": False, "": False}),
    ("LastMenstrualDate", "-20240131", {"19000101": True, "20240201": False, "never": False}),
    ("LastMenstrualDate", "20240131-", {"20240131": True, "20240130": False}),
    ("TimeOfLastCalibration", "10-11", {"103059.5": True, "09\\1045": True, "12": False}),
    ("AcquisitionDateTime@SERIES", "20240101-20240102", {"202401021159": True, "20240101": True, "2023": False}),
    ("AcquisitionDateTime@SERIES", "20240101120000+0100", {"20240101110000+0000": True, "20240101120000": False}),
    ("OtherStudyNumbers", "7", {"007": True, "+7": True, "1\\7": True, "70": False, "seven": False}),
    ("PatientBodyMassIndex", "22.5", {"22.50": True, "2.25E1": True, "22.4": False}),
    ("PatientBodyMassIndex", "22.5\\23", {"23.0": True, "24": False}),
    ("FrameOfReferenceUID", "1.2.3", {"1.2.3": True, "1.2.30": False}),
    ("FrameOfReferenceUID", "1.2.3\\1.2.4", {"1.2.4": True, "1.2.5": False}),
    ("InstitutionAddress", "a\\b*", {"a\\b, c": True, "b, c": False}),
    ("StrainDescription", "*mouse", {"black mouse": True, "black rat": False}),
    ("ImageComments@STUDY", "*clear*", {"all is clear now": True, "x" * 5000 + "clear": True, "unclean": False}),
    (f"{PRIVATE}:LO@SERIES", "vendor*", {"vendor 1": True, "other": False}),
]
IDS = [f"{entry} {asked}" for entry, asked, _ in MATCHES]


def stored(entry: str, value: str, block: int = 0x10) -> dict[str, Any]:
    if entry.startswith("("):
        return {f"0019,00{block:02X}": CREATOR, f"0019,{block:02X}0C": value}
    return {entry.partition("@")[0].partition(":")[0]: value}


async def found_in(path: Path, keys: Mapping[str, Any], options: QueryOptions) -> set[str]:
    async with reading(path) as reader:
        query = parse({**UTF_8, **keys, "SeriesInstanceUID": ""}, level="SERIES", relational=True, options=options)
        assert not query.unsupported_keys
        answers = await find(reader, query)
    found = [answer["SeriesInstanceUID"] for answer in answers]
    assert len(set(found)) == len(found)
    return set(found)


@pytest.mark.parametrize(("entry", "asked", "values"), MATCHES, ids=IDS)
async def test_values_match_by_meaning(tmp_path: Path, entry: str, asked: str, values: Mapping[str, bool]) -> None:
    archive = [{**UTF_8, "IssuerOfPatientID": str(n), **stored(entry, value)} for n, value in enumerate(values)]
    path = make_index(tmp_path, archive, extra_keys=[entry])
    expected = {uid(2, n) for n, fits in enumerate(values.values()) if fits}
    options = QueryOptions(extra_keys=extra_keys_of(path))
    assert await found_in(path, stored(entry, asked, 0x20), options) == expected
    # and where something else leads
    assert await found_in(path, stored(entry, asked) | {"StudyInstanceUID": uid(1, 0)}, options) == expected & {
        uid(2, 0)
    }
    unknown = {uid(2, n) for n, value in enumerate(values) if not value}
    options = QueryOptions(extra_keys=extra_keys_of(path), match_unknown=True)
    assert await found_in(path, stored(entry, asked), options) == expected | unknown


@pytest.mark.parametrize(
    ("entry", "asked", "values"),
    [row for row in MATCHES if not set(row[0]) & {"@", "("}],
    ids=lambda one: str(one)[:40],
)
async def test_answers_are_the_same_before_the_key_is_complete(
    tmp_path: Path, entry: str, asked: str, values: Mapping[str, bool]
) -> None:
    """Then what is kept of each header is looked through."""
    archive = [{**UTF_8, "IssuerOfPatientID": str(n), **stored(entry, value)} for n, value in enumerate(values)]
    path = make_index(tmp_path, archive)
    options = QueryOptions(extra_keys=ExtraKeys(parse_extra_keys([entry])))
    expected = {uid(2, n) for n, fits in enumerate(values.values()) if fits}
    assert await found_in(path, stored(entry, asked), options) == expected


async def test_what_is_kept_nowhere_is_read(tmp_path: Path) -> None:
    """A private attribute, or one of another level: until the key is complete somebody must read the files."""
    keys = [replace(key, id=n) for n, key in enumerate(parse_extra_keys([f"{PRIVATE}:LO@SERIES", "KVP@SERIES"]), 1)]
    options = QueryOptions(extra_keys=ExtraKeys(keys))
    path = make_index(tmp_path, [{}, {}, {}])
    asked: list[tuple[ExtraKey, set[int]]] = []

    def read(key: ExtraKey, owners: Collection[int]) -> Mapping[int, str]:
        asked.append((key, set(owners)))
        return {1: "120.0", 2: "100\\120"} if key is keys[1] else {1: "one", 2: "other"}

    reader = IndexReader(IndexFile(path), connections=1, read_values=read)
    await reader.start()
    try:
        values = {"KVP": "120", "SeriesInstanceUID": "", **stored(PRIVATE, "o*")}
        query = parse(values, level="SERIES", relational=True, options=options)
        assert not query.unsupported_keys
        answers = await find(reader, query)
    finally:
        await reader.stop()
    assert [(answer["KVP"], answer["0019100C"]) for answer in answers] == [("120.0", "one"), ("100\\120", "other")]
    assert {key for key, _ in asked} == set(keys)
    assert set().union(*(owners for _, owners in asked)) == {1, 2, 3}


async def test_values_are_returned(tmp_path: Path) -> None:
    entries = ["PatientMotherBirthName", "PregnancyStatus", "KVP@STUDY", f"{PRIVATE}:LO@STUDY", "Allergies"]
    values = {"PatientMotherBirthName": "Müller^Ä", "PregnancyStatus": 4, "KVP": "120.0", "Allergies": "A\\B"}
    path = make_index(tmp_path, [{**UTF_8, **values, **stored(PRIVATE, "of vendor", 0x11)}], extra_keys=entries)
    asked = dict.fromkeys(values, "") | {"SpecificCharacterSet": "ISO_IR 100", **stored(PRIVATE, "", 0x42)}
    (answer,) = await ask(path, asked, options=QueryOptions(extra_keys=extra_keys_of(path)))
    assert {keyword: answer[keyword] for keyword in values} == values
    assert answer["SpecificCharacterSet"] == "ISO_IR 100"
    assert answer["00190042"] == CREATOR  # the block is the requestor's (PS3.5 §7.8.1)
    assert answer["0019420C"] == "of vendor"


async def test_private_attribute_of_another_creator_is_another(tmp_path: Path) -> None:
    other = {"0019,0010": "OTHER", "0019,100C": "x"}
    both = {"0019,0010": "OTHER", "0019,0011": CREATOR, "0019,100C": "y", "0019,110C": "x"}
    path = make_index(tmp_path, [other, both, stored(PRIVATE, "x")], extra_keys=[f"{PRIVATE}:LO@SERIES"])
    options = QueryOptions(extra_keys=extra_keys_of(path))
    assert await found_in(path, stored(PRIVATE, "x"), options) == {uid(2, 1), uid(2, 2)}
    asked = parse({"SeriesInstanceUID": "", **other}, level="SERIES", relational=True, options=options)
    assert asked.unsupported_keys == (0x00190010, 0x0019100C)
    asked = parse({"0019,010C": CREATOR}, level="SERIES", relational=True, options=options)  # in no block
    assert asked.unsupported_keys == (0x0019010C,)


@pytest.mark.parametrize("asked", ["7", "7\\8", "65535"])
async def test_binary_numbers(tmp_path: Path, asked: str) -> None:
    path = make_index(tmp_path, [{"PregnancyStatus": n} for n in (7, 8, 70, 65535)], extra_keys=["PregnancyStatus"])
    numbers = [int(one) for one in asked.split("\\")]
    raw = b"".join(number.to_bytes(2, "little") for number in numbers)
    answers = await ask(path, {"PregnancyStatus": raw}, options=QueryOptions(extra_keys=extra_keys_of(path)))
    assert [answer["PregnancyStatus"] for answer in answers] == numbers


@pytest.mark.parametrize(
    ("stored", "value"),
    [
        (Attribute("SS", b"\xfe\xff"), Attribute("SS", b"\xfe\xff")),
        (Attribute("US", b"\xfe\xff"), Attribute("US", b"\xfe\xff")),
        (Attribute("IS", b"4 "), Attribute("US", b"\4\0")),  # not the dictionary's, but there
        (Attribute("IS", b"-4"), Attribute("SS", b"\xfc\xff")),
        (Attribute("UL", b"\4\0\1\0"), Attribute("US", b"")),  # what does not fit is not cut off
        (Attribute("LO", b"many"), Attribute("US", b"")),
    ],
)
async def test_number_of_another_vr_is_answered_if_it_can(tmp_path: Path, stored: Attribute, value: Attribute) -> None:
    path = make_index(tmp_path, [{"PregnancyStatus": stored}], extra_keys=["PregnancyStatus"])
    query = parse(
        {"PregnancyStatus": None}, options=QueryOptions(extra_keys=extra_keys_of(path)), transfer_syntax_uid=EXPLICIT
    )
    async with reading(path) as reader, aclosing(reader.find(query)) as batches:
        (answer,) = [one async for batch in batches for one in batch]
    assert decode_identifier(answer, EXPLICIT)[0x001021C0] == value


async def test_fuzzy_names(tmp_path: Path) -> None:
    names = ["Schmidt^Anna", "=Schmitt^Anna", "Schneider^Anna", "", "Maier"]
    path = make_index(
        tmp_path,
        [{"PatientMotherBirthName": name, "PatientID": str(n)} for n, name in enumerate(names)],
        extra_keys=["PatientMotherBirthName"],
    )
    options = QueryOptions(extra_keys=extra_keys_of(path))
    for asked, expected in (("schmid", ["0", "1"]), ("schmid\\meyer", ["0", "1", "4"])):
        for more in ({}, {"PatientName": "someone"}):
            keys = {"PatientMotherBirthName": asked, "PatientID": "", **more}
            answers = await ask(path, keys, fuzzy=True, options=options)
            assert sorted(answer["PatientID"] for answer in answers) == ([] if more else expected)


@pytest.mark.parametrize(("level", "count"), [("PATIENT", 1), ("STUDY", 2), ("SERIES", 2), ("IMAGE", 3)])
async def test_keys_of_all_levels_meet(tmp_path: Path, level: str, count: int) -> None:
    """A key of a level below is asked of one of what is below (relational queries, §C.4.1.3.2.1)."""
    archive: list[dict[str, Any]] = [
        {"PatientID": "1", "StudyInstanceUID": uid(1, n // 2), "SeriesInstanceUID": uid(2, n // 2), "KVP": kvp}
        for n, kvp in enumerate(["120", "100", "120", "120"])
    ]
    archive.append({"PatientID": "2", "KVP": "100"})
    path = make_index(
        tmp_path,
        [{**one, "Allergies": "NUTS", "Manufacturer": "ACME"} for one in archive],
        extra_keys=["KVP", "Allergies"],
    )
    asked = {"KVP": "120.0", "Allergies": "N*", "Manufacturer": "ACME", "PatientID": ""}
    options = QueryOptions(extra_keys=extra_keys_of(path))
    async with reading(path) as reader:
        query = parse(asked, level=level, model="patient", relational=True, options=options)
        assert len(await find(reader, query)) == count


# the index


def explain(path: Path, page: Page) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {page.sql}", page.values)]


ALONG = "SEARCH x USING COVERING INDEX ix_extra_value_form"
ENTRIES = ["Manufacturer", "PatientMotherBirthName", "LastMenstrualDate", "KVP"]
LEADS: list[tuple[Mapping[str, str], str]] = [
    ({"Manufacturer": "ACME"}, f"{ALONG} (key_id=? AND form=?)"),
    ({"Manufacturer": "ACME\\BOLT"}, f"{ALONG} (key_id=? AND form=?)"),
    ({"Manufacturer": "AC*"}, f"{ALONG} (key_id=? AND form>? AND form<?)"),
    ({"Manufacturer": "*ME"}, f"{ALONG} (key_id=? AND form>?)"),
    ({"PatientMotherBirthName": "smith*"}, f"{ALONG} (key_id=? AND form>? AND form<?)"),
    ({"PatientMotherBirthName": "=yama*"}, f"{ALONG} (key_id=? AND form>? AND form<?)"),
    ({"LastMenstrualDate": "20240101-20240131"}, f"{ALONG} (key_id=? AND form>? AND form<?)"),
    ({"LastMenstrualDate": "20240101-"}, f"{ALONG} (key_id=? AND form>?)"),
    ({"KVP": "120"}, f"{ALONG} (key_id=? AND form=?)"),
    ({"Manufacturer": "ACME", "StudyDate": "20240101-20240601"}, f"{ALONG} (key_id=? AND form=?)"),
    (
        {"Manufacturer": "AC*", "StudyInstanceUID": "1.2"},
        "SEARCH study USING COVERING INDEX sqlite_autoindex_study_1 (study_instance_uid=?)",
    ),
]


@pytest.mark.parametrize(("asked", "lead"), LEADS)
def test_query_walks_along_the_values(tmp_path: Path, asked: Mapping[str, str], lead: str) -> None:
    path = make_index(tmp_path, [], extra_keys=ENTRIES)
    options = QueryOptions(extra_keys=extra_keys_of(path))
    query = parse({"SOPInstanceUID": "", **asked}, level="IMAGE", relational=True, options=options)
    selection = Selection(query)
    AnswerEncoder(query, selection.place)
    for branch in selection.branches:
        first = selection.first_page(branch, 20)
        plan = explain(path, first)
        assert plan[0] == lead
        with closing(sqlite3.connect(path)) as connection:
            row = ("",) * len(connection.execute(*first).description)
        pages = [first, *(selection.next_page(branch, way, row, 20) for way in selection.ways_on(branch))]
        for page in pages:
            plan = explain(path, page)
            assert not [step for step in plan if step.startswith("SCAN") and "VIRTUAL TABLE" not in step], plan
            assert not [step for step in plan if step.startswith("SEARCH w") and "PRIMARY KEY" not in step], plan
            if "\\" not in str(asked):  # what a list finds is sorted
                assert "USE TEMP B-TREE FOR ORDER BY" not in plan, plan


def test_filter_beside_the_driver_is_looked_up(tmp_path: Path) -> None:
    path = make_index(tmp_path, [], extra_keys=ENTRIES)
    options = QueryOptions(extra_keys=extra_keys_of(path))
    query = parse({"StudyInstanceUID": "1.2", "KVP": "120"}, level="IMAGE", relational=True, options=options)
    selection = Selection(query)
    AnswerEncoder(query, selection.place)
    plan = explain(path, selection.first_page(selection.branches[0], 20))
    assert [step for step in plan if step.startswith("SEARCH v USING PRIMARY KEY (key_id=? AND owner=?")], plan


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({"Allergies": "A*"}, 1400),
        ({"Allergies": "A1"}, 1400),
        ({"Allergies": "A1\\B"}, 1400),
        ({"Allergies": "*1"}, 1400),
        ({"Allergies": "A?"}, 1400),
        ({"Allergies": "C"}, 1),
    ],
)
async def test_entity_is_found_once(tmp_path: Path, asked: Mapping[str, str], count: int) -> None:
    """More than a page, of entities with several values that fit, and of what is below them."""
    archive = [
        {
            "PatientID": str(n // 2),
            "StudyInstanceUID": uid(1, n // 2),
            "SeriesInstanceUID": uid(2, n // 2),
            "Allergies": f"A{n % 5}\\A1\\B\\A{n % 7}",
        }
        for n in range(1400)
    ]
    path = make_index(tmp_path, [*archive, {"Allergies": "C"}], extra_keys=["Allergies"])
    options = QueryOptions(extra_keys=extra_keys_of(path))
    async with reading(path) as reader:
        query = parse({"SOPInstanceUID": "", **asked}, level="IMAGE", relational=True, options=options)
        answers = [answer["SOPInstanceUID"] for answer in await find(reader, query)]
    assert len(answers) == len(set(answers)) == count


def test_keys_are_told_apart() -> None:
    plain, of_vendor = ExtraKey(0x0019100C, "LO", Level.IMAGE), ExtraKey(0x0019100C, "LO", Level.IMAGE, CREATOR)
    assert (str(plain), str(of_vendor)) == ("(0019,100C)@IMAGE", f"{PRIVATE}@IMAGE")
    assert len({plain.keyword, of_vendor.keyword}) == 2
