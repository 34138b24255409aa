"""The queue: what waits, when it is due, what becomes of it, and what the command line does to it."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pacslite.outbox.admin import drop, entries, try_again
from pacslite.outbox.database import Database, OutboxUnreadable
from pacslite.outbox.queue import Arrival, Entry, Mark, Queue
from pacslite.outbox.retry import Retry

RETRY = Retry(first_seconds=10, maximum_seconds=100, expire_seconds=1000)
DIGEST = b"\1" * 16


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> Iterator[Queue]:
    database = Database(tmp_path / "outbox.sqlite")
    queue = Queue(database, RETRY, clock)
    yield queue
    queue.database.close()  # it may be another one now


def enqueue(queue: Queue, *uids: str, to: str = "WS", digest: bytes = DIGEST, once: bool = False) -> int:
    return queue.enqueue([Arrival(to, uid, digest, once) for uid in uids])


def due(queue: Queue, to: str = "WS", limit: int = 100) -> list[str]:
    return [waiting.subject for waiting in queue.take("forward", to, limit)]


def numbers(queue: Queue, to: str = "WS") -> list[int]:
    return [waiting.id for waiting in queue.take("forward", to, 100)]


def states(queue: Queue) -> dict[str, str]:
    return {entry.subject: entry.state for entry in entries(queue, finished=True)}


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(0, 0), (1, 10), (2, 20), (3, 40), (4, 80), (5, 100), (6, 100), (10_000, 100)]
)
def test_back_off_doubles_up_to_its_maximum(attempts: int, seconds: float) -> None:
    assert RETRY.wait(attempts) == seconds


def test_first_in_first_out(queue: Queue) -> None:
    enqueue(queue, "1", "2", "3")
    assert due(queue, limit=2) == ["1", "2"]
    queue.finish(sent=numbers(queue)[:2])
    assert due(queue) == ["3"]


def test_destinations_are_apart(queue: Queue) -> None:
    enqueue(queue, "1", to="A")
    enqueue(queue, "1", to="B")
    queue.finish(sent=numbers(queue, "A"))
    assert due(queue, "A") == []
    assert due(queue, "B") == ["1"]
    assert [one.destination for one in queue.destinations()] == ["B"]


@pytest.mark.parametrize(
    ("digest", "once", "finished", "added"),
    [
        (DIGEST, False, False, 0),  # waits already
        (DIGEST, True, False, 0),
        (b"\2" * 16, False, False, 1),  # the instance was replaced
        (b"\2" * 16, True, False, 1),
        (DIGEST, False, True, 1),  # stored once more after it was sent, and deleted
        (DIGEST, True, True, 0),  # met again while we catch up
    ],
)
def test_enqueueing_again(queue: Queue, digest: bytes, once: bool, finished: bool, added: int) -> None:
    enqueue(queue, "1")
    if finished:
        queue.finish(sent=numbers(queue))
    assert enqueue(queue, "1", digest=digest, once=once) == added


def test_what_was_sent_before_the_last_is_sent_again(queue: Queue) -> None:
    """The instance was replaced, and replaced by what it was before."""
    other = b"\2" * 16
    for digest in (DIGEST, other):
        enqueue(queue, "1", digest=digest)
        queue.finish(sent=numbers(queue))
    assert enqueue(queue, "1", digest=other, once=True) == 0
    assert enqueue(queue, "1", digest=DIGEST, once=True) == 1
    assert enqueue(queue, "1", digest=DIGEST, once=True) == 0


def test_what_fails_waits_longer_alone(queue: Queue, clock: Clock) -> None:
    enqueue(queue, "1", "2")
    first, _ = numbers(queue)
    for wait in (10, 20, 40):
        queue.finish(failed=[(first, "status A700")])
        assert due(queue) == ["2"]
        clock.now += wait - 1
        assert due(queue) == ["2"]
        clock.now += 1
        assert due(queue) == ["2", "1"]


def test_what_was_enqueued_later_is_sent_before_what_failed(queue: Queue, clock: Clock) -> None:
    enqueue(queue, "1")
    queue.finish(failed=[(numbers(queue)[0], "status C000")])
    clock.now += 5
    enqueue(queue, "2")
    clock.now += 10
    assert due(queue) == ["2", "1"]


def test_destination_that_cannot_be_reached_waits_as_a_whole(queue: Queue, clock: Clock) -> None:
    enqueue(queue, "1", "2")
    now = clock.now
    for wait in (10, 20, 40):
        assert queue.defer("forward", "WS", "connection refused") == wait
        assert [one.due for one in queue.destinations()] == [now + wait]
        now = clock.now = now + wait
    queue.reached("forward", "WS")
    assert queue.defer("forward", "WS", "connection refused") == 10  # from the beginning


def test_expired_entries_fail_and_say_why(queue: Queue, clock: Clock) -> None:
    enqueue(queue, "1", "2")
    clock.now += 999
    queue.finish(failed=[(numbers(queue)[0], "status A900")])
    queue.defer("forward", "WS", "connection refused")
    assert queue.expire() == []
    clock.now += 1
    assert {(entry.subject, entry.error) for entry in queue.expire()} == {
        ("1", "expired: status A900"),
        ("2", "expired: connection refused"),
    }
    assert queue.destinations() == []
    assert set(states(queue).values()) == {"failed"}


def test_what_is_to_be_tried_now_does_not_expire(queue: Queue, clock: Clock) -> None:
    """We were down for longer, or the clock was: nobody knows what the destination says."""
    enqueue(queue, "1", "2", "3")
    queue.finish(failed=[(numbers(queue)[0], "refused")])
    clock.now += 1000
    assert queue.expire() == []
    queue.finish(failed=[(numbers(queue)[0], "refused")])
    assert [entry.subject for entry in queue.expire()] == ["2"]
    queue.defer("forward", "WS", "connection refused")
    assert [entry.subject for entry in queue.expire()] == ["1", "3"]


def test_sent_entries_are_forgotten_soon_and_failed_ones_late(queue: Queue, clock: Clock) -> None:
    enqueue(queue, "1", "2")
    queue.finish(sent=numbers(queue)[:1])
    clock.now += 1001
    queue.defer("forward", "WS", "connection refused")
    queue.expire()
    queue.purge()
    assert states(queue) == {"1": "sent", "2": "failed"}
    clock.now += 3600
    queue.purge()
    assert states(queue) == {"2": "failed"}
    clock.now += 31 * 86_400
    queue.purge()
    assert states(queue) == {}


def test_mark_goes_with_what_was_enqueued_and_lasts(queue: Queue, tmp_path: Path) -> None:
    assert queue.mark() is None
    queue.enqueue([Arrival("WS", "1.2", DIGEST)], Mark(7, "1.2", 5.0))
    queue.database.close()
    queue.database = Database(tmp_path / "outbox.sqlite")
    assert queue.mark() == Mark(7, "1.2", 5.0)
    assert due(queue) == ["1.2"]
    queue.clear_mark()
    assert queue.mark() is None


def test_nothing_of_a_transaction_that_fails_is_kept(queue: Queue) -> None:
    queue.database.connection.execute(
        "CREATE TRIGGER no BEFORE INSERT ON entry WHEN new.subject = '2' BEGIN SELECT RAISE(FAIL, 'no'); END"
    )
    with pytest.raises(sqlite3.IntegrityError):
        queue.enqueue([Arrival("WS", "1", DIGEST), Arrival("WS", "2", DIGEST)], Mark(7, "2", 5.0))
    assert due(queue) == []
    assert queue.mark() is None


# the command line's side


@pytest.mark.parametrize(
    ("change", "state", "is_due"),
    [
        (lambda queue: try_again(queue, [1]), "waiting", True),
        (try_again, "waiting", True),
        (lambda queue: try_again(queue, [2]), "failed", False),
        (lambda queue: drop(queue, [1]), "dropped", False),
        (drop, "dropped", False),
        (lambda queue: drop(queue, [2]), "failed", False),
    ],
)
def test_changing_what_has_failed(
    queue: Queue, clock: Clock, change: Callable[[Queue], int], state: str, is_due: bool
) -> None:
    enqueue(queue, "1")
    clock.now += 2000
    queue.defer("forward", "WS", "connection refused")
    queue.expire()
    queue.purge()
    assert change(queue) == (state != "failed")
    assert states(queue) == {"1": state}
    assert ([one.due for one in queue.destinations()] == [clock.now]) is is_due
    queue.expire()
    assert states(queue) == {"1": state}  # a retry has its full time again


def test_retry_makes_a_deferred_destination_due(queue: Queue, clock: Clock) -> None:
    enqueue(queue, "1")
    queue.defer("forward", "WS", "connection refused")
    assert queue.destinations()[0].due > clock.now
    assert try_again(queue, [1]) == 1
    assert queue.destinations()[0].due <= clock.now


def test_undeferred_destinations_are_due_and_what_failed_alone_is_not(queue: Queue, clock: Clock) -> None:
    enqueue(queue, "1.1", "1.2")
    enqueue(queue, "1.1", to="OTHER")
    (first, _) = queue.take("forward", "WS", 2)
    queue.finish(failed=[(first.id, "refused")])
    for destination in ("WS", "OTHER"):
        queue.defer("forward", destination, "unreachable")
    assert {at for *_, at in queue.destinations()} == {clock.now + 10}
    queue.undefer()
    assert {at for *_, at in queue.destinations()} == {clock.now}
    assert due(queue) == ["1.2"]
    assert queue.defer("forward", "WS", "unreachable") == 20  # it has failed before


@pytest.mark.parametrize(("back", "waits"), [(60, True), (86_400, False)])
def test_what_waits_does_not_wait_for_a_clock_that_was_set_back(
    queue: Queue, clock: Clock, back: float, waits: bool
) -> None:
    """No pause is longer than the longest."""
    enqueue(queue, "1", "2")
    queue.finish(failed=[(numbers(queue)[0], "refused")])
    queue.defer("forward", "WS", "unreachable")
    clock.now -= back
    queue.hasten()
    assert (queue.destinations()[0].due > clock.now) is waits
    assert due(queue) == ([] if waits else ["1", "2"])


def test_list_shows_what_holds_an_entry_up(queue: Queue, clock: Clock) -> None:
    enqueue(queue, "1", "2")
    queue.finish(failed=[(numbers(queue)[0], "status A700")])
    queue.defer("forward", "WS", "connection refused")
    queue.defer("forward", "WS", "connection refused")
    first, second = entries(queue)
    assert (first.error, first.attempts, first.due) == ("status A700", 1, clock.now + 20)
    assert (second.error, second.attempts, second.due) == ("connection refused", 0, clock.now + 20)


def test_dropped_entries_are_not_still_waiting(queue: Queue) -> None:
    enqueue(queue, "1", "2")
    drop(queue, [1])
    assert queue.still_waiting([1, 2, 3]) == {2}


def test_another_connection_sees_and_is_seen(queue: Queue, tmp_path: Path, clock: Clock) -> None:
    version = queue.database.version()
    enqueue(queue, "1")
    assert queue.database.version() == version  # our own writes are no news
    other = Database(tmp_path / "outbox.sqlite")
    assert drop(Queue(other, RETRY, clock)) == 1
    other.close()
    assert queue.database.version() != version
    assert due(queue) == []


@pytest.mark.parametrize(
    "content", [b"no database at all, but longer than a header of one" * 4, b"SQLite format 3\0" * 9]
)
def test_a_file_that_is_no_outbox_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(content)
    with pytest.raises(OutboxUnreadable, match=r"outbox\.sqlite: file is not a database; move it away"):
        Database(path)


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    database = Database(tmp_path / "outbox.sqlite")
    database.connection.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(OutboxUnreadable, match="later version"):
        Database(tmp_path / "outbox.sqlite")


def test_an_older_version_is_taken_over(tmp_path: Path, clock: Clock) -> None:
    """As its first version made it: what waits in it is sent."""
    path = tmp_path / "outbox.sqlite"
    database = Database(path)
    enqueue(Queue(database, RETRY, clock), "1")
    database.connection.execute("ALTER TABLE entry DROP COLUMN called_ae_title")
    database.connection.execute("PRAGMA user_version=1")
    database.close()
    for _ in range(2):
        database = Database(path)
        assert due(Queue(database, RETRY, clock)) == ["1"]
        database.close()


class QueueMachine(RuleBasedStateMachine):
    """Any order of events against a model: each instance is in one state, and none is lost or sent twice."""

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.directory = TemporaryDirectory()
        self.queue = Queue(Database(Path(self.directory.name) / "outbox.sqlite"), RETRY, self.clock)
        self.model: dict[str, str] = {}
        self.taken: list[int] = []
        self.uids = 0

    @rule(count=st.integers(1, 3))
    def enqueue(self, count: int) -> None:
        uids = [str(self.uids + n) for n in range(count)]
        self.uids += count
        assert enqueue(self.queue, *uids) == count
        self.model |= dict.fromkeys(uids, "waiting")

    @rule(limit=st.integers(1, 4))
    def take(self, limit: int) -> None:
        self.taken = [one.id for one in self.queue.take("forward", "WS", limit)]
        assert all(self.model[self._subject(number)] == "waiting" for number in self.taken)

    @precondition(lambda self: self.taken)
    @rule(outcome=st.sampled_from(["sent", "failed", "dropped"]))
    def finish(self, outcome: str) -> None:
        number = self.taken.pop()
        subject = self._subject(number)
        if outcome == "sent":
            self.queue.finish(sent=[number])
        elif outcome == "failed":
            self.queue.finish(failed=[(number, "no")])
            return
        else:
            self.queue.finish(dropped=[(number, "gone")])
        self.model[subject] = outcome

    @rule(seconds=st.sampled_from([1, 15, 200, 600]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def expire(self) -> None:
        for entry in self.queue.expire():
            assert self.model[entry.subject] == "waiting"
            self.model[entry.subject] = "failed"
        self.taken = []

    @rule()
    def retry_all(self) -> None:
        count = try_again(self.queue)
        assert count == sum(state in ("waiting", "failed") for state in self.model.values())
        self.model = {uid: "waiting" if state == "failed" else state for uid, state in self.model.items()}

    @rule()
    def defer(self) -> None:
        self.queue.defer("forward", "WS", "unreachable")

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "queue"):
            assert states(self.queue) == self.model
            waiting = any(state == "waiting" for state in self.model.values())
            assert bool(self.queue.destinations()) is waiting

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            self.queue.database.close()
            self.directory.cleanup()

    def _subject(self, number: int) -> str:
        found: list[Entry] = [entry for entry in entries(self.queue, finished=True) if entry.id == number]
        return found[0].subject


QueueMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestQueueMachine = QueueMachine.TestCase
