"""What an operator does with the queue, on the command line, beside a running server or without one."""

from collections.abc import Iterator, Sequence

from pacslite.outbox.queue import Entry, Queue

__all__ = ["LARGEST_ID", "drop", "entries", "try_again"]

LARGEST_ID = (1 << 63) - 1  # SQLite's integers
_ALL = (0, LARGEST_ID)


def entries(queue: Queue, *, finished: bool = False) -> Iterator[Entry]:
    """What waits and what has failed, oldest first; with ``finished`` also what was sent or dropped lately."""
    rows = queue.database.connection.execute(
        "SELECT id, kind, destination, subject, state, created, due, expires, attempts, error FROM listed "
        "WHERE ? OR state IN ('waiting', 'verifying', 'failed') ORDER BY id",
        (finished,),
    )
    return (Entry(*row) for row in rows)


def try_again(queue: Queue, ids: Sequence[int] | None = None) -> int:
    """Make entries due now, failed ones too, and their destinations; None is all. Gives how many."""
    now = queue.clock()
    count = 0
    with queue.database.transaction() as connection:
        for first, last in _ranges(ids):
            count += connection.execute(
                "UPDATE entry SET state = iif(kind = 'commitment' AND outcome IS NULL, 'verifying', 'waiting'), "
                "due = ?, expires = ?, finished = NULL WHERE state IN ('waiting', 'failed') AND id BETWEEN ? AND ?",
                (now, now + queue.retry.expire_seconds, first, last),
            ).rowcount
            connection.execute(
                "UPDATE destination SET due = 0 WHERE EXISTS (SELECT 1 FROM entry WHERE id BETWEEN ? AND ? "
                "AND kind = destination.kind AND destination = ae_title AND finished IS NULL)",
                (first, last),
            )
        connection.execute(
            "INSERT OR IGNORE INTO destination (kind, ae_title) "
            "SELECT DISTINCT kind, destination FROM entry WHERE state = 'waiting' AND finished IS NULL"
        )
    return count


def drop(queue: Queue, ids: Sequence[int] | None = None) -> int:
    """Give entries up; None is all. Gives how many."""
    with queue.database.transaction() as connection:
        return sum(
            connection.execute(
                "UPDATE entry SET state = 'dropped', finished = ? "
                "WHERE state IN ('waiting', 'verifying', 'failed') AND id BETWEEN ? AND ?",
                (queue.clock(), first, last),
            ).rowcount
            for first, last in _ranges(ids)
        )


def _ranges(ids: Sequence[int] | None) -> list[tuple[int, int]]:
    return [_ALL] if ids is None else [(number, number) for number in ids]
