"""Sections of the services: how instances are stored, found, sent and vouched for."""

from typing import Literal

from pydantic import Field

from pacslite.config.values import MIB, AETitle, ExtraKeys, Section, UtcOffset

__all__ = ["Commitment", "Forward", "Index", "Outbox", "Query", "Retrieve", "Storage"]


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
        "one, atomically, while its patient, study and series stay as they are known, until a reindexing; "
        '"reject": answer 0111.',
    )
    uid_conflict: Literal["keep", "reject"] = Field(
        "reject",
        description='A known SOP Instance UID in another series or study. "reject": answer 0111; "keep": the first '
        "stays, answer 0000. Always logged.",
    )
    patient_conflict: Literal["keep", "reject"] = Field(
        "keep",
        description='A known Study Instance UID under another Patient ID. "keep": the instance joins the study as it'
        ' is known; "reject": answer C001. Always logged.',
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
        "file is made and synced by itself. Not made on a disk with room for fewer than eight of it.",
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


class Forward(Section):
    """A rule that sends what is stored on to a [[remote]]; all conditions must hold."""

    to: AETitle = Field(description="AE title of the [[remote]], which needs a port.")
    when: dict[str, str | tuple[str, ...]] = Field(
        {},
        description="Keys of the index, or calling_ae_title, with what to match as in a query: wildcards, ranges of "
        "dates; several values are alternatives.",
    )
