"""Intervals of shares and areas, against tables and other ways to compute them."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from ich_node.intervals.area import area_under_curve
from ich_node.intervals.exact import exact_interval, lower_bound, positives_needed


def test_exact_intervals_are_those_of_the_tables() -> None:
    assert exact_interval(8, 10) == pytest.approx((0.4439, 0.9748), abs=1e-4)
    assert exact_interval(0, 10) == pytest.approx((0.0, 0.3085), abs=1e-4)
    assert exact_interval(10, 10) == pytest.approx((0.6915, 1.0), abs=1e-4)
    assert exact_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("target", "needed"), [(0.95, 72), (0.9, 36), (0.8, 17), (0.975, 146)])
def test_the_number_of_positives_that_a_target_needs_is_the_fewest(target: float, needed: int) -> None:
    assert positives_needed(target) == needed
    assert lower_bound(needed, needed) >= target > lower_bound(needed - 1, needed - 1)


def brute_force(high: list[float], low: list[float]) -> tuple[float, float]:
    """DeLong's area and variance by his own formulas: every pair is looked at."""

    def wins(one: float, other: float) -> float:
        return 1.0 if one > other else 0.5 if one == other else 0.0

    m, n = len(high), len(low)
    area = sum(wins(one, other) for one, other in product(high, low)) / (m * n)
    v10 = [sum(wins(one, other) for other in low) / n for one in high]
    v01 = [sum(wins(one, other) for one in high) / m for other in low]
    s10 = sum((one - area) ** 2 for one in v10) / (m - 1)
    s01 = sum((one - area) ** 2 for one in v01) / (n - 1)
    return area, s10 / m + s01 / n


@pytest.mark.parametrize("seed", range(5))
def test_area_and_interval_are_those_of_every_pair_looked_at_ties_included(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 12, 60) / 12 + np.repeat([0.25, 0.0], 30)
    positive = np.repeat([True, False], 30)

    found = area_under_curve(scores, positive)

    area, variance = brute_force(list(scores[:30]), list(scores[30:]))
    logit, half = math.log(area / (1 - area)), 1.959964 * math.sqrt(variance) / (area * (1 - area))
    assert found is not None
    assert found.value == pytest.approx(area)
    assert found.low == pytest.approx(1 / (1 + math.exp(half - logit)), abs=1e-6)
    assert found.high == pytest.approx(1 / (1 + math.exp(-half - logit)), abs=1e-6)


def test_a_perfect_order_has_an_area_and_no_interval() -> None:
    found = area_under_curve(np.array([0.9, 0.8, 0.2, 0.1]), np.array([True, True, False, False]))
    assert found is not None
    assert (found.value, found.low, found.high) == (1.0, None, None)


def test_one_kind_of_cases_has_no_area() -> None:
    assert area_under_curve(np.array([0.9, 0.8]), np.array([True, True])) is None
