"""Arguments of the commands that talk to a peer: AET@HOST:PORT, keys of an identifier, levels and models."""

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pacslite.dataset.dictionary import keyword_of, tag_of, vr_of
from pacslite.dimse.uids import EXPLICIT_VR_LITTLE_ENDIAN
from pacslite.log import configure
from pacslite.scu.client import Client, Level, Model
from pacslite.scu.identifier import UnknownKey, encode_keys
from pacslite.scu.requestor import Address, RequestorOptions

__all__ = [
    "Calling",
    "KeyArguments",
    "LevelOption",
    "ModelOption",
    "OptionalPeer",
    "PeerArgument",
    "Tls",
    "client_of",
    "keys_of",
    "level_of",
]

# Unique keys, deepest first: the level that is meant when none is named (PS3.4 §C.6)
_UNIQUE: tuple[tuple[str, Level], ...] = (
    ("SOPInstanceUID", "image"),
    ("SeriesInstanceUID", "series"),
    ("StudyInstanceUID", "study"),
    ("PatientID", "patient"),
)


def _peer(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"AET@HOST:PORT expected, such as PACSLITE@127.0.0.1:11112: {error}") from None


def _ae_title(text: str) -> str:
    title = text.strip(" ")
    if not 0 < len(title) <= 16 or not (title.isascii() and title.isprintable()) or "\\" in title:
        raise typer.BadParameter(f"{text!r} is no AE title: 1 to 16 printable ASCII characters without the backslash")
    return title


_PEER = typer.Argument(metavar="AET@HOST:PORT", help="The peer.", parser=_peer)
PeerArgument = Annotated[Address, _PEER]
OptionalPeer = Annotated[Address | None, _PEER]
Calling = Annotated[str, typer.Option("--calling", metavar="AET", help="Our AE title.", parser=_ae_title)]
AETitleOption = Annotated[
    str, typer.Option("--to", metavar="AET", help="Destination, as the peer knows it.", parser=_ae_title)
]
Tls = Annotated[bool, typer.Option("--tls", help="Speak TLS, by the section [tls] of the configuration.")]
LevelOption = Annotated[
    Level | None,
    typer.Option("--level", help="Query/Retrieve Level; default: that of the deepest unique key, or study."),
]
ModelOption = Annotated[
    Model | None, typer.Option("--model", help="Information model; default: study, patient at that level.")
]
KeyArguments = Annotated[
    list[str],
    typer.Argument(metavar="KEY[=VALUE]...", help="Keyword (PatientName) or tag (0010,0010), and the value to match."),
]


def client_of(
    peer: Address, calling: str, *, tls: bool = False, config: Path | None = None, check_names: bool = True
) -> Client:
    """A client of ``peer``, over TLS where that is asked for. What is refused to the peer is logged, and why."""
    configure("warning")
    if not (tls or peer.tls):
        return Client(peer, calling_ae_title=calling)
    from pacslite.config import load
    from pacslite.net.tls import Certificates, TlsOptions

    section = load(config).settings.tls
    certificates = Certificates(
        TlsOptions(
            certificate=section.certificate,
            key=section.key,
            key_password=section.key_password.get_secret_value(),
            ca=section.ca,
            minimum_version=section.minimum_version,
            check_names=section.check_names and check_names,
        )
    )
    options = RequestorOptions(tls=lambda: certificates.client)
    return Client(replace(peer, tls=True), calling_ae_title=calling, options=options)


def keys_of(arguments: list[str]) -> dict[str, str]:
    """Take ``KEY=VALUE`` apart; a key that the dictionary does not know is answered with the nearest that it does."""
    keys: dict[str, str] = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        tag = tag_of(name)
        if tag is None or vr_of(tag) is None:
            near = difflib.get_close_matches(name, _common_keywords(), n=1)
            raise typer.BadParameter(
                f"{name!r} is neither a keyword nor a tag of the dictionary"
                + (f"; nearest is {near[0]}" if near else "")
            )
        keyword = keyword_of(tag) or name
        if keyword == "QueryRetrieveLevel":
            raise typer.BadParameter("QueryRetrieveLevel is what --level says")
        if keys.setdefault(keyword, value) != value:
            raise typer.BadParameter(f"{keyword} is given twice; values are joined by a backslash")
    _check_values(keys)
    return keys


def _check_values(keys: dict[str, str]) -> None:
    """What cannot be sent is said before anybody is called."""
    try:
        encode_keys(keys, "study", EXPLICIT_VR_LITTLE_ENDIAN)
    except UnknownKey as error:
        raise typer.BadParameter(str(error)) from None


def level_of(keys: dict[str, str], level: Level | None) -> Level:
    """The level asked for, else that of the deepest unique key that has a value."""
    if level is not None:
        return level
    return next((unique for keyword, unique in _UNIQUE if keys.get(keyword)), "study")


def model_of(level: Level, model: Model | None) -> Model:
    """The model asked for; the Study Root has no patient level."""
    return model or ("patient" if level == "patient" else "study")


def _common_keywords() -> list[str]:
    from pacslite.dataset.dictionary_table import TABLE

    return [line.rpartition(" ")[2] for line in TABLE.splitlines()]
