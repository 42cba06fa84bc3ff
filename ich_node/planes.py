"""Which planes a series is scored in: one per slice, or fixed slabs of 5 mm where its slices are thin."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Final

import numpy as np

from ich_node.records import PlaneMember

SLAB_MM: Final = 5.0
THIN_MM: Final = 2.5
"""Steps below it are thin."""
_THIN_SHARE: Final = 0.8
_GAP_FACTOR: Final = 1.6
_SAME_POSITION_MM: Final = 0.01


@dataclass(frozen=True, slots=True)
class PlannedPlane:
    """A plane that is to be scored."""

    members: tuple[PlaneMember, ...]
    """Along the slice normal."""
    ready: bool
    """No slice that belongs to it is missing, as far as can be known."""

    @property
    def middle(self) -> PlaneMember:
        """The member that the plane is named after."""
        return self.members[(len(self.members) - 1) // 2]

    @property
    def position_mm(self) -> float:
        """Mean position of the members along the slice normal."""
        return sum(one.position_mm for one in self.members) / len(self.members)


def is_thin(positions_mm: Sequence[float]) -> bool:
    """Tell whether at least 8 in 10 steps along the slice normal are under 2.5 mm."""
    steps = _steps(positions_mm)
    return len(steps) > 0 and float(np.mean(steps < THIN_MM - _SAME_POSITION_MM)) >= _THIN_SHARE


def plan_planes(
    slices: Sequence[PlaneMember], slice_thickness_mm: float | None, *, closing: bool
) -> tuple[PlannedPlane, ...]:
    """Plan the planes of a series from the slices that have come, in any order.

    The bins of a thin series are fixed to the position along the normal, so the order of arrival cannot change them.
    While slices arrive, a slab is ready when a slice lies beyond both its ends and no step within is a gap. Before
    enough is there to tell thin from thick, slices that call themselves thin wait.

    Args:
        slice_thickness_mm: SliceThickness, where it is known.
        closing: no slice is waited for any more: every plane is ready.
    """
    ordered = sorted(slices, key=lambda one: (one.position_mm, one.sop_instance_uid, one.frame or 0))
    positions = [one.position_mm for one in ordered]
    if is_thin(positions):
        return tuple(_slabs(ordered, slice_thickness_mm, closing=closing))
    may_become_thin = slice_thickness_mm is not None and slice_thickness_mm < THIN_MM
    return tuple(PlannedPlane((one,), ready=closing or not may_become_thin) for one in ordered)


def _slabs(
    ordered: Sequence[PlaneMember], slice_thickness_mm: float | None, *, closing: bool
) -> Iterator[PlannedPlane]:
    largest_step = _largest_step([one.position_mm for one in ordered], slice_thickness_mm)
    at = 0
    for _, group in groupby(ordered, key=lambda one: math.floor(one.position_mm / SLAB_MM)):
        members = tuple(group)
        around = [one.position_mm for one in ordered[max(0, at - 1) : at + len(members) + 1]]
        enclosed = at > 0 and at + len(members) < len(ordered)
        at += len(members)
        gapless = all(after - before <= largest_step for before, after in pairwise(around))
        yield PlannedPlane(members, ready=closing or (enclosed and gapless))


def _largest_step(positions_mm: Sequence[float], slice_thickness_mm: float | None) -> float:
    """A longer step is a gap. While few have come in any order, their steps are too long: thickness bounds them."""
    usual = float(np.median(_steps(positions_mm)))
    return _GAP_FACTOR * (usual if not slice_thickness_mm else min(usual, slice_thickness_mm))


def _steps(positions_mm: Sequence[float]) -> np.ndarray:
    steps = np.diff(np.sort(np.asarray(positions_mm, dtype=np.float64)))
    return np.asarray(steps[steps > _SAME_POSITION_MM])
