"""Person names, PS3.5 §6.2.1: their component groups, and the form in which they are compared (PS3.4 §C.2.2.2.1)."""

import re
import unicodedata

__all__ = ["fold_name", "name_groups"]

# What comparison leaves out: accents, and the points of Hebrew and Arabic. Not all that combines: other vowel signs of
# Thai and Indian scripts, or other voicing marks of kana, make another name.
_ACCENTS = re.compile(
    "[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670]"
)
_LETTERS = str.maketrans(
    {
        "æ": "ae",
        "ø": "o",
        "œ": "oe",
        "ð": "d",
        "đ": "d",
        "ħ": "h",
        "\u0131": "i",
        "ł": "l",
        "ŋ": "n",
        "þ": "th",
        "ŧ": "t",
    }
)
_MARKS = re.compile(r"([\^=\\*?])")
_MARKS_TO_SPACES = str.maketrans("^=\\*?", "     ")
_DELIMITERS = ("^", "=")
_SPACE_AROUND = re.compile(r"\s*([\^=\\])\s*")


def fold_name(text: str) -> str:
    """Give the form of a name that is equal for names that match: case, accents, width and spacing do not count.

    Delimiters stay, but those that only mark what is missing at the end: ``Doe^John^^`` is ``doe^john``. Letters that
    fold into a delimiter or a wildcard (U+FF3E, U+2047) become spaces: they never act as one.
    """
    if text.isascii():
        folded = text.lower()
    else:
        runs = _MARKS.split(text)
        runs[::2] = [_fold_letters(run) if run else "" for run in runs[::2]]
        folded = "".join(runs)
    folded = " ".join(folded.replace("\0", " ").split())
    folded = _SPACE_AROUND.sub(r"\1", folded)
    if folded.endswith(_DELIMITERS) or "^=" in folded or "^\\" in folded or "=\\" in folded:
        folded = "\\".join(map(_trim, folded.split("\\")))
    return folded


def name_groups(text: str) -> tuple[str, str, str]:
    """Take a name apart: alphabetic, ideographic, phonetic group, each without what only marks missing components."""
    groups = [group.strip(" \0").rstrip("^ ") for group in text.split("=", 3)[:3]]
    alphabetic, ideographic, phonetic, *_ = (*groups, "", "")
    return alphabetic, ideographic, phonetic


def _fold_letters(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text).casefold()
    folded = unicodedata.normalize("NFC", _ACCENTS.sub("", folded))
    return folded.translate(_LETTERS).translate(_MARKS_TO_SPACES)


def _trim(name: str) -> str:
    return "=".join([group.rstrip("^ ") for group in name.split("=")]).rstrip("=")
