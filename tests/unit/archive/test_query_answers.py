"""What an answer holds: what was asked, as it was received, and nothing else (PS3.4 §C.4.1.1.3.2, §C.2.2.1.3)."""

from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from pacslite.archive.query import QueryOptions
from pacslite.dataset.decode import Attribute, decode_identifier
from pacslite.dataset.dictionary import tag_of
from tests.support.index import EXPLICIT, IMPLICIT, ask, encode, extra_keys_of, find, make_index, parse, reading, uid

BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
ALWAYS = {"QueryRetrieveLevel": "STUDY", "RetrieveAETitle": "PACSLITE"}
MR = "1.2.840.10008.5.1.4.1.1.4"
SR = "1.2.840.10008.5.1.4.1.1.88.11"


def code(value: str, meaning: str) -> dict[str, str]:
    return {"CodeValue": value, "CodingSchemeDesignator": "99X", "CodeMeaning": meaning}


async def test_answer_has_what_was_asked_and_no_more(tmp_path: Path) -> None:
    path = make_index(tmp_path, [{"PatientName": "Doe^John", "PatientID": "1", "StudyDate": "20240131"}])
    (answer,) = await ask(path, {"PatientName": "", "StudyTime": "", "InstanceAvailability": ""})
    assert answer == ALWAYS | {"PatientName": "Doe^John", "StudyTime": "", "InstanceAvailability": "ONLINE"}
    (answer,) = await ask(path, {"StudyDate": ""}, options=QueryOptions(retrieve_ae_title="ELSEWHERE"))
    assert answer == {"QueryRetrieveLevel": "STUDY", "RetrieveAETitle": "ELSEWHERE", "StudyDate": "20240131"}


async def test_values_are_returned_as_received(tmp_path: Path) -> None:
    received = {
        "PatientName": "doe^JOHN^^",
        "StudyDate": "1998.01.28",
        "StudyTime": "10:30",
        "PatientWeight": "075.50",
        "StudyDescription": "a  b",
    }
    path = make_index(tmp_path, [received])
    (answer,) = await ask(path, dict.fromkeys(received, ""))
    assert answer == ALWAYS | received


@pytest.mark.parametrize("stored_in", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize("asked_in", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED])
async def test_answer_is_in_the_syntax_of_its_context(tmp_path: Path, stored_in: str, asked_in: str) -> None:
    received: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 100",
        "PatientName": "Müller",
        "Rows": 512,
        "PregnancyStatus": 4,
        "ProcedureCodeSequence": [code("P1", "Schädel")],
        "ImageComments": "größer",
        "RepresentativeFrameNumber": 3,
    }
    path = make_index(tmp_path, [received], stored_in)
    asked: dict[str, Any] = dict.fromkeys(received)
    asked |= {"SpecificCharacterSet": "ISO_IR 100", "ProcedureCodeSequence": []}
    async with reading(path) as reader:
        query = parse(asked, level="IMAGE", relational=True, transfer_syntax_uid=asked_in)
        (answer,) = await find(reader, query)
    assert answer == {"QueryRetrieveLevel": "IMAGE", "RetrieveAETitle": "PACSLITE"} | received


SIGNED, UNSIGNED = Attribute("SS", b"\x00\xfc"), Attribute("US", b"\x00\xfc")  # -1024 and 64512, the same bytes
AS_IT_CAME = [
    # PS3.6 leaves US or SS: what came says which
    (EXPLICIT, {"PixelPaddingValue": SIGNED}, ("SS", -1024)),
    (BIG_ENDIAN, {"PixelPaddingValue": SIGNED}, ("SS", -1024)),
    (EXPLICIT, {"PixelPaddingValue": UNSIGNED}, ("US", 64512)),
    (BIG_ENDIAN, {"PixelPaddingValue": UNSIGNED, "PixelRepresentation": 1}, ("US", 64512)),
    # in implicit VR, Pixel Representation does (PS3.5 §A.1)
    (IMPLICIT, {"PixelPaddingValue": SIGNED, "PixelRepresentation": 1}, ("SS", -1024)),
    (IMPLICIT, {"PixelPaddingValue": SIGNED, "PixelRepresentation": 0}, ("US", 64512)),
    (IMPLICIT, {"PixelPaddingValue": SIGNED}, ("US", 64512)),
]


@pytest.mark.parametrize("extra_keys", [(), ("PixelPaddingValue",)], ids=["kept", "extra key"])
@pytest.mark.parametrize("asked_in", [EXPLICIT, BIG_ENDIAN, DEFLATED, IMPLICIT])
@pytest.mark.parametrize(("stored_in", "stored", "value"), AS_IT_CAME)
async def test_number_is_what_it_came_as(
    tmp_path: Path,
    stored_in: str,
    stored: dict[str, Any],
    value: tuple[str, int],
    asked_in: str,
    extra_keys: tuple[str, ...],
) -> None:
    """It is answered so, and found by that number only; where a request is in implicit VR, by either."""
    path = make_index(tmp_path, [stored], stored_in, extra_keys=extra_keys)
    how: dict[str, Any] = {"level": "IMAGE", "relational": True, "transfer_syntax_uid": asked_in}
    how["options"] = QueryOptions(extra_keys=extra_keys_of(path))
    for asked in (Attribute("SS", b""), Attribute("US", b""), SIGNED, UNSIGNED):
        async with (
            reading(path) as reader,
            aclosing(reader.find(parse({"PixelPaddingValue": asked, "Rows": None}, **how))) as batches,
        ):
            answers = [one async for batch in batches for one in batch]
        matches = not asked.value or asked_in == IMPLICIT or asked.vr == value[0]
        assert len(answers) == matches, asked
        for answer in answers:
            attribute = decode_identifier(answer, asked_in)[0x00280120]
            assert attribute.value == b"\x00\xfc"
            assert attribute.vr == (value[0] if asked_in != IMPLICIT else "US")


async def test_rows_of_many_vrs_are_answered_each_in_its_own(tmp_path: Path) -> None:
    """Shorter than the dictionary's, text where numbers are due, and a VR that no receiver knows."""
    stored: list[tuple[str, bytes]] = [
        ("FD", bytes(6) + b"\xf0\x3f"),
        ("FL", bytes(2) + b"\x80\x3f"),
        ("DS", b"1.0 "),
        ("ZZ", b"1.0 "),
        ("FL", bytes(2) + b"\x80\x3f"),
        ("FD", bytes(6) + b"\xf0\x3f"),
    ]
    rows = [{"InstanceNumber": str(n), "DiffusionBValue": Attribute(vr, value)} for n, (vr, value) in enumerate(stored)]
    for stored_in in (EXPLICIT, BIG_ENDIAN):
        path = make_index(tmp_path, rows, stored_in)
        how: dict[str, Any] = {"level": "IMAGE", "relational": True, "transfer_syntax_uid": EXPLICIT}
        async with (
            reading(path) as reader,
            aclosing(reader.find(parse({"InstanceNumber": "", "DiffusionBValue": None}, **how))) as batches,
        ):
            answers = [decode_identifier(one, EXPLICIT) async for batch in batches for one in batch]
        found = {int(answer[0x00200013].value): answer[0x00189087] for answer in answers}  # type: ignore[arg-type]
        assert found == {n: ("FD" if vr == "ZZ" else vr, value) for n, (vr, value) in enumerate(stored)}


async def test_a_value_where_items_are_due_is_not_answered(tmp_path: Path) -> None:
    path = make_index(tmp_path, [{"ProcedureCodeSequence": Attribute("LO", b"Head"), "ImageComments": "clear"}])
    asked: dict[str, Any] = {"ProcedureCodeSequence": [], "ImageComments": ""}
    (answer,) = await ask(path, asked, level="IMAGE", relational=True)
    assert (answer["ProcedureCodeSequence"], answer["ImageComments"]) == ([], "clear")


async def test_counts_and_sets_of_a_study(tmp_path: Path) -> None:
    study = {"PatientID": "1", "StudyInstanceUID": uid(1, 0)}
    path = make_index(
        tmp_path,
        [
            study | {"SeriesInstanceUID": uid(2, 1), "Modality": "MR", "SOPClassUID": MR},
            study | {"SeriesInstanceUID": uid(2, 1), "Modality": "MR", "SOPClassUID": MR},
            study | {"SeriesInstanceUID": uid(2, 2), "Modality": "SR", "SOPClassUID": SR},
            {"PatientID": "1", "StudyInstanceUID": uid(1, 9), "Modality": "CT"},
        ],
    )
    keys = dict.fromkeys(
        [
            "ModalitiesInStudy",
            "SOPClassesInStudy",
            "NumberOfStudyRelatedSeries",
            "NumberOfStudyRelatedInstances",
            "NumberOfPatientRelatedStudies",
            "NumberOfPatientRelatedSeries",
            "NumberOfPatientRelatedInstances",
        ],
        "",
    )
    (answer,) = await ask(path, {**keys, "StudyInstanceUID": uid(1, 0)})
    assert answer == ALWAYS | {
        "StudyInstanceUID": uid(1, 0),
        "ModalitiesInStudy": "MR\\SR",
        "SOPClassesInStudy": f"{MR}\\{SR}",
        "NumberOfStudyRelatedSeries": "2",
        "NumberOfStudyRelatedInstances": "3",
        "NumberOfPatientRelatedStudies": "2",
        "NumberOfPatientRelatedSeries": "3",
        "NumberOfPatientRelatedInstances": "4",
    }


@pytest.mark.parametrize(
    ("asked", "studies"),
    [
        ({"ModalitiesInStudy": "SR"}, [0]),  # §C.2.2.3: one of the set is enough, and the whole set is returned
        ({"ModalitiesInStudy": "MR"}, [0]),
        ({"ModalitiesInStudy": "CT\\SR"}, [0, 1]),
        ({"ModalitiesInStudy": "M*"}, [0]),
        ({"ModalitiesInStudy": "M*R"}, [0]),  # not from MR to SR
        ({"ModalitiesInStudy": "M"}, []),
        ({"ModalitiesInStudy": "?T"}, [1]),
        ({"SOPClassesInStudy": SR}, [0]),
        ({"NumberOfStudyRelatedInstances": "2"}, [0]),
        ({"NumberOfStudyRelatedInstances": "1"}, [1]),
    ],
)
async def test_matching_against_the_sets_of_a_study(tmp_path: Path, asked: dict[str, str], studies: list[int]) -> None:
    path = make_index(
        tmp_path,
        [
            {"StudyInstanceUID": uid(1, 0), "Modality": "MR", "SOPClassUID": MR},
            {"StudyInstanceUID": uid(1, 0), "Modality": "SR", "SOPClassUID": SR},
            {"StudyInstanceUID": uid(1, 1), "Modality": "CT"},
        ],
    )
    answers = await ask(path, {**asked, "StudyInstanceUID": ""})
    assert sorted(answer["StudyInstanceUID"] for answer in answers) == [uid(1, number) for number in studies]


async def test_series_and_image_level(tmp_path: Path) -> None:
    place = {"StudyInstanceUID": uid(1, 0), "SeriesInstanceUID": uid(2, 0)}
    path = make_index(
        tmp_path,
        [place | {"Modality": "CT", "SeriesNumber": "3", "InstanceNumber": str(n), "Rows": 64} for n in (1, 2)],
    )
    (series,) = await ask(
        path,
        {
            "StudyInstanceUID": uid(1, 0),
            "SeriesInstanceUID": "",
            "Modality": "",
            "NumberOfSeriesRelatedInstances": "",
        },
        level="SERIES",
    )
    assert series == {
        "QueryRetrieveLevel": "SERIES",
        "RetrieveAETitle": "PACSLITE",
        **place,
        "Modality": "CT",
        "NumberOfSeriesRelatedInstances": "2",
    }
    images = await ask(
        path, {**place, "SOPInstanceUID": "", "Rows": None, "AvailableTransferSyntaxUID": ""}, level="IMAGE"
    )
    assert [image["SOPInstanceUID"] for image in images] == [uid(3, 0), uid(3, 1)]
    assert images[0]["Rows"] == 64
    assert images[0]["AvailableTransferSyntaxUID"] == EXPLICIT


async def test_upper_attributes_come_with_lower_levels(tmp_path: Path) -> None:
    """Nobody needs another query for the name of a series' patient."""
    path = make_index(tmp_path, [{"PatientName": "Doe", "StudyDescription": "Head", "StudyInstanceUID": uid(1, 0)}])
    (answer,) = await ask(
        path, {"StudyInstanceUID": uid(1, 0), "PatientName": "", "StudyDescription": ""}, level="SERIES"
    )
    assert (answer["PatientName"], answer["StudyDescription"]) == ("Doe", "Head")


async def test_attributes_without_a_column_are_returned(tmp_path: Path) -> None:
    received: dict[str, Any] = {
        "MilitaryRank": "Captain",  # patient
        "RequestingPhysician": "Who^Doctor",  # study
        "Manufacturer": "ACME",  # series
        "ImageComments": "blurred",  # image
        "SliceThickness": "2.5",
        "RequestAttributesSequence": [{"RequestedProcedureID": "RP1", "ScheduledProcedureStepID": "S1"}],
    }
    path = make_index(tmp_path, [received])
    asked = {**dict.fromkeys(received, ""), "RequestAttributesSequence": [], "GantryID": ""}
    (answer,) = await ask(path, asked, level="IMAGE", relational=True)
    expected = {"QueryRetrieveLevel": "IMAGE", "RetrieveAETitle": "PACSLITE", **received, "GantryID": ""}
    assert answer == expected


@pytest.mark.parametrize(
    ("level", "received"),
    [
        ("PATIENT", {"PatientIdentityRemoved": "YES", "DeidentificationMethodCodeSequence": [code("113100", "Basic")]}),
        ("PATIENT", {"ClinicalTrialSponsorName": "ACME", "GeneticModificationsSequence": []}),
        ("STUDY", {"ReasonForVisit": "Fall", "ReasonForVisitCodeSequence": [code("R1", "Fall")], "PregnancyStatus": 2}),
        ("SERIES", {"PresentationIntentType": "FOR PROCESSING", "Units": "BQML", "AnatomicalOrientationType": "BIPED"}),
        ("SERIES", {"UDISequence": [{"UniqueDeviceIdentifier": "(01)123"}], "DeviceSerialNumber": "7"}),
    ],
)
async def test_attributes_of_the_modules_of_a_level(tmp_path: Path, level: str, received: dict[str, Any]) -> None:
    path = make_index(tmp_path, [received])
    asked: dict[str, Any] = {keyword: [] if isinstance(value, list) else None for keyword, value in received.items()}
    how: dict[str, Any] = {"model": "patient", "level": level, "relational": True}
    assert parse(asked, **how).unsupported_keys == ()
    (answer,) = await ask(path, asked, **how)
    assert answer == {"QueryRetrieveLevel": level, "RetrieveAETitle": "PACSLITE", **received}


@pytest.mark.parametrize("keyword", ["SourceImageSequence", "AnatomicRegionSequence"])
async def test_images_of_a_series_have_their_own(tmp_path: Path, keyword: str) -> None:
    """Of the General Reference module (PS3.3 §C.12.4), and of the images' anatomy (§C.8.11.2): no first one's."""
    one_series = {"StudyInstanceUID": uid(1), "SeriesInstanceUID": uid(2)}
    items = [[{"ReferencedSOPInstanceUID": uid(4, number), "CodeMeaning": f"Region {number}"}] for number in range(3)]
    path = make_index(tmp_path, [{**one_series, keyword: one} for one in items])
    answers = await ask(path, {**one_series, keyword: [], "SOPInstanceUID": ""}, level="IMAGE")
    assert {answer["SOPInstanceUID"]: answer[keyword] for answer in answers} == {
        uid(3, number): one for number, one in enumerate(items)
    }
    (answer,) = await ask(path, {**one_series, keyword: items[1], "SOPInstanceUID": ""}, level="IMAGE")
    assert answer["SOPInstanceUID"] == uid(3, 1)


@pytest.mark.parametrize("stored_in", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
async def test_long_attributes_are_returned(tmp_path: Path, stored_in: str) -> None:
    """Of any module: functional groups, waveforms, overlays, tables; only what exceeds 64 KiB is not kept."""
    received: dict[str, Any] = {
        "ImageComments": "long " * 1500,
        "IconImageSequence": [{"Rows": 64, "RedPaletteColorLookupTableData": bytes(range(256)) * 100}],
        "ContentSequence": [{"TextValue": f"finding {number} " * 20} for number in range(60)],
        "WaveformSequence": [{"NumberOfWaveformSamples": 4, "WaveformData": bytes(5000)}],
        "PerFrameFunctionalGroupsSequence": [
            {"FrameContentSequence": [{"FrameAcquisitionNumber": number, "FrameComments": "x" * 40}]}
            for number in range(500)
        ],
        "OverlayRows": 64,
        "OverlayData": bytes(512),
    }
    sent = {keyword: value.strip() if isinstance(value, str) else value for keyword, value in received.items()}
    path = make_index(tmp_path, [sent], stored_in)
    asked: dict[str, Any] = {keyword: [] if isinstance(value, list) else None for keyword, value in received.items()}
    async with (
        reading(path) as reader,
        aclosing(reader.find(parse(asked, level="IMAGE", relational=True, transfer_syntax_uid=EXPLICIT))) as batches,
    ):
        (answer,) = [one async for batch in batches for one in batch]
    identifier = decode_identifier(answer, EXPLICIT)
    assert identifier[0x52009230] == decode_identifier(encode(sent), EXPLICIT)[0x52009230]
    assert {tag for tag, (_, value) in identifier.items() if value} == {
        0x00080052,
        0x00080054,
        *(tag_of(keyword) for keyword in received),
    }


async def test_attribute_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    """A sequence nested beyond all sense is stored as it came; what stands beside it is returned."""
    nested: list[dict[str, Any]] = [{"CodeValue": "X"}]
    for _ in range(80):
        nested = [{"ContentSequence": nested}]
    path = make_index(tmp_path, [{"ContentSequence": nested, "ImageComments": "clear"}])
    asked: dict[str, Any] = {"ContentSequence": [], "ImageComments": ""}
    (answer,) = await ask(path, asked, level="IMAGE", relational=True)
    assert (answer["ContentSequence"], answer["ImageComments"]) == ([], "clear")


PROCEDURES: list[dict[str, Any]] = [
    {"StudyInstanceUID": uid(1, 0), "ProcedureCodeSequence": [code("P1", "Head"), code("P2", "Neck")]},
    {"StudyInstanceUID": uid(1, 1), "ProcedureCodeSequence": [code("P2", "Head")]},
    {"StudyInstanceUID": uid(1, 2)},
]


@pytest.mark.parametrize(
    ("item", "studies"),
    [
        ({"CodeValue": "P1"}, [0]),
        ({"CodeValue": "P2"}, [0, 1]),
        ({"CodeValue": "P2", "CodeMeaning": "Head"}, [1]),  # in one item
        ({"CodeValue": "P2", "CodeMeaning": "N*"}, [0]),
        ({"CodeValue": "P*"}, [0, 1]),
        ({"CodeValue": "P1\\P3"}, [0]),
        ({"CodeValue": ""}, [0, 1, 2]),
        ({}, [0, 1, 2]),
        ({"CodeValue": "p1"}, []),
        ({"EquivalentCodeSequence": [{"CodeValue": "X"}]}, []),
    ],
)
async def test_sequence_matching(tmp_path: Path, item: dict[str, Any], studies: list[int]) -> None:
    """§C.2.2.2.6."""
    path = make_index(tmp_path, PROCEDURES)
    answers = await ask(path, {"StudyInstanceUID": "", "ProcedureCodeSequence": [item]})
    assert sorted(answer["StudyInstanceUID"] for answer in answers) == [uid(1, number) for number in studies]


@pytest.mark.parametrize(
    ("level", "sequence", "item", "matches"),
    [
        ("SERIES", "RequestAttributesSequence", {"RequestedProcedureID": "RP1"}, True),
        ("SERIES", "RequestAttributesSequence", {"RequestedProcedureID": "RP2"}, False),
        ("SERIES", "RequestAttributesSequence", {"ScheduledProcedureStepID": "S?"}, True),
        (
            "IMAGE",
            "ReferencedRequestSequence",
            {"AccessionNumber": "A7", "RequestedProcedureDescription": "*head*"},
            True,
        ),
        ("IMAGE", "ReferencedRequestSequence", {"AccessionNumber": "A8"}, False),
        ("STUDY", "ReferencedStudySequence", {"ReferencedSOPInstanceUID": "1.2.3"}, True),
        ("STUDY", "ReferencedStudySequence", {"ReferencedSOPInstanceUID": "1.2.4\\1.2.5"}, False),
        ("STUDY", "RequestedProcedureCodeSequence", {"CodeValue": "C1", "CodeMeaning": "SCHÄDEL"}, False),  # LO: exact
        ("STUDY", "RequestedProcedureCodeSequence", {"CodeValue": "C1", "CodeMeaning": "Schädel"}, True),
        ("STUDY", "PhysiciansOfRecordIdentificationSequence", {"InstitutionName": "General*"}, True),
    ],
)
async def test_sequences_of_requests_and_references_match(
    tmp_path: Path, level: str, sequence: str, item: dict[str, str], *, matches: bool
) -> None:
    utf_8 = {"SpecificCharacterSet": "ISO_IR 192"}
    received: dict[str, Any] = {
        "RequestAttributesSequence": [{"RequestedProcedureID": "RP1", "ScheduledProcedureStepID": "S1"}],
        "ReferencedRequestSequence": [{"AccessionNumber": "A7", "RequestedProcedureDescription": "CT head plain"}],
        "ReferencedStudySequence": [{"ReferencedSOPClassUID": "1.2", "ReferencedSOPInstanceUID": "1.2.3"}],
        "RequestedProcedureCodeSequence": [code("C1", "Schädel")],
        "PhysiciansOfRecordIdentificationSequence": [{"InstitutionName": "General Hospital"}],
    }
    path = make_index(tmp_path, [utf_8 | received])
    answers = await ask(path, {**utf_8, sequence: [item]}, level=level, relational=True)
    assert len(answers) == int(matches)


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192", "GB18030"])
async def test_item_is_in_its_own_character_set(tmp_path: Path, charset: str) -> None:
    """PS3.5 §7.5.2: an item may say which; that is how its keys are meant, and nothing that is asked."""
    path = make_index(
        tmp_path, [{"SpecificCharacterSet": "ISO_IR 192", "ProcedureCodeSequence": [code("C1", "Schädel")]}]
    )
    for meaning, matches in (("Schädel", 1), ("Sch?del", 1), ("Schdel", 0)):
        item = {"SpecificCharacterSet": charset, "CodeMeaning": meaning}
        assert len(await ask(path, {"ProcedureCodeSequence": [item]})) == matches


async def test_unknown_sequence_matches_if_configured(tmp_path: Path) -> None:
    path = make_index(tmp_path, PROCEDURES)
    asked = {"StudyInstanceUID": "", "ProcedureCodeSequence": [{"CodeValue": "P1"}]}
    answers = await ask(path, asked, options=QueryOptions(match_unknown=True))
    assert sorted(answer["StudyInstanceUID"] for answer in answers) == [uid(1, 0), uid(1, 2)]


async def test_sequence_is_returned_with_matching_items_and_asked_attributes(tmp_path: Path) -> None:
    path = make_index(tmp_path, PROCEDURES[:1])
    matching = {"ProcedureCodeSequence": [{"CodeValue": "P2", "CodeMeaning": "", "CodingSchemeVersion": ""}]}
    (answer,) = await ask(path, matching)
    assert answer["ProcedureCodeSequence"] == [{"CodeValue": "P2", "CodingSchemeVersion": "", "CodeMeaning": "Neck"}]
    (answer,) = await ask(path, {"ProcedureCodeSequence": [{"CodeValue": ""}]})
    assert answer["ProcedureCodeSequence"] == [{"CodeValue": "P1"}, {"CodeValue": "P2"}]
    (answer,) = await ask(path, {"ProcedureCodeSequence": []})
    assert answer["ProcedureCodeSequence"] == PROCEDURES[0]["ProcedureCodeSequence"]


async def test_nested_sequence_key(tmp_path: Path) -> None:
    received = {"RequestAttributesSequence": [{"ScheduledProtocolCodeSequence": [code("A", "x"), code("B", "y")]}]}
    path = make_index(tmp_path, [received])
    asked = {"RequestAttributesSequence": [{"ScheduledProtocolCodeSequence": [{"CodeValue": "B"}]}]}
    (answer,) = await ask(path, asked, level="SERIES", relational=True)
    assert answer["RequestAttributesSequence"][0]["ScheduledProtocolCodeSequence"]
    asked = {"RequestAttributesSequence": [{"ScheduledProtocolCodeSequence": [{"CodeValue": "C"}]}]}
    assert await ask(path, asked, level="SERIES", relational=True) == []


@pytest.mark.parametrize(
    ("key", "studies"),
    [
        ({"Modality": "MR"}, [0]),
        ({"BodyPartExamined": "H*"}, [0, 1]),
        ({"Modality": "MR", "BodyPartExamined": "HAND"}, []),  # of one series
        ({"Modality": "SR", "BodyPartExamined": "HAND"}, [0]),
        ({"SOPInstanceUID": uid(3, 2)}, [1]),
        ({"InstanceNumber": "1", "Modality": "CT"}, [1]),
    ],
)
async def test_relational_query_by_keys_below_its_level(
    tmp_path: Path, key: dict[str, str], studies: list[int]
) -> None:
    path = make_index(
        tmp_path,
        [
            {"StudyInstanceUID": uid(1, 0), "Modality": "MR", "BodyPartExamined": "HEAD", "InstanceNumber": "1"},
            {"StudyInstanceUID": uid(1, 0), "Modality": "SR", "BodyPartExamined": "HAND", "InstanceNumber": "2"},
            {"StudyInstanceUID": uid(1, 1), "Modality": "CT", "BodyPartExamined": "HIP", "InstanceNumber": "1"},
        ],
    )
    answers = await ask(path, {"StudyInstanceUID": "", **key}, relational=True)
    assert sorted(answer["StudyInstanceUID"] for answer in answers) == [uid(1, number) for number in studies]


async def test_answers_say_of_which_timezone_they_are(tmp_path: Path) -> None:
    """§C.5.1.1: that of the instance, else that of the archive; nothing where neither is known, or nobody asked."""
    day = {"StudyDate": "20240101", "StudyTime": "1200"}
    path = make_index(tmp_path, [day | {"PatientID": "1", "TimezoneOffsetFromUTC": "-0500"}, day | {"PatientID": "2"}])
    for options, default in ((QueryOptions(), ""), (QueryOptions(timezone_offset="+0100"), "+0100")):
        answers = await ask(path, {"PatientID": "", "StudyDate": ""}, timezone=True, options=options)
        assert {one["PatientID"]: one["TimezoneOffsetFromUTC"] for one in answers} == {"1": "-0500", "2": default}
        answers = await ask(path, {"PatientID": "", "TimezoneOffsetFromUTC": ""}, options=options)
        assert {one["PatientID"]: one["TimezoneOffsetFromUTC"] for one in answers} == {"1": "-0500", "2": ""}
        answers = await ask(path, {"PatientID": "", "StudyDate": ""}, options=options)
        assert all("TimezoneOffsetFromUTC" not in answer for answer in answers)


@pytest.mark.parametrize("key", [{}, {"TimezoneOffsetFromUTC": "+0100"}])
async def test_patients_have_no_timezone(tmp_path: Path, key: dict[str, str]) -> None:
    """At PATIENT level there is no study that could name one: each patient is answered once."""
    path = make_index(tmp_path, [{"PatientID": "1", "PatientBirthDate": "19700101"}, {"PatientID": "2"}])
    how: dict[str, Any] = {
        "model": "patient",
        "level": "PATIENT",
        "timezone": True,
        "options": QueryOptions(strict=True),
    }
    answers = await ask(path, {"PatientID": "", **key}, **how)
    assert answers == [
        {"QueryRetrieveLevel": "PATIENT", "RetrieveAETitle": "PACSLITE", "PatientID": one} for one in ("1", "2")
    ]
    (answer,) = await ask(path, {"PatientID": "", "PatientBirthDate": "19700101", **key}, **how)
    assert answer["PatientID"] == "1"


SHORT_NAMES = ["Kim", "Kim^Jin", "Kim_Lee", "Timo^Max", "=山im", "=山im山", "Im", "Ian^Miriam", "I^M", "Kim^Kim=Kim"]


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("*im*", ["Kim", "Kim^Jin", "Kim_Lee", "Timo^Max", "=山im", "=山im山", "Im", "Kim^Kim=Kim"]),
        ("*im", ["Kim", "=山im", "Im", "Kim^Kim=Kim"]),
        ("*im^*", ["Kim", "Kim^Jin", "=山im", "Im", "Kim^Kim=Kim"]),  # trailing delimiters may be left out
        ("?im*", ["Kim", "Kim^Jin", "Kim_Lee", "Timo^Max", "=山im", "=山im山", "Kim^Kim=Kim"]),
        ("*山i*", ["=山im", "=山im山"]),
        ("*m山*", ["=山im山"]),
        ("*mi*ax", []),
        ("*mo*ax", ["Timo^Max"]),
    ],
)
async def test_two_letters_are_found_wherever_they_stand(tmp_path: Path, key: str, names: list[str]) -> None:
    utf_8 = {"SpecificCharacterSet": "ISO_IR 192"}
    path = make_index(tmp_path, [{**utf_8, "PatientName": name, "PatientID": name} for name in SHORT_NAMES])
    answers = await ask(path, {**utf_8, "PatientName": key})
    assert sorted(answer["PatientName"] for answer in answers) == sorted(names)


FUZZY_NAMES = ["Schmidt^Hans", "Smith^John", "Müller^Jürgen", "Ivanov^Pyotr", "Иванов^Пётр", "Catherine^Zoe"]


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("Schmitt", ["Schmidt^Hans", "Smith^John"]),
        ("Smyth^Jon", ["Smith^John"]),  # every word must be found
        ("Mueller", ["Müller^Jürgen"]),
        ("Ivanof", ["Ivanov^Pyotr", "Иванов^Пётр"]),
        ("Kathryn", ["Catherine^Zoe"]),
        ("Zebra", []),
        ("Smi*", ["Smith^John"]),  # with wildcards a pattern, as without negotiation
    ],
)
async def test_fuzzy_names(tmp_path: Path, key: str, names: list[str]) -> None:
    utf_8 = {"SpecificCharacterSet": "ISO_IR 192"}
    path = make_index(tmp_path, [{**utf_8, "PatientName": name, "PatientID": name} for name in FUZZY_NAMES])
    answers = await ask(path, {**utf_8, "PatientName": key}, fuzzy=True)
    assert sorted(answer["PatientName"] for answer in answers) == sorted(names)
