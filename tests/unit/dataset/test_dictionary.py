"""The data dictionary against pydicom's, and what it costs to import."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary

from pacslite.dataset import dictionary_table
from pacslite.dataset.dictionary import keyword_of, tag_of, vr_of

GENERATOR = Path(__file__).parents[3] / "dev" / "generate_dictionary.py"


def test_the_table_is_what_the_generator_writes() -> None:
    written = runpy.run_path(str(GENERATOR))["render"]()
    assert Path(dictionary_table.__file__).read_text() == written


def test_every_element_is_pydicoms() -> None:
    for tag, (vrs, _, _, _, keyword) in DicomDictionary.items():
        if vrs == "NONE":
            continue  # items and delimiters
        assert vr_of(tag) in vrs.split(" or "), hex(tag)
        assert keyword_of(tag) == (keyword or None), hex(tag)
        assert not keyword or tag_of(keyword) == tag


@pytest.mark.parametrize("mask", RepeatersDictionary)
def test_every_repeating_element_is_pydicoms(mask: str) -> None:
    vrs, _, _, _, keyword = RepeatersDictionary[mask]
    for digit in "02468A":  # the groups are even
        tag = int(mask.replace("x", digit), 16)
        if tag not in DicomDictionary:
            assert vr_of(tag) in vrs.split(" or ")
            assert keyword_of(tag) == keyword
    assert tag_of(keyword) == int(mask.replace("x", "0"), 16)


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("PatientName", 0x00100010),
        ("0010,0010", 0x00100010),
        ("(0010,0010)", 0x00100010),
        (" 00100010 ", 0x00100010),
        ("0020000d", 0x0020000D),
        ("0009,1001", 0x00091001),
        ("OverlayData", 0x60003000),
        ("patientname", None),
        ("0010", None),
        ("+0100010", None),
        ("0x100010", None),
        ("0010_010", None),
        ("\u0660" * 8, None),  # digits, and not ASCII
        ("", None),
        ("-", None),
    ],
)
def test_tags_are_named_by_keyword_or_digits(name: str, tag: int | None) -> None:
    assert tag_of(name) == tag


@pytest.mark.parametrize(
    ("tag", "vr", "keyword"),
    [
        (0x00100010, "PN", "PatientName"),
        (0x00280106, "US", "SmallestImagePixelValue"),  # US or SS
        (0x7FE00010, "OW", "PixelData"),  # OB or OW; implicit VR has OW
        (0x00283006, "OW", "LUTData"),  # US or OW
        (0x60023000, "OW", "OverlayData"),
        (0x60013000, None, None),  # odd groups are private
        (0x00090010, "LO", None),  # a private creator
        (0x00091001, None, None),
        (0x00180000, "UL", None),  # a group length
        (0x00180061, "DS", None),  # retired, without a keyword
        (0x00080003, None, None),
        (0xFFFEE000, None, None),
    ],
)
def test_vr_and_keyword(tag: int, vr: str | None, keyword: str | None) -> None:
    assert (vr_of(tag), keyword_of(tag)) == (vr, keyword)


def test_no_part_of_the_package_imports_pydicom() -> None:
    modules = sorted(
        path.stem for path in Path(dictionary_table.__file__).parent.glob("*.py") if path.stem != "__init__"
    )
    code = "import sys\n" + "".join(f"import pacslite.dataset.{module}\n" for module in modules)
    code += "print([name for name in sys.modules if name.partition('.')[0] in ('pydicom', 'numpy', 'sqlalchemy')])"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=GENERATOR.parents[1]
    )
    assert run.stdout == "[]\n"
