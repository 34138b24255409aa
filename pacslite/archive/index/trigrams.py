"""What a name has, as queries of the trigram table (https://www.sqlite.org/fts5.html#the_trigram_tokenizer).

A run of three characters or more is looked up by its trigrams. One of two is looked up by the trigrams that it begins:
all but a few names that have it have it so, and only these few are then searched for from end to end.
"""

import re
import string
from collections.abc import Sequence

from pacslite.archive.index.predicates import glob

__all__ = ["followed", "longest_run", "pair_of_names", "trigrams_of_names", "trigrams_of_pair", "trigrams_of_sounds"]

_MOST_TRIGRAMS = 8  # of a pattern; rowids that have all of them are few, and each costs a list
_FOLLOWERS = f"{string.ascii_lowercase}{string.digits} .^=,'-"  # in normal forms (archive/normalise.py)

_Names = Sequence[Sequence[Sequence[str]]]  # as NameLike has them


def trigrams_of_names(names: _Names) -> str | None:
    """What each of the names has, as an FTS5 query; None where a pattern is too short to have any."""
    alternatives = []
    for groups in names:
        if len(groups) == 1:
            alternatives += [_trigrams_of(_runs(pattern)) for pattern in groups[0]]
        else:
            runs = [run for group in groups if len(group) == 1 for run in _runs(group[0])]
            alternatives.append(_trigrams_of(runs))
    if not all(alternatives):
        return None
    return " OR ".join(f"({one})" for one in alternatives)


def trigrams_of_sounds(words: Sequence[tuple[str, Sequence[str]]]) -> str | None:
    """What names that sound so have, as an FTS5 query."""
    alternatives = [" OR ".join(f"({_trigrams_of([f' {code} '])})" for code in codes) for _, codes in words if codes]
    return " AND ".join(f"({one})" for one in alternatives) or None


def longest_run(names: _Names) -> int:
    """Characters between two wildcards."""
    return max((len(run) for groups in names for group in groups for one in group for run in _runs(one)), default=0)


def pair_of_names(names: _Names) -> str | None:
    """Two characters that whatever fits has; None where there are none, or different ones."""
    if len(names) != 1 or len(names[0]) != 1:
        return None
    patterns = names[0][0]
    pairs = (run[at : at + 2] for run in _runs(patterns[0]) for at in range(len(run) - 1))
    return next((pair for pair in pairs if "\0" not in pair and all(pair in pattern for pattern in patterns)), None)


def trigrams_of_pair(pair: str) -> str:
    """What names have in which a pair is followed by a common character, as an FTS5 query."""
    return " OR ".join(_quoted(pair + follower) for follower in _FOLLOWERS)


def followed(pair: str) -> str:
    """The same as a pattern for GLOB."""
    return f"*{glob(pair)}[a-z0-9 .^=,'-]*"


def _runs(pattern: str) -> list[str]:
    return re.split(r"[*?]", pattern)


def _trigrams_of(runs: Sequence[str]) -> str:
    found = list(dict.fromkeys(run[at : at + 3] for run in runs for at in range(len(run) - 2)))
    step = -(-len(found) // _MOST_TRIGRAMS) or 1
    return " AND ".join(_quoted(one) for one in found[::step] if "\0" not in one)


def _quoted(trigram: str) -> str:
    return '"' + trigram.replace('"', '""') + '"'
