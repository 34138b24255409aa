"""How an association can end or fail to begin, as exceptions for those who wait on it."""

from pacslite.errors import PacsliteError

__all__ = [
    "AssociationAborted",
    "AssociationEnded",
    "AssociationRefused",
    "AssociationRejectedError",
    "AssociationReleased",
    "ConnectFailed",
    "DimseTimeout",
    "PeerNotReady",
    "TimedOut",
    "TlsFailed",
]

# (source, reason) of an A-ASSOCIATE-RJ, PS3.8 Table 9-21
_REJECT_REASONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognized",
    (1, 7): "called AE title not recognized",
    (2, 1): "no reason given by its ACSE",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}


class AssociationEnded(PacsliteError):
    """The association is over: released, aborted, or its connection lost. The text says which, and by whom.

    With ``peer``, as AET@HOST:PORT, it also says with whom the association was: a client names its own.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.peer = ""

    def __str__(self) -> str:
        return f"{self.peer}: {self.why}" if self.peer else super().__str__()


class AssociationRefused(AssociationEnded):
    """We answered its request with an A-ASSOCIATE-RJ."""


class AssociationReleased(AssociationEnded):
    """In order, by A-RELEASE."""


class AssociationAborted(AssociationEnded):
    """By an A-ABORT, ours or the peer's."""


class TimedOut(AssociationEnded):
    """The peer was silent for longer than a time limit allows, or took nothing of what we sent."""


class TlsFailed(AssociationEnded):
    """By an alert of TLS, or by what is no TLS, behind the handshake."""


class ConnectFailed(AssociationEnded):
    """No transport connection, or no answer to the A-ASSOCIATE-RQ. The text says where, too, if that is known."""

    def __init__(self, why: str, where: str = "") -> None:
        super().__init__(f"{where}: {why}" if where else why)
        self.why = why


class PeerNotReady(ConnectFailed):
    """The host is there, and refuses the transport connection or ends it at once: its application entity does not run.

    It may some time: who stops, or stands behind a forwarder, looks like that until it serves again.
    """


class DimseTimeout(AssociationEnded):
    """A response did not come in time. The association was aborted: what comes later could not be told apart."""


class AssociationRejectedError(ConnectFailed):
    """Of a requestor: the peer answered A-ASSOCIATE-RJ (PS3.8 §9.3.4). Of an acceptor: its provider did (AE-6)."""

    def __init__(self, result: int, source: int, reason: int, where: str = "") -> None:
        meaning = _REJECT_REASONS.get((source, reason), "reserved reason")
        kind = "transiently" if result == 2 else "permanently"
        codes = f"(result {result}, source {source}, reason {reason})"
        super().__init__(f"association rejected {kind}: {meaning} {codes}", where)
        self.result = result
        self.source = source
        self.reason = reason
