import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ich_node.completeness import assess_completeness
from ich_node.decode import DecodeLimits, position_along_normal_mm, read_facts
from ich_node.kernels import KernelClass, kernel_class
from ich_node.planes import is_thin
from ich_node.records import Completeness, SliceFacts
from ich_node.series_choice import SeriesDescription, chosen_over, describe_series, waits_for_others

STUDIES = [f"CQ500-CT-{number}" for number in (181, 342, 412, 427, 47, 80, 99)]

descriptions = st.builds(
    SeriesDescription,
    rank=st.integers(0, 7),
    derived=st.booleans(),
    bone=st.booleans(),
    whole=st.booleans(),
    lowest_mm=st.integers(-100, 0).map(float),
    highest_mm=st.integers(0, 200).map(float),
    frame_of_reference_uid=st.sampled_from(["", "1.2", "1.3"]),
    series_number=st.none() | st.integers(0, 999),
)


def facts_of(kernel: str = "H31s", step_mm: float = 5.0, slices: int = 30, **changes: object) -> list[SliceFacts]:
    original = SliceFacts(
        sop_instance_uid="1.2.1",
        frame=None,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        modality="CT",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        image_position_patient=(0.0, 0.0, 0.0),
        image_orientation_patient=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        pixel_spacing_mm=(0.5, 0.5),
        slice_thickness_mm=step_mm,
        rows=512,
        columns=512,
        instance_number=1,
        convolution_kernel=kernel,
        names_head=True,
        names_other_body_part=False,
        tissue=None,
        series_number=3,
        frame_of_reference_uid="1.9",
    )
    return [
        replace(original, image_position_patient=(0.0, 0.0, step_mm * number), **changes) for number in range(slices)
    ]


def describe(*args: object, **changes: object) -> SeriesDescription:
    return describe_series(facts_of(*args, **changes), Completeness())


def described(folder: Path) -> SeriesDescription:
    facts = [one for path in sorted(folder.iterdir()) for one in read_facts(path, DecodeLimits())]
    return describe_series(facts, assess_completeness([position_along_normal_mm(one) for one in facts]))


def part(lowest: float, highest: float, rank: int = 0, frame: str = "1.9") -> SeriesDescription:
    return SeriesDescription(rank, False, False, False, lowest, highest, frame, None)


def whole(rank: int = 0) -> SeriesDescription:
    return SeriesDescription(rank, False, rank % 4 == 3, True, 0.0, 150.0, "1.9", None)


# --------------------------------------------------------------------------------------------- kernels


@pytest.mark.parametrize(
    "kernel",
    ["STANDARD", "SOFT", "DETAIL", "STD+", "H31s", "H31s 3", "J40s", "Hr40f", "Hc40f", "B10f", "Qr40", "Br36d", "A",
     "B", "C", "UA", "UB", "UC", "FC01", "FC21", "FC26", "FC43"],
)  # fmt: skip
def test_soft_kernels_are_known(kernel):
    assert kernel_class(kernel) is KernelClass.SOFT
    assert kernel_class(f" {kernel.lower()} ") is KernelClass.SOFT


@pytest.mark.parametrize(
    "kernel",
    ["BONE", "BONEPLUS", "BONE+", "EDGE", "LUNG", "H60s", "H70h", "J70h", "Hr64h", "U90s", "B70f", "D", "E", "L", "YA",
     "YE", "UD", "UE", "FC30", "FC51", "FC81"],
)  # fmt: skip
def test_bone_kernels_are_known(kernel):
    assert kernel_class(kernel) is KernelClass.BONE


@pytest.mark.parametrize("kernel", ["", "3", "7", "FC64", "XYZ", "Filter 12", "H05s"])
def test_other_kernels_are_unknown(kernel):
    assert kernel_class(kernel) is KernelClass.UNKNOWN


# ----------------------------------------------------------------------------------------- descriptions


@pytest.mark.parametrize(
    ("kernel", "step_mm", "rank"),
    [("H31s", 5.0, 0), ("H31s", 2.5, 0), ("H31s", 7.0, 0), ("H31s", 1.0, 1), ("H31s", 10.0, 1), ("?", 5.0, 2),
     ("H60s", 5.0, 3)],
)  # fmt: skip
def test_rank_is_by_kernel_then_by_spacing(kernel, step_mm, rank):
    assert describe(kernel, step_mm).rank == rank
    assert describe(kernel, step_mm, image_type=("DERIVED", "PRIMARY", "AXIAL")).rank == rank + 4


def test_a_name_makes_a_series_bone_only_where_its_kernel_is_unknown():
    assert describe("?", names_bone=True).bone
    assert not describe("UB", names_bone=True).bone


def test_one_derived_slice_makes_a_series_derived():
    facts = facts_of()
    facts[5] = replace(facts[5], image_type=("DERIVED", "PRIMARY", "AXIAL"))

    assert describe_series(facts, Completeness()).derived


def test_extent_and_wholeness_are_those_of_the_completeness():
    description = describe_series(facts_of(), Completeness(extent_mm=(-3.0, 80.0), cut_below=True))

    assert (description.lowest_mm, description.highest_mm, description.whole) == (-3.0, 80.0, False)
    assert (describe().lowest_mm, describe().highest_mm, describe().whole) == (0.0, 145.0, True)
    assert (describe().frame_of_reference_uid, describe().series_number) == ("1.9", 3)


@given(descriptions)
def test_a_description_survives_json(description):
    assert SeriesDescription(**json.loads(json.dumps(asdict(description)))) == description


def test_only_bone_kernels_wait_for_others():
    assert waits_for_others(describe("H60s"))
    assert not waits_for_others(describe("H31s"))
    assert not waits_for_others(describe("?"))


# ----------------------------------------------------------------------------------------------- choice


def test_nothing_analysed_stands_in_nobodys_way():
    assert chosen_over(whole(7), {}) is None


@pytest.mark.parametrize("mine", range(8))
@pytest.mark.parametrize("other", range(8))
def test_a_whole_head_of_the_same_or_a_better_rank_is_enough(mine, other):
    assert chosen_over(whole(mine), {"a": whole(other)}) == ("a" if other <= mine else None)


def test_a_part_of_the_head_never_stands_for_the_whole():
    assert chosen_over(whole(3), {"a": part(0.0, 149.0)}) is None


def test_a_part_is_not_analysed_beside_a_whole_head_wherever_it_lies():
    assert chosen_over(part(900.0, 950.0, frame="1.8"), {"a": whole()}) == "a"
    assert chosen_over(part(0.0, 50.0, rank=0), {"a": whole(1)}) is None


def test_two_parts_of_the_head_are_both_analysed():
    assert chosen_over(part(60.0, 120.0), {"a": part(0.0, 65.0)}) is None


def test_a_part_that_repeats_most_of_another_is_not_analysed():
    assert chosen_over(part(30.0, 90.0), {"a": part(0.0, 65.0)}) == "a"
    assert chosen_over(part(30.0, 90.0), {"a": part(0.0, 65.0, rank=1)}) is None


@pytest.mark.parametrize("frame", ["", "1.8"])
def test_parts_in_other_frames_of_reference_are_not_compared(frame):
    assert chosen_over(part(0.0, 60.0, frame=frame), {"a": part(0.0, 60.0)}) is None
    assert chosen_over(part(0.0, 60.0, frame=""), {"a": part(0.0, 60.0, frame="")}) is None


def test_the_best_whole_series_is_named():
    assert chosen_over(whole(3), {"a": whole(2), "b": whole(0), "c": whole(1)}) == "b"


@given(mine=descriptions, others=st.dictionaries(st.sampled_from("abcde"), descriptions))
def test_what_is_chosen_is_never_worse(mine, others):
    chosen = chosen_over(mine, others)

    if chosen is not None:
        assert others[chosen].rank <= mine.rank
        assert others[chosen].whole or not mine.whole


@given(st.permutations([whole(0), whole(1), whole(2), whole(3)]))
def test_the_best_series_is_analysed_whatever_the_order_of_arrival(arriving):
    analysed: dict[str, SeriesDescription] = {}
    for number, one in enumerate(arriving):
        if chosen_over(one, analysed) is None:
            analysed[str(number)] = one

    assert min(one.rank for one in analysed.values()) == 0


# ------------------------------------------------------------------------------------------------ thin


@pytest.mark.parametrize(
    ("positions", "thin"),
    [
        ([], False),
        ([3.0], False),
        ([3.0, 3.0], False),
        ([0.0, 1.0], True),
        ([2.5 * i for i in range(40)], False),
        ([0.6 * i for i in range(200)] * 2, True),
        ([*range(9), 20.0, 40.0], True),
        ([*range(8), 20.0, 40.0], False),
    ],
)
def test_a_series_is_thin_where_8_in_10_steps_are_under_2_5_mm(positions, thin):
    assert is_thin(positions) == thin


@given(st.lists(st.integers(0, 300).map(float), max_size=40), st.randoms(use_true_random=False))
def test_order_and_repeats_do_not_make_a_series_thin(positions, random):
    shuffled = positions * 2
    random.shuffle(shuffled)

    assert is_thin(shuffled) == is_thin(positions)


# ------------------------------------------------------------------------------------------- real data


def test_of_a_philips_study_the_5_mm_brain_is_best_and_bone_is_last(shared_data):
    root = shared_data / "philips-phantom-study"
    brain, thin, bone = (described(root / name) for name in ("brain-5mm", "brain-1mm", "bone-1mm"))

    assert (brain.rank, thin.rank, bone.rank) == (0, 1, 3)
    assert (brain.bone, thin.bone, bone.bone) == (False, False, True)
    assert brain.whole
    assert chosen_over(bone, {"brain": brain}) == chosen_over(thin, {"brain": brain}) == "brain"
    assert chosen_over(brain, {"bone": bone}) is None


@pytest.mark.parametrize("series", [*(f"cq500/{study}" for study in STUDIES), "ge-head-tilted"])
def test_real_heads_have_soft_kernels(shared_data, series):
    description = described(shared_data / series)

    assert description.rank in (0, 1)
    assert not description.bone
    assert not description.derived
