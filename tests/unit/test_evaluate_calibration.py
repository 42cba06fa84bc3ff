import numpy as np
import pytest

from ich_node.training.evaluate.calibration import (
    BINS,
    cross_fit_temperatures,
    fit_temperature,
    fit_temperatures,
    measure_calibration,
    measure_classes,
)
from ich_node.training.evaluate.scored import score_cases
from tests.unit.scored_slices import draw_predictions


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_a_temperature_finds_the_scale_of_the_logits(scale: float) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(-1, 2, 40_000)
    labels = (generator.random(40_000) < 1 / (1 + np.exp(-logits))).astype(int)
    assert fit_temperature(scale * logits, labels).value == pytest.approx(scale, rel=0.03)


def test_what_cannot_be_fitted_is_left_as_it_is_and_says_why() -> None:
    assert fit_temperature(np.array([1.0, 2.0]), np.array([0, 0])).note.startswith("not fitted")
    parted = fit_temperature(np.array([-1.0, 2.0]), np.array([0, 1]))
    assert (parted.value, parted.note) == (1.0, "not fitted: the classes are parted without an error")
    senseless = fit_temperature(np.array([3.0, -3.0, 4.0]), np.array([0, 1, 0]))
    assert "at the end of its range" in senseless.note


def test_bins_hold_equally_many_cases() -> None:
    probabilities = np.random.default_rng(0).beta(0.3, 3, 3000)
    figures = measure_calibration(probabilities, (np.random.default_rng(1).random(3000) < probabilities).astype(int))
    assert [one.cases for one in figures.reliability] == [200] * BINS
    assert figures.expected_calibration_error < 0.03


def test_the_calibration_error_is_the_one_worked_out_by_hand() -> None:
    probabilities = np.repeat([0.2, 0.8], [100, 200])
    labels = np.tile([1, 0], 150)
    assert measure_calibration(probabilities, labels).expected_calibration_error == pytest.approx(0.3)


def test_after_is_measured_with_temperatures_of_the_other_folds_and_mends_a_wrong_scale() -> None:
    predictions = draw_predictions(scale=5.0)
    scored, temperatures = score_cases(predictions)
    crossed = cross_fit_temperatures(scored.logits, scored.slices, seed=0)
    folds = scored.slices.folds
    without_first = fit_temperatures(scored.logits[folds != 0], scored.slices.labels[folds != 0])
    assert crossed.per_fold["0"]["any"] == without_first["any"].value
    assert crossed.per_fold["0"]["any"] != temperatures["any"].value
    result = measure_classes(scored.logits, scored.slices, scored.studies, temperatures, crossed)["any"]
    assert result.temperature > 2
    assert result.after.log_loss < result.before.log_loss
    assert result.after.expected_calibration_error < result.before.expected_calibration_error
