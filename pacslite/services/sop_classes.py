"""Which SOP classes are storage (PS3.4 §B.5, §GG.3): nearly all under one root, some few elsewhere."""

__all__ = ["STORAGE_ROOT", "is_standard_storage", "is_unknown_to_the_standard"]

STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."

# Under the storage root, and no storage: query and retrieve of protocol approvals and inventories, inventory creation
_NOT_STORAGE = tuple(
    STORAGE_ROOT + end for end in ("200.4", "200.5", "200.6", "201.2", "201.3", "201.4", "201.5", "201.6")
)

_ELSEWHERE = frozenset(
    {
        "1.2.840.10008.5.1.1.27",  # Stored Print, retired
        "1.2.840.10008.5.1.1.29",  # Hardcopy Grayscale Image, retired
        "1.2.840.10008.5.1.1.30",  # Hardcopy Color Image, retired
        "1.2.840.10008.5.1.4.34.1",  # RT Beams Delivery Instruction - Trial, retired
        "1.2.840.10008.5.1.4.34.7",  # RT Beams Delivery Instruction
        "1.2.840.10008.5.1.4.34.10",  # RT Brachy Application Setup Delivery Instruction
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol
        "1.2.840.10008.5.1.4.39.1",  # Color Palette
        "1.2.840.10008.5.1.4.43.1",  # Generic Implant Template
        "1.2.840.10008.5.1.4.44.1",  # Implant Assembly Template
        "1.2.840.10008.5.1.4.45.1",  # Implant Template Group
    }
)


def is_standard_storage(sop_class_uid: str) -> bool:
    """A storage SOP class of the standard, later editions included: their UIDs come under the same root."""
    return (sop_class_uid.startswith(STORAGE_ROOT) and sop_class_uid not in _NOT_STORAGE) or sop_class_uid in _ELSEWHERE


def is_unknown_to_the_standard(sop_class_uid: str) -> bool:
    """A private SOP class: not under the standard's own root, so what it is only its owner knows."""
    return not sop_class_uid.startswith("1.2.840.10008.")
