"""What the series of each week were like, for charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ich_node.drift.periods import one_of_a_study
from ich_node.drift.quantities import PROBABILITY, QUANTITIES, values_of
from ich_node.records import MeasuredSeries, Triage
from ich_node.records.drift import DAY_S

WEEK_S: Final = 7 * DAY_S
_FEWEST: Final = 5
"""Series whose median says something."""


@dataclass(frozen=True, slots=True)
class Week:
    """The series of one week, counted back from the look."""

    begins_at: float
    series: int
    spreads: dict[str, list[float]]
    """By quantity: first quartile, median, third quartile; left out where too few are known."""
    positives: float | None
    """Of 100 that were analysed."""
    without_result: float | None
    """Of 100."""


def weeks_of(series: Sequence[MeasuredSeries], model_sha256: str | None, now: float, weeks: int) -> tuple[Week, ...]:
    """Give the last weeks, the oldest first; those without a series as well. Of a study one series counts.

    Args:
        model_sha256: whose scores and positives are told: those of another model are no part of what is compared.
    """
    sorted_out: list[list[MeasuredSeries]] = [[] for _ in range(weeks)]
    for one in one_of_a_study(series):
        back = int((now - one.measured_at) // WEEK_S)
        if 0 <= back < weeks:
            sorted_out[weeks - 1 - back].append(one)
    return tuple(_week(now - (weeks - at) * WEEK_S, some, model_sha256) for at, some in enumerate(sorted_out))


def _week(begins_at: float, series: Sequence[MeasuredSeries], model_sha256: str | None) -> Week:
    scored = [one for one in series if one.measure.model_sha256 == model_sha256]
    named = [(one.name, values_of(series, one.name)) for one in QUANTITIES] + [
        (PROBABILITY, values_of(scored, PROBABILITY))
    ]
    spreads = {name: _quartiles(values) for name, values in named if len(values) >= _FEWEST}
    answers = [one.triage == Triage.POSITIVE for one in scored if one.triage]
    return Week(begins_at, len(series), spreads, _share(answers), _share([one.reason is not None for one in series]))


def _quartiles(values: Sequence[float]) -> list[float]:
    return [round(float(one), 4) for one in np.quantile(values, (0.25, 0.5, 0.75))]


def _share(of: Sequence[bool]) -> float | None:
    return 100 * sum(of) / len(of) if len(of) >= _FEWEST else None
