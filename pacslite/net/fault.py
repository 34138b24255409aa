"""A fault of ours in the log: what kind and where. What an exception says may quote a data set: that is for DEBUG."""

import logging
import traceback
from collections.abc import Mapping

__all__ = ["log_fault"]


def log_fault(log: logging.Logger, event: str, facts: Mapping[str, object], error: Exception) -> None:
    """``facts`` are those of every line about the association."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error(event, extra={**facts, "why": type(error).__name__, "traceback": frames})
    log.debug("%s: %s", event, error, extra=dict(facts))
