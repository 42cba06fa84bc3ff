"""Has the whole series arrived? Where are the gaps?"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from ich_node.records import Completeness, Gap

_GAP_FACTOR: Final = 1.6  # over a step's jitter, under the 2 that one missing slice makes
_NEIGHBOURS: Final = 5
_SAME_POSITION_MM: Final = 0.01


def assess_completeness(
    positions_mm: Sequence[float],
    slice_thickness_mm: float | Sequence[float | None] | None = None,
    unreadable: int = 0,
) -> Completeness:
    """Find the gaps between positions along the slice normal, given in any order.

    A gap is a step over 1.6 times the larger of the median of its five neighbouring steps and SliceThickness, so a
    series may change its spacing on the way. SliceThickness is one for all, one per position, or unknown (None); of the
    two slices of a step the thicker counts. Slices at the same position leave no gap.
    """
    positions, thickness = _by_position(positions_mm, slice_thickness_mm)
    steps = np.diff(positions)
    gaps = tuple(
        Gap(float(positions[index]), float(positions[index + 1]))
        for index, step in enumerate(steps)
        if step > _GAP_FACTOR * max(_usual_step(steps, index), thickness[index], thickness[index + 1])
    )
    return Completeness(gaps=gaps, unreadable=unreadable)


def _by_position(
    positions_mm: Sequence[float], slice_thickness_mm: float | Sequence[float | None] | None
) -> tuple[list[float], list[float]]:
    """Sort positions, each once, with the largest thickness given for it (0 where none is)."""
    if slice_thickness_mm is None or isinstance(slice_thickness_mm, int | float):
        slice_thickness_mm = [slice_thickness_mm] * len(positions_mm)
    positions: list[float] = []
    thickness: list[float] = []
    for position, thick in sorted(
        (position, thick or 0.0) for position, thick in zip(positions_mm, slice_thickness_mm, strict=True)
    ):
        if positions and position - positions[-1] <= _SAME_POSITION_MM:
            thickness[-1] = max(thickness[-1], thick)
        else:
            positions.append(position)
            thickness.append(thick)
    return positions, thickness


def _usual_step(steps: np.ndarray, index: int) -> float:
    """Median of the five steps nearest to this one, without it; the step itself where it is the only one."""
    others = sorted((other for other in range(len(steps)) if other != index), key=lambda other: abs(other - index))
    nearest = [steps[other] for other in others[:_NEIGHBOURS]]
    return float(np.median(nearest)) if nearest else float(steps[index])
