"""Exact intervals of a share: C. J. Clopper and E. S. Pearson, Biometrika 26 (1934) 404-413.

They hold what they promise for every number of cases, at the price of being wide where there are few. What is decided
on such an end, as thresholds are, is decided on the safe side.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

_TAIL: Final = 0.025


def exact_interval(count: int, of: int) -> tuple[float, float]:
    """Give the exact two-sided 95 % interval of a share; of nothing, everything is possible."""
    low = float(beta.ppf(_TAIL, count, of - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - _TAIL, count + 1, of - count)) if count < of else 1.0
    return low, high


def lower_bound(found: int, positives: int) -> float:
    """Give the lower end of the exact two-sided 95 % interval of a share."""
    return exact_interval(found, positives)[0]


def lower_bounds(found: NDArray[np.integer], positives: int) -> NDArray[np.float64]:
    """Give the same for several counts (counts,) of so many."""
    bounds: NDArray[np.float64] = np.where(found > 0, beta.ppf(_TAIL, np.maximum(found, 1), positives - found + 1), 0.0)
    return bounds


def positives_needed(target: float) -> int:
    """Say of how many positives, none of them missed, the lower end reaches a target: 72 for 0.95."""
    needed = math.ceil(math.log(_TAIL) / math.log(target) - 1e-9)
    return needed if lower_bound(needed, needed) >= target else needed + 1
