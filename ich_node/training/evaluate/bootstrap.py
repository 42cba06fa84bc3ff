"""Intervals by drawing patients: all slices of a patient come together or not at all (Efron 1979).

A resample is never copied out: it is the number of times that each patient was drawn, used as a weight.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ich_node.training.evaluate.evaluation import Figure

_MOST_WEIGHTS: Final = 2_000_000
"""Held at a time; 750,000 slices are then drawn two resamples at a time."""
_TAIL: Final = 0.025
ALL_THE_SAME: Final = "no interval: every resample gives the same, which does not make it certain"


def draw_patients(patients: NDArray[np.intp], resamples: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Draw as many patients as there are, with replacement, in blocks of resamples.

    Args:
        patients: (cases,), the number of each case's patient.
        resamples: In all.
        seed: The same seed draws the same.

    Yields:
        (resamples of the block, cases): how often the case's patient was drawn.
    """
    present, codes = np.unique(patients, return_inverse=True)
    count = len(present)
    block = max(1, min(resamples, _MOST_WEIGHTS // max(1, len(patients))))
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, np.newaxis]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        yield np.minimum(times, 255).astype(np.uint8)[:, codes]


def with_interval(value: float, resampled: NDArray[np.float64]) -> Figure:
    """Put a 95 % percentile interval to a figure from its value in each resample, NaN where it has none there.

    Where more than one in forty resamples lacks a class altogether, no interval can be told, and the note says so.
    """
    if np.isnan(value):
        return Figure(note="not defined: one of the two classes is missing")
    undefined = int(np.isnan(resampled).sum())
    if undefined > _TAIL * len(resampled):
        return Figure(value=value, note=f"no interval: {undefined} of {len(resampled)} resamples hold one class only")
    low, high = np.nanquantile(resampled, [_TAIL, 1 - _TAIL])
    if low == high:
        return Figure(value=value, note=ALL_THE_SAME)
    return Figure(value=value, low=float(low), high=float(high))
