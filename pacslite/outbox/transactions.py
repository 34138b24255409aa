"""Storage commitment requests in the outbox: kept before they are answered, with what their verification found.

Synchronous; for the thread of the queue.
"""

import json
import sqlite3
from typing import NamedTuple

from pacslite.errors import DimseError
from pacslite.outbox.database import OutboxUnwritable
from pacslite.outbox.queue import Queue
from pacslite.scu.commitment import CommitmentReport, CommitmentRequest, FailedReference, Reference

__all__ = ["Transaction", "TransactionInUse", "Transactions", "report_of"]


class TransactionInUse(DimseError):
    """The Transaction UID stands for other instances that are not reported yet: invalid argument value."""

    status = 0x0115


class TooManyTransactions(DimseError):
    """The peer has too many requests that are not reported yet: resource limitation."""

    status = 0x0213


class Transaction(NamedTuple):
    """A request that is being seen through."""

    number: int
    ae_title: str
    created: float
    request: CommitmentRequest


class Transactions:
    """The requests in ``queue``; ``maximum`` that are not reported yet are taken of one AE title."""

    def __init__(self, queue: Queue, maximum: int = 10_000) -> None:
        self._queue = queue
        self._maximum = maximum

    def accept(self, request: CommitmentRequest, ae_title: str, called_ae_title: str | None = None) -> int:
        """Keep a request so that it survives a power cut; gives its number.

        The same request once more, which a peer sends that has not heard our answer, is one request.

        Raises:
            TransactionInUse, TooManyTransactions, OutboxUnwritable: It is not kept.
        """
        queue = self._queue
        now = queue.clock()
        body = json.dumps(request.references, separators=(",", ":")).encode("ascii")
        try:
            with queue.database.transaction(durable=True) as connection:
                found = connection.execute(
                    "SELECT id, body FROM entry WHERE subject = ? AND destination = ? AND kind = 'commitment' "
                    "AND finished IS NULL",
                    (request.transaction_uid, ae_title),
                ).fetchone()
                if found is not None:
                    if found[1] != body:
                        raise TransactionInUse("Transaction UID is in use", offending=(0x00081195,))
                    return int(found[0])
                (count,) = connection.execute(
                    "SELECT count(*) FROM entry WHERE kind = 'commitment' AND destination = ? AND finished IS NULL",
                    (ae_title,),
                ).fetchone()
                if count >= self._maximum:
                    raise TooManyTransactions(f"{count} storage commitment requests are not reported yet")
                number = connection.execute(
                    "INSERT INTO entry (kind, destination, subject, state, created, due, expires, body, "
                    "called_ae_title) VALUES ('commitment', ?, ?, 'verifying', ?, ?, ?, ?, ?)",
                    (
                        ae_title,
                        request.transaction_uid,
                        now,
                        now,
                        now + queue.retry.expire_seconds,
                        body,
                        called_ae_title,
                    ),
                ).lastrowid
        except sqlite3.Error as error:
            raise OutboxUnwritable(f"cannot be kept: {error}") from error
        assert number is not None
        return number

    def verifying(self) -> list[int]:
        """Numbers of those whose verification is not finished."""
        rows = self._queue.database.connection.execute(
            "SELECT id FROM entry WHERE kind = 'commitment' AND state = 'verifying' AND finished IS NULL ORDER BY id"
        )
        return [row[0] for row in rows]

    def get(self, number: int) -> tuple[Transaction, CommitmentReport | None] | None:
        """A transaction that is not finished, and its report if it has been verified."""
        row = self._queue.database.connection.execute(
            "SELECT destination, created, subject, body, outcome FROM entry "
            "WHERE id = ? AND kind = 'commitment' AND finished IS NULL",
            (number,),
        ).fetchone()
        if row is None:
            return None
        ae_title, created, uid, body, outcome = row
        request = CommitmentRequest(uid, _references(body))
        report = None if outcome is None else report_of(uid, body, outcome)
        return Transaction(number, ae_title, created, request), report

    def verified(self, transaction: Transaction, failures: dict[Reference, int]) -> bool:
        """Keep what the verification found: every report of it says the same. False if it was dropped meanwhile."""
        reasons = [
            (at, failures[reference])
            for at, reference in enumerate(transaction.request.references)
            if reference in failures
        ]
        with self._queue.database.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO destination (kind, ae_title) VALUES ('commitment', ?)", (transaction.ae_title,)
            )
            return (
                connection.execute(
                    "UPDATE entry SET state = 'waiting', due = ?, outcome = ? WHERE id = ? AND state = 'verifying'",
                    (self._queue.clock(), json.dumps(reasons).encode("ascii"), transaction.number),
                ).rowcount
                > 0
            )


def report_of(transaction_uid: str, body: bytes, outcome: bytes) -> CommitmentReport:
    """The report of a verified request, from its columns."""
    references = _references(body)
    reasons: dict[int, int] = dict(json.loads(outcome))
    return CommitmentReport(
        transaction_uid,
        tuple(reference for at, reference in enumerate(references) if at not in reasons),
        tuple(FailedReference(*references[at], reason) for at, reason in sorted(reasons.items())),
    )


def _references(body: bytes) -> tuple[Reference, ...]:
    return tuple(Reference(*pair) for pair in json.loads(body))
