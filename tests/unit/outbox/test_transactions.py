"""Storage commitment requests in the outbox: kept once, reported as verified, bounded."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pacslite.outbox.admin import drop, try_again
from pacslite.outbox.database import Database
from pacslite.outbox.queue import Queue
from pacslite.outbox.retry import Retry
from pacslite.outbox.transactions import TooManyTransactions, TransactionInUse, Transactions, report_of
from pacslite.scu.commitment import CommitmentReport, CommitmentRequest, FailedReference, Reference

ONE, TWO = Reference("1.2.1", "1.2.3"), Reference("1.2.1", "1.2.4")
REQUEST = CommitmentRequest("2.25.7", (ONE, TWO))


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    database = Database(tmp_path / "outbox.sqlite")
    queue = Queue(database, Retry(10, 100, 1000), Clock())
    yield queue
    queue.database.close()  # it may be another one now


@pytest.fixture
def transactions(queue: Queue) -> Transactions:
    return Transactions(queue, maximum=3)


def verify(transactions: Transactions, number: int, **reasons: int) -> None:
    found = transactions.get(number)
    assert found is not None
    failures = {
        one: reasons[f"u{one.sop_instance_uid[-1]}"] for one in (ONE, TWO) if f"u{one.sop_instance_uid[-1]}" in reasons
    }
    assert transactions.verified(found[0], failures)


def test_what_is_accepted_outlasts_the_connection(queue: Queue, transactions: Transactions, tmp_path: Path) -> None:
    number = transactions.accept(REQUEST, "CT01")
    queue.database.close()
    queue.database = Database(tmp_path / "outbox.sqlite")
    assert transactions.verifying() == [number]
    found = transactions.get(number)
    assert found is not None
    transaction, report = found
    assert (transaction.request, transaction.ae_title, report) == (REQUEST, "CT01", None)


def test_report_says_what_was_found(queue: Queue, transactions: Transactions) -> None:
    number = transactions.accept(REQUEST, "CT01")
    verify(transactions, number, u4=0x0112)
    assert transactions.verifying() == []
    wanted = CommitmentReport("2.25.7", (ONE,), (FailedReference(*TWO, 0x0112),))
    found = transactions.get(number)
    assert found is not None
    assert found[1] == wanted
    (waiting,) = queue.take("commitment", "CT01", 10)
    assert report_of(waiting.subject, waiting.body, waiting.outcome or b"") == wanted
    assert [one.destination for one in queue.destinations()] == ["CT01"]


def test_the_same_request_again_is_the_same(transactions: Transactions) -> None:
    number = transactions.accept(REQUEST, "CT01")
    assert transactions.accept(REQUEST, "CT01") == number
    verify(transactions, number)
    assert transactions.accept(REQUEST, "CT01") == number
    assert transactions.accept(REQUEST, "CT02") != number  # the UID of another AE


def test_other_instances_under_a_uid_in_use_are_refused(queue: Queue, transactions: Transactions) -> None:
    number = transactions.accept(REQUEST, "CT01")
    other = REQUEST._replace(references=(ONE,))
    with pytest.raises(TransactionInUse) as refused:
        transactions.accept(other, "CT01")
    assert refused.value.offending == (0x00081195,)
    verify(transactions, number)
    queue.finish(sent=[number])
    assert transactions.accept(other, "CT01") != number  # reported: a device that counts anew may


def test_one_peer_may_have_so_many(queue: Queue, transactions: Transactions) -> None:
    numbers = [transactions.accept(CommitmentRequest(f"2.25.{n}", (ONE,)), "CT01") for n in range(3)]
    with pytest.raises(TooManyTransactions):
        transactions.accept(REQUEST, "CT01")
    transactions.accept(REQUEST, "CT02")
    queue.finish(sent=numbers[:1])
    transactions.accept(REQUEST, "CT01")


def test_dropped_while_it_is_verified(queue: Queue, transactions: Transactions) -> None:
    number = transactions.accept(REQUEST, "CT01")
    found = transactions.get(number)
    assert found is not None
    drop(queue, [number])
    assert not transactions.verified(found[0], {})
    assert transactions.get(number) is None
    assert queue.destinations() == []


def test_retry_of_what_expired_before_it_was_verified(queue: Queue, transactions: Transactions) -> None:
    number = transactions.accept(REQUEST, "CT01")
    assert isinstance(queue.clock, Clock)
    queue.clock.now += 1001
    assert [entry.subject for entry in queue.expire()] == ["2.25.7"]
    assert transactions.verifying() == []
    assert try_again(queue, [number]) == 1
    assert transactions.verifying() == [number]
