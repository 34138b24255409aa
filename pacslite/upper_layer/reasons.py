"""The codes of A-ASSOCIATE-RJ and A-ABORT in words, PS3.8 Tables 9-21 and 9-26: for logs and error messages."""

__all__ = ["abort_text", "rejection_text"]

_REJECT_REASONS = {
    (1, 1): "no-reason-given",
    (1, 2): "application-context-name-not-supported",
    (1, 3): "calling-AE-title-not-recognized",
    (1, 7): "called-AE-title-not-recognized",
    (2, 1): "no-reason-given",
    (2, 2): "protocol-version-not-supported",
    (3, 1): "temporary-congestion",
    (3, 2): "local-limit-exceeded",
}
_ABORT_REASONS = {
    0: "reason-not-specified",
    1: "unrecognized-PDU",
    2: "unexpected-PDU",
    4: "unrecognized-PDU-parameter",
    5: "unexpected-PDU-parameter",
    6: "invalid-PDU-parameter-value",
}


def rejection_text(result: int, source: int, reason: int) -> str:
    """Say an A-ASSOCIATE-RJ in the words of PS3.8 Table 9-21."""
    kind = {1: "rejected-permanent", 2: "rejected-transient"}.get(result, f"result {result}")
    by = {1: "service-user", 2: "service-provider (ACSE)", 3: "service-provider (presentation)"}
    return (
        f"{kind} by {by.get(source, f'source {source}')}: {_REJECT_REASONS.get((source, reason), f'reason {reason}')}"
    )


def abort_text(source: int, reason: int) -> str:
    """Say an A-ABORT in the words of PS3.8 Table 9-26."""
    if source == 0:
        return "aborted by the service-user"
    by = "service-provider" if source == 2 else f"source {source}"
    return f"aborted by the {by}: {_ABORT_REASONS.get(reason, f'reason {reason}')}"
