from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ich_node.completeness import assess_completeness
from ich_node.decode import DecodeLimits, position_along_normal_mm, read_facts, read_slices, sort_slices
from ich_node.decode.tissue import measure_tissue
from ich_node.phantom import PhantomSettings, draw_volume
from ich_node.records import Completeness, Gap, SliceFacts, TissueMeasure

Planes = list[tuple[SliceFacts, TissueMeasure]]
PHANTOMS = [
    PhantomSettings(),
    PhantomSettings(rows=32),
    PhantomSettings(rows=64, seed=5, lesion="subdural"),
    PhantomSettings(slices=40, rows=128, slice_spacing_mm=4, seed=3),
    PhantomSettings(slices=16, rows=128, slice_spacing_mm=10),
    *(PhantomSettings(slices=12, rows=64, slice_spacing_mm=11, seed=seed) for seed in range(6)),
]
STUDIES = [f"CQ500-CT-{number}" for number in (181, 342, 412, 427, 47, 80, 99)]


def assess_folder(folder: Path) -> Completeness:
    facts = [one for path in sorted(folder.iterdir()) for one in read_facts(path, DecodeLimits())]
    return assess_completeness(
        [position_along_normal_mm(one) for one in facts], [one.slice_thickness_mm for one in facts]
    )


def test_even_spacing_is_complete():
    assert not assess_completeness([5.0 * i for i in range(30)], 5.0).gaps


def test_one_missing_slice_is_a_gap_where_it_is_missing():
    positions = [5.0 * i for i in range(30) if i != 12]

    assert assess_completeness(positions, 5.0).gaps == (Gap(55.0, 65.0),)


def test_missing_slices_are_found_without_slice_thickness():
    positions = [2.5 * i for i in range(40) if i not in (7, 8, 30)]

    assert assess_completeness(positions).gaps == (Gap(15.0, 22.5), Gap(72.5, 77.5))


def test_a_block_of_thin_and_a_block_of_thick_slices_is_complete():
    positions = [4.0 * i for i in range(14)] + [52.0 + 7.0 * i for i in range(1, 15)]
    thickness = [4.0] * 14 + [7.0] * 14

    assert not assess_completeness(positions, thickness).gaps


def test_a_slice_missing_from_the_thin_block_is_found_though_the_other_block_is_thick():
    positions = [4.0 * i for i in range(14) if i != 6] + [52.0 + 7.0 * i for i in range(1, 15)]
    thickness = [4.0] * 13 + [7.0] * 14

    assert assess_completeness(positions, thickness).gaps == (Gap(20.0, 28.0),)


def test_two_slices_at_one_position_leave_no_gap():
    positions = [5.0 * i for i in range(20)] * 2

    assert not assess_completeness(positions, 5.0).gaps


def test_overlapping_slices_may_lack_one_that_others_cover():
    positions = [2.5 * i for i in range(30) if i != 10]

    assert not assess_completeness(positions, 5.0).gaps


def test_uneven_steps_within_half_a_step_are_complete():
    assert not assess_completeness([0.0, 5.0, 10.4, 15.1, 19.8, 25.0, 30.6, 35.0]).gaps


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
    assert bool(assess_completeness(positions, spacing).gaps) == bool(missing)


@pytest.mark.parametrize("study", STUDIES)
def test_every_thinned_cq500_series_is_incomplete(shared_data, study):
    assert assess_folder(shared_data / "cq500" / study).gaps


@pytest.mark.parametrize(
    "series", ["ge-head-tilted", "philips-phantom-study/brain-5mm", "philips-phantom-study/brain-1mm"]
)
def test_series_that_scanners_sent_whole_have_no_gap(shared_data, series):
    assert not assess_folder(shared_data / series).gaps


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


# ------------------------------------------------------------------------------------------ whole heads


def plane(
    position: float, tissue: TissueMeasure, rows: int, pixel_mm: float | None
) -> tuple[SliceFacts, TissueMeasure]:
    facts = SliceFacts(
        sop_instance_uid=f"1.2.{position}",
        frame=None,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        modality="CT",
        image_type=(),
        image_position_patient=(0.0, 0.0, position),
        image_orientation_patient=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        pixel_spacing_mm=(pixel_mm, pixel_mm) if pixel_mm else None,
        slice_thickness_mm=None,
        rows=rows,
        columns=rows,
        instance_number=None,
        convolution_kernel="",
        names_head=False,
        names_other_body_part=False,
        tissue=None,
    )
    return facts, tissue


def phantom_planes(settings: PhantomSettings, with_spacing: bool = True) -> Planes:
    return [
        plane(
            index * settings.slice_spacing_mm,
            measure_tissue(hu),
            settings.rows,
            settings.pixel_spacing_mm if with_spacing else None,
        )
        for index, hu in enumerate(draw_volume(settings))
    ]


def real_planes(folder: Path) -> Planes:
    slices = sort_slices(one for path in folder.iterdir() for one in read_slices(path, DecodeLimits()))
    return [(one.facts, one.facts.tissue or measure_tissue(one.hu)) for one in slices]


def assess(planes: Planes) -> Completeness:
    return assess_completeness([position_along_normal_mm(one) for one, _ in planes], tissues=planes)


def assert_whole_and_its_parts_cut(planes: Planes) -> None:
    third, half = len(planes) // 3, len(planes) // 2
    whole, lower, upper = assess(planes), assess(planes[:half]), assess(planes[half:])
    middle = assess(planes[third : 2 * third])
    assert whole.whole_head
    assert (lower.cut_below, lower.cut_above) == (False, True)
    assert (upper.cut_below, upper.cut_above) == (True, False)
    assert (middle.cut_below, middle.cut_above) == (True, True)


@pytest.mark.parametrize("with_spacing", [True, False])
@pytest.mark.parametrize("settings", PHANTOMS, ids=lambda one: f"{one.slices}x{one.rows}-{one.seed}")
def test_a_phantom_is_whole_and_its_halves_and_middle_third_are_cut(settings, with_spacing):
    assert_whole_and_its_parts_cut(phantom_planes(settings, with_spacing))


@pytest.mark.parametrize("series", [*(f"cq500/{study}" for study in STUDIES), "ge-head-tilted"])
def test_a_real_head_is_whole_and_its_halves_and_middle_third_are_cut(shared_data, series):
    assert_whole_and_its_parts_cut(real_planes(shared_data / series))


def test_without_measured_planes_no_end_counts_as_cut():
    assert assess_completeness([5.0 * i for i in range(30)], 5.0).whole_head


@pytest.mark.parametrize(("slices", "short"), [(10, True), (19, True), (20, False), (32, False)])
def test_a_series_of_less_than_100_mm_is_short(slices, short):
    completeness = assess_completeness([5.0 * i for i in range(slices)], 5.0)

    assert completeness.short == short
    assert completeness.extent_mm == (0.0, 5.0 * (slices - 1))
    assert completeness.complete == (not short)


def test_without_slice_thickness_a_slice_is_as_thick_as_a_step():
    assert not assess_completeness([5.0 * i for i in range(20)]).short


def test_a_series_without_slices_has_no_extent():
    assert assess_completeness([]).extent_mm is None
    assert not assess_completeness([]).complete


@pytest.mark.parametrize(
    ("expected", "received", "missing"), [(None, 30, 0), (30, None, 0), (30, 30, 0), (33, 30, 3), (28, 30, 0)]
)
def test_images_that_only_the_pacs_holds_are_missing(expected, received, missing):
    completeness = assess_completeness([5.0 * i for i in range(30)], 5.0, expected=expected, received=received)

    assert completeness.missing_by_count == missing
    assert completeness.complete == (missing == 0)


def test_a_thousand_thin_slices_with_some_missing_are_assessed():
    positions = [0.6 * i for i in range(1000) if i not in (300, 301, 700)]

    assert len(assess_completeness(positions, 0.6).gaps) == 2
