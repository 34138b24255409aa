"""The queue: entries that wait for their destination, and how destinations fare. Synchronous; for one thread at a time.

An entry is tried when it is due and its destination is. What fails alone waits longer alone; a destination that cannot
be reached waits as a whole, whatever is queued for it. An entry that expires fails and stays listed, to be retried.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from pacslite.outbox.database import Database
from pacslite.outbox.retry import Retry

__all__ = ["Arrival", "Due", "Entry", "Kind", "Mark", "Queue", "Waiting"]

Kind = Literal["forward", "commitment"]

_SENT_SECONDS = 3600.0  # what was sent is remembered so long beyond the mark: catching up sends none of it twice
_EXPIRED_AT_ONCE = 2000  # others wait for the thread meanwhile
_FAILED_SECONDS = 30 * 86_400.0  # what has failed may be retried


class Entry(NamedTuple):
    """An entry as it is listed. ``subject``: the SOP Instance UID, or the Transaction UID."""

    id: int
    kind: str
    destination: str
    subject: str
    state: str
    created: float
    due: float
    expires: float
    attempts: int
    error: str | None


class Waiting(NamedTuple):
    """An entry to be sent now; ``body``, ``outcome`` and ``called_ae_title`` are its kind's."""

    id: int
    subject: str
    attempts: int
    body: bytes
    outcome: bytes | None
    called_ae_title: str | None


class Arrival(NamedTuple):
    """An instance that a rule sends to a destination; ``once``: not if it is what was sent, or dropped, last."""

    destination: str
    sop_instance_uid: str
    digest: bytes
    once: bool = False


class Mark(NamedTuple):
    """The last instance of the index to which rules were applied, and when."""

    instance_id: int
    sop_instance_uid: str
    made: float


class Due(NamedTuple):
    """When a destination has something to be tried."""

    kind: str
    destination: str
    due: float


class Queue:
    """Entries in ``database``; ``clock`` gives seconds since the epoch."""

    def __init__(self, database: Database, retry: Retry | None = None, clock: Callable[[], float] = time.time) -> None:
        self.database = database
        self.retry = retry or Retry()
        self.clock = clock

    # enqueueing

    def enqueue(self, arrivals: Sequence[Arrival], mark: Mark | None = None) -> int:
        """Add what is not waiting already, and set the mark with it; gives how many were added."""
        now = self.clock()
        expires = now + self.retry.expire_seconds
        added = 0
        with self.database.transaction() as connection:
            for destination, uid, digest, once in arrivals:
                added += connection.execute(
                    "INSERT INTO entry (kind, destination, subject, state, created, due, expires, body) "
                    "SELECT 'forward', ?, ?, 'waiting', ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM entry "
                    "WHERE subject = ? AND destination = ? AND kind = 'forward' AND body = ? "
                    "AND (state = 'waiting' OR ? AND id = (SELECT max(id) FROM entry "
                    "WHERE subject = ? AND destination = ? AND kind = 'forward')))",
                    (destination, uid, now, now, expires, digest, uid, destination, digest, once, uid, destination),
                ).rowcount
            connection.executemany(
                "INSERT OR IGNORE INTO destination (kind, ae_title) VALUES ('forward', ?)",
                [(destination,) for destination in {arrival.destination for arrival in arrivals}],
            )
            if mark is not None:
                connection.execute("INSERT OR REPLACE INTO mark VALUES (1, ?, ?, ?)", mark)
        return added

    def mark(self) -> Mark | None:
        found = self.database.connection.execute("SELECT instance_id, sop_instance_uid, made FROM mark").fetchone()
        return None if found is None else Mark(*found)

    def clear_mark(self) -> None:
        """Rules were applied to all that is stored: the next start begins with what comes then."""
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM mark")

    # sending

    def destinations(self) -> list[Due]:
        """Destinations with something that waits, and when its time comes."""
        rows = self.database.connection.execute(
            "SELECT kind, ae_title, max(due, (SELECT min(due) FROM entry WHERE kind = destination.kind "
            "AND destination = destination.ae_title AND state = 'waiting' AND finished IS NULL)) FROM destination"
        )
        return [Due(*row) for row in rows if row[2] is not None]

    def take(self, kind: Kind, destination: str, limit: int) -> list[Waiting]:
        """Entries that are due, the longest due first. They stay in the queue until ``sent`` or ``failed``."""
        rows = self.database.connection.execute(
            "SELECT id, subject, attempts, body, outcome, called_ae_title FROM entry "
            "WHERE kind = ? AND destination = ? AND state = 'waiting' AND finished IS NULL AND due <= ? "
            "ORDER BY due, id LIMIT ?",
            (kind, destination, self.clock(), limit),
        )
        return [Waiting(*row) for row in rows]

    def still_waiting(self, ids: Iterable[int]) -> set[int]:
        """Those of ``ids`` that nobody has dropped."""
        execute = self.database.connection.execute
        return {
            number
            for number in ids
            if execute("SELECT 1 FROM entry WHERE id = ? AND state = 'waiting'", (number,)).fetchone()
        }

    def finish(
        self, sent: Iterable[int] = (), failed: Iterable[tuple[int, str]] = (), dropped: Iterable[tuple[int, str]] = ()
    ) -> None:
        """Write down what became of entries; what failed is tried again, later each time."""
        now = self.clock()
        with self.database.transaction() as connection:
            connection.executemany(
                "UPDATE entry SET state = 'sent', finished = ?, error = NULL, attempts = attempts + 1 WHERE id = ?",
                [(now, number) for number in sent],
            )
            connection.executemany(
                "UPDATE entry SET state = 'dropped', finished = ?, error = ? WHERE id = ?",
                [(now, error, number) for number, error in dropped],
            )
            for number, error in failed:
                found = connection.execute("SELECT attempts FROM entry WHERE id = ?", (number,)).fetchone()
                if found is not None:
                    attempts = found[0] + 1
                    connection.execute(
                        "UPDATE entry SET attempts = ?, due = ?, error = ? WHERE id = ?",
                        (attempts, now + self.retry.wait(attempts), error, number),
                    )

    def defer(self, kind: Kind, destination: str, error: str) -> float:
        """The destination cannot be reached: leave it alone for a while; gives the seconds."""
        with self.database.transaction() as connection:
            found = connection.execute(
                "SELECT attempts FROM destination WHERE kind = ? AND ae_title = ?", (kind, destination)
            ).fetchone()
            attempts = (found[0] if found else 0) + 1
            seconds = self.retry.wait(attempts)
            connection.execute(
                "INSERT OR REPLACE INTO destination VALUES (?, ?, ?, ?, ?)",
                (kind, destination, attempts, self.clock() + seconds, error),
            )
        return seconds

    def reached(self, kind: Kind, destination: str) -> None:
        """The destination takes what we send."""
        with self.database.transaction() as connection:
            connection.execute(
                "UPDATE destination SET attempts = 0, due = 0, error = NULL "
                "WHERE kind = ? AND ae_title = ? AND attempts > 0",
                (kind, destination),
            )

    def undefer(self) -> None:
        """Leave no destination alone any longer; what fails alone goes on waiting."""
        with self.database.transaction() as connection:
            connection.execute("UPDATE destination SET due = 0 WHERE due > 0")

    # keeping house

    def hasten(self) -> None:
        """Let nothing wait longer than the longest pause: the clock was set back, or pauses are shorter than before."""
        now = self.clock()
        longest = now + self.retry.maximum_seconds
        with self.database.transaction() as connection:
            connection.execute("UPDATE destination SET due = ? WHERE due > ?", (now, longest))
            connection.executemany(  # one by one, as the index has it
                "UPDATE entry SET due = ? WHERE kind = ? AND destination = ? AND state = 'waiting' "
                "AND finished IS NULL AND due > ?",
                [
                    (now, kind, ae_title, longest)
                    for kind, ae_title in connection.execute("SELECT kind, ae_title FROM destination").fetchall()
                ],
            )

    def expire(self) -> list[Entry]:
        """Let what has waited too long fail, some of it at once; gives what did.

        What is to be tried now does not: who was down for days is tried first.
        """
        now = self.clock()
        with self.database.transaction() as connection:
            rows = connection.execute(
                "SELECT id, kind, destination, subject, 'failed', created, due, expires, attempts, "
                "'expired: ' || coalesce(error, 'not tried') "
                "FROM (SELECT id AS number FROM entry WHERE finished IS NULL AND expires <= ?) "
                "CROSS JOIN listed ON id = number WHERE state = 'verifying' OR due > ? LIMIT ?",
                (now, now, _EXPIRED_AT_ONCE),
            ).fetchall()
            expired = [Entry(*row) for row in rows]
            connection.executemany(
                "UPDATE entry SET state = 'failed', finished = ?, error = ? WHERE id = ?",
                [(now, entry.error, entry.id) for entry in expired],
            )
        return expired

    def purge(self) -> None:
        """Forget what was sent, dropped, or has failed long ago, and destinations that nothing waits for."""
        now = self.clock()
        mark = self.mark()
        marked = now if mark is None else min(now, mark.made)
        with self.database.transaction() as connection:
            connection.execute(
                "DELETE FROM entry WHERE finished < ? AND state IN ('sent', 'dropped') "
                "AND (kind <> 'forward' OR finished < ?)",
                (now - _SENT_SECONDS, marked - _SENT_SECONDS),
            )
            connection.execute("DELETE FROM entry WHERE finished < ? AND state = 'failed'", (now - _FAILED_SECONDS,))
            connection.execute(
                "DELETE FROM destination WHERE NOT EXISTS (SELECT 1 FROM entry WHERE kind = destination.kind "
                "AND destination = destination.ae_title AND state = 'waiting' AND finished IS NULL)"
            )
