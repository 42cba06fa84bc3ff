"""In which order slices are read and scored where many wait."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from ich_node.planes import SLAB_MM, THIN_MM, PlannedPlane, plan_planes
from ich_node.records import PlaneMember, StoredPlane
from ich_node.worker.fast_pass import reading_order, scoring_order

LOWEST_MM = -61.3
AT_ONCE = 16
ADJACENT_MM = 11.0
NOWHERE = range(1000, 1001)


def stack(count: int, step_mm: float) -> list[PlaneMember]:
    return [PlaneMember(f"1.2.{place}", None, LOWEST_MM + place * step_mm) for place in range(count)]


def planes_as_scored(
    arrived: Sequence[PlaneMember], thickness_mm: float, *, fast: bool, lesion: range = NOWHERE
) -> list[list[float]]:
    """Read and score step by step, as the worker does; give the positions of the planes of each step."""
    waiting = list(range(len(arrived)))
    read: dict[int, float] = {}
    stored: list[StoredPlane] = []
    striking: list[float] = []
    steps = []
    while waiting:
        chosen = waiting[: 8 if fast and not read else AT_ONCE]
        if fast and read:
            chosen = reading_order(read, waiting, striking)[: AT_ONCE if thickness_mm < THIN_MM else 8]
        waiting = [one for one in waiting if one not in chosen]
        read |= {place: arrived[place].position_mm for place in chosen}
        done = {one.members for one in stored}
        planned = plan_planes([arrived[place] for place in read], thickness_mm, closing=not waiting)
        now = [one for one in planned if one.ready and one.members not in done]
        stored += [StoredPlane(0, one.members, ()) for one in now]
        steps.append([one.position_mm for one in now])
        striking += [one for one in steps[-1] if lesion.start <= one < lesion.stop]
    return steps


def flat(steps: Sequence[Sequence[float]]) -> list[float]:
    return [one for step in steps for one in step]


def scored_until_found(steps: Sequence[Sequence[float]], lesion: range) -> int:
    """Count the planes that are scored when it is seen that two neighbours are far above: after a step."""
    scored: list[float] = []
    for step in steps:
        scored += step
        found = sorted(one for one in scored if lesion.start <= one < lesion.stop)
        if any(two - one <= ADJACENT_MM for one, two in pairwise(found)):
            return len(scored)
    raise AssertionError("not found")


@pytest.mark.parametrize("step_mm", [0.5, 0.625, 1.25, 2.0, 3.0, 5.0, -0.625, -5.0])
def test_every_plane_is_scored_once_and_as_it_would_be_without(step_mm: float) -> None:
    arrived = stack(int(160 / abs(step_mm)), step_mm)
    fast = flat(planes_as_scored(arrived, abs(step_mm), fast=True))
    assert sorted(fast) == sorted(flat(planes_as_scored(arrived, abs(step_mm), fast=False)))
    assert len(fast) > 25


@pytest.mark.parametrize("step_mm", [0.5, 0.625, 1.25, -0.625])
def test_the_first_slabs_are_every_second_one(step_mm: float) -> None:
    order = flat(planes_as_scored(stack(int(160 / abs(step_mm)), step_mm), abs(step_mm), fast=True))
    first = order[: len(order) * 2 // 5]
    assert max(first) - min(first) > 100, "from one end of the head to the other"
    steps = [two - one for one, two in pairwise(sorted(first))]
    assert sum(one == pytest.approx(2 * SLAB_MM, abs=0.01) for one in steps) >= 0.8 * len(steps)


@pytest.mark.parametrize("extent_mm", [15, 40])
@pytest.mark.parametrize(("step_mm", "share", "later"), [(0.625, 0.75, 2), (5.0, 0.9, 8)])
def test_a_lesion_is_found_sooner_in_most_places_and_hardly_later_in_any(
    step_mm: float, share: float, later: int, extent_mm: int
) -> None:
    arrived = stack(int(160 / step_mm), step_mm)
    as_they_come = planes_as_scored(arrived, step_mm, fast=False)
    lesions = [range(lowest, lowest + extent_mm) for lowest in range(-50, 60, 20)]
    fast = [scored_until_found(planes_as_scored(arrived, step_mm, fast=True, lesion=one), one) for one in lesions]
    plain = [scored_until_found(as_they_come, one) for one in lesions]
    assert sum(fast) < share * sum(plain), (fast, plain)
    assert all(one <= two + later for one, two in zip(fast, plain, strict=True)), (fast, plain)


@pytest.mark.parametrize(
    "disturb",
    [
        lambda arrived: random.Random(1).sample(arrived, len(arrived)),
        lambda arrived: [*arrived[::2], *arrived[1::2]],
        lambda arrived: [PlaneMember("1.2.9999", None, 400.0), *arrived],
    ],
    ids=["shuffled", "in two runs", "a stray slice first"],
)
def test_slices_that_come_in_another_order_are_all_scored(
    disturb: Callable[[list[PlaneMember]], list[PlaneMember]],
) -> None:
    arrived = disturb(stack(200, 0.625))
    fast = flat(planes_as_scored(arrived, 0.625, fast=True))
    assert set(planes_as_scored(arrived, 0.625, fast=False)[-1]) <= set(fast)


def test_slices_at_one_place_are_read_as_they_came() -> None:
    assert reading_order({0: 5.0, 1: 5.0}, [2, 3, 4], []) == [2, 3, 4]


def test_what_lies_beside_a_slice_far_above_comes_next() -> None:
    planned = [PlannedPlane((one,), ready=True) for one in stack(9, 5.0)]
    stored = [StoredPlane(place, planned[place].members, ()) for place in (0, 2, 4, 6)]
    order = [planned.index(one) for one in scoring_order(planned, stored, [4])]
    assert order == [3, 5, 8, 1, 7]
