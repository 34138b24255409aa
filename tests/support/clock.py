"""A clock for tests: it stands until it is set."""

__all__ = ["Clock"]


class Clock:
    """Gives ``now``, in seconds."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
