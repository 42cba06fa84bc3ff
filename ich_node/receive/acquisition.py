"""When images were acquired, from what a header says of it (PS3.3 C.7.3.1, C.7.6.1; PS3.5 6.2)."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Final

DATE_AND_TIME: Final = tuple((f"{what}Date", f"{what}Time") for what in ("Acquisition", "Content", "Series", "Study"))
ACQUISITION_KEYWORDS: Final = (
    "AcquisitionDateTime", "TimezoneOffsetFromUTC", *(keyword for pair in DATE_AND_TIME for keyword in pair),
)  # fmt: skip

_DATE: Final = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")
_TIME: Final = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6}))?)?)?")
_DATE_TIME: Final = re.compile(r"(\d{8})([\d.]*)([+-]\d{4})?")
_OFFSET: Final = re.compile(r"([+-])(\d\d)([0-5]\d)")
_END_OF_DAY: Final = "235959.999999"


def acquired_at(text_of: Callable[[str], str], now: float) -> float | None:
    """Return seconds since 1970; None where the header does not say, or says what cannot be.

    The most exact attribute that is there decides. Without an offset from UTC a time is that of this machine's zone; a
    date alone counts as the end of its day, so that a study never looks older than it is.

    Args:
        text_of: gives the value of an attribute by its keyword, empty where it is absent.
        now: seconds since 1970; what lies behind it is no time of acquisition.
    """
    date, time, offset = _parts(text_of)
    try:
        seconds = _moment(date, time or _END_OF_DAY, _zone(offset)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return seconds if seconds <= now else None


def _parts(text_of: Callable[[str], str]) -> tuple[str, str, str]:
    zone = text_of("TimezoneOffsetFromUTC")
    if whole := text_of("AcquisitionDateTime"):
        parts = _DATE_TIME.fullmatch(whole)
        return (parts[1], parts[2], parts[3] or zone) if parts else ("", "", "")
    for date_keyword, time_keyword in DATE_AND_TIME:
        if date := text_of(date_keyword):
            return date, text_of(time_keyword), zone
    return "", "", ""


def _moment(date: str, time: str, zone: timezone | None) -> datetime:
    """Raises ValueError for what is no date or no time."""
    day, clock = _DATE.fullmatch(date), _TIME.fullmatch(time)
    if day is None or clock is None:
        raise ValueError("neither date nor time")
    hour, minute, second = (int(part or 0) for part in clock.groups()[:3])
    microsecond = int((clock[4] or "").ljust(6, "0"))
    leap = 1 if second == 60 else 0  # a leap second, which Python does not know (PS3.5 Table 6.2-1, TM)
    year, month, day_of_month = map(int, day.groups())
    return datetime(year, month, day_of_month, hour, minute, second - leap, microsecond, zone)


def _zone(offset: str) -> timezone | None:
    """None: that of this machine."""
    parts = _OFFSET.fullmatch(offset)
    if parts is None:
        return None
    distance = timedelta(hours=int(parts[2]), minutes=int(parts[3]))
    return timezone(-distance if parts[1] == "-" else distance)
