"""Time limits of one association, in seconds; each supervises one thing only (PS3.8 §9.1.4 note, §9.1.5)."""

import math
from dataclasses import dataclass, field

__all__ = ["Timeouts"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """0 means no limit, except for ``artim_seconds``, which the state machine needs."""

    artim_seconds: float = 30.0  # association request or transport close awaited
    idle_seconds: float = 600.0  # established, nothing outstanding, nothing received
    keepalive_seconds: float = 60.0  # silence, before the system asks whether the peer is still there
    write_seconds: float = 60.0  # bytes to send, none taken by the peer
    dimse_seconds: float = 120.0  # the rest of a message, or the response to a request of ours
    connect_seconds: float = 10.0  # TCP connect
    tls_handshake_seconds: float = 10.0
    shortest_silence: float = field(init=False, repr=False)  # of those that an established association ends by

    def __post_init__(self) -> None:
        shortest = min(self.dimse_seconds or math.inf, self.idle_seconds or math.inf)
        object.__setattr__(self, "shortest_silence", shortest)
