"""Figures in words: one home of how a share, an area and a time are written."""

from __future__ import annotations

from datetime import UTC, datetime

from ich_node.intervals.area import Area
from ich_node.validation.figures import Share
from ich_node.validation.predictive import Value

NONE = "–"
CLASS_NAMES = {
    "any": "any hemorrhage",
    "epidural": "epidural",
    "intraparenchymal": "intraparenchymal",
    "intraventricular": "intraventricular",
    "subarachnoid": "subarachnoid",
    "subdural": "subdural",
}


def percent(value: float) -> str:
    """Write a share with one digit, so that 94.9 is not 95."""
    return f"{100 * value:.1f} %"


def share_in_words(one: Share) -> str:
    """Write a share with its interval; of few studies only the count."""
    if one.value is None:
        return NONE
    if one.few:
        return f"{one.count} of {one.of} (too few)"
    return f"{percent(one.value)} ({_range(one.low, one.high)})"


def count_in_words(one: Share) -> str:
    """Write the count behind a share."""
    return f"{one.count} of {one.of}"


def area_in_words(one: Area | None) -> str:
    """Write an area under the curve."""
    if one is None:
        return "too few"
    if one.low is None or one.high is None:
        return f"{one.value:.3f} (no interval)"
    return f"{one.value:.3f} ({one.low:.3f}–{one.high:.3f})"


def value_in_words(one: Value | None) -> str:
    """Write a predictive value."""
    return NONE if one is None else f"{percent(one.value)} ({_range(one.low, one.high)})"


def number_in_words(one: float | None) -> str:
    """Write how many alerts there are."""
    if one is None:
        return "not known"
    return f"{one:.1f}" if one < 100 else f"{one:.0f}"


def threshold_in_words(one: float) -> str:
    """Write a threshold with as many digits as tell it from others."""
    return f"{one:.4g}"


def day(at: float) -> str:
    """Write a day in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def studies(count: int) -> str:
    """Count studies."""
    return "1 study" if count == 1 else f"{count} studies"


def uid_tail(uid: str) -> str:
    """Name a study by the end of its UID: enough to find it, and no more than is needed."""
    return f"…{uid[-10:]}" if len(uid) > 12 else uid


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f}–{100 * high:.1f}"
