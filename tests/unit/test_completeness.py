from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ich_node.completeness import assess_completeness
from ich_node.decode import DecodeLimits, position_along_normal_mm, read_facts
from ich_node.records import Completeness, Gap

STUDIES = [f"CQ500-CT-{number}" for number in (181, 342, 412, 427, 47, 80, 99)]


def assess_folder(folder: Path) -> Completeness:
    facts = [one for path in sorted(folder.iterdir()) for one in read_facts(path, DecodeLimits())]
    return assess_completeness(
        [position_along_normal_mm(one) for one in facts], [one.slice_thickness_mm for one in facts]
    )


def test_even_spacing_is_complete():
    assert assess_completeness([5.0 * i for i in range(30)], 5.0).complete


def test_one_missing_slice_is_a_gap_where_it_is_missing():
    positions = [5.0 * i for i in range(30) if i != 12]

    assert assess_completeness(positions, 5.0).gaps == (Gap(55.0, 65.0),)


def test_missing_slices_are_found_without_slice_thickness():
    positions = [2.5 * i for i in range(40) if i not in (7, 8, 30)]

    assert assess_completeness(positions).gaps == (Gap(15.0, 22.5), Gap(72.5, 77.5))


def test_a_block_of_thin_and_a_block_of_thick_slices_is_complete():
    positions = [4.0 * i for i in range(14)] + [52.0 + 7.0 * i for i in range(1, 15)]
    thickness = [4.0] * 14 + [7.0] * 14

    assert assess_completeness(positions, thickness).complete


def test_a_slice_missing_from_the_thin_block_is_found_though_the_other_block_is_thick():
    positions = [4.0 * i for i in range(14) if i != 6] + [52.0 + 7.0 * i for i in range(1, 15)]
    thickness = [4.0] * 13 + [7.0] * 14

    assert assess_completeness(positions, thickness).gaps == (Gap(20.0, 28.0),)


def test_two_slices_at_one_position_leave_no_gap():
    positions = [5.0 * i for i in range(20)] * 2

    assert assess_completeness(positions, 5.0).complete


def test_overlapping_slices_may_lack_one_that_others_cover():
    positions = [2.5 * i for i in range(30) if i != 10]

    assert assess_completeness(positions, 5.0).complete


def test_uneven_steps_within_half_a_step_are_complete():
    assert assess_completeness([0.0, 5.0, 10.4, 15.1, 19.8, 25.0, 30.6, 35.0]).complete


@pytest.mark.parametrize("positions", [[], [3.0], [3.0, 8.0]])
def test_a_series_too_short_to_judge_has_no_gap(positions):
    assert assess_completeness(positions).gaps == ()


def test_an_unreadable_slice_makes_the_series_incomplete():
    completeness = assess_completeness([5.0 * i for i in range(12)], 5.0, unreadable=1)

    assert completeness.gaps == ()
    assert not completeness.complete


@given(
    missing=st.sets(st.integers(1, 28), max_size=4),
    spacing=st.floats(0.5, 10.0),
    random=st.randoms(use_true_random=False),
)
def test_order_of_arrival_changes_nothing(missing, spacing, random):
    positions = [spacing * i for i in range(30) if i not in missing]
    shuffled = list(positions)
    random.shuffle(shuffled)

    assert assess_completeness(shuffled, spacing) == assess_completeness(positions, spacing)
    assert assess_completeness(positions, spacing).complete == (not missing)


@pytest.mark.parametrize("study", STUDIES)
def test_every_thinned_cq500_series_is_incomplete(shared_data, study):
    assert assess_folder(shared_data / "cq500" / study).gaps


@pytest.mark.parametrize(
    "series", ["ge-head-tilted", "philips-phantom-study/brain-5mm", "philips-phantom-study/brain-1mm"]
)
def test_series_that_scanners_sent_whole_are_complete(shared_data, series):
    assert assess_folder(shared_data / series).complete


def test_a_slice_taken_out_of_the_ge_series_is_missed(shared_data):
    facts = [one for path in (shared_data / "ge-head-tilted").iterdir() for one in read_facts(path, DecodeLimits())]
    facts.sort(key=position_along_normal_mm)
    ends_and_seam = {
        0,
        13,
        14,
        27,
    }  # at the seam the scanner left 1.1 mm, so its slices are covered by their neighbours

    for index in set(range(28)) - ends_and_seam:
        kept = facts[:index] + facts[index + 1 :]
        found = assess_completeness(
            [position_along_normal_mm(one) for one in kept], [one.slice_thickness_mm for one in kept]
        )
        assert found.gaps, f"slice {index} is not missed"
