"""Stands in for ``dataset.transcode`` in a worker: does what its transfer syntax says."""

import builtins
import os
import time
from pathlib import Path

__all__ = ["LENGTH", "obey"]

LENGTH = 10


def obey(source: str, target: str, orders: str, pixel_bytes: int) -> int:
    """``orders``: "die", the name of an exception, or the seconds that it takes."""
    if orders == "die":
        os.abort()
    if hasattr(builtins, orders):
        raise getattr(builtins, orders)
    time.sleep(float(orders))
    Path(target).write_bytes(bytes(LENGTH))
    return LENGTH
