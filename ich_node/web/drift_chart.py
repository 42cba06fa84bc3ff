"""One quantity of a station and kernel, week by week, drawn on the server: no script is needed to see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from ich_node.drift import Comparison, GroupLook
from ich_node.drift.quantities import BY_NAME, PROBABILITY, SCORES, SHARES, SHARES_MATTER, label_of, unit_of
from ich_node.drift.weeks import Week

_LEFT: Final = 52.0
_WIDE: Final = 300.0
_TOP: Final = 8.0
_HIGH: Final = 110.0
_FEWEST_WEEKS: Final = 8
_CHARTED: Final = ("brain_hu", "air_hu", "noise_hu", "slice_thickness_mm", PROBABILITY, *SHARES)


@dataclass(frozen=True, slots=True)
class Point:
    """One week."""

    x: float
    y: float
    low_y: float
    high_y: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One quantity over time."""

    name: str
    points: tuple[Point, ...]
    line: str
    """Of an SVG polyline."""
    grid: tuple[tuple[float, str], ...]
    """Where lines are, and what they stand for."""
    reference: tuple[float, float, float] | None
    """Top and height of the reference's middle half, and where its median lies."""
    first: str
    last: str
    left: float
    width: float
    bottom: float
    height: float
    found: bool


def charts_of(group: GroupLook) -> tuple[Chart, ...]:
    """Draw what is known of a group."""
    compared = {one.name: one for one in group.comparisons}
    drawn = (_chart(name, _since_the_first(group.weeks), compared.get(name)) for name in _CHARTED)
    return tuple(one for one in drawn if one is not None)


def _since_the_first(weeks: Sequence[Week]) -> Sequence[Week]:
    """Leave out the time before the first series was measured."""
    first = next((index for index, one in enumerate(weeks) if one.series), 0)
    return weeks[max(0, min(first, len(weeks) - _FEWEST_WEEKS)) :]


def _chart(name: str, weeks: Sequence[Week], compared: Comparison | None) -> Chart | None:
    values = [(index, week, spread) for index, week in enumerate(weeks) if (spread := _spread(week, name)) is not None]
    if not values:
        return None
    factor = 100.0 if name == PROBABILITY else 1.0
    before = None if compared is None or compared.reference is None else compared.reference
    reference = None if before is None else [factor * one for one in (before.low, before.middle, before.high)]
    known = [*(one for _, _, spread in values for one in spread), *(reference or ())]
    low, high = _range(known, name, reference)
    y, step = _scale(low, high), _WIDE / len(weeks)
    unit = unit_of(name)
    points = tuple(
        Point(
            round(_LEFT + step * (index + 0.5), 1), y(spread[1]), y(spread[0]), y(spread[2]),
            f"week from {_day(week.begins_at)}: {spread[1]:.1f} {unit}, {week.series} series",
        )
        for index, week, spread in values
    )  # fmt: skip
    return Chart(
        name=f"{label_of(name).capitalize()}, {unit}",
        points=points,
        line=" ".join(f"{one.x:g},{one.y:g}" for one in points),
        grid=tuple((y(at), _tick(at, high - low)) for at in (low, (low + high) / 2, high)),
        reference=None if reference is None else _band(reference, y),
        first=_day(weeks[0].begins_at),
        last=_day(weeks[-1].begins_at),
        left=_LEFT,
        width=_LEFT + _WIDE + 4,
        bottom=_TOP + _HIGH,
        height=_TOP + _HIGH + 22,
        found=compared is not None and compared.found,
    )


def _spread(week: Week, name: str) -> list[float] | None:
    if name in SHARES:
        share: float | None = getattr(week, name)
        return None if share is None else [share] * 3
    spread = week.spreads.get(name)
    return None if spread is None else [(100.0 if name == PROBABILITY else 1.0) * one for one in spread]


def _range(known: Iterable[float], name: str, reference: list[float] | None) -> tuple[float, float]:
    """Give an axis on which what does not matter looks small."""
    values = list(known)
    low, high = min(values), max(values)
    matters = SHARES_MATTER if name in SHARES else 100 * SCORES.matters if name == PROBABILITY else _matters(name)
    if name not in (*SHARES, PROBABILITY) and BY_NAME[name].relative:
        matters *= abs(reference[1] if reference else values[0])
    spare = max(0.08 * (high - low), (3 * matters - (high - low)) / 2) or 1.0  # where everything is 0
    bottom = low - spare
    return (max(0.0, bottom) if name in (*SHARES, PROBABILITY) else bottom), high + spare


def _matters(name: str) -> float:
    return BY_NAME[name].matters


def _scale(low: float, high: float) -> Callable[[float], float]:
    return lambda value: round(_TOP + _HIGH * (high - value) / (high - low), 1)


def _band(reference: Sequence[float], y: Callable[[float], float]) -> tuple[float, float, float]:
    top, middle, bottom = y(reference[2]), y(reference[1]), y(reference[0])
    return top, max(1.0, round(bottom - top, 1)), middle


def _tick(value: float, extent: float) -> str:
    return f"{value:.2f}" if extent < 4 else f"{value:.1f}" if extent < 20 else f"{value:.0f}"


def _day(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"
