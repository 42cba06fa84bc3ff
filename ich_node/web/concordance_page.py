"""What the page of concordance shows: tables, and charts whose points lie where they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ich_node.concordance import Concordance, Figures, Period, Proportion
from ich_node.concordance.figures import Group
from ich_node.concordance.truth import said_by, subtypes_by
from ich_node.queries.feedback import SpokenAnswer, Word

MEASURES: Final[tuple[tuple[str, str, Callable[[Figures], Proportion]], ...]] = (
    ("Sensitivity", "positive, of those with hemorrhage", lambda one: one.sensitivity),
    ("Specificity", "negative, of those without", lambda one: one.specificity),
    ("PPV", "with hemorrhage, of the positive", lambda one: one.positive_predictive_value),
    ("NPV", "without, of the negative", lambda one: one.negative_predictive_value),
)
_CHARTED: Final = MEASURES[:3]
_MOST_PERIODS: Final = 12
_MOST_DISAGREEMENTS: Final = 100
_LEFT, _STEP, _TOP, _HIGH = 40.0, 26.0, 10.0, 120.0
"""Of a chart, in its own units."""


@dataclass(frozen=True, slots=True)
class Point:
    """One period in a chart."""

    name: str
    x: float
    y: float | None
    """None where nothing can be said."""
    low_y: float
    high_y: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One measure over time."""

    name: str
    points: tuple[Point, ...]
    grid: tuple[tuple[float, str], ...]
    """Where lines are, and what they stand for."""
    line: str
    """Of an SVG polyline."""
    left: float = _LEFT
    width: float = _LEFT + _MOST_PERIODS * _STEP + 8
    bottom: float = _TOP + _HIGH
    height: float = _TOP + _HIGH + 24


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: a part, how much of it is known, and its measures in words."""

    name: str
    known: int
    cells: tuple[tuple[str, str], ...]
    """Value and interval; empty where there is nothing to say."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An answer that somebody disagrees with."""

    study_instance_uid: str
    given_at: float
    station: str
    said: str
    revision: int
    readers: tuple[tuple[str, str], ...]
    """Who, and what they see."""


@dataclass(frozen=True, slots=True)
class ConcordancePage:
    """All that the page shows."""

    found: Concordance
    period: Period
    periods: tuple[Period, ...]
    measures: tuple[tuple[str, str], ...]
    confusion: tuple[tuple[str, int, int], ...]
    """What the node said; of these with hemorrhage, and without."""
    all: Row
    by_period: tuple[Row, ...]
    by_station: tuple[Row, ...]
    by_subtype: tuple[Row, ...]
    charts: tuple[Chart, ...]
    disagreements: tuple[Disagreement, ...]
    more_disagreements: int


def concordance_page(found: Concordance, period: Period) -> ConcordancePage:
    """Put together what the page shows."""
    said = ("positive", "indeterminate", "negative")
    return ConcordancePage(
        found=found,
        period=period,
        periods=tuple(Period),
        measures=tuple((name, what) for name, what, _ in MEASURES),
        confusion=tuple((one, found.all.count(one, True), found.all.count(one, False)) for one in said),
        all=_row("All", found.all),
        by_period=tuple(_row(one.name, one.figures) for one in reversed(found.periods)),
        by_station=tuple(_row(one.name or "unknown", one.figures) for one in found.stations),
        by_subtype=tuple(_row(one.name.replace("_", " "), one.figures) for one in found.subtypes),
        charts=tuple(_chart(name, measure, found.periods[-_MOST_PERIODS:]) for name, _, measure in _CHARTED),
        disagreements=tuple(map(_disagreement, found.disagreements[:_MOST_DISAGREEMENTS])),
        more_disagreements=max(0, len(found.disagreements) - _MOST_DISAGREEMENTS),
    )


def _row(name: str, figures: Figures) -> Row:
    return Row(name, figures.known, tuple(_cell(measure(figures)) for _, _, measure in MEASURES))


def _cell(one: Proportion) -> tuple[str, str]:
    if one.value is None or one.interval is None:
        return "–", ""
    low, high = one.interval
    return f"{100 * one.value:.0f} %", f"{100 * low:.0f}–{100 * high:.0f} %, {one.count} of {one.of}"


def _chart(name: str, measure: Callable[[Figures], Proportion], periods: Sequence[Group]) -> Chart:
    points = tuple(_point(number, one, measure(one.figures)) for number, one in enumerate(periods))
    line = " ".join(f"{one.x:g},{one.y:g}" for one in points if one.y is not None)
    return Chart(name, points, tuple((_y(share), f"{100 * share:.0f}") for share in (0.0, 0.5, 1.0)), line)


def _point(number: int, group: Group, one: Proportion) -> Point:
    low, high = one.interval or (0.0, 0.0)
    value, interval = _cell(one)
    text = f"{group.name}: {value} ({interval})" if interval else f"{group.name}: nothing known"
    y = None if one.value is None else _y(one.value)
    return Point(group.name, _LEFT + _STEP * (number + 0.5), y, _y(low), _y(high), text)


def _y(share: float) -> float:
    return round(_TOP + _HIGH * (1 - share), 1)


def _disagreement(one: SpokenAnswer) -> Disagreement:
    readers = tuple((word.reader, _sees(one, word)) for word in one.words)
    station = one.station_name or "unknown"
    return Disagreement(one.study_instance_uid, one.given_at, station, one.triage, one.revision, readers)


def _sees(answer: SpokenAnswer, word: Word) -> str:
    if word.agrees:
        return "agrees"
    if not said_by(answer, word):
        return "no hemorrhage"
    subtypes = subtypes_by(answer, word) or ()
    return ", ".join(sorted(one.replace("_", " ") for one in subtypes)) or "hemorrhage"
