"""Does a probability of 0.2 mean one in five? Temperatures per class, and what they mend (Guo et al. 2017)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.evaluate.cases import Cases
from ich_node.training.evaluate.evaluation import CalibrationFigures, ClassCalibration, ReliabilityBin
from ich_node.training.evaluate.log_loss import SMALLEST
from ich_node.triage import calibrate

BINS: Final = 15
"""Of equal mass: each holds as many cases, so that none is nearly empty where most probabilities are near 0."""
LOWEST: Final = 0.05
HIGHEST: Final = 20.0
_SPLITS: Final = 5


@dataclass(frozen=True, slots=True)
class Temperature:
    """What logits of one class are divided by."""

    value: float
    note: str = ""
    """Why it is not fitted, or where it ended."""


@dataclass(frozen=True, slots=True, eq=False)
class CrossFittedTemperatures:
    """Calibration by temperatures that had no part in what they are judged on."""

    probabilities: NDArray[np.float64]
    """(cases, 6)."""
    per_fold: dict[str, dict[str, float]]
    """For each fold, the temperature per class that the others gave."""


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[np.integer]) -> Temperature:
    """Find the temperature between 0.05 and 20 with the least log loss on (cases,) logits of one class.

    Without both kinds of cases, or where a threshold parts them without an error, every temperature is as good as a
    smaller or larger one; then it is 1.
    """
    positive = labels > 0
    if not len(labels) or positive.all() or not positive.any():
        return Temperature(1.0, "not fitted: one of the two classes is missing")
    if logits[positive].min() > logits[~positive].max():
        return Temperature(1.0, "not fitted: the classes are parted without an error")
    signs = np.where(positive, 1.0, -1.0)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, -signs * logits / np.exp(log_temperature)).mean())

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    value = float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5}).x))
    at_end = value < 1.01 * LOWEST or value > 0.99 * HIGHEST
    return Temperature(value, "at the end of its range: the logits tell little" if at_end else "")


def fit_temperatures(logits: NDArray[np.float64], labels: NDArray[np.integer]) -> dict[str, Temperature]:
    """Fit every class on its own, on logits (cases, 6)."""
    return {name: fit_temperature(logits[:, k], labels[:, k]) for k, name in enumerate(HEMORRHAGE_CLASSES)}


def values(temperatures: Mapping[str, Temperature]) -> dict[str, float]:
    """Give the numbers alone."""
    return {name: one.value for name, one in temperatures.items()}


def uncalibrated(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the probabilities of logits (cases, 6) as they are."""
    return calibrate(logits, dict.fromkeys(HEMORRHAGE_CLASSES, 1.0))


def cross_fit_temperatures(logits: NDArray[np.float64], slices: Cases, seed: int) -> CrossFittedTemperatures:
    """Calibrate each fold with temperatures that the other folds fitted, so that the result is not flattered.

    The folds are those of training; where there is but one, patients are dealt to five.
    """
    folds = _fitting_folds(slices.folds, slices.patients, seed)
    probabilities = np.empty_like(logits)
    per_fold = {}
    for fold in np.unique(folds):
        own = folds == fold
        fitted = values(fit_temperatures(logits[~own], slices.labels[~own]))
        probabilities[own] = calibrate(logits[own], fitted)
        per_fold[str(fold)] = fitted
    return CrossFittedTemperatures(probabilities, per_fold)


def measure_classes(
    logits: NDArray[np.float64],
    slices: Cases,
    studies: Cases | None,
    temperatures: Mapping[str, Temperature],
    crossed: CrossFittedTemperatures,
) -> dict[str, ClassCalibration]:
    """Measure the calibration of every class: of slices before and after, of studies as they are shown."""
    before = uncalibrated(logits)
    return {
        name: ClassCalibration(
            temperature=temperatures[name].value,
            note=temperatures[name].note,
            fold_temperatures={fold: fitted[name] for fold, fitted in crossed.per_fold.items()},
            before=measure_calibration(before[:, k], slices.labels[:, k]),
            after=measure_calibration(crossed.probabilities[:, k], slices.labels[:, k]),
            studies=measure_calibration(studies.probabilities[:, k], studies.labels[:, k]) if studies else None,
        )
        for k, name in enumerate(HEMORRHAGE_CLASSES)
    }


def _fitting_folds(folds: NDArray[np.intp], patients: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    if len(np.unique(folds)) > 1:
        return folds
    count = int(patients.max()) + 1 if len(patients) else 0
    dealt: NDArray[np.intp] = np.random.default_rng(seed).permutation(count) % _SPLITS
    return dealt[patients]


def measure_calibration(probabilities: NDArray[np.float64], labels: NDArray[np.integer]) -> CalibrationFigures:
    """Measure (cases,) probabilities of one class: Brier score, log loss, expected calibration error, reliability."""
    positive = labels > 0
    bins = _reliability(probabilities, positive)
    error = sum(one.cases * abs(one.mean_probability - one.observed) for one in bins) / max(1, len(positive))
    chance = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    return CalibrationFigures(
        expected_calibration_error=error,
        brier=float(np.mean((probabilities - positive) ** 2)),
        log_loss=float(-np.log(np.where(positive, chance, 1 - chance)).mean()),
        reliability=bins,
    )


def _reliability(probabilities: NDArray[np.float64], positive: NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    parts = np.array_split(np.argsort(probabilities, kind="stable"), BINS)
    return tuple(
        ReliabilityBin(
            cases=len(part),
            mean_probability=float(probabilities[part].mean()),
            observed=float(positive[part].mean()),
        )
        for part in parts
        if len(part)
    )
