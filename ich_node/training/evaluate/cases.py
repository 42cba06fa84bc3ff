"""What is measured: slices, or studies with the score that the node would give them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ich_node.errors import TrainingError
from ich_node.model.threshold_choice import Level
from ich_node.training.predictions import Predictions
from ich_node.training.prepared import SliceRow, series_of
from ich_node.triage import calibrate, pool_planes

StudyKey = tuple[str, str]
"""Source and study."""

FEWEST_SLICES: Final = 2
"""Of a study; a slice alone is none."""


@dataclass(frozen=True, slots=True, eq=False)
class RefinedScores:
    """What a sequence head made of the same slices."""

    slice_logits: NDArray[np.float64]
    """(slices, 6), in the order of the predictions' rows."""
    study_logits: Mapping[StudyKey, NDArray[np.float64]]
    """(6,) for each study."""


@dataclass(frozen=True, slots=True, eq=False)
class Cases:
    """Slices or studies, one to a row of every array."""

    level: Level
    names: tuple[str, ...]
    probabilities: NDArray[np.float64]
    """(cases, 6), calibrated."""
    labels: NDArray[np.int8]
    """(cases, 6) of 0 and 1; of a study, whether a slice of it shows the class."""
    patients: NDArray[np.intp]
    """(cases,): a number for each patient, or for what stands in for one; what is drawn together in a bootstrap."""
    sources: NDArray[np.str_]
    """(cases,), see :func:`parts_of_sources`."""
    folds: NDArray[np.intp]
    lesion_mm2: NDArray[np.float64]
    """(cases,): of the slice, or of the study's slice with the largest; NaN where it is unknown."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, chosen: NDArray[np.bool_]) -> "Cases":
        """Give those that are marked in ``chosen`` (cases,)."""
        names = tuple(name for name, keep in zip(self.names, chosen, strict=True) if keep)
        return Cases(
            self.level,
            names,
            self.probabilities[chosen],
            self.labels[chosen],
            self.patients[chosen],
            self.sources[chosen],
            self.folds[chosen],
            self.lesion_mm2[chosen],
        )


def patient_numbers(rows: Sequence[SliceRow]) -> NDArray[np.intp]:
    """Number the patients (rows,); where one is unknown the group of near-duplicates or the image stands in."""
    keys = [_patient(row) for row in rows]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.intp)


def parts_of_sources(rows: Sequence[SliceRow]) -> list[str]:
    """Name the source of each slice, and apart those whose patient nobody knows.

    Another slice of such a patient may have been trained on, so what is measured on them is optimistic.
    """
    known = {row.source for row in rows if row.patient_id}

    def name(row: SliceRow) -> str:
        if not row.patient_id:
            return f"{row.source}, patients unknown (optimistic)"
        return f"{row.source}, patients known" if row.source in mixed else row.source

    mixed = known & {row.source for row in rows if not row.patient_id}
    return [name(row) for row in rows]


def slice_cases(predictions: Predictions, logits: NDArray[np.float64], temperature: Mapping[str, float]) -> Cases:
    """Make a case of every slice."""
    rows = predictions.rows
    return Cases(
        "slice",
        tuple(row.image_id for row in rows),
        calibrate(logits, temperature),
        predictions.labels,
        patient_numbers(rows),
        np.array(parts_of_sources(rows), np.str_),
        np.array([row.fold for row in rows], np.intp),
        np.array([np.nan if row.lesion_mm2 is None else row.lesion_mm2 for row in rows]),
    )


def find_studies(rows: Sequence[SliceRow]) -> dict[StudyKey, NDArray[np.intp]]:
    """Find the rows of each study in anatomical order; slices whose place is unknown belong to none."""
    return {key: numbers for key, numbers in series_of(rows).items() if len(numbers) >= FEWEST_SLICES}


def study_cases(
    slices: Cases,
    studies: Mapping[StudyKey, NDArray[np.intp]],
    temperature: Mapping[str, float],
    study_logits: Mapping[StudyKey, NDArray[np.float64]] | None = None,
) -> Cases:
    """Make a case of every study, scored by the node's own rule; ``study_logits`` of a sequence head take its place.

    Raises:
        TrainingError: the sequence head has not scored a study.
    """
    members = list(studies.values())
    if study_logits is None:
        scores = [pool_planes(slices.probabilities[rows]) for rows in members]
    else:
        if missing := [study for study in studies if study not in study_logits]:
            raise TrainingError(f"{len(missing)} studies have no score of the sequence head; score the whole set again")
        scores = [calibrate(study_logits[study].reshape(1, -1), temperature)[0] for study in studies]
    first = np.array([rows[0] for rows in members], np.intp)
    return Cases(
        "study",
        tuple(study for _, study in studies),
        np.array(scores).reshape(len(members), -1),
        np.array([slices.labels[rows].max(axis=0) for rows in members], np.int8).reshape(len(members), -1),
        slices.patients[first],
        slices.sources[first],
        slices.folds[first],
        np.array([_largest(slices.lesion_mm2[rows]) for rows in members]),
    )


def _patient(row: SliceRow) -> tuple[str, str, str]:
    if row.patient_id:
        return row.source, "patient", row.patient_id
    return ("", "group", row.group) if row.group else (row.source, "image", row.image_id)


def _largest(areas: NDArray[np.float64]) -> float:
    known = areas[~np.isnan(areas)]
    return float(known.max()) if len(known) else float("nan")
