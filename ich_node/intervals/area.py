"""The area under a ROC curve with its interval after DeLong.

E. R. DeLong, D. M. DeLong and D. L. Clarke-Pearson, Biometrics 44 (1988) 837-845, computed by midranks as X. Sun and
W. Xu show, IEEE Signal Process. Lett. 21 (2014) 1389-1393. The interval is made on the logit scale and brought back, so
that it stays between 0 and 1 and keeps its promise near 1: M. S. Pepe, The Statistical Evaluation of Medical Tests
(2003), 5.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ich_node.intervals.proportion import Z, logistic


@dataclass(frozen=True, slots=True)
class Area:
    """An area under a ROC curve; without an interval where the cases cannot give one."""

    value: float
    low: float | None = None
    high: float | None = None


def area_under_curve(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> Area | None:
    """Give the area for scores (cases,) and whether each case is positive; None where there is one kind only.

    An area of 0 or 1 has no interval: no pair is in the wrong order, from which nothing can be learnt of how often
    one will be.
    """
    high, low = scores[positive], scores[~positive]
    if not len(high) or not len(low):
        return None
    ranks = _midranks(np.concatenate((high, low)))
    above = (ranks[: len(high)] - _midranks(high)) / len(low)
    below = 1.0 - (ranks[len(high) :] - _midranks(low)) / len(high)
    value = float(above.mean())
    variance = _variance_of_mean(above) + _variance_of_mean(below)
    if not 0.0 < value < 1.0 or not 0.0 < variance < math.inf:
        return Area(value)
    half = Z * math.sqrt(variance) / (value * (1.0 - value))
    middle = math.log(value / (1.0 - value))
    return Area(value, logistic(middle - half), logistic(middle + half))


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank values from 1; equal ones share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2.0)[inverse]
    return ranks


def _variance_of_mean(values: NDArray[np.float64]) -> float:
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else math.inf
