"""The archive and the services that stand on it, put together from the settings.

Apart from ``app``, because its libraries (SQLAlchemy above all) take longer to import than all the rest of the start:
the server listens, and answers C-ECHO, before this module is there.
"""

from collections.abc import Callable
from dataclasses import replace

from pacslite.access import Access
from pacslite.archive.archive import Archive
from pacslite.archive.extra import ExtraKeys, parse_extra_keys
from pacslite.archive.index.reader import IndexReader
from pacslite.archive.query import QueryOptions
from pacslite.budget import Budget
from pacslite.config import Settings
from pacslite.dataset.transcode import SOURCES
from pacslite.dimse.messages import Priority
from pacslite.dimse.service import Service
from pacslite.options import storage_options
from pacslite.outbox.commitments import CommitmentOptions
from pacslite.outbox.forwarding import ForwardOptions
from pacslite.outbox.outbox import Outbox, OutboxOptions
from pacslite.outbox.retry import Retry
from pacslite.outbox.rules import RuleSet, make_rule
from pacslite.scu.pool import Pool
from pacslite.scu.requestor import Address
from pacslite.services.commitment import CommitmentService
from pacslite.services.query import FindService
from pacslite.services.retrieve import GetService, MoveService, RetrieveOptions
from pacslite.services.sending import InstanceSender
from pacslite.services.storage import StorageService
from pacslite.services.sub_operations import PendingPolicy
from pacslite.services.transcoding import Transcoder, TranscoderOptions

__all__ = ["Backend"]


class Backend:
    """``start`` before ``stop``; both once.

    Args:
        access: Who may do what, asked anew at every use.
        pool: Associations with destinations.
    """

    def __init__(self, settings: Settings, *, access: Callable[[], Access], pool: Pool) -> None:
        self._settings = settings
        self._access = access
        self._pool = pool
        self._outbox: Outbox | None = None
        self._archive = Archive(
            replace(storage_options(settings), journal_bytes=settings.storage.journal_bytes),
            budget=Budget(settings.limits.total_bytes // 2),
            extra_keys=parse_extra_keys(settings.query.extra_keys),
        )
        self._reader = IndexReader(
            self._archive.index,
            connections=settings.index.read_connections,
            read_values=self._archive.read_values,
        )
        query_options = _query_options(settings, self._archive.extra_keys)
        retrieve_options = _retrieve_options(settings)
        self._transcoder = (
            Transcoder(TranscoderOptions(folder=settings.server.data_dir)) if settings.retrieve.transcode else None
        )
        # Negotiation is computed from this tuple: to add a service, name it here
        self.services: tuple[Service, ...] = (
            FindService(self._reader, query_options, settings.limits.identifier_bytes),
            MoveService(
                self._archive, self._reader, query_options, retrieve_options, self._transcoder, access=access, pool=pool
            ),
            GetService(self._archive, self._reader, query_options, retrieve_options, self._transcoder),
            StorageService(
                self._archive,
                unknown_sop_classes=settings.storage.unknown_sop_classes,
                decoded=SOURCES if settings.retrieve.transcode else frozenset(),
            ),
        )

    async def start(self) -> None:
        """Open the archive, and go on with what waits to be sent.

        Raises:
            PacsliteError: The data directory is in use, a file in it cannot be used, a rule is none.
        """
        rules = self.rules(self._settings)
        await self._archive.start()
        try:
            await self._reader.start()
            self._outbox = Outbox(
                self._archive,
                sender=InstanceSender(self._archive, Priority.MEDIUM, None, {}, self._transcoder),
                pool=self._pool,
                requestor=self._pool.requestor,
                address_of=self._address_of,
                options=_outbox_options(self._settings),
            )
            await self._outbox.start(rules)
        except BaseException:
            await self.stop()
            raise
        most = self._settings.commitment.maximum_instances
        self.services += (CommitmentService(self._outbox.commitments, maximum_references=most),)

    def rules(self, settings: Settings) -> RuleSet:
        """What ``settings`` say of forwarding.

        Raises:
            RuleError: One of them is none.
        """
        return RuleSet([make_rule(rule.to, rule.when) for rule in settings.forward])

    async def follow(self, rules: RuleSet) -> None:
        """Take over other rules; the remotes are asked for at every use.

        Raises:
            OutboxUnwritable: The rules stay as they were.
        """
        if self._outbox is not None:
            await self._outbox.follow(rules)

    async def undefer(self) -> None:
        """Remotes may have moved: try those that could not be reached.

        Raises:
            OutboxUnwritable: They are left alone until their time comes.
        """
        if self._outbox is not None:
            await self._outbox.undefer()

    async def stop(self) -> None:
        if self._outbox is not None:
            await self._outbox.stop()
            await self._pool.close()  # what it has given back
        if self._transcoder is not None:
            await self._transcoder.stop()
        await self._reader.stop()
        await self._archive.stop()

    # private

    def _address_of(self, ae_title: str) -> Address | None:
        remote = self._access().destination(ae_title)
        return None if remote is None else Address(remote.ae_title, remote.host, remote.port, remote.tls)


def _outbox_options(settings: Settings) -> OutboxOptions:
    outbox, commitment = settings.outbox, settings.commitment
    return OutboxOptions(
        retry=Retry(outbox.retry_seconds, outbox.maximum_retry_seconds, outbox.expire_seconds),
        forwarding=ForwardOptions(operations=settings.retrieve.operations),
        commitment=CommitmentOptions(settings.server.ae_title, commitment.grace_seconds),
        maximum_transactions=commitment.maximum_transactions,
    )


def _query_options(settings: Settings, extra_keys: ExtraKeys) -> QueryOptions:
    query = settings.query
    return QueryOptions(
        retrieve_ae_title=settings.server.ae_title,
        relational=query.relational,
        fuzzy=query.fuzzy,
        require_upper_keys=query.require_upper_keys,
        strict=query.strict,
        match_unknown=query.match_unknown,
        maximum_results=query.max_results,
        timezone_offset=query.timezone_offset,
        extra_keys=extra_keys,
    )


def _retrieve_options(settings: Settings) -> RetrieveOptions:
    retrieve = settings.retrieve
    return RetrieveOptions(
        pending=PendingPolicy(
            seconds=retrieve.pending_seconds,
            without_requestor=retrieve.continue_without_requestor,
        ),
        parallel_associations=retrieve.parallel_associations,
        operations=retrieve.operations,
        identifier_bytes=settings.limits.identifier_bytes,
    )
