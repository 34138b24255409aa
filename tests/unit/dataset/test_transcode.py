"""What can be decoded, as pydicom has it."""

import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from pacslite.dataset.transcode import SOURCES
from pacslite.dimse.uids import EXPLICIT_VR_LITTLE_ENDIAN

SYNTAXES = [uid for uid, (_, kind, *_) in UID_dictionary.items() if kind == "Transfer Syntax"]


@pytest.mark.parametrize("uid", [uid for uid in SYNTAXES if UID(uid).is_encapsulated])
def test_sources_are_what_there_are_decoders_for(uid: str) -> None:
    assert EXPLICIT_VR_LITTLE_ENDIAN not in SOURCES
    if uid in SOURCES:
        assert get_decoder(UID(uid)).available_plugins
    else:
        with pytest.raises(NotImplementedError):
            get_decoder(UID(uid))
