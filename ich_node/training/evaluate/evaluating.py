"""Scores of slices that no network had seen → everything that is to be said of a model."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ich_node.model.threshold_choice import ChosenThresholds, choose_thresholds
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.evaluate import calibration
from ich_node.training.evaluate.answers import count_answers, cross_fit, find_worst, warn_of_ranking, warn_of_thresholds
from ich_node.training.evaluate.cases import Cases, RefinedScores
from ich_node.training.evaluate.conditions import describe_conditions
from ich_node.training.evaluate.evaluation import CrossFitted, Evaluation, SourceResult
from ich_node.training.evaluate.levels import (
    measure_lesion_sizes,
    measure_level,
    measure_prevalences,
    measure_sources,
)
from ich_node.training.evaluate.log_loss import case_losses
from ich_node.training.evaluate.scored import score_cases
from ich_node.training.evaluate.settings import EvaluationSettings
from ich_node.training.predictions import Predictions

ThresholdRule = Callable[[NDArray[np.float64], NDArray[np.integer]], ChosenThresholds]
"""Scores (cases,) and labels (cases,) to thresholds."""


def evaluate(
    predictions: Predictions,
    settings: EvaluationSettings | None = None,
    *,
    refined: RefinedScores | None = None,
    runs: Sequence[str] = (),
    network: str = "",
) -> Evaluation:
    """Measure a model on slices that it had not seen, of one or several folds together.

    Args:
        predictions: Of the slice network.
        settings: Targets, resamples, prevalences.
        refined: What a sequence head made of the same slices, where the model has one.
        runs: Names of the runs the predictions come from, for the record.
        network: ``network_of`` these runs, which ``export`` compares.

    Raises:
        TrainingError: there is no slice, or scores of the sequence head do not fit.
    """
    settings = settings or EvaluationSettings()
    scored, temperatures = score_cases(predictions, refined=refined)
    slices, studies = scored.slices, scored.studies
    crossed = calibration.cross_fit_temperatures(scored.logits, slices, settings.seed)
    chosen = _choose(slices, studies, settings)
    thresholds = {name: one.thresholds for name, one in chosen.items()}
    losses = {
        "weighted_log_loss": case_losses(slices.labels, crossed.probabilities),
        "weighted_log_loss_uncalibrated": case_losses(slices.labels, calibration.uncalibrated(scored.logits)),
    }
    headline = slices if studies is None else studies
    of_slices = measure_level(slices, thresholds, settings, losses)
    of_studies = measure_level(studies, thresholds, settings) if studies else None
    missed, false_alarms = find_worst(scored.predictions.rows, slices, settings.worst_cases)
    return Evaluation(
        conditions=describe_conditions(scored, settings, refined is not None, runs, network),
        slices=of_slices,
        studies=of_studies,
        sources=measure_sources(slices, studies, thresholds, settings, losses)
        if len(set(slices.sources.tolist())) > 1
        else {str(slices.sources[0]): SourceResult(slices=of_slices, studies=of_studies)},
        lesion_sizes=tuple(
            size for cases in (slices, studies) if cases for size in measure_lesion_sizes(cases, thresholds, settings)
        ),
        temperature=calibration.values(temperatures),
        thresholds=thresholds,
        operating_points={name: one.point for name, one in chosen.items()},
        cross_fitted={name: _cross_fit(name, slices, studies, settings) for name in HEMORRHAGE_CLASSES},
        calibration=calibration.measure_classes(scored.logits, slices, studies, temperatures, crossed),
        prevalences=tuple(measure_prevalences(headline, thresholds, settings)),
        confusion={
            name: count_answers(headline, number, thresholds[name]) for number, name in enumerate(HEMORRHAGE_CLASSES)
        },
        missed=tuple(missed),
        false_alarms=tuple(false_alarms),
        warnings=(*warn_of_ranking(losses["weighted_log_loss"], slices), *warn_of_thresholds(chosen, headline.level)),
    )


def _choose(slices: Cases, studies: Cases | None, settings: EvaluationSettings) -> dict[str, ChosenThresholds]:
    chosen = {}
    for number, name in enumerate(HEMORRHAGE_CLASSES):
        cases = _level_of(name, slices, studies)
        chosen[name] = _rule(cases, settings)(cases.probabilities[:, number], cases.labels[:, number])
    return chosen


def _cross_fit(name: str, slices: Cases, studies: Cases | None, settings: EvaluationSettings) -> CrossFitted:
    cases, number = _level_of(name, slices, studies), HEMORRHAGE_CLASSES.index(name)
    rule = _rule(cases, settings)
    return cross_fit(cases.probabilities[:, number], cases.labels[:, number], cases.folds, rule)


def _level_of(name: str, slices: Cases, studies: Cases | None) -> Cases:
    """Thresholds are of studies, as the node uses them, unless no study is positive for the class and a slice is."""
    number = HEMORRHAGE_CLASSES.index(name)
    if studies is None or (not studies.labels[:, number].any() and slices.labels[:, number].any()):
        return slices
    return studies


def _rule(cases: Cases, settings: EvaluationSettings) -> ThresholdRule:
    return partial(
        choose_thresholds,
        level=cases.level,
        target_sensitivity=settings.target_sensitivity,
        target_specificity=settings.target_specificity,
    )
