"""Sections of the network: where we listen, who may call and do what, and within which limits and times."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, model_validator

from pacslite.config.values import (
    EVERYTHING,
    MIB,
    AETitle,
    AETitles,
    Folder,
    Host,
    OptionalPath,
    Permissions,
    PortNumber,
    Section,
    split_peer,
)

__all__ = ["Access", "Http", "Limits", "Listener", "Remote", "Server", "Timeouts", "Tls", "User"]


class Server(Section):
    """Who we are and where we listen."""

    ae_title: AETitle = Field(
        "PACSLITE", description="Our AE title: the called title of associations to us, the calling title of ours."
    )
    called_ae_titles: AETitles = Field((), description='Further called AE titles we answer to; "*" is any.')
    host: Host = Field("", description="Address to listen on; empty is all addresses, IPv4 and IPv6.")
    port: PortNumber = Field(11112, description="DICOM port. 0 takes a free one and prints it; 104 needs a privilege.")
    tls: bool = Field(False, description="Speak TLS on that port, with the certificate of [tls].")
    attention_microseconds: int = Field(
        100,
        ge=0,
        le=10_000,
        description="After an answer, look so long for what comes next before going to sleep, if that has paid lately: "
        "twice the echoes of one peer, for a tenth more processor time an association. Never with 0, or fewer than two "
        "processors.",
    )
    data_dir: Folder = Field(
        Path("./data"),
        description="Everything that lasts: instances/, incoming/ and index.sqlite. One server at a time.",
    )


class Limits(Section):
    """What one peer, and all together, may take. Associations above a limit are refused with 2/3/2, for now."""

    maximum_length: int = Field(
        131_072,
        ge=4096,
        le=MIB,
        description="Largest P-DATA-TF PDU we accept, in bytes. Larger costs memory per association, smaller CPU per"
        " megabyte.",
    )
    maximum_associations: int = Field(
        2000, ge=1, le=60_000, description="Associations at once, in all. An idle one costs less than 50 KB."
    )
    maximum_associations_per_host: int = Field(
        1500, ge=0, le=60_000, description="Associations at once from one address; 0 is no limit of its own."
    )
    maximum_associations_per_ae_title: int = Field(
        0, ge=0, le=60_000, description="Associations at once under one calling AE title; 0 is no limit of its own."
    )
    connections_per_second: int = Field(
        2000,
        ge=0,
        le=1_000_000,
        description="New associations in one second from one address, more are answered 2/3/1 (temporary congestion). "
        "As many TLS handshakes, more are closed. 0 is no limit.",
    )
    association_bytes: int = Field(
        4 * MIB,
        ge=MIB // 4,
        le=1024 * MIB,
        description="Bytes received from one association and not yet written, before we stop reading from it.",
    )
    total_bytes: int = Field(
        256 * MIB,
        ge=64 * MIB,
        le=1024 * 1024 * MIB,
        description="Memory that what is received and sent may take. Half of it holds instances that are not yet "
        "written: above that they are written earlier, and in smaller pieces, and we stop reading. An eighth holds "
        "identifiers: above that they are answered A700. An eighth holds unfinished PDUs, a quarter of it those of one "
        "host: above that who began first is dropped. A quarter holds what peers have been sent and do not take: above "
        "that each gets less at once.",
    )
    identifier_bytes: int = Field(
        MIB,
        ge=4096,
        le=64 * MIB,
        description="Largest identifier of a query or retrieve, above it the answer is A700 or C000.",
    )
    operations: int = Field(
        8,
        ge=1,
        le=256,
        description="Asynchronous operations window (PS3.7 D.3.3.3) we offer at most: operations of one association "
        "at once.",
    )


class Timeouts(Section):
    """Seconds; each timer is its own, none supervises another."""

    artim_seconds: float = Field(
        30,
        gt=0,
        le=3600,
        description="ARTIM (PS3.8 §9.1.5): from connection to A-ASSOCIATE-RQ, from rejection, release or abort to "
        "close. As long, by a timer of its own, we wait for the answer to our A-ASSOCIATE-RQ and A-RELEASE-RQ.",
    )
    idle_seconds: float = Field(
        600,
        ge=0,
        le=604_800,
        description="An association without any byte or running operation is aborted after this; 0 is never.",
    )
    keepalive_seconds: float = Field(
        60,
        ge=0,
        le=32_767,
        description="A connection on which nothing has come for this long is asked by TCP keep-alive whether its peer "
        "is still there, four times; 0 is never.",
    )
    write_seconds: float = Field(
        60, gt=0, le=86_400, description="A peer that takes none of what we send is aborted after this."
    )
    dimse_seconds: float = Field(
        60,
        gt=0,
        le=86_400,
        description="How long we wait for the rest of a message that has begun, or for the response to a request of "
        "ours, while nothing comes.",
    )
    connect_seconds: float = Field(
        10, gt=0, le=600, description="How long a connection of ours may take to be established."
    )
    tls_handshake_seconds: float = Field(
        10, gt=0, le=600, description="How long a TLS handshake may take, either side."
    )
    stall_seconds: float = Field(
        60,
        gt=0,
        le=86_400,
        description="A C-STORE whose peer we do not read from, because its bytes cannot be written, is answered A700 "
        "when the disk has taken nothing for this long.",
    )
    drain_seconds: float = Field(
        30,
        ge=0,
        le=86_400,
        description="After SIGTERM, how long running operations may take to end before they are aborted.",
    )


class Http(Section):
    """HTTP: to come, and refused until then."""

    port: PortNumber = Field(0, description="Port of the HTTP side; 0 is off.")
    host: Host = Field("127.0.0.1", description="Address it listens on.")


class Tls(Section):
    """TLS 1.2 and 1.3 by PS3.15 B.12, for listeners and for remotes with tls = true."""

    certificate: OptionalPath = Field(
        None,
        description="PEM file with our certificate and what leads to its root. Read again on SIGHUP, and within ten "
        "seconds when it, the key or ca changes.",
    )
    key: OptionalPath = Field(None, description="PEM file with its private key; empty if it is in the same file.")
    key_password: SecretStr = Field(SecretStr(""), description="Password of the private key.")
    ca: OptionalPath = Field(
        None,
        description="PEM file with the authorities that peers' certificates must come from; empty is the system's.",
    )
    client_certificate: Literal["none", "optional", "required"] = Field(
        "required", description="Whether those who connect to us must show a certificate (mutual authentication)."
    )
    minimum_version: Literal["1.2", "1.3"] = Field("1.2", description="Oldest version of TLS.")
    check_names: bool = Field(True, description="A remote's certificate must be made out to its host.")


class Access(Section):
    """Who may do what, beyond the [[remote]] entries."""

    unknown_peers: Literal["loopback", "nobody", "anybody"] = Field(
        "loopback",
        description='Peers without a [[remote]] entry. "loopback": accepted from this machine only; "nobody": not '
        'from there either; "anybody": from anywhere.',
    )
    unknown_allow: Permissions = Field(
        EVERYTHING, description="What those may do that are not on this machine: it may do everything."
    )
    check_called_ae_title: bool = Field(True, description="Refuse (1/1/7) associations that call another AE title.")
    user_identity: Literal["optional", "required"] = Field(
        "optional",
        description='User identity (PS3.7 D.3.3.7). "required" refuses who brings none that [[user]] or jwt_key '
        "proves. One that is brought is checked if there are users or a jwt_key; Kerberos, SAML, and tokens without a "
        "jwt_key, are ignored.",
    )
    jwt_key: SecretStr = Field(
        SecretStr(""), description="Secret (HS256) or PEM public key (RS256, ES256) that proves JSON web tokens."
    )
    jwt_audience: str = Field("", description='The "aud" that tokens must carry; empty is not checked.')


class Listener(Section):
    """A further address to listen on."""

    host: Host = Field("", description="Address; empty is all.")
    port: PortNumber = Field(description="Port, such as 2762, which is registered for DICOM over TLS.")
    tls: bool = Field(False, description="Speak TLS.")


class Remote(Section):
    """A peer: what it may do, and where C-MOVE sends to. Of entries with one AE title the first that fits counts."""

    ae_title: AETitle = Field(description="Its AE title; as a destination of C-MOVE too.")
    host: Host = Field(
        description='Its address, name, or network ("10.1.0.0/16", then it is no destination).', min_length=1
    )
    port: PortNumber = Field(0, description="Port it listens on; 0 is none: then it is no destination.")
    allow: Permissions = Field(EVERYTHING, description="What it may ask of us.")
    tls: bool = Field(False, description="Speak TLS with it.")
    certificate_name: str = Field(
        "", description="Name its certificate must carry when it connects, from this machine too; empty is not checked."
    )

    @property
    def is_destination(self) -> bool:
        """Somebody listens there: at a port, and at one address."""
        return bool(self.port) and "/" not in self.host

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return split_peer(value) if isinstance(value, str) else value


class User(Section):
    """A user of PS3.7 D.3.3.7: user name, or user name and password."""

    username: str = Field(description="As it comes in the User Identity.", min_length=1)
    password: SecretStr = Field(SecretStr(""), description="Empty: the name alone is enough.")
