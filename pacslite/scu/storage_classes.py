"""Storage SOP classes and transfer syntaxes that a C-GET of ours proposes."""

from collections.abc import Sequence

from pacslite.scu.contexts import MAXIMUM_CONTEXTS, UNCOMPRESSED

__all__ = ["COMMON_STORAGE_CLASSES", "COMPRESSED_SYNTAXES", "retrieve_proposals"]

_ROOT = "1.2.840.10008.5.1.4.1.1."

# What archives mostly hold, most frequent first (PS3.4 Table B.5-1)
COMMON_STORAGE_CLASSES = tuple(
    _ROOT + end
    for end in (
        "2", "2.1", "4", "4.1", "1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "6.1", "6", "3.1", "3", "7", "7.1", "7.2",
        "7.3", "7.4", "12.1", "12.1.1", "12.2", "20", "128", "128.1", "130", "88.11", "88.22", "88.33", "88.67",
        "104.1", "66", "66.4", "11.1", "481.1", "481.2", "481.3", "481.5", "77.1.4", "77.1.5.1",
    )
)  # fmt: skip

_TS = "1.2.840.10008.1.2."
# What instances are compressed in, most frequent first
COMPRESSED_SYNTAXES = tuple(
    _TS + end
    for end in (
        "4.70", "4.90", "4.80", "4.50", "5", "4.91", "4.51", "4.57", "4.81", "4.201", "4.202", "4.203", "4.92", "4.93",
        "4.100", "4.101", "4.102", "4.103", "4.104", "4.105", "4.106", "4.107", "4.108", "4.110", "4.111", "4.112",
        "1.99", "2",
    )
)  # fmt: skip


def retrieve_proposals(classes: Sequence[str]) -> list[tuple[str, Sequence[str]]]:
    """Storage contexts of a C-GET, beside its own: every class uncompressed, and compressed in all syntaxes that fit.

    Args:
        classes: Of what is to come; those that archives mostly hold if that is not known.
    """
    classes = classes or COMMON_STORAGE_CLASSES
    proposals: list[tuple[str, Sequence[str]]] = [(uid, UNCOMPRESSED) for uid in classes]
    proposals += [(uid, (syntax,)) for syntax in COMPRESSED_SYNTAXES for uid in classes]
    return proposals[: MAXIMUM_CONTEXTS - 1]
