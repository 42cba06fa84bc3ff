"""Planes are planned from positions alone, whatever the order of arrival."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ich_node.planes import is_thin, plan_planes
from ich_node.records import PlaneMember


def slices(positions: list[float]) -> list[PlaneMember]:
    return [PlaneMember(f"1.2.{number}", None, position) for number, position in enumerate(positions)]


def thin(count: int = 140, step: float = 1.0, start: float = 3.3) -> list[PlaneMember]:
    return slices([start + step * number for number in range(count)])


def test_a_series_is_thin_when_8_in_10_steps_are_under_2_5_mm() -> None:
    assert is_thin([0, 2.4, 4.8, 7.2, 9.6, 15])
    assert not is_thin([0, 2.4, 4.8, 7.2, 12.2, 17.2])
    assert not is_thin([0, 2.5, 5.0])
    assert not is_thin([7.0])
    assert not is_thin([])


def test_slices_at_the_same_position_say_nothing_of_thinness() -> None:
    assert not is_thin([0.0, 0.0, 5.0, 5.0, 10.0, 10.0])


def test_thick_slices_are_planes_of_their_own_and_ready_at_once() -> None:
    planes = plan_planes(slices([5.0 * number for number in range(6)]), 5.0, closing=False)

    assert [len(one.members) for one in planes] == [1] * 6
    assert all(one.ready for one in planes)


def test_thin_slices_are_binned_by_position() -> None:
    planes = plan_planes(thin(140), 1.0, closing=True)

    assert {int(member.position_mm // 5) for one in planes for member in one.members} == set(range(len(planes)))
    for one in planes:
        assert len({member.position_mm // 5 for member in one.members}) == 1
    assert sum(len(one.members) for one in planes) == 140


@given(st.permutations(range(60)), st.sampled_from([0.4, 0.5, 0.625, 1.0, 1.25, 2.0]))
def test_the_order_of_arrival_changes_no_slab(order: list[int], step: float) -> None:
    members = thin(60, step)

    assert plan_planes([members[number] for number in order], step, closing=True) == plan_planes(
        members, step, closing=True
    )


def test_a_slab_is_ready_when_slices_lie_beyond_both_its_ends() -> None:
    members = thin(12, 1.0, start=0.0)  # 0 to 11 mm

    planes = plan_planes(members, 1.0, closing=False)

    assert [one.ready for one in planes] == [False, True, False]


def test_a_slab_with_a_gap_inside_or_at_its_end_is_not_ready() -> None:
    for missing in (4, 7, 10):
        members = [one for one in thin(20, 1.0, start=0.0) if one.position_mm != missing]
        planes = {int(one.members[0].position_mm // 5): one for one in plan_planes(members, 1.0, closing=False)}
        assert planes[1].ready is False, missing


def test_everything_is_ready_at_the_end() -> None:
    assert all(one.ready for one in plan_planes(thin(33), 1.0, closing=True))


def test_a_slab_that_was_ready_in_order_never_changes() -> None:
    members, seen = thin(100), {}
    for count in range(1, 101):
        for one in plan_planes(members[:count], 1.0, closing=False):
            if one.ready:
                assert seen.setdefault(one.members[0].position_mm // 5, one.members) == one.members
    assert len(seen) > 15, "slabs became ready while slices arrived"


def test_thin_slices_in_random_order_are_not_taken_for_thick_ones() -> None:
    members = thin(140)
    random.Random(3).shuffle(members)
    for count in range(1, 140):
        for one in plan_planes(members[:count], 1.0, closing=False):
            assert len(one.members) > 1 or not one.ready, "single slices wait until enough is there to tell"


@pytest.mark.parametrize(("count", "middle"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)])
def test_a_plane_is_named_after_its_middle_member(count: int, middle: int) -> None:
    (plane,) = plan_planes(slices([0.5 * number for number in range(count)]), 0.5, closing=True)[:1]

    assert plane.middle.sop_instance_uid == f"1.2.{middle}"
