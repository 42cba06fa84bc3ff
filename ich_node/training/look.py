"""Prepared slices as the node would see them: for pictures in a report, and to compare engines on."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ich_node.errors import TrainingError
from ich_node.training.fit.images import hounsfield
from ich_node.training.fit.store import SliceStore
from ich_node.training.prepared import PreparedSet, SliceRow, series_of
from ich_node.training.restore import usual_restoration


class PreparedSlices:
    """Slices of prepared sets in Hounsfield units, read from the disk as they are asked for."""

    def __init__(self, data: Sequence[PreparedSet]) -> None:
        self._store = SliceStore(data, torch.device("cpu"), resident_gib=0)
        self._numbers = {(row.source, row.image_id): number for number, row in enumerate(self._store.rows)}

    def hu(self, row: SliceRow) -> NDArray[np.float32]:
        """One slice, (rows, columns).

        Raises:
            TrainingError: the sets do not hold it.
        """
        number = self._numbers.get((row.source, row.image_id))
        if number is None:
            raise TrainingError(
                f"the prepared sets hold no slice {row.image_id} of {row.source}; give those of the run"
            )
        (stored,) = self._store.fetch([number])
        hu: NDArray[np.float32] = hounsfield(stored, usual_restoration(1))[0].numpy()
        return hu

    def brain_picture(self, row: SliceRow) -> NDArray[np.uint8]:
        """One slice in the brain window, (rows, columns), for people."""
        return (np.clip(self.hu(row) / 80, 0, 1) * 255).astype(np.uint8)

    def some_hu(self, rows: Sequence[SliceRow], count: int) -> NDArray[np.float32]:
        """Some of these slices, half of them positive where there are so many, all of one size.

        Returns:
            (slices, rows, columns).
        """
        slices = [self.hu(row) for row in choose_some(rows, count)]
        if not slices:
            raise TrainingError("no slice is there that the run held out; give the prepared sets of the run")
        side = max({one.shape for one in slices}, key=lambda shape: sum(one.shape == shape for one in slices))
        return np.stack([one for one in slices if one.shape == side])


def choose_some(rows: Sequence[SliceRow], count: int) -> list[SliceRow]:
    """Choose at random, always the same, half of them positive where there are so many."""
    order = np.random.default_rng(0).permutation(len(rows))
    positive = [rows[number] for number in order if rows[number].labels[0]]
    negative = [rows[number] for number in order if not rows[number].labels[0]]
    return [*positive[: count // 2], *negative[: count - min(count // 2, len(positive))]]


def choose_whole(rows: Sequence[SliceRow], most: int) -> list[SliceRow]:
    """Choose whole studies while there is room for them, then slices that stand alone, always the same."""
    chosen: list[SliceRow] = []
    for members in series_of(rows).values():
        if len(chosen) + len(members) <= most:
            chosen += [rows[number] for number in members]
    alone = [row for row in rows if not row.study or row.position_mm is None]
    return chosen + choose_some(alone, most - len(chosen))
