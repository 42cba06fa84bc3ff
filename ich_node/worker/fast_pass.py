"""The fast pass: where many slices wait, every second one first, and then what lies beside one that is far above.

Only the order changes. The result is from all slices; an early alert comes sooner.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Final

from ich_node.decode import position_along_normal_mm
from ich_node.job_queue import waiting_instances
from ich_node.job_queue.arrivals import load_arrivals
from ich_node.planes import SLAB_MM, THIN_MM, PlannedPlane
from ich_node.records import SeriesJob, StoredInstance, StoredPlane
from ich_node.worker.bench import Workbench
from ich_node.worker.early import far_above, tells_early

_FIRST: Final = 8
"""Slices that are read as they came, to see where each lies after the one before."""
_NO_STEP_MM: Final = 0.01


def makes_fast_pass(bench: Workbench) -> bool:
    """Say whether the order matters: somebody is told early, of slices that each speak for themselves.

    A sequence head hears each slice with its neighbours, and was trained on whole series.
    """
    return bench.config.alert.fast_pass and tells_early(bench) and bench.model.bundle.manifest.sequence_head is None


def next_to_read(bench: Workbench, job: SeriesJob, room: int) -> list[StoredInstance]:
    """Choose the slices of a series that are read next: as they came, but where more than ``room`` wait."""
    waiting = waiting_instances(bench.database, job.id, room + 1)
    if len(waiting) <= room or not makes_fast_pass(bench):
        return waiting[:room]
    arrivals = load_arrivals(bench.database, job.id, bench.model_sha256)
    positions = {place: position_along_normal_mm(one) for place, one in arrivals.read.items() if one.reason is None}
    if len(positions) < 2:
        return waiting[: room if arrivals.others else min(room, _FIRST)]
    far = far_above(bench, [logits for _, logits in arrivals.scored])
    striking = [position for (position, _), is_far in zip(arrivals.scored, far, strict=True) if is_far]
    most = room if abs(_step_mm(positions)) < THIN_MM else min(room, _FIRST)  # a look after as many planes
    chosen = reading_order(positions, sorted(arrivals.waiting), striking)[:most]
    return waiting_instances(bench.database, job.id, room, among=[arrivals.waiting[place] for place in chosen])


def reading_order(
    positions_mm: Mapping[int, float], waiting: Sequence[int], striking_mm: Collection[float]
) -> list[int]:
    """Order what waits: beside a slice far above; every second slice, or what every second slab needs; the rest.

    Where a slice lies is not known before it is read: slices come one after the other along the head. Where they do
    not, the order is one like any other.

    Args:
        positions_mm: of slices that were read, along the normal, by their place in the order of arrival; at least two.
        waiting: places of those that were not.
        striking_mm: positions of planes far above.
    """
    step = _step_mm(positions_mm)
    if abs(step) < _NO_STEP_MM:
        return list(waiting)
    last = max(positions_mm)
    thin, size = abs(step) < THIN_MM, abs(step)
    reach = 1.5 * (SLAB_MM + size if thin else size)

    def turn(place: int) -> int:
        position = positions_mm[last] + (place - last) * step
        if any(abs(position - one) <= reach for one in striking_mm):
            return 0
        first = _is_for_every_second_slab(position, size) if thin else place % 2 == 0
        return 1 if first else 2

    return sorted(waiting, key=lambda place: (turn(place), place))


def scoring_order(
    planned: Sequence[PlannedPlane], stored: Sequence[StoredPlane], striking: Collection[int]
) -> list[PlannedPlane]:
    """Order the planes that are ready and not scored: beside one far above; those without a neighbour; the rest.

    Args:
        planned: all planes of the series, along the normal.
        stored: those that were scored.
        striking: numbers of those far above.
    """
    scored = {one.members for one in stored}
    far = {one.members for one in stored if one.id in striking}
    beside: list[PlannedPlane] = []
    alone: list[PlannedPlane] = []
    rest: list[PlannedPlane] = []
    done = set(scored)
    for at, plane in enumerate(planned):
        if plane.members in scored or not plane.ready:
            continue
        around = {one.members for one in planned[max(0, at - 1) : at + 2]}
        if around & far:
            beside.append(plane)
        elif around & done:
            rest.append(plane)
        else:
            alone.append(plane)
            done.add(plane.members)
    return beside + alone + rest


def _step_mm(positions_mm: Mapping[int, float]) -> float:
    """From one arrival to the next, as most are."""
    places = sorted(positions_mm)
    return median((positions_mm[two] - positions_mm[one]) / (two - one) for one, two in pairwise(places))


def _is_for_every_second_slab(position_mm: float, step_mm: float) -> bool:
    """A slab is ready when a slice lies beyond both its ends."""
    return any(math.floor((position_mm + beyond) / SLAB_MM) % 2 == 0 for beyond in (-step_mm, 0.0, step_mm))
