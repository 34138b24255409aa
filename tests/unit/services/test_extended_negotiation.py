"""What services answer to SOP Class Extended Negotiation: no more than was proposed, and no more than is true."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from pacslite.archive.archive import Archive
from pacslite.archive.index.reader import IndexReader
from pacslite.archive.options import StorageOptions
from pacslite.archive.query import QueryOptions
from pacslite.services.query import FindService
from pacslite.services.storage import StorageService
from tests.support.wire import CT_IMAGE, STUDY_ROOT_FIND

Answer = Callable[[bytes], bytes | None]


def of_find(*, relational: bool = True, fuzzy: bool = True) -> Answer:
    options = QueryOptions(retrieve_ae_title="PACSLITE", relational=relational, fuzzy=fuzzy)
    offer = FindService(cast("IndexReader", None), options, 65_536).offer(STUDY_ROOT_FIND, None)
    assert offer is not None
    assert offer.extended is not None
    return offer.extended


@pytest.mark.parametrize(
    ("configured", "proposed", "answered"),
    [
        # PS3.4 Table C.5-1: relational, date-time, fuzzy, timezone, enhanced multi-frame conversion
        ({}, b"\1\1\1\1\1", b"\1\1\1\1\0"),
        ({"fuzzy": False}, b"\1\1\1\1\1", b"\1\1\0\1\0"),
        ({"relational": False}, b"\1\1\1\1\1", b"\0\1\1\1\0"),
        ({}, b"\1", b"\1"),  # of the 1990s: one byte
        ({"relational": False}, b"\1", b"\0"),
        ({}, b"\0\1\0", b"\0\1\0"),  # nothing that was not proposed
        ({}, b"\2\xff", b"\0\0"),  # values that the table does not have
        ({}, b"\1\1\1\1\1\1\1", b"\1\1\1\1\0\0\0"),  # of a later edition
        ({}, b"", b""),
    ],
)
def test_queries(configured: dict[str, bool], proposed: bytes, answered: bytes) -> None:
    assert of_find(**configured)(proposed) == answered


@pytest.mark.parametrize(
    ("proposed", "answered"),
    [
        # PS3.4 §B.3.1: level of support, reserved, level of digital signatures, reserved, coercion, reserved
        (b"\3\0\0\0\2\0", b"\2\0\3\0\0\0"),  # as a requestor that is SCU only writes it
        (b"\2", b"\2"),
        (b"\0\0\1", b"\2\0\3"),
        (b"\3\0\0\0\2\0\7\7", b"\2\0\3\0\0\0"),
        (b"", None),
    ],
)
def test_storage_is_full_and_keeps_every_bit(proposed: bytes, answered: bytes | None, tmp_path: Path) -> None:
    offer = StorageService(Archive(StorageOptions(data_dir=tmp_path))).offer(CT_IMAGE, None)
    assert offer is not None
    assert offer.extended is not None
    assert offer.extended(proposed) == answered
