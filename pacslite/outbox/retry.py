"""When to try again, and when to give up."""

from dataclasses import dataclass

__all__ = ["Retry"]


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential back-off: ``first_seconds`` after the first failure, then twice as long each time."""

    first_seconds: float = 10.0
    maximum_seconds: float = 900.0
    expire_seconds: float = 72 * 3600.0  # after it was enqueued, or its retry was asked for

    def wait(self, attempts: int) -> float:
        """Seconds from the last of ``attempts`` failures to the next try."""
        if attempts <= 0:
            return 0.0
        return min(self.first_seconds * 2.0 ** min(attempts - 1, 30), self.maximum_seconds)
