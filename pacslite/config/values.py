"""What sections consist of: AE titles, permissions, paths that may be empty, lists that may be one string."""

import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

__all__ = [
    "EVERYTHING",
    "MIB",
    "AETitle",
    "AETitles",
    "ExtraKeys",
    "Folder",
    "Host",
    "OptionalPath",
    "Permission",
    "Permissions",
    "PortNumber",
    "Section",
    "UtcOffset",
    "split_peer",
]

MIB = 1 << 20
Permission = Literal["echo", "store", "find", "move", "get"]
EVERYTHING: tuple[Permission, ...] = ("echo", "store", "find", "move", "get")
_OFFSET = re.compile(r"(?:\+(?:0\d|1[0-3])[0-5]\d|\+1400|-(?:0\d|1[01])[0-5]\d|-1200)?")


class Section(BaseModel):
    """A table of the file: what it does not know is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)


def _ae_title(text: str) -> str:
    """PS3.5 §6.2, VR AE: 16 characters of the default repertoire without backslash; outer spaces do not count."""
    title = text.strip(" ")
    if not title:
        raise ValueError("an AE title is not empty and not only spaces")
    if len(title) > 16:
        raise ValueError(f"an AE title has at most 16 characters, this one has {len(title)}")
    if not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError("an AE title consists of printable ASCII characters without the backslash")
    return title


def _host(text: str) -> str:
    """An address, a network or a name. What no look-up could encode is none."""
    try:
        text.encode("idna")
    except UnicodeError:
        raise ValueError("a host name consists of labels of 1 to 63 characters") from None
    if any(character in text for character in "/:[]* ") and not _is_address(text):
        raise ValueError("neither an IP address, nor a network, nor a name; a port has a key of its own")
    return text


def _is_address(text: str) -> bool:
    """An IPv6 address may name its interface, as fe80::1%eth0."""
    address, _, interface = text.partition("%")
    try:
        return bool(ip_network(address, strict=False)) and not ("/" in address and interface)
    except ValueError:
        return False


def _utc_offset(text: str) -> str:
    """PS3.3 §C.12.1.1.8: &ZZXX, from -1200 to +1400; -0000 is no offset."""
    if not _OFFSET.fullmatch(text) or text == "-0000":
        raise ValueError('an offset from UTC is hours and minutes as "+0100", from -1200 to +1400')
    return text


def _empty_path(value: Any) -> Any:
    return None if value in ("", None) else value


def _folder(value: Any) -> Any:
    """Path("") is the current folder, which nobody asks for with a variable that is empty."""
    if value == "":
        raise ValueError('an empty path names no folder; the current one is "."')
    return value


def _split_words(value: Any) -> Any:
    """A list may come as one string from the environment: JSON, or words between commas and spaces."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return value.replace(",", " ").split()


def _split_attributes(value: Any) -> Any:
    """The same of attributes: a tag has a comma, so only spaces are between them."""
    if not isinstance(value, str) or value.lstrip().startswith("["):
        return _split_words(value)
    return value.split()


def _extra_keys(entries: tuple[str, ...]) -> tuple[str, ...]:
    if entries:
        from pacslite.archive.extra import ExtraKeyError, parse_extra_keys  # the dictionary: not for who has none

        try:
            parse_extra_keys(entries)
        except ExtraKeyError as error:
            raise ValueError(str(error)) from None
    return entries


def split_peer(text: str) -> dict[str, Any]:
    """``AET@HOST:PORT``, ``AET@HOST`` or ``AET@[IPV6]:PORT`` as the keys of a ``[[remote]]``.

    The title may hold spaces and "@": the last "@" separates.
    """
    title, at, address = text.rpartition("@")
    host, port = address, ""
    if address.startswith("["):
        host, _, port = address[1:].partition("]")
        port = port.removeprefix(":")
    elif address.count(":") == 1:
        host, _, port = address.partition(":")
    if not at or not title.strip() or not host:
        raise ValueError(f"AET@HOST:PORT expected, not {text!r}")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"the port of {text!r} is not a number from 1 to 65535")
    return {"ae_title": title, "host": host, **({"port": int(port)} if port else {})}


AETitle = Annotated[str, AfterValidator(_ae_title)]
Host = Annotated[str, AfterValidator(_host)]
Folder = Annotated[Path, BeforeValidator(_folder)]
OptionalPath = Annotated[Path | None, BeforeValidator(_empty_path)]
UtcOffset = Annotated[str, AfterValidator(_utc_offset)]
AETitles = Annotated[tuple[AETitle, ...], BeforeValidator(_split_words)]
ExtraKeys = Annotated[tuple[str, ...], BeforeValidator(_split_attributes), AfterValidator(_extra_keys)]
PortNumber = Annotated[int, Field(ge=0, le=65535)]
Permissions = Annotated[
    tuple[Permission, ...],
    BeforeValidator(lambda value: value.replace(",", " ").split() if isinstance(value, str) else value),
]
