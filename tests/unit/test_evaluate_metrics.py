import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from ich_node.training.evaluate.bootstrap import draw_patients, with_interval
from ich_node.training.evaluate.class_figures import point_figures, rank, resampled_figures
from ich_node.training.evaluate.log_loss import loss_of_priors, weighted_log_loss

PRIORS = np.array([0.1449, 0.0042, 0.049, 0.035, 0.048, 0.063])
"""Shares of any, EDH, IPH, IVH, SAH, SDH among the slices of the challenge's training set."""


def test_the_class_priors_give_the_known_log_loss() -> None:
    assert loss_of_priors(PRIORS) == pytest.approx(0.2328, abs=1e-4)


def test_the_log_loss_is_the_one_worked_out_by_hand() -> None:
    labels = np.array([[1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    probabilities = np.array([[0.8, 0.1, 0.6, 0.1, 0.1, 0.1], [0.2, 0.5, 0.1, 0.1, 0.1, 0.1]])
    first = (2 * -np.log(0.8) - np.log(0.6) + 4 * -np.log(0.9)) / 7
    second = (2 * -np.log(0.8) - np.log(0.5) + 4 * -np.log(0.9)) / 7
    assert weighted_log_loss(labels, probabilities) == pytest.approx((first + second) / 2)


def test_answering_the_priors_scores_as_their_entropy() -> None:
    labels = np.zeros((10_000, 6), int)
    for column, share in enumerate(PRIORS):
        labels[: round(10_000 * share), column] = 1
    everywhere = np.tile(labels.mean(axis=0), (10_000, 1))
    assert weighted_log_loss(labels, everywhere) == pytest.approx(loss_of_priors(labels.mean(axis=0)))
    assert weighted_log_loss(labels, everywhere) == pytest.approx(0.2328, abs=1e-4)


def test_a_sure_error_costs_what_the_challenge_says() -> None:
    labels = np.zeros((1, 6), int)
    assert weighted_log_loss(labels, np.ones((1, 6))) == pytest.approx(-np.log(1e-15), rel=1e-3)


def scores_with_ties(cases: int = 400) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    generator = np.random.default_rng(3)
    labels = (generator.random(cases) < 0.2).astype(int)
    return np.round(np.clip(0.35 * labels + generator.normal(0.3, 0.2, cases), 0, 1), 2), labels


def test_resampled_figures_are_those_of_scikit_learn_with_weights() -> None:
    scores, labels = scores_with_ties()
    times = np.random.default_rng(0).integers(0, 4, (5, len(scores))).astype(np.uint8)
    figures = resampled_figures(times, rank(scores, labels), {"low": 0.31, "high": 0.6})
    for number, weights in enumerate(times):
        assert figures["auc"][number] == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights))
        expected = average_precision_score(labels, scores, sample_weight=weights)
        assert figures["average_precision"][number] == pytest.approx(expected)
        found = np.average(scores[labels > 0] >= 0.31, weights=weights[labels > 0])
        assert figures["sensitivity_low"][number] == pytest.approx(found)
        silent = np.average(scores[labels == 0] < 0.6, weights=weights[labels == 0])
        assert figures["specificity_high"][number] == pytest.approx(silent)
        assert figures["brier"][number] == pytest.approx(np.average((scores - labels) ** 2, weights=weights))


def test_drawing_every_case_once_gives_the_point_figures() -> None:
    scores, labels = scores_with_ties()
    thresholds = {"low": float(scores[0]), "high": 0.9, "half": 0.5}
    point = point_figures(scores, labels, thresholds)
    drawn = resampled_figures(np.ones((1, len(scores)), np.uint8), rank(scores, labels), thresholds)
    assert drawn.keys() == point.keys()
    assert all(drawn[name][0] == pytest.approx(value) for name, value in point.items())


def test_slices_of_a_patient_are_drawn_together() -> None:
    patients = np.repeat(np.arange(20), 5)
    (times,) = draw_patients(patients, 50, seed=1)
    by_patient = times.reshape(50, 20, 5)
    assert (by_patient == by_patient[:, :, :1]).all()
    assert (by_patient[:, :, 0].sum(axis=1) == 20).all()
    assert by_patient.max() > 1


def test_the_same_seed_draws_the_same() -> None:
    patients = np.arange(30)
    (first,), (again,), (other,) = (draw_patients(patients, 20, seed) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_many_cases_are_drawn_in_blocks() -> None:
    patients = np.arange(700_000) // 30
    block = next(draw_patients(patients, 1000, seed=0))
    assert block.shape == (2, 700_000)


def test_an_interval_is_wider_where_the_same_slices_come_from_fewer_patients() -> None:
    generator = np.random.default_rng(0)
    patient = np.repeat(np.arange(40), 10)
    labels = np.repeat(np.arange(40) % 2, 10)
    scores = np.repeat(generator.random(40), 10) + 0.3 * labels
    ranking = rank(scores, labels)

    def width(groups: NDArray[np.int64]) -> float:
        drawn = [resampled_figures(times, ranking, {})["auc"] for times in draw_patients(groups, 300, seed=0)]
        figure = with_interval(0.5, np.concatenate(drawn))
        assert figure.low is not None
        assert figure.high is not None
        return figure.high - figure.low

    assert width(patient) > 2 * width(np.arange(400))


def test_where_resamples_lack_a_class_there_is_no_interval_but_a_reason() -> None:
    labels = np.array([1] + [0] * 9)
    ranking = rank(np.linspace(1, 0, 10), labels)
    (times,) = draw_patients(np.arange(10), 200, seed=0)
    figure = with_interval(1.0, resampled_figures(times, ranking, {})["auc"])
    assert figure.value == 1.0
    assert figure.low is figure.high is None
    assert "resamples hold one class only" in figure.note


def test_a_figure_that_is_not_defined_says_so() -> None:
    point = point_figures(np.array([0.1, 0.2]), np.array([0, 0]), {"low": 0.15})
    figure = with_interval(point["auc"], np.array([np.nan]))
    assert figure.value is None
    assert "one of the two classes is missing" in figure.note
    assert point["specificity_low"] == 0.5


def test_a_figure_that_is_the_same_in_every_resample_gets_no_interval_of_width_zero() -> None:
    figure = with_interval(1.0, np.ones(100))
    assert figure.low is figure.high is None
    assert "does not make it certain" in figure.note
