"""Which slices count, and their scores with the temperatures that calibrate them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ich_node.errors import TrainingError
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.evaluate import calibration
from ich_node.training.evaluate.cases import Cases, RefinedScores, find_studies, slice_cases, study_cases
from ich_node.training.predictions import Predictions

PHANTOM: Final = "phantom"
"""``SliceRow.kind`` of what was drawn by ``ich_node.phantom``."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The slices that count, their scores, and the studies that they form."""

    predictions: Predictions
    logits: NDArray[np.float64]
    """(slices, 6); of the sequence head where there is one."""
    slices: Cases
    studies: Cases | None
    phantoms_left_out: int


def score_cases(
    predictions: Predictions, temperature: Mapping[str, float] | None = None, refined: RefinedScores | None = None
) -> tuple[Scored, dict[str, calibration.Temperature]]:
    """Form slices and studies, calibrated with temperatures that are fitted to them unless they are given.

    Where some slices come from patients, those of phantoms are left out.

    Raises:
        TrainingError: there is no slice, or scores of the sequence head do not fit.
    """
    kept, logits, left_out = _without_phantoms(predictions, refined)
    fitted = calibration.fit_temperatures(logits, kept.labels) if temperature is None else {}
    used = calibration.values(fitted) if temperature is None else temperature
    slices = slice_cases(kept, logits, used)
    studies = find_studies(kept.rows)
    study_logits = refined.study_logits if refined else None
    found = study_cases(slices, studies, used, study_logits) if studies else None
    return Scored(kept, logits, slices, found, left_out), fitted


def _without_phantoms(
    predictions: Predictions, refined: RefinedScores | None
) -> tuple[Predictions, NDArray[np.float64], int]:
    rows = predictions.rows
    logits = refined.slice_logits if refined else predictions.logits
    if not rows:
        raise TrainingError("there is no scored slice; give the folder of a run that has ended")
    if logits.shape != (len(rows), len(HEMORRHAGE_CLASSES)):
        raise TrainingError(f"{len(rows)} slices, but scores of shape {logits.shape}; score the set again")
    real = np.array([row.kind != PHANTOM for row in rows])
    if real.all() or not real.any():
        return predictions, logits, 0
    kept = tuple(row for row in rows if row.kind != PHANTOM)
    return Predictions(kept, predictions.logits[real]), logits[real], int((~real).sum())
