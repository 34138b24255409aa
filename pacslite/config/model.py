"""The settings, their defaults and limits. ``config/pacslite.toml`` is written from this model (config/sample.py).

Each description says what, in which unit and at which cost; the range is added from the constraints.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pacslite.config.values import AETitle, AETitles, ExtraKeys, OptionalPath, UtcOffset, split_peer

__all__ = [
    "Access",
    "Audit",
    "Commitment",
    "Forward",
    "Http",
    "Index",
    "Limits",
    "Listener",
    "Log",
    "Outbox",
    "Permission",
    "Query",
    "Remote",
    "Retrieve",
    "Server",
    "Settings",
    "Storage",
    "Timeouts",
    "Tls",
    "User",
]

MIB = 1 << 20
Permission = Literal["echo", "store", "find", "move", "get"]
Permissions = Annotated[
    tuple[Permission, ...],
    BeforeValidator(lambda value: value.replace(",", " ").split() if isinstance(value, str) else value),
]
EVERYTHING: tuple[Permission, ...] = ("echo", "store", "find", "move", "get")
PortNumber = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)


class Server(Section):
    """Who we are and where we listen."""

    ae_title: AETitle = Field(
        "PACSLITE", description="Our AE title: the called title of associations to us, the calling title of ours."
    )
    called_ae_titles: AETitles = Field((), description='Further called AE titles we answer to; "*" is any.')
    host: str = Field("", description="Address to listen on; empty is all addresses, IPv4 and IPv6.")
    port: PortNumber = Field(11112, description="DICOM port. 0 takes a free one and prints it; 104 needs a privilege.")
    tls: bool = Field(False, description="Speak TLS on that port, with the certificate of [tls].")
    data_dir: Path = Field(
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
        description="New associations in one second from one address, more are answered 2/3/1 (temporary congestion); "
        "0 is no limit.",
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
        "written: above that they are written earlier, and in smaller pieces, and we stop reading. A quarter holds "
        "identifiers and unfinished PDUs: above that identifiers are answered A700. A quarter holds what peers have "
        "been sent and do not take: above that each gets less at once.",
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
        description="ARTIM (PS3.8 §9.1.5): from connection to A-ASSOCIATE-RQ, from release or abort to close.",
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


class Storage(Section):
    """How instances are kept."""

    durability: Literal["full", "commit", "none"] = Field(
        "full",
        description='What a C-STORE answered 0000 survives. "full": a power cut; "commit": a crash of pacslite, and '
        'a power cut once the system has written back (seconds); "none": an orderly stop.',
    )
    duplicates: Literal["keep", "replace", "reject"] = Field(
        "keep",
        description='An instance that is there already. "keep": answer 0000, write nothing; "replace": the newer '
        'one, atomically; "reject": answer 0111.',
    )
    uid_conflict: Literal["keep", "reject"] = Field(
        "reject",
        description='A known SOP Instance UID in another series or study. "reject": answer 0111; "keep": the first '
        "stays, answer 0000. Always logged.",
    )
    patient_conflict: Literal["keep", "reject"] = Field(
        "keep",
        description='A known Study Instance UID under another Patient ID. "keep": the instance joins the study as it'
        ' is known; "reject": answer C000. Always logged.',
    )
    unknown_sop_classes: bool = Field(True, description="Accept storage classes we do not know, private ones included.")
    min_free_bytes: int = Field(
        512 * MIB,
        ge=0,
        description="Free space to leave on the disk: below it C-STORE is answered A700, all else goes on.",
    )
    max_bytes: int = Field(0, ge=0, description="Quota of all instances; above it C-STORE is answered A700. 0 is none.")
    journal_bytes: int = Field(
        256 * MIB,
        ge=0,
        le=1024 * MIB,
        description="Size of the journal, a file in which instances up to 256 KiB are made durable, several by one "
        "write, before their own files are made and synced together: bursts of this size are taken quickest. 0: each "
        "file is synced by itself. Not made on a disk with room for fewer than eight of it, and not needed unless "
        'durability is "full".',
    )
    disk_threads: int = Field(
        2,
        ge=1,
        le=64,
        description="Threads that write and sync what does not go into the journal, each up to eight objects together. "
        "More help where a sync takes long and the processor has nothing else to do.",
    )
    piece_bytes: int = Field(
        MIB, ge=65_536, le=16 * MIB, description="Size of one write. Larger costs memory per association that stores."
    )


class Index(Section):
    """The SQLite index."""

    cache_bytes: int = Field(16 * MIB, ge=MIB, le=65_536 * MIB, description="Page cache of the writer.")
    checkpoint_bytes: int = Field(
        16 * MIB,
        ge=MIB,
        le=1024 * MIB,
        description="Write-ahead log after which the database is brought up to date, off the way of the instances.",
    )
    read_connections: int = Field(4, ge=1, le=64, description="Queries at once; each costs a thread and a page cache.")


class Query(Section):
    """C-FIND and the identifiers of C-MOVE and C-GET."""

    match_unknown: bool = Field(
        False,
        description="An empty value in the archive matches every key (PS3.4 C.2.2.1.2). False as in other archives: "
        "a search for a name would list everyone without one.",
    )
    strict: bool = Field(
        False,
        description="Refuse (A900) what PS3.4 does not allow in an identifier; false ignores what can be ignored, "
        "for old devices.",
    )
    max_results: int = Field(
        0, ge=0, description="Answers to one query at most; when there are more the last status is A700. 0 is no limit."
    )
    require_upper_keys: bool = Field(
        True,
        description="Refuse (A900) what leaves out the unique key of a level above, as PS3.4 C.4.1.3.1 says for all "
        "who did not negotiate relational queries. False answers them nevertheless, for old devices.",
    )
    relational: bool = Field(True, description="Offer relational queries (PS3.4 C.5.1.1) to those who negotiate them.")
    fuzzy: bool = Field(True, description="Offer fuzzy matching of person names to those who negotiate it.")
    timezone_offset: UtcOffset = Field(
        "",
        description='Offset from UTC, such as "+0100", of received dates and times that name none: counts where '
        "timezone query adjustment is negotiated. Empty takes them to be in the timezone of who asks.",
    )
    extra_keys: ExtraKeys = Field(
        (),
        description="Attributes that queries match by an index, beyond those that are keys already: keywords or tags "
        'as "Manufacturer", "(0018,0060)"; with a level that is not the attribute\'s own "KVP@SERIES" (then the first '
        'instance of a series counts for it); private ones with VR and creator "(0019,xx0C,SIEMENS MR HEADER):IS". '
        "Taken over at the start: what is stored by then is read in the background. At level IMAGE each costs time in "
        "every C-STORE.",
    )


class Retrieve(Section):
    """C-MOVE and C-GET."""

    parallel_associations: int = Field(
        1, ge=1, le=16, description="Associations with one destination that share a C-MOVE."
    )
    operations: int = Field(
        8,
        ge=1,
        le=256,
        description="C-STORE requests outstanding on one association, where the destination negotiates it.",
    )
    pending_seconds: float = Field(1, gt=0, le=60, description="A pending response is sent at least this often.")
    continue_without_requestor: bool = Field(False, description="Go on with a C-MOVE whose requestor has vanished.")
    reuse_seconds: float = Field(
        2, ge=0, le=600, description="An idle association with a destination is kept this long for the next C-MOVE."
    )
    transcode: bool = Field(
        True,
        description="Decompress what the receiver does not take as it is stored (needs the extra pacslite[codecs] "
        "for most).",
    )


class Outbox(Section):
    """What is sent later and survives a restart: forwarded instances and storage commitment reports."""

    retry_seconds: float = Field(
        10, gt=0, le=86_400, description="Time to the second try; each further one takes twice as long."
    )
    maximum_retry_seconds: float = Field(900, gt=0, le=604_800, description="Longest time between two tries.")
    expire_seconds: float = Field(
        259_200,
        gt=0,
        le=31_536_000,
        description='Given up after this, and listed as failed by "pacslite queue list". The default is three days.',
    )


class Commitment(Section):
    """Storage commitment (PS3.4 Annex J)."""

    grace_seconds: float = Field(
        10,
        ge=0,
        le=86_400,
        description="An instance may arrive so long after the request before it is reported as not stored.",
    )
    maximum_instances: int = Field(
        20_000, ge=1, le=100_000, description="Instances in one request; one with more is answered 0213."
    )
    maximum_transactions: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Requests of one AE title that are not reported yet; further ones are answered 0213.",
    )


class Http(Section):
    """HTTP: to come, and refused until then."""

    port: PortNumber = Field(0, description="Port of the HTTP side; 0 is off.")
    host: str = Field("127.0.0.1", description="Address it listens on.")


class Tls(Section):
    """TLS 1.2 and 1.3 by PS3.15 B.12, for listeners and for remotes with tls = true."""

    certificate: OptionalPath = Field(
        None,
        description="PEM file with our certificate and what leads to its root. Read again on SIGHUP and when it "
        "changes.",
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
        description='Peers without a [[remote]] entry. "loopback": accepted from this machine only; "anybody": from '
        "anywhere.",
    )
    unknown_allow: Permissions = Field(
        EVERYTHING, description="What those may do that are not on this machine: it may do everything."
    )
    check_called_ae_title: bool = Field(True, description="Refuse (1/1/7) associations that call another AE title.")
    user_identity: Literal["optional", "required"] = Field(
        "optional",
        description='User identity (PS3.7 D.3.3.7). "required" refuses who brings none that [[user]] or jwt_key '
        "proves. One that is brought is always checked, if there are users.",
    )
    jwt_key: SecretStr = Field(
        SecretStr(""), description="Secret (HS256) or PEM public key (RS256, ES256) that proves JSON web tokens."
    )
    jwt_audience: str = Field("", description='The "aud" that tokens must carry; empty is not checked.')


class Log(Section):
    """One event, one line, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description='Least level that is written. "debug" may show patient data.'
    )
    format: Literal["text", "json"] = Field("text", description="For people or for machines.")


class Audit(Section):
    """The audit trail (PS3.15 A.5): to come, and refused until then."""

    file: OptionalPath = Field(None, description="File to which messages are appended; empty is none.")
    syslog: str = Field("", description="HOST:PORT of a syslog server; empty is none.")


class Listener(Section):
    """A further address to listen on."""

    host: str = Field("", description="Address; empty is all.")
    port: PortNumber = Field(description="Port, such as 2762, which is registered for DICOM over TLS.")
    tls: bool = Field(False, description="Speak TLS.")


class Remote(Section):
    """A peer: what it may do, and where it is as a destination of C-MOVE."""

    ae_title: AETitle = Field(description="Its AE title; as a destination of C-MOVE too.")
    host: str = Field(
        description='Its address, name, or network ("10.1.0.0/16", then it is no destination).', min_length=1
    )
    port: PortNumber = Field(0, description="Port it listens on; 0 is none: then it is no destination.")
    allow: Permissions = Field(EVERYTHING, description="What it may ask of us.")
    tls: bool = Field(False, description="Speak TLS with it.")
    certificate_name: str = Field(
        "", description="Name its certificate must carry when it connects, from this machine too; empty is not checked."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return split_peer(value) if isinstance(value, str) else value


class Forward(Section):
    """A rule that sends what is stored on to a [[remote]]; all conditions must hold."""

    to: AETitle = Field(description="AE title of the [[remote]], which needs a port.")
    when: dict[str, str | tuple[str, ...]] = Field(
        {},
        description="Keys of the index, or calling_ae_title, with what to match as in a query: wildcards, ranges of "
        "dates; several values are alternatives.",
    )


class User(Section):
    """A user of PS3.7 D.3.3.7: user name, or user name and password."""

    username: str = Field(description="As it comes in the User Identity.", min_length=1)
    password: SecretStr = Field(SecretStr(""), description="Empty: the name alone is enough.")


class Settings(BaseSettings):
    """All settings. ``Settings()`` is the defaults, whatever the environment: ``load`` gathers what is configured."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_prefix="PACSLITE_", env_nested_delimiter="__")

    server: Server = Server()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    storage: Storage = Storage()
    index: Index = Index()
    query: Query = Query()
    retrieve: Retrieve = Retrieve()
    outbox: Outbox = Outbox()
    commitment: Commitment = Commitment()
    http: Http = Http()
    tls: Tls = Tls()
    access: Access = Access()
    log: Log = Log()
    audit: Audit = Audit()
    listener: tuple[Listener, ...] = ()
    remote: tuple[Remote, ...] = ()
    forward: tuple[Forward, ...] = ()
    user: tuple[User, ...] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The layers are read by ``load``, which also remembers where each value came from."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)
