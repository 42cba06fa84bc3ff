"""Which slices the viewer of a page shows first: the node decodes them before they are asked for."""

from __future__ import annotations

from ich_node.viewable import ViewableSeries, ViewableSlice
from ich_node.web.slices import shown_first


def series(*key_slices: int, slices: int = 5) -> ViewableSeries:
    made = tuple(
        ViewableSlice(
            sop_instance_uid=f"1.2.{number}", frame=None, file=f"spool/{number}", rows=64, columns=64, spacing_mm=None,
            position_mm=5.0 * number, instance_number=number, probabilities=None, is_key=number in key_slices,
        )
        for number in range(slices)
    )  # fmt: skip
    return ViewableSeries("1.2", 2, "STANDARD", 5.0, is_basis=True, thresholds={}, slices=made)


def numbers(*some: ViewableSeries) -> list[int | None]:
    return [one.instance_number for one in shown_first(some)]


def test_the_viewer_begins_at_the_first_key_slice_and_then_wants_its_neighbours() -> None:
    assert numbers(series(3, 4), series(0)) == [3, 2, 4]


def test_without_a_key_slice_it_begins_in_the_middle() -> None:
    assert numbers(series()) == [2, 1, 3]


def test_at_an_end_there_is_one_neighbour() -> None:
    assert numbers(series(0)) == [0, 1]
    assert numbers(series(4)) == [4, 3]


def test_no_image_is_no_slice() -> None:
    assert numbers() == []
    assert numbers(series(slices=0)) == []
