"""Two thresholds of a class, chosen on cases that the network had not seen.

``low``: the highest threshold at which the lower end of the exact 95 % interval of sensitivity reaches the target. With
n positives and none missed that end is 0.025 ** (1 / n), so a target of 0.95 needs 72. Where there are fewer, the
highest threshold at which sensitivity itself reaches the target; the record says so.

``high``: the lowest threshold from ``low`` on at which specificity reaches its target. Between them the answer is
indeterminate.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ich_node.intervals.exact import lower_bound, lower_bounds
from ich_node.model.manifest import OperatingPoint, Thresholds

Level = Literal["slice", "study"]

_FEWEST_DIGITS: Final = 3
_MOST_DIGITS: Final = 17


@dataclass(frozen=True, slots=True)
class ChosenThresholds:
    """Thresholds of a class and what they were measured to do."""

    thresholds: Thresholds
    point: OperatingPoint


def choose_thresholds(
    scores: NDArray[np.float64],
    labels: NDArray[np.integer],
    level: Level,
    target_sensitivity: float = 0.95,
    target_specificity: float = 0.95,
) -> ChosenThresholds:
    """Choose the thresholds of one class from scores (cases,) and labels (cases,) of 0 and 1.

    Without positives they are 0 and 1: whatever comes is indeterminate.
    """
    positive, negative = np.sort(scores[labels > 0]), np.sort(scores[labels <= 0])
    if len(positive):
        low = _choose_low(positive, np.unique(scores), target_sensitivity)
        thresholds = Thresholds(low=low, high=_choose_high(low, negative, np.unique(scores), target_specificity))
    else:
        thresholds = Thresholds(low=0.0, high=1.0)
    point = measure_thresholds(scores, labels, thresholds, level, target_sensitivity, target_specificity)
    return ChosenThresholds(thresholds, point)


def measure_thresholds(
    scores: NDArray[np.float64],
    labels: NDArray[np.integer],
    thresholds: Thresholds,
    level: Level,
    target_sensitivity: float = 0.95,
    target_specificity: float = 0.95,
) -> OperatingPoint:
    """Say what two thresholds of one class do to scores (cases,) and labels (cases,) of 0 and 1."""
    positive, negative = np.sort(scores[labels > 0]), np.sort(scores[labels <= 0])
    found = _reaching(positive, thresholds.low)
    bound = lower_bound(found, len(positive)) if len(positive) else None
    return OperatingPoint(
        level=level,
        positives=len(positive),
        negatives=len(negative),
        target_sensitivity=target_sensitivity,
        sensitivity=found / len(positive) if len(positive) else None,
        sensitivity_low=bound,
        meets_bound=bound is not None and bound >= target_sensitivity,
        specificity=_share_below(negative, thresholds.low),
        target_specificity=target_specificity,
        sensitivity_at_high=_reaching(positive, thresholds.high) / len(positive) if len(positive) else None,
        specificity_at_high=_share_below(negative, thresholds.high),
    )


def _choose_low(positive: NDArray[np.float64], distinct: NDArray[np.float64], target: float) -> float:
    count = len(positive)
    found = count - np.searchsorted(positive, distinct, side="left")
    bounds = lower_bounds(found, count)
    reached = bounds >= target if (bounds >= target).any() else found / count >= target
    return _just_below(distinct, int(np.flatnonzero(reached)[-1]))


def _choose_high(low: float, negative: NDArray[np.float64], distinct: NDArray[np.float64], target: float) -> float:
    if not len(negative):
        return 1.0
    if np.searchsorted(negative, low, side="left") >= target * len(negative):
        return low
    silent = np.searchsorted(negative, distinct, side="left") >= target * len(negative)
    ranks = np.flatnonzero(silent & (distinct >= low))
    return _just_below(distinct, int(ranks[0])) if len(ranks) else _between(float(distinct[-1]), 1.0)


def _just_below(distinct: NDArray[np.float64], rank: int) -> float:
    """Give a threshold that the score at ``rank`` reaches and the one below it does not, far from both."""
    return _between(float(distinct[rank - 1]) if rank else 0.0, float(distinct[rank]))


def _between(lower: float, upper: float) -> float:
    """Give the middle, with as few digits as keep it between; ``upper`` where there is nothing between."""
    middle = (lower + upper) / 2
    for digits in range(_FEWEST_DIGITS, _MOST_DIGITS):
        if lower < round(middle, digits) < upper:
            return round(middle, digits)
    return middle if lower < middle < upper else upper


def _reaching(rising: NDArray[np.float64], threshold: float) -> int:
    return len(rising) - int(np.searchsorted(rising, threshold, side="left"))


def _share_below(rising: NDArray[np.float64], threshold: float) -> float | None:
    return int(np.searchsorted(rising, threshold, side="left")) / len(rising) if len(rising) else None
