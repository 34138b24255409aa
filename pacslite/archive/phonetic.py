"""How names sound: the codes of fuzzy semantic matching of person names (PS3.4 §C.2.2.2.1, negotiated by §C.5.1.1).

Each word of a name has two codes, Metaphone and Soundex: Smith and Schmidt differ by the first and meet in the second,
Catherine and Kathryn meet in the first. Words of other alphabets are spelt in Latin letters before.
"""

from pacslite.dataset.charset import fold_name

__all__ = ["name_sounds", "words_and_codes"]

_MOST_WORDS = 24  # of a name, and characters of a word: hostile names cost no more than honest ones
_LONGEST_WORD = 64


def name_sounds(name: str) -> str | None:
    """The content of the column ``patient_name_sounds``: every code of ``name``, each between two spaces."""
    codes = {code for _, word_codes in words_and_codes(name) for code in word_codes}
    return f" {' '.join(sorted(codes))} " if codes else None


def words_and_codes(name: str) -> list[tuple[str, tuple[str, ...]]]:
    """Each word of ``name``, folded, with its codes; a word that has no sound (digits) has none."""
    import jellyfish
    from anyascii import anyascii

    folded = fold_name(name)
    words = folded.translate(_SEPARATORS).split()[:_MOST_WORDS]
    spelt = []
    for word in words:
        latin = "".join(letter for letter in anyascii(word[:_LONGEST_WORD]) if letter.isascii() and letter.isalpha())
        codes = {jellyfish.metaphone(latin), jellyfish.soundex(latin)} if latin else set()
        spelt.append((word, tuple(sorted(code.strip() for code in codes if code.strip()))))
    return spelt


_SEPARATORS = str.maketrans("^=\\,.-'", "       ")
