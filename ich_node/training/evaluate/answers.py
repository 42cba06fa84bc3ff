"""What the thresholds answer: counts, what they do to cases they were not chosen on, where they are wrong."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ich_node.model.manifest import Thresholds
from ich_node.model.threshold_choice import ChosenThresholds
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.evaluate.cases import Cases
from ich_node.training.evaluate.evaluation import Confusion, CrossFitted, WorstCase
from ich_node.training.evaluate.log_loss import loss_of_priors
from ich_node.training.prepared import SliceRow

_FEWEST_NEGATIVE: Final = 0.5
"""Share of the negatives that should come out negative."""


def count_answers(cases: Cases, number: int, pair: Thresholds) -> Confusion:
    """Count the three answers for positive and negative cases of the class in column ``number``."""
    answers = np.digitize(cases.probabilities[:, number], [pair.low, pair.high])
    return Confusion(
        level=cases.level,
        positive=_counts(answers[cases.labels[:, number] > 0]),
        negative=_counts(answers[cases.labels[:, number] <= 0]),
    )


def cross_fit(
    scores: NDArray[np.float64],
    labels: NDArray[np.integer],
    folds: NDArray[np.intp],
    choose: Callable[[NDArray[np.float64], NDArray[np.integer]], ChosenThresholds],
) -> CrossFitted:
    """Judge each fold by thresholds that the other folds chose; all None where there is but one fold."""
    if len(np.unique(folds)) < 2:
        return CrossFitted(sensitivity_low=None, specificity_low=None, sensitivity_high=None, specificity_high=None)
    reached = np.zeros((len(scores), 2), bool)
    for fold in np.unique(folds):
        own = folds == fold
        pair = choose(scores[~own], labels[~own]).thresholds
        reached[own] = scores[own, np.newaxis] >= [pair.low, pair.high]
    found, alarmed = _means(reached[labels > 0]), _means(reached[labels <= 0])
    return CrossFitted(
        sensitivity_low=found[0],
        specificity_low=None if alarmed[0] is None else 1 - alarmed[0],
        sensitivity_high=found[1],
        specificity_high=None if alarmed[1] is None else 1 - alarmed[1],
    )


def find_worst(rows: Sequence[SliceRow], slices: Cases, count: int) -> tuple[list[WorstCase], list[WorstCase]]:
    """Find the positive slices with the lowest probability of ``any`` and the negative ones with the highest."""
    order = np.argsort(slices.probabilities[:, 0], kind="stable")
    positive = slices.labels[order, 0] > 0
    missed, false_alarms = order[positive][:count], order[~positive][::-1][:count]
    return [_worst(rows[k], slices, k) for k in missed], [_worst(rows[k], slices, k) for k in false_alarms]


def warn_of_ranking(losses: NDArray[np.float64], slices: Cases) -> list[str]:
    """Say where the weighted log loss of the slices (slices,) is no better than that of the class frequencies."""
    loss, priors = float(losses.mean()), loss_of_priors(slices.labels.mean(axis=0))
    return (
        [] if loss < priors else [f"weighted log loss {loss:.3f} is no better than that of class priors, {priors:.3f}"]
    )


def warn_of_thresholds(chosen: Mapping[str, ChosenThresholds], headline: str) -> list[str]:
    """Name the classes whose thresholds a site should not rely on without a look at why."""
    return [text for name in HEMORRHAGE_CLASSES for text in _warnings(name, chosen[name], headline)]


def _warnings(name: str, chosen: ChosenThresholds, headline: str) -> list[str]:
    point, low = chosen.point, chosen.thresholds.low
    many = "studies" if point.level == "study" else "slices"
    texts = []
    if not point.positives:
        texts.append(f"{name}: no positive case at all; the answer for this class is always indeterminate")
    elif point.level != headline:
        texts.append(f"{name}: no positive study; its thresholds were chosen on slices, yet judge studies")
    if point.positives and point.specificity is not None and point.specificity < _FEWEST_NEGATIVE:
        silent = round(point.specificity * point.negatives)
        texts.append(
            f"{name}: only {silent} of {point.negatives} negative {many} come out negative at the low threshold "
            f"{low:.3g}; most negatives will be indeterminate"
        )
    return texts


def _counts(answers: NDArray[np.intp]) -> tuple[int, int, int]:
    negative, indeterminate, positive = np.bincount(answers, minlength=3)
    return int(negative), int(indeterminate), int(positive)


def _means(reached: NDArray[np.bool_]) -> tuple[float | None, float | None]:
    if not len(reached):
        return None, None
    low, high = reached.mean(axis=0)
    return float(low), float(high)


def _worst(row: SliceRow, slices: Cases, number: int) -> WorstCase:
    shown = tuple(name for name, label in zip(HEMORRHAGE_CLASSES, row.labels, strict=True) if label)
    probability = float(slices.probabilities[number, 0])
    return WorstCase(source=row.source, image_id=row.image_id, probability=probability, labels=shown)
