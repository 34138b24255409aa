"""Names in the character sets of PS3.5 Annexes H to L: stored in each, found from each other, answered as asked."""

import itertools
from contextlib import aclosing
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.filereader import read_dataset

from tests.support.index import ask, find, make_index, parse, reading

# PS3.5 H.3, I.2, J.3, K.2 and others; with the sets that can hold them
NAMES: dict[str, list[str]] = {
    "Yamada^Tarou=山田^太郎=やまだ^たろう": [
        "\\ISO 2022 IR 87",
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        "ISO_IR 192",
        "GB18030",
    ],
    "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう": ["ISO 2022 IR 13\\ISO 2022 IR 87", "ISO_IR 192"],
    "Hong^Gildong=洪^吉洞=홍^길동": ["\\ISO 2022 IR 149", "ISO_IR 192", "GB18030"],
    "Zhang^XiaoDong=张^小东": ["\\ISO 2022 IR 58", "GB18030", "GBK", "ISO_IR 192"],
    "Wang^XiaoDong=王^小東": ["ISO_IR 192", "GB18030", "GBK", "\\ISO 2022 IR 149"],
    "Buc^Jérôme": ["ISO_IR 100", "ISO_IR 192", "ISO_IR 148", "GB18030"],
    "Äneas^Rüdiger": ["ISO_IR 100", "ISO_IR 101", "ISO_IR 109", "ISO_IR 110", "ISO_IR 192"],
    "Διονυσιος": ["ISO_IR 126", "ISO_IR 192", "\\ISO 2022 IR 126", "GB18030"],
    "Люксембург": ["ISO_IR 144", "ISO_IR 192", "\\ISO 2022 IR 144", "GB18030"],
    "قباني^لنزار": ["ISO_IR 127", "ISO_IR 192"],
    "שרון^דבורה": ["ISO_IR 138", "ISO_IR 192"],
    "นามสกุล^ชื่อ": ["ISO_IR 166", "ISO_IR 192"],
    "Şahin^İpek": ["ISO_IR 148", "ISO_IR 192"],
}
PAIRS = [
    pytest.param(name, stored, asked, id=f"{name}-{stored}-{asked}")
    for name, charsets in NAMES.items()
    for stored, asked in itertools.product(charsets, charsets)
]


@pytest.mark.parametrize(("name", "stored", "asked"), PAIRS)
async def test_name_is_found_from_another_set(tmp_path: Path, name: str, stored: str, asked: str) -> None:
    path = make_index(tmp_path, [{"SpecificCharacterSet": stored, "PatientName": name}])
    (answer,) = await ask(path, {"SpecificCharacterSet": asked, "PatientName": name})
    assert answer["PatientName"] == name
    assert answer["SpecificCharacterSet"] == asked


@pytest.mark.parametrize(("name", "stored", "asked"), PAIRS)
async def test_answer_is_read_by_pydicom(tmp_path: Path, name: str, stored: str, asked: str) -> None:
    path = make_index(tmp_path, [{"SpecificCharacterSet": stored, "PatientName": name}])
    query = parse({"SpecificCharacterSet": asked, "PatientName": ""})
    async with reading(path) as reader, aclosing(reader.find(query)) as batches:
        (encoded,) = [one async for batch in batches for one in batch]
    answer = read_dataset(BytesIO(encoded), True, True)
    answer.decode()
    assert str(answer.PatientName).replace("\x1b$)A", "") == name  # pydicom leaves that escape sequence in place


@pytest.mark.parametrize("name", NAMES)
async def test_name_is_answered_in_utf8_where_the_asked_set_lacks_letters(tmp_path: Path, name: str) -> None:
    path = make_index(tmp_path, [{"SpecificCharacterSet": NAMES[name][0], "PatientName": name}])
    for asked in ({}, {"SpecificCharacterSet": "ISO_IR 6"}, {"SpecificCharacterSet": "ISO_IR 999"}):
        (answer,) = await ask(path, {**asked, "PatientName": ""})
        assert answer["PatientName"] == name
        assert answer["SpecificCharacterSet"] == "ISO_IR 192"


async def test_ascii_needs_no_label(tmp_path: Path) -> None:
    path = make_index(tmp_path, [{"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Doe"}])
    (answer,) = await ask(path, {"PatientName": ""})
    assert "SpecificCharacterSet" not in answer
    (answer,) = await ask(path, {"PatientName": "", "SpecificCharacterSet": "ISO_IR 100"})
    assert answer["SpecificCharacterSet"] == "ISO_IR 100"


@pytest.mark.parametrize(
    ("asked", "name", "label"),
    [
        ("KLINGON", "Doe", None),  # what we do not know we do not announce
        ("KLINGON", "Müller", "ISO_IR 192"),
        ("ISO_IR 6", "Doe", None),  # a term that the standard does not have
        ("ISO IR 100", "Müller", "ISO_IR 100"),
        ("utf-8", "Müller", "ISO_IR 192"),
        ("ISO 2022 IR 87", "Yamada=山田", "\\ISO 2022 IR 87"),
        ("ISO_IR 13\\ISO_IR 87", "ﾔﾏﾀﾞ=山田", "ISO 2022 IR 13\\ISO 2022 IR 87"),
        ("ISO_IR 13", "Doe~", "ISO_IR 192"),  # no tilde in JIS X 0201
    ],
)
async def test_label_is_a_term_of_the_standard(tmp_path: Path, asked: str, name: str, label: str | None) -> None:
    path = make_index(tmp_path, [{"SpecificCharacterSet": "ISO_IR 192", "PatientName": name}])
    (answer,) = await ask(path, {"SpecificCharacterSet": asked, "PatientName": ""})
    assert answer["PatientName"] == name
    assert answer.get("SpecificCharacterSet") == label


async def test_each_answer_is_labelled_by_itself(tmp_path: Path) -> None:
    path = make_index(
        tmp_path,
        [
            {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller", "PatientID": "1"},
            {"SpecificCharacterSet": "ISO_IR 144", "PatientName": "Люксембург", "PatientID": "2"},
        ],
    )
    answers = await ask(path, {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "", "PatientID": ""})
    labels = {answer["PatientName"]: answer["SpecificCharacterSet"] for answer in answers}
    assert labels == {"Müller": "ISO_IR 100", "Люксембург": "ISO_IR 192"}


async def test_kept_text_decides_the_set_too(tmp_path: Path) -> None:
    """An attribute without a column, and one inside a sequence that says a set of its own."""
    received = {
        "SpecificCharacterSet": "ISO_IR 100",
        "PatientName": "Müller",
        "RequestingPhysician": "Größer",
        "ProcedureCodeSequence": [{"SpecificCharacterSet": "ISO_IR 144", "CodeMeaning": "Люкс"}],
    }
    path = make_index(tmp_path, [received])
    async with reading(path) as reader:
        asked = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "", "RequestingPhysician": ""}
        (answer,) = await find(reader, parse(asked))
        assert answer["SpecificCharacterSet"] == "ISO_IR 100"
        assert answer["RequestingPhysician"] == "Größer"
        (answer,) = await find(reader, parse({**asked, "ProcedureCodeSequence": []}))
    assert answer["SpecificCharacterSet"] == "ISO_IR 192"
    assert answer["PatientName"] == "Müller"
    assert answer["RequestingPhysician"] == "Größer"
    assert answer["ProcedureCodeSequence"] == [{"CodeMeaning": "Люкс"}]


@pytest.mark.parametrize("key", ["ﾔﾏﾀﾞ*", "ヤマダ*", "山田*", "やまだ*"])
async def test_japanese_name_is_found_by_any_of_its_groups(tmp_path: Path, key: str) -> None:
    name = "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"
    path = make_index(tmp_path, [{"SpecificCharacterSet": "ISO 2022 IR 13\\ISO 2022 IR 87", "PatientName": name}])
    (answer,) = await ask(path, {"SpecificCharacterSet": "ISO_IR 192", "PatientName": key})
    assert answer["PatientName"] == name


@pytest.mark.parametrize(
    ("stored", "asked", "texts", "label"),
    [
        ("ISO_IR 13", "ISO_IR 192", {"ImageComments": "a‾b¥c"}, "ISO_IR 192"),
        ("ISO_IR 13", "ISO_IR 13", {"ImageComments": "a‾b¥c", "PatientMotherBirthName": "Doe‾"}, "ISO_IR 13"),
        ("ISO_IR 13", "", {"ImageComments": "a‾b"}, "ISO_IR 192"),
        ("ISO_IR 13", "", {"ImageComments": "plain"}, None),
        ("ISO_IR 192", "ISO_IR 13", {"ImageComments": "a‾b¥c"}, "ISO_IR 13"),
        ("ISO_IR 192", "ISO_IR 13", {"ImageComments": "a~b"}, "ISO_IR 192"),  # no tilde in JIS X 0201
        ("ISO_IR 192", "ISO_IR 13", {"ImageComments": "a\\b"}, "ISO_IR 192"),  # nor a backslash, in text
        ("ISO_IR 192", "ISO_IR 13", {"ImageType": "A\\B", "SoftwareVersions": "1\\2‾"}, "ISO_IR 13"),  # it separates
    ],
)
async def test_kept_text_has_the_characters_it_had(
    tmp_path: Path, stored: str, asked: str, texts: dict[str, str], label: str | None
) -> None:
    path = make_index(tmp_path, [{"SpecificCharacterSet": stored, **texts}])
    sets = {"SpecificCharacterSet": asked} if asked else {}
    (answer,) = await ask(path, {**sets, **dict.fromkeys(texts, "")}, level="IMAGE", relational=True)
    assert {keyword: answer[keyword] for keyword in texts} == texts
    assert answer.get("SpecificCharacterSet") == label


async def test_items_have_the_characters_they_had(tmp_path: Path) -> None:
    received = {
        "SpecificCharacterSet": "ISO_IR 13",
        "ProcedureCodeSequence": [
            {"CodeMeaning": "a‾"},
            {"SpecificCharacterSet": "ISO_IR 192", "CodeMeaning": "a~"},
        ],
    }
    path = make_index(tmp_path, [received])
    (answer,) = await ask(path, {"ProcedureCodeSequence": []})
    assert answer["ProcedureCodeSequence"] == [{"CodeMeaning": "a‾"}, {"CodeMeaning": "a~"}]
