"""Person names: the form in which they are compared, and their component groups."""

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacslite.dataset.charset import fold_name, name_groups


@pytest.mark.parametrize(
    "names",
    [
        # PS3.4 §C.2.2.2.1: case, position of spaces and accents may be ignored for PN
        ("Doe^John", "DOE^JOHN", "doe^john ", " Doe ^ John", "Doe^John\0", "Doe^John^^^", "Doe^John=", "Doe^John==^"),
        ("Müller^Jörg", "MULLER^JORG", "Mu\u0308ller^Jo\u0308rg"),  # composed or not
        ("Strauß", "STRAUSS"),
        ("Łukasz", "lukasz"),
        ("Søren^Ærø", "soren^aero"),
        ("Đorđe", "dorde"),
        ("İpek", "ipek"),
        ("Nguyễn^Văn", "nguyen^van"),
        ("Ελένη", "ΕΛΕΝΗ", "ελενη"),
        ("Жёлудь", "желудь"),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ", "ヤマダ^タロウ"),  # width: JIS X 0201 and JIS X 0208
        ("\uff39\uff21MADA", "Yamada"),
        ("van  der\tBerg", "van der Berg"),
        ("홍^길동", unicodedata.normalize("NFD", "홍^길동")),
        ("שָׁלוֹם", "שלום"),  # points
        ("مُحَمَّد", "محمد"),
        ("A^B\\C^D", "a^b^ \\ c^d=="),  # of several values each
        ("=山田^太郎", "=山田^太郎="),
        ("", " ", "^^", "=", "\0", "==^"),
    ],
)
def test_names_that_match_fold_alike(names: tuple[str, ...]) -> None:
    assert len({fold_name(name) for name in names}) == 1, [fold_name(name) for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ("Doe^John", "Doe John", "DoeJohn", "Doe^^John", "=Doe^John"),
        ("か", "が"),  # voicing makes another syllable
        ("ハ", "バ", "パ"),
        ("ตี", "ตา", "ต"),  # and vowel signs another word
        ("किरण", "करण"),
        ("山田", "山本"),
        ("A\\B", "A", "A^B"),
    ],
)
def test_names_that_differ_fold_apart(names: tuple[str, ...]) -> None:
    assert len({fold_name(name) for name in names}) == len(names)


def test_no_letter_folds_into_a_delimiter_or_wildcard() -> None:
    for code in range(0x80, 0x20000):
        folded = fold_name(f"a{chr(code)}b")
        assert not set(folded) & set("^=\\*?"), hex(code)


def test_wildcards_stay() -> None:
    assert fold_name("DO?^J*") == "do?^j*"


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=0x3100, exclude_categories=["Cs"]) | st.sampled_from("^=\\ é"), max_size=20))
def test_folding_again_changes_nothing(name: str) -> None:
    assert fold_name(fold_name(name)) == fold_name(name)


@pytest.mark.parametrize(
    "text", ["^" * 60_000 + "a", " " * 60_000, "=^ " * 20_000 + "b", "e\u0301" * 30_000, "\\" * 60_000]
)
def test_folding_takes_linear_time(text: str) -> None:
    start = time.process_time()
    fold_name(text)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", ("Yamada^Tarou", "山田^太郎", "やまだ^たろう")),
        ("Doe^John", ("Doe^John", "", "")),
        ("=山田^太郎", ("", "山田^太郎", "")),
        ("Doe^^^^=^=  ", ("Doe", "", "")),
        ("a=b=c=d", ("a", "b", "c")),
        ("", ("", "", "")),
        ("^John", ("^John", "", "")),
    ],
)
def test_component_groups(name: str, groups: tuple[str, str, str]) -> None:
    assert name_groups(name) == groups
