"""How two stretches of time differ in one quantity. The home of scipy on the node's side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ich_node.drift.quantities import SCORES, SHARES_MATTER, Quantity
from ich_node.drift.results import Spread

_TAILS: Final = (0.1, 0.9)


@dataclass(frozen=True, slots=True)
class Difference:
    """What two samples say of each other."""

    reference: Spread
    recent: Spread
    change: float
    p: float
    """Of one comparison, not corrected for others."""
    matters: bool
    """It is large enough for anybody to care."""


def compare_values(reference: Sequence[float], recent: Sequence[float], quantity: Quantity) -> Difference:
    """Compare two samples of a quantity, by ranks: nothing is assumed of how it is distributed.

    The Mann-Whitney test (with its correction for ties) finds shifts with fewer series than any other; it is blind to a
    spread that grows about the same middle, and to a part that shifts one way while another shifts back. Those the
    Kolmogorov-Smirnov test finds. The smaller p is taken, and doubled for the choice (Bonferroni).
    """
    before, after = np.asarray(reference, np.float64), np.asarray(recent, np.float64)
    ks = stats.ks_2samp(before, after)
    rank_p = 1.0 if np.ptp(np.concatenate((before, after))) == 0.0 else float(stats.mannwhitneyu(before, after).pvalue)
    p = min(1.0, 2.0 * min(rank_p, float(ks.pvalue)))
    old, new = _spread(before), _spread(after)
    if quantity is SCORES:
        distance = float(ks.statistic)
        return Difference(old, new, distance, p, distance >= quantity.matters)
    least = quantity.matters * abs(old.middle) if quantity.relative else quantity.matters
    return Difference(old, new, new.middle - old.middle, p, _largest_shift(before, after) >= least)


def compare_shares(before: int, of_before: int, after: int, of_after: int) -> Difference:
    """Compare two shares by Fisher's exact test: both may be few, and none at all."""
    table = [[before, of_before - before], [after, of_after - after]]
    old, new = _share(before, of_before), _share(after, of_after)
    change = new.middle - old.middle
    return Difference(old, new, change, float(stats.fisher_exact(table).pvalue), abs(change) >= SHARES_MATTER)


def _largest_shift(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """Give how far the middle moved, or an end of the middle four fifths: what grows wider may keep its middle."""
    at = (_TAILS[0], 0.5, _TAILS[1])
    return float(np.abs(np.quantile(after, at) - np.quantile(before, at)).max())


def _spread(values: NDArray[np.float64]) -> Spread:
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return Spread(float(low), float(middle), float(high))


def _share(count: int, of: int) -> Spread:
    interval = stats.binomtest(count, of).proportion_ci(0.95, "wilson")
    return Spread(100 * float(interval.low), 100 * count / of, 100 * float(interval.high))
