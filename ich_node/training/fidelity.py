"""How far a network in 8 bits is from the same one in float32: slice by slice, and in what is decided of studies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from ich_node.errors import TrainingError
from ich_node.model.bundle import ModelBundle
from ich_node.model.engine import Engine, run_sequence_head
from ich_node.model.manifest import QuantizedFigures
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.evaluate.cases import find_studies
from ich_node.training.prepared import SliceRow
from ich_node.triage import calibrate, pool_planes
from ich_node.windowing import Windowing

LARGEST_DIFFERENCE: Final = 0.03
"""In calibrated probability, of any class on any slice."""

_ANY: Final = HEMORRHAGE_CLASSES.index("any")
Floats = NDArray[np.float32]
Probabilities = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What an engine says of slices and of their studies."""

    slices: Probabilities
    """(slices, 6), calibrated."""
    decisions: NDArray[np.intp]
    """(studies,): 0 negative, 1 indeterminate, 2 positive."""


def measure_fidelity(
    bundle: ModelBundle,
    engine: Engine,
    reference: Engine,
    rows: Sequence[SliceRow],
    read_hu: Callable[[SliceRow], Floats],
    compared_on: str,
) -> QuantizedFigures:
    """Let two engines score the same slices, one by one as the node does, and compare what they say.

    Args:
        bundle: Whose networks the engines run.
        engine: In 8 bits.
        reference: In float32.
        rows: The slices; those of a study are also judged together.
        read_hu: Gives a slice (rows, columns) in HU.
        compared_on: Says in words which slices these are.
    """
    windowing = Windowing(bundle.manifest.preprocessing)
    scored = []
    for row in rows:
        with torch.inference_mode():
            image = windowing(torch.from_numpy(read_hu(row)).unsqueeze(0))
        scored.append((*engine.score(image), *reference.score(image)))
    columns = [np.concatenate(one) for one in zip(*scored, strict=True)]
    found, expected = _answers(bundle, rows, *columns[:2]), _answers(bundle, rows, *columns[2:])
    largest = np.abs(found.slices - expected.slices).max(axis=1)
    return QuantizedFigures(
        compared_on=compared_on,
        slices=len(rows),
        largest_difference=float(largest.max()),
        mean_difference=float(largest.mean()),
        studies=len(expected.decisions),
        equal_decisions=int((found.decisions == expected.decisions).sum()),
        device=engine.device,
    )


def demand_fidelity(figures: QuantizedFigures) -> None:
    """See that a network in 8 bits says what the one in float32 says.

    Raises:
        TrainingError: it does not, or there was no study to tell by.
    """
    if not figures.studies:
        raise TrainingError(f"{figures.compared_on}: no whole study among them; give a prepared set that holds some")
    if figures.largest_difference > LARGEST_DIFFERENCE or figures.equal_decisions < figures.studies:
        raise TrainingError(
            f"{figures.in_words()}; at most {LARGEST_DIFFERENCE} and all studies are allowed. Nothing was written. "
            "Calibrate on more slices; if it still differs, this network is too sensitive for 8 bits"
        )


def _answers(bundle: ModelBundle, rows: Sequence[SliceRow], logits: Floats, embeddings: Floats) -> Answers:
    manifest, studies = bundle.manifest, find_studies(rows)
    refined, pooled = logits.astype(np.float64), []
    for members in studies.values():
        if manifest.sequence_head is None:
            pooled.append(pool_planes(calibrate(refined[members], manifest.temperature)))
        else:
            positions = np.array([rows[number].position_mm for number in members], np.float32)
            refined[members], study_logits = run_sequence_head(bundle, embeddings[members], positions)
            pooled.append(calibrate(study_logits[np.newaxis].astype(np.float64), manifest.temperature)[0])
    thresholds = manifest.thresholds["any"]
    any_bleed = np.array([one[_ANY] for one in pooled], np.float64)
    decisions = np.digitize(any_bleed, [thresholds.low, thresholds.high])
    return Answers(calibrate(refined, manifest.temperature), decisions)
