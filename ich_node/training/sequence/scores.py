"""What the heads said of the slices held out, as ``evaluate`` takes it."""

from collections.abc import Sequence
from pathlib import Path

from ich_node.errors import TrainingError
from ich_node.training.evaluate import RefinedScores
from ich_node.training.predictions import Predictions, read_predictions
from ich_node.training.sequence.stage import REFINED, STUDIES


def read_refined_scores(runs: Sequence[Path], predictions: Predictions) -> RefinedScores:
    """Put the heads' scores in the place of the networks' where a slice is part of a series.

    Raises:
        TrainingError: a run has none.
    """
    for run in runs:
        if not (run / REFINED).exists():
            raise TrainingError(f"{run}: no sequence head was judged here; run `ich-train sequence` on all runs")
    refined = read_predictions(run / REFINED for run in runs)
    by_slice = {(row.source, row.image_id): logits for row, logits in zip(refined.rows, refined.logits, strict=True)}
    slices = predictions.logits.copy()
    for number, row in enumerate(predictions.rows):
        slices[number] = by_slice.get((row.source, row.image_id), slices[number])
    studies = read_predictions(run / STUDIES for run in runs)
    of_studies = {(row.source, row.study): logits for row, logits in zip(studies.rows, studies.logits, strict=True)}
    return RefinedScores(slices, of_studies)
