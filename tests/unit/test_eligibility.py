import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ich_node import eligibility
from ich_node.decode import DecodeLimits, read_facts, read_slices
from ich_node.decode.header import _DESCRIPTIONS
from ich_node.decode.tissue import measure_tissue
from ich_node.eligibility import header_ineligibility, is_derived, slice_ineligibility
from ich_node.records import EligibilityRules, NotAnalysedReason, SliceFacts, TissueMeasure

CT = "1.2.840.10008.5.1.4.1.1.2"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
USUAL_RULES = EligibilityRules()
STUDIES = [f"CQ500-CT-{number}" for number in (181, 342, 412, 427, 47, 80, 99)]


def head_slice(brain_hu: float = 32.0, bone_hu: float = 900.0, noise_hu: float = 6.0) -> np.ndarray:
    """A skull with brain in it, scalp around it and air about, (256, 256) at 0.9 mm."""
    rows, columns = np.mgrid[-1.0:1.0:256j, -1.0:1.0:256j]
    radius = np.hypot(rows / 0.85, columns / 0.7)
    hu = np.full((256, 256), -1000.0)
    hu[radius < 0.95] = 40.0
    hu[radius < 0.9] = bone_hu
    hu[radius < 0.8] = brain_hu
    return (hu + np.random.default_rng(7).normal(0.0, noise_hu, hu.shape)).astype(np.float32)


def chest_slice() -> np.ndarray:
    rows, columns = np.mgrid[-1.0:1.0:256j, -1.0:1.0:256j]
    hu = np.full((256, 256), -1000.0)
    hu[np.hypot(rows / 0.6, columns / 0.9) < 1.0] = 50.0
    for side in (-0.4, 0.4):
        hu[np.hypot(rows / 0.4, (columns - side) / 0.3) < 1.0] = -820.0
    hu[np.hypot((rows - 0.45) / 0.08, columns / 0.08) < 1.0] = 600.0
    return hu.astype(np.float32)


def facts(number: int = 1, tissue: TissueMeasure | None = None, **changes: object) -> SliceFacts:
    original = SliceFacts(
        sop_instance_uid=f"1.2.{number}",
        frame=None,
        sop_class_uid=CT,
        modality="CT",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        image_position_patient=(0.0, 0.0, 5.0 * number),
        image_orientation_patient=AXIAL,
        pixel_spacing_mm=(0.9, 0.9),
        slice_thickness_mm=5.0,
        rows=256,
        columns=256,
        instance_number=number,
        convolution_kernel="",
        names_head=False,
        names_other_body_part=False,
        tissue=tissue,
    )
    return replace(original, **changes)


def series_of(hu: np.ndarray, slices: int = 20, **changes: object) -> list[SliceFacts]:
    tissue = measure_tissue(hu)
    return [facts(number, tissue, **changes) for number in range(slices)]


def planes(series: Sequence[SliceFacts]) -> list[tuple[SliceFacts, TissueMeasure]]:
    return [(one, one.tissue) for one in series if one.tissue is not None]


def series_ineligibility(
    series: Sequence[SliceFacts], rules: EligibilityRules = USUAL_RULES, minimum_slices: int = 10
) -> tuple[NotAnalysedReason, str] | None:
    """As the pipeline calls it: facts without pixels, and the planes that were measured."""
    bare = [replace(one, tissue=None) for one in series]
    return eligibility.series_ineligibility(bare, planes(series), rules, minimum_slices)


def head_expected(series: Sequence[SliceFacts]) -> bool:
    return eligibility.head_expected([replace(one, tissue=None) for one in series], planes(series))


def tilted(degrees: float) -> tuple[float, ...]:
    angle = np.radians(degrees)
    return (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), -float(np.sin(angle)))


def decoded(folder: Path) -> list[SliceFacts]:
    return [one.facts for path in sorted(folder.iterdir()) for one in read_slices(path, DecodeLimits())]


def without_header_texts(series: Sequence[SliceFacts]) -> list[SliceFacts]:
    return [
        replace(one, names_head=False, names_other_body_part=False, image_type=(), modality="", sop_class_uid=CT)
        for one in series
    ]


# ------------------------------------------------------------------------------------------------ one slice


def test_an_original_axial_ct_slice_is_eligible():
    assert slice_ineligibility(facts()) is None


@pytest.mark.parametrize(
    "missing",
    [{"image_type": ()}, {"modality": ""}, {"slice_thickness_mm": None}, {"pixel_spacing_mm": None}],
    ids=lambda missing: next(iter(missing)),
)
def test_a_missing_attribute_alone_declines_nothing(missing):
    assert slice_ineligibility(facts(**missing)) is None


@pytest.mark.parametrize(
    ("image_type", "reason"),
    [
        (("ORIGINAL", "PRIMARY", "LOCALIZER"), NotAnalysedReason.LOCALIZER),
        (("DERIVED", "SECONDARY", "LOCALIZER"), NotAnalysedReason.LOCALIZER),
        (("ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"), NotAnalysedReason.LOCALIZER),
        (("DERIVED", "SECONDARY", "SCREEN SAVE"), NotAnalysedReason.SECONDARY),
        (("DERIVED", "SECONDARY", "PATIENT_INFO"), NotAnalysedReason.SECONDARY),
        (("DERIVED", "SECONDARY", "DOSE_INFO"), NotAnalysedReason.SECONDARY),
        (("DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"), NotAnalysedReason.SECONDARY),
        (("ORIGINAL", "SECONDARY", "OTHER"), NotAnalysedReason.SECONDARY),
        (("DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"), NotAnalysedReason.PROJECTION),
        (("DERIVED", "SECONDARY", "MINIP"), NotAnalysedReason.PROJECTION),
        (("DERIVED", "SECONDARY", "PROJECTION IMAGE"), NotAnalysedReason.PROJECTION),
        (("DERIVED", "SECONDARY", "OTHER", "VRT"), NotAnalysedReason.PROJECTION),
        (("DERIVED", "SECONDARY", "3D"), NotAnalysedReason.PROJECTION),
        (("DERIVED", "PRIMARY", "PERFUSION", "CBF"), NotAnalysedReason.PROJECTION),
        (("DERIVED", "PRIMARY", "VOLUME", "MAXIMUM"), NotAnalysedReason.PROJECTION),
        (("DERIVED", "PRIMARY", "AXIAL"), None),
        (("DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"), None),
        (("DERIVED", "SECONDARY", "MPR"), None),
        (("DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MPR"), None),
        (("DERIVED", "SECONDARY"), None),
        (("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"), None),
        (("ORIGINAL", "PRIMARY", "AXIAL", "ADD"), None),
        (("ORIGINAL", "PRIMARY", "MPR"), None),
        (("ORIGINAL", "PRIMARY", "AXIAL", "HELIX"), None),
        (("ORIGINAL", "SECONDARY", "AXIAL"), None),
        (("ORIGINAL", "PRIMARY", "VOLUME", "NONE"), None),
    ],
)
def test_image_type_tells_localizers_and_derived_images_from_slices(image_type, reason):
    assert slice_ineligibility(facts(image_type=image_type)) is reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.4", "modality": "MR"}, NotAnalysedReason.NOT_CT),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.22", "modality": "SR"}, NotAnalysedReason.NOT_CT),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7"}, NotAnalysedReason.SECONDARY),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7.4"}, NotAnalysedReason.SECONDARY),
        ({"modality": "MR"}, NotAnalysedReason.NOT_CT),
        ({"rows": 0}, NotAnalysedReason.NO_PIXEL_DATA),
        ({"image_position_patient": None}, NotAnalysedReason.GEOMETRY_MISSING),
        ({"image_orientation_patient": None}, NotAnalysedReason.GEOMETRY_MISSING),
        ({"image_orientation_patient": (1.0, 0, 0, 1.0, 0, 0)}, NotAnalysedReason.GEOMETRY_MISSING),
    ],
)
def test_other_objects_are_declined_with_their_reason(changes, reason):
    assert slice_ineligibility(facts(**changes)) is reason


def test_enhanced_ct_is_ct():
    assert slice_ineligibility(facts(sop_class_uid=f"{CT}.1", frame=3)) is None


@pytest.mark.parametrize(
    ("image_type", "rescale_type", "reason"),
    [
        ("ORIGINAL", "HU", None),
        ("ORIGINAL", "US", None),
        ("DERIVED", "HU", None),
        ("DERIVED", "US", NotAnalysedReason.PROJECTION),
        ("ORIGINAL", "HU_MOD", NotAnalysedReason.PROJECTION),
        ("DERIVED", "Z_EFF", NotAnalysedReason.PROJECTION),
    ],
)
def test_values_that_are_not_in_hu_are_a_map(image_type, rescale_type, reason):
    one = facts(image_type=(image_type, "PRIMARY", "AXIAL"), rescale_type=rescale_type)

    assert slice_ineligibility(one) is reason


def test_derived_is_what_the_first_value_says():
    assert is_derived(facts(image_type=("DERIVED", "PRIMARY", "AXIAL")))
    assert not is_derived(facts(image_type=("ORIGINAL", "SECONDARY", "AXIAL")))
    assert not is_derived(facts(image_type=()))


def test_a_coronal_projection_is_a_projection_and_a_coronal_reformat_is_not_axial():
    coronal = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    mip = facts(image_type=("DERIVED", "SECONDARY", "MIP"), image_orientation_patient=coronal)
    mpr = facts(image_type=("DERIVED", "SECONDARY", "MPR"), image_orientation_patient=coronal)

    assert slice_ineligibility(mip) is NotAnalysedReason.PROJECTION
    assert slice_ineligibility(mpr) is NotAnalysedReason.NOT_AXIAL


@pytest.mark.parametrize("value", ["", "  ", "none", "NONE ", "w/o", "Without Contrast", "Nativ"])
def test_a_contrast_agent_that_says_none_is_none(value):
    assert slice_ineligibility(facts(contrast_agent=value)) is None


@pytest.mark.parametrize("value", ["Omnipaque 350", "CE", "APPLIED", "100ml"])
def test_a_contrast_agent_declines_a_slice(value):
    assert slice_ineligibility(facts(contrast_agent=value)) is NotAnalysedReason.CONTRAST


def test_a_site_names_its_own_words_for_no_contrast():
    rules = EligibilityRules(no_contrast_values=("bez ",))

    assert slice_ineligibility(facts(contrast_agent="BEZ"), rules) is None
    assert slice_ineligibility(facts(contrast_agent="NONE"), rules) is NotAnalysedReason.CONTRAST


@pytest.mark.parametrize(
    ("age", "minimum", "reason"),
    [
        (17, 18, NotAnalysedReason.TOO_YOUNG),
        (18, 18, None),
        (None, 18, None),
        (0, 18, NotAnalysedReason.TOO_YOUNG),
        (0, 0, None),
    ],
)
def test_patients_under_the_minimum_age_are_too_young_and_an_unknown_age_is_adult(age, minimum, reason):
    assert slice_ineligibility(facts(patient_age_years=age), EligibilityRules(minimum_age_years=minimum)) is reason


def test_a_child_process_can_be_given_the_rules():
    ask = pickle.loads(pickle.dumps(partial(slice_ineligibility, rules=EligibilityRules(minimum_age_years=0))))

    assert ask(facts(patient_age_years=3)) is None


@pytest.mark.parametrize("degrees", [-30.0, -18.5, 0.0, 21.0, 30.0, 32.0])
def test_a_tilted_gantry_is_axial(degrees):
    assert slice_ineligibility(facts(image_orientation_patient=tilted(degrees))) is None


@pytest.mark.parametrize("orientation", [(1.0, 0, 0, 0, 0, -1.0), (0, 1.0, 0, 0, 0, -1.0), tilted(45.0)])
def test_coronal_sagittal_and_oblique_slices_are_not_axial(orientation):
    assert slice_ineligibility(facts(image_orientation_patient=orientation)) is NotAnalysedReason.NOT_AXIAL


@pytest.mark.parametrize("orientation", [(-1.0, 0, 0, 0, -1.0, 0), (1.0, 0, 0, 0, -1.0, 0), (0, 1.0, 0, 1.0, 0, 0)])
def test_axial_slices_may_run_in_any_direction(orientation):
    assert slice_ineligibility(facts(image_orientation_patient=orientation)) is None


# ------------------------------------------------------------------------------------------------ a series


def test_a_synthetic_head_is_eligible_and_expected():
    series = series_of(head_slice())

    assert series_ineligibility(series) is None
    assert head_expected(series)


@pytest.mark.parametrize("noise_hu", [0.0, 12.0, 25.0])
@pytest.mark.parametrize("brain_hu", [22.0, 45.0])
def test_heads_of_infants_and_noisy_heads_are_eligible(brain_hu, noise_hu):
    assert series_ineligibility(series_of(head_slice(brain_hu, noise_hu=noise_hu))) is None


def test_fewer_than_ten_slices_are_too_few():
    assert series_ineligibility(series_of(head_slice(), slices=10)) is None
    assert series_ineligibility(series_of(head_slice(), slices=9)) == (NotAnalysedReason.TOO_FEW_SLICES, "9 axial")


def test_localizers_do_not_count_as_slices():
    localizers = [facts(100 + number, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")) for number in range(2)]

    reason = series_ineligibility(series_of(head_slice(), slices=8) + localizers)

    assert reason == (NotAnalysedReason.TOO_FEW_SLICES, "8 axial, 2 a localizer (scout) image")


def test_a_series_of_localizers_is_declined_as_such_and_not_expected():
    series = series_of(head_slice(), image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), names_head=True)

    assert series_ineligibility(series) == (NotAnalysedReason.LOCALIZER, "")
    assert not head_expected(series)


def test_a_header_that_names_another_body_part_is_believed():
    series = series_of(head_slice(), names_other_body_part=True)

    assert series_ineligibility(series) == (NotAnalysedReason.NOT_HEAD, "")
    assert not head_expected(series)


@pytest.mark.parametrize(
    "hu",
    [chest_slice(), head_slice(brain_hu=100.0), np.full((256, 256), 30.0, np.float32), head_slice() + 1000.0],
    ids=["chest", "plastic head", "no air", "wrong intercept"],
)
def test_values_that_cannot_be_a_head_are_declined_whatever_the_header_says(hu):
    series = series_of(hu.astype(np.float32), names_head=True)

    reason = series_ineligibility(series)

    assert reason is not None
    assert reason[0] is NotAnalysedReason.NO_BRAIN_FOUND
    assert head_expected(series)


def test_a_body_wider_than_a_head_is_no_head():
    series = series_of(head_slice(), pixel_spacing_mm=(1.4, 1.4))

    assert series_ineligibility(series) == (NotAnalysedReason.NO_BRAIN_FOUND, "0 of 20 slices look like brain")


def test_a_few_brain_slices_in_a_whole_body_scan_do_not_make_it_a_head():
    series = series_of(chest_slice(), slices=70) + series_of(head_slice(), slices=12)

    reason = series_ineligibility(series)

    assert reason == (NotAnalysedReason.NO_BRAIN_FOUND, "12 of 82 slices look like brain")


def test_a_series_that_is_not_decoded_yet_is_judged_by_its_headers():
    assert series_ineligibility([facts(number) for number in range(12)]) is None


def test_a_series_without_any_slice_has_nothing_readable():
    assert series_ineligibility([]) == (NotAnalysedReason.NO_READABLE_SLICE, "")
    assert not head_expected([])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"contrast_agent": "Iomeron"}, NotAnalysedReason.CONTRAST),
        ({"patient_age_years": 4}, NotAnalysedReason.TOO_YOUNG),
    ],
)
def test_what_one_slice_says_of_the_patient_holds_for_the_series_and_a_report_is_expected(changes, reason):
    series = series_of(head_slice())
    series[3] = replace(series[3], **changes)

    assert series_ineligibility(series) == (reason, "")
    assert header_ineligibility(series) == (reason, "")
    assert head_expected([replace(one, **changes) for one in series])


def test_a_chest_with_contrast_is_no_head():
    series = series_of(chest_slice(), names_other_body_part=True, contrast_agent="Iomeron")

    assert series_ineligibility(series) == (NotAnalysedReason.NOT_HEAD, "")


def test_slices_over_more_than_400_mm_are_no_head():
    long = [
        replace(one, image_position_patient=(0.0, 0.0, 21.2 * index))
        for index, one in enumerate(series_of(head_slice()))
    ]

    assert series_ineligibility(long) == (NotAnalysedReason.NOT_HEAD, "the slices cover 403 mm")
    assert series_ineligibility(long[:19]) is None


def test_a_derived_head_is_eligible():
    assert series_ineligibility(series_of(head_slice(), image_type=("DERIVED", "SECONDARY", "MPR"))) is None


def test_without_the_pixel_gate_headers_alone_decide():
    series = series_of(chest_slice())

    assert series_ineligibility(series) is not None
    assert series_ineligibility(series, EligibilityRules(pixel_gate=False)) is None


# ------------------------------------------------------------------------------------------------ real data


@pytest.mark.parametrize("series", [*(f"cq500/{study}" for study in STUDIES), "ge-head-tilted"])
def test_real_heads_are_eligible_by_pixels_alone(shared_data, series):
    measured = without_header_texts(decoded(shared_data / series))

    assert series_ineligibility(measured) is None
    assert head_expected(measured)


@pytest.mark.parametrize("series", ["brain-5mm", "brain-1mm", "bone-1mm"])
def test_a_plastic_head_has_no_brain_but_a_report_is_expected(shared_data, series):
    measured = decoded(shared_data / "philips-phantom-study" / series)

    reason = series_ineligibility(measured)

    assert reason is not None
    assert reason[0] is NotAnalysedReason.NO_BRAIN_FOUND
    assert series_ineligibility(measured, EligibilityRules(pixel_gate=False)) is None
    assert head_expected(measured)


@pytest.mark.parametrize("series", ["not-head/chest-ct", "not-head/head-mr"])
def test_chest_and_mr_are_declined_by_pixels_alone(shared_data, series):
    measured = without_header_texts(decoded(shared_data / series))

    reason = series_ineligibility(measured, minimum_slices=5)

    assert reason is not None
    assert reason[0] is NotAnalysedReason.NO_BRAIN_FOUND
    assert not head_expected(measured)


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        ("not-head/head-mr", NotAnalysedReason.NOT_CT),
        ("philips-phantom-study/dose-summary", NotAnalysedReason.SECONDARY),
        ("philips-phantom-study/localizer", NotAnalysedReason.LOCALIZER),
    ],
)
def test_other_series_of_a_study_are_declined_by_header_and_not_expected(shared_data, series, reason):
    headers = [one for path in (shared_data / series).iterdir() for one in read_facts(path, DecodeLimits())]

    assert series_ineligibility(headers) == (reason, "")
    assert not head_expected(headers)


def test_a_chest_that_names_itself_is_declined_as_such(shared_data):
    headers = [
        one for path in (shared_data / "not-head/chest-ct").iterdir() for one in read_facts(path, DecodeLimits())
    ]

    original = [replace(one, image_type=("ORIGINAL", "PRIMARY", "AXIAL")) for one in headers]

    assert series_ineligibility(original) == (NotAnalysedReason.NOT_HEAD, "")


def test_a_chest_whose_header_gives_nothing_away_is_declined_by_its_pixels(shared_data, tmp_path):
    for path in (shared_data / "not-head/chest-ct").iterdir():
        dataset = pydicom.dcmread(path)
        for keyword in (*_DESCRIPTIONS, "ImageType"):
            if keyword in dataset:
                delattr(dataset, keyword)
        dataset.save_as(tmp_path / path.name)
    measured = decoded(tmp_path)
    assert not any(one.names_other_body_part for one in measured)

    reason = series_ineligibility(measured)

    assert reason == (NotAnalysedReason.NO_BRAIN_FOUND, f"0 of {len(measured)} slices look like brain")
    assert not head_expected(measured)
