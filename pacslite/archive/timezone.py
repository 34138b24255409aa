"""Moments in timezones, for timezone query adjustment (PS3.4 §C.5.1.1, Timezone Offset From UTC (0008,0201))."""

import re
from datetime import datetime, timedelta

__all__ = ["parse_offset", "shift_moment"]

_OFFSET = re.compile(r"([+-])(\d\d)([0-5]\d)")
_FORMAT = "%Y%m%d%H%M%S.%f"


def parse_offset(text: str) -> int | None:
    """Minutes east of UTC of ``+0100``, None for what is no offset (-1200 to +1400, PS3.5 §6.2 on DT)."""
    found = _OFFSET.fullmatch(text.strip(" \0"))
    if found is None:
        return None
    minutes = int(found[2]) * 60 + int(found[3])
    minutes = -minutes if found[1] == "-" else minutes
    return minutes if -720 <= minutes <= 840 else None


def shift_moment(moment: str, minutes: int) -> str:
    """``YYYYMMDDHHMMSS.FFFFFF`` some minutes later; at the ends of the calendar it stays what it is."""
    try:
        return f"{datetime.strptime(moment, _FORMAT) + timedelta(minutes=minutes):{_FORMAT}}".rjust(21, "0")  # noqa: DTZ007
    except (OverflowError, ValueError):
        return moment
