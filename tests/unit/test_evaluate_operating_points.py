import numpy as np
import pytest

from ich_node.intervals.exact import lower_bound
from ich_node.model.threshold_choice import choose_thresholds


def test_seventy_two_positives_with_none_missed_meet_the_bound_and_seventy_one_do_not() -> None:
    assert lower_bound(72, 72) >= 0.95
    assert lower_bound(71, 71) < 0.95
    assert lower_bound(72, 72) == pytest.approx(0.9501, abs=1e-4)


def test_the_bound_is_the_exact_one() -> None:
    assert lower_bound(45, 50) == pytest.approx(0.7819, abs=1e-4)
    assert lower_bound(0, 10) == 0.0


def cases(positive: list[float], negative: list[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(positive + negative), np.array([1] * len(positive) + [0] * len(negative))


def test_low_is_the_highest_threshold_that_meets_the_bound() -> None:
    positive = [0.3, *np.linspace(0.6, 0.9, 199).tolist()]
    chosen = choose_thresholds(*cases(positive, [0.1, 0.2, 0.5, 0.55]), "study")
    assert chosen.point.meets_bound
    found = round((chosen.point.sensitivity or 0) * 200)
    assert lower_bound(found, 200) >= 0.95 > lower_bound(found - 1, 200)
    assert found < 200
    assert chosen.point.specificity == 1.0


def test_too_few_positives_take_the_point_and_say_what_bound_is_reached() -> None:
    positive = np.linspace(0.2, 0.9, 36).tolist()
    chosen = choose_thresholds(*cases(positive, [0.1, 0.15, 0.21, 0.8]), "study")
    point = chosen.point
    assert not point.meets_bound
    assert point.sensitivity == pytest.approx(35 / 36)
    assert point.sensitivity_low == pytest.approx(lower_bound(35, 36))
    assert (point.positives, point.negatives) == (36, 4)
    assert positive[0] < chosen.thresholds.low < positive[1]
    assert "target 0.95 NOT met: 36 positive studies" in point.in_words("any")


def test_a_threshold_lies_between_scores_and_not_on_one() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random(500) < 0.4).astype(int)
    scores = np.clip(generator.normal(0.3 + 0.3 * labels, 0.15), 0, 1)
    pair = choose_thresholds(scores, labels, "study").thresholds
    assert pair.low not in scores
    assert pair.high not in scores
    moved = scores + generator.uniform(-1e-12, 1e-12, 500)
    for threshold in (pair.low, pair.high):
        assert np.array_equal(scores >= threshold, moved >= threshold)


def test_high_is_the_lowest_threshold_of_the_wanted_specificity() -> None:
    negative = np.linspace(0.0, 0.5, 100).tolist()
    positive = np.linspace(0.05, 0.95, 80).tolist()
    chosen = choose_thresholds(*cases(positive, negative), "study")
    assert chosen.point.specificity_at_high == 0.95
    assert chosen.thresholds.high >= chosen.thresholds.low


def test_where_low_is_specific_enough_both_are_one() -> None:
    chosen = choose_thresholds(*cases([0.8] * 80, [0.1] * 40), "study")
    assert chosen.thresholds.low == chosen.thresholds.high
    assert 0.1 < chosen.thresholds.low < 0.8


def test_negatives_above_all_positives_leave_a_high_threshold_above_them() -> None:
    chosen = choose_thresholds(*cases([0.1, 0.2], [0.9] * 10), "study")
    assert chosen.thresholds.high > 0.9
    assert chosen.point.specificity_at_high == 1.0
    assert chosen.point.sensitivity_at_high == 0.0


def test_equal_scores_are_never_parted() -> None:
    chosen = choose_thresholds(*cases([0.4] * 10 + [0.7] * 90, [0.1, 0.4, 0.7]), "study")
    assert chosen.point.sensitivity == 1.0


def test_neighbouring_numbers_have_a_threshold_too() -> None:
    upper = np.nextafter(0.5, 1)
    chosen = choose_thresholds(*cases([upper] * 80, [0.5] * 20), "study")
    assert chosen.point.sensitivity == 1.0
    assert chosen.point.specificity == 1.0


def test_without_positives_everything_is_indeterminate() -> None:
    chosen = choose_thresholds(*cases([], [0.1, 0.9]), "slice")
    assert (chosen.thresholds.low, chosen.thresholds.high) == (0.0, 1.0)
    assert chosen.point.sensitivity is None
    assert not chosen.point.meets_bound
    assert "always indeterminate" in chosen.point.in_words("epidural")
