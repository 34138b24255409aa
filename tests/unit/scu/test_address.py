"""Application entities as they are written: AET@HOST:PORT, and no other way in than out."""

import pytest

from pacslite.scu.requestor import Address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("A@host:104", Address("A", "host", 104)),
        ("WITH SPACE@10.0.0.1:1", Address("WITH SPACE", "10.0.0.1", 1)),
        ("A@B@host:65535", Address("A@B", "host", 65_535)),
        ("A@[::1]:104", Address("A", "::1", 104)),
    ],
)
def test_an_address_is_written_as_it_is_read(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    ["", "A", "A@h", "A@h:", "A@:1", "@h:1", "A@h:0", "A@h:65536", "A@h:-1", "A@h:\u0663", "A@h: 1",
     "A\\B@h:1", "A\tB@h:1", " @h:1", "SEVENTEEN-LETTERS@h:1", "\u00c4@h:1"],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no port|is no AE title|is not AET@HOST:PORT"):
        Address.parse(text)
