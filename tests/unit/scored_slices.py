"""Synthetic scores of slices with their truth, for the tests of evaluation and export."""

import numpy as np
from numpy.typing import NDArray

from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.predictions import Predictions
from ich_node.training.prepared import SliceRow

_RATES = np.array([0.0, 0.05, 0.3, 0.2, 0.25, 0.35])
"""Of the subtypes among bleeding patients; ``any`` follows from them."""


def draw_predictions(
    patients: int = 60,
    slices: int = 10,
    separation: float = 3.0,
    scale: float = 1.0,
    kind: str = "dicom",
    sources: int = 1,
    studies: bool = True,
    seed: int = 0,
) -> Predictions:
    """Draw patients with one study each, half of them bleeding in a run of slices; five folds by patient.

    Args:
        patients: In all.
        slices: Of each.
        separation: Between the mean logits of positive and negative slices.
        scale: All logits are multiplied by it; 1 is about calibrated.
        kind: Of the rows.
        sources: Dealt to by patient.
        studies: False leaves studies and positions out.
        seed: The same seed draws the same.
    """
    generator = np.random.default_rng(seed)
    rows: list[SliceRow] = []
    for patient in range(patients):
        labels = _labels(generator, slices, bleeding=patient % 4 < 2)
        source = f"source{patient % sources}"
        rows += [_row(patient, number, labels[number], kind, source, studies) for number in range(slices)]
    truth = np.array([row.labels for row in rows], float)
    noise = generator.normal(0, 1.2, truth.shape) + np.repeat(generator.normal(0, 0.5, (patients, 6)), slices, axis=0)
    return Predictions(tuple(rows), scale * (separation * (truth - 0.7) + noise))


def _labels(generator: np.random.Generator, slices: int, bleeding: bool) -> NDArray[np.int64]:
    """(slices, 6) of 0 and 1."""
    labels = np.zeros((slices, len(HEMORRHAGE_CLASSES)), np.int64)
    if bleeding:
        start = generator.integers(0, slices - 3)
        shown = generator.random(6) < _RATES
        shown[1 + generator.integers(1, 5)] = True
        labels[start : start + 3] = shown
        labels[:, 0] = labels[:, 1:].max(axis=1)
    return labels


def _row(patient: int, number: int, labels: NDArray[np.int64], kind: str, source: str, study: bool) -> SliceRow:
    return SliceRow(
        image_id=f"p{patient:03d}-{number:02d}",
        source=source,
        pixels="hu",
        kind=kind,
        shard="00000.safetensors",
        index=number,
        labels=tuple(int(one) for one in labels),
        patient_id=f"p{patient:03d}",
        study=f"s{patient:03d}" if study else "",
        position_mm=5.0 * number if study else None,
        lesion_mm2=float(40 * (patient % 7 + 1) * (number % 3 + 1)) if labels[0] else 0.0,
        group=f"g{patient:03d}",
        fold=patient % 5,
    )
