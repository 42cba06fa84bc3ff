"""Scores of slices beside their truth, as a table that any program reads.

``fit`` writes one of the slices that it held out (``held-out.csv``); ``evaluate`` reads those of all folds together.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ich_node.durable import replace_durably
from ich_node.errors import TrainingError
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.prepared import COLUMNS, SliceRow, cells_of, row_of, table_of

LOGITS: Final = tuple(f"logit_{name}" for name in HEMORRHAGE_CLASSES)


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Slices with their truth and what a network said of them, which had never seen their group."""

    rows: tuple[SliceRow, ...]
    logits: NDArray[np.float64]
    """(slices, 6), in the order of HEMORRHAGE_CLASSES; corrected for sampling, not calibrated."""

    @property
    def labels(self) -> NDArray[np.int8]:
        """(slices, 6) of 0 and 1."""
        return np.array([row.labels for row in self.rows], np.int8).reshape(-1, len(HEMORRHAGE_CLASSES))


def write_predictions(path: Path, rows: Sequence[SliceRow], logits: NDArray[np.floating]) -> None:
    """Write the scores (slices, 6) of rows."""
    scored = zip(rows, logits, strict=True)
    cells = ([*cells_of(row), *(f"{score:.6g}" for score in scores)] for row, scores in scored)
    replace_durably(path, [table_of((*COLUMNS, *LOGITS), cells)])


def read_predictions(paths: Iterable[Path]) -> Predictions:
    """Read the tables of one or several folds together.

    Raises:
        TrainingError: a table is missing or no such table, a slice is scored twice, or a score is no finite number.
    """
    rows: list[SliceRow] = []
    logits: list[list[float]] = []
    for path in paths:
        try:
            for record in csv.DictReader(path.read_text().splitlines()):
                logits.append([float(record[name]) for name in LOGITS])
                rows.append(row_of(record))
        except FileNotFoundError:
            raise TrainingError(f"{path}: not there; it is written when `ich-train fit` ends") from None
        except (KeyError, ValueError) as error:
            raise TrainingError(f"{path}: no table of scores ({error}); run `ich-train fit` again") from None
    keys = [(row.source, row.image_id) for row in rows]
    if len(set(keys)) != len(keys):
        raise TrainingError("the tables score the same slice twice; give one run for each fold")
    scores = np.array(logits, np.float64).reshape(-1, len(LOGITS))
    if not np.isfinite(scores).all():
        raise TrainingError("a score is no finite number; train the run again")
    return Predictions(tuple(rows), scores)
