import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openjpeg.utils import encode_array
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    HTJ2K,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from ich_node.decode import (
    DecodeLimits,
    position_along_normal_mm,
    read_facts,
    read_instance,
    read_slices,
    sort_slices,
)
from ich_node.decode.codec import CodestreamHeader, codestream_header, stored_values
from ich_node.decode.tissue import measure_tissue
from ich_node.eligibility import slice_ineligibility
from ich_node.errors import Ineligible, Unreadable
from ich_node.phantom import PhantomSettings, write_series
from ich_node.records import HounsfieldSlice, InstanceState, NotAnalysedReason, SliceFacts

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
LIMITS = DecodeLimits()
DCMCJPEG = "/usr/bin/dcmcjpeg"
UNDECODABLE = {"JPEGProcess10_12", "JPEGProcess6_8"}
TRUTH_UNKNOWN_TO_PYDICOM = {
    "TOSHIBA_J2K_SIZ1_PixRep0",  # pydicom believes the header's wrong sign
    "JPEGProcess2_4",  # pydicom's plug-ins refuse 12 bits
    "CT0012.fragmented",  # the same
    "eCT_Supplemental",  # pydicom does not look for rescale values in functional groups
}


def decline_nothing(_facts):
    return None


def head(hu_brain: float = 30.0) -> np.ndarray:
    """HU of a small head in air, (64, 48), whole numbers."""
    rows, columns = np.mgrid[-1.0:1.0:64j, -1.0:1.0:48j]
    radius = np.hypot(rows, columns)
    hu = np.full((64, 48), -1000)
    hu[radius < 0.9] = 800
    hu[radius < 0.75] = int(hu_brain)
    return hu


def ct(stored: np.ndarray, **attributes: object) -> Dataset:
    """A CT image whose stored values are given; intercept -1024 unless told."""
    dataset = Dataset()
    dataset.SOPClassUID = CT
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient = [0.0, 0.0, 10.0]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [0.5, 0.5]
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def save(folder: Path, dataset: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> Path:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
        dataset["PixelData"].is_undefined_length = dataset.file_meta.TransferSyntaxUID.is_encapsulated
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def compressed(dataset: Dataset, transfer_syntax: str) -> Dataset:
    """The same image in a compressed transfer syntax."""
    if transfer_syntax == JPEG2000Lossless:
        stored = np.frombuffer(dataset.PixelData, "<i2" if dataset.PixelRepresentation else "<u2")
        frame = encode_array(stored.reshape(dataset.Rows, dataset.Columns), bits_stored=dataset.BitsStored)
        dataset.PixelData = encapsulate([frame])
        return dataset
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.compress(transfer_syntax, generate_instance_uid=False)
    return dataset


def stored_head(dtype: str = "<i2", intercept: int = -1024) -> np.ndarray:
    return (head() - intercept).astype(dtype)


def hu_of(path: Path) -> np.ndarray:
    (one,) = read_slices(path, LIMITS)
    return one.hu


def reason_of(path: Path, limits: DecodeLimits = LIMITS) -> NotAnalysedReason:
    with pytest.raises(Unreadable) as caught:
        read_slices(path, limits)
    return caught.value.reason


# ---------------------------------------------------------------------------------------- transfer syntaxes


@pytest.mark.parametrize(
    "transfer_syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize("dtype", ["<i2", "<u2"])
def test_raw_pixels_become_hounsfield_units(tmp_path, transfer_syntax, dtype):
    hu = hu_of(save(tmp_path, ct(stored_head(dtype)), transfer_syntax))

    assert hu.dtype == np.float32
    np.testing.assert_array_equal(hu, head())


def test_big_endian_pixels_become_hounsfield_units(tmp_path):
    dataset = ct(stored_head())
    dataset.PixelData = stored_head().astype(">i2").tobytes()

    np.testing.assert_array_equal(hu_of(save(tmp_path, dataset, ExplicitVRBigEndian)), head())


@pytest.mark.parametrize("transfer_syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("dtype", ["<i2", "<u2"])
def test_lossless_compression_keeps_every_value(tmp_path, transfer_syntax, dtype):
    dataset = ct(stored_head(dtype), **({"BitsStored": 12, "HighBit": 11} if transfer_syntax != RLELossless else {}))
    compressed(dataset, transfer_syntax)

    np.testing.assert_array_equal(hu_of(save(tmp_path, dataset, transfer_syntax)), head())


@pytest.mark.parametrize("transfer_syntax", [HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL])
@pytest.mark.parametrize("dtype", ["<i2", "<u2"])
def test_high_throughput_jpeg_2000_keeps_every_value(tmp_path, transfer_syntax, dtype):
    dataset = ct(stored_head(dtype))
    codestream = imagecodecs.htj2k_encode(stored_head(dtype), reversible=True)
    assert b"\xff\x50" in codestream, "the CAP marker tells HTJ2K from JPEG 2000 (ISO 15444-15)"
    dataset.PixelData = encapsulate([codestream])

    np.testing.assert_array_equal(hu_of(save(tmp_path, dataset, transfer_syntax)), head())


def syntax_files(shared_data: Path) -> list[Path]:
    return sorted(path for path in (shared_data / "transfer-syntaxes").rglob("*") if path.is_file())


def test_every_decodable_object_has_the_hounsfield_units_that_pydicom_gives(shared_data):
    compared = 0
    for path in syntax_files(shared_data):
        if any(name in path.name for name in UNDECODABLE | TRUTH_UNKNOWN_TO_PYDICOM):
            continue
        dataset = pydicom.dcmread(path)
        expected = apply_modality_lut(dataset.pixel_array, dataset)
        hu = hu_of(path)
        scan = expected >= -1024.0  # what lies below is padding
        np.testing.assert_allclose(hu[scan], expected[scan], atol=1e-3, err_msg=path.name)
        assert np.all(hu[~scan] == -1000.0)
        compared += 1

    assert compared >= 40


def test_retired_jpeg_processes_are_unreadable_and_nothing_else_is(shared_data):
    for path in syntax_files(shared_data):
        decoded = read_instance(path, LIMITS, decline_nothing)
        if any(name in path.name for name in UNDECODABLE):
            assert (decoded.state, decoded.reason) == (InstanceState.UNREADABLE, NotAnalysedReason.CANNOT_DECODE)
            assert len(decoded.facts) == 1
        else:
            assert decoded.state is InstanceState.DECODED, (path.name, decoded.reason, decoded.detail)


def test_twelve_bit_jpeg_agrees_with_the_lossless_form_of_the_same_image(shared_data):
    folder = shared_data / "transfer-syntaxes" / "misc"
    (lossy,) = read_slices(next(folder.glob("*JPEGProcess2_4*")), LIMITS)
    (lossless,) = read_slices(next(folder.glob("*LittleEndianExplicit*")), LIMITS)

    tissue = lossless.hu > -900.0
    assert np.abs(lossy.hu - lossless.hu)[tissue].mean() < 5.0


def test_a_wrong_sign_in_a_jpeg_2000_header_is_put_right_and_recorded(shared_data):
    folder = shared_data / "transfer-syntaxes" / "misc"
    (signed,) = read_slices(folder / "pljdata__TOSHIBA_J2K_SIZ0_PixRep1.dcm", LIMITS)
    (unsigned,) = read_slices(folder / "pljdata__TOSHIBA_J2K_SIZ1_PixRep0.dcm", LIMITS)
    (mismatch,) = read_slices(folder / "pydicom__J2K_pixelrep_mismatch.dcm", LIMITS)

    assert signed.facts.repairs == unsigned.facts.repairs == mismatch.facts.repairs == ("JPEG 2000 sign",)
    np.testing.assert_array_equal(signed.hu, unsigned.hu)
    assert mismatch.hu.max() == 1896.0


# ------------------------------------------------------------------------------------------ Hounsfield units


def test_rescale_slope_and_intercept_are_applied(tmp_path):
    stored = ((head() + 1024) // 2).astype("<u2")

    hu = hu_of(save(tmp_path, ct(stored, RescaleSlope=2, RescaleIntercept=-1024)))

    np.testing.assert_allclose(hu, head(), atol=1.0)


def test_without_rescale_attributes_the_stored_values_are_hounsfield_units(tmp_path):
    path = save(tmp_path, ct(head().astype("<i2"), RescaleSlope=None, RescaleIntercept=None))

    np.testing.assert_array_equal(hu_of(path), head())


@pytest.mark.parametrize(
    "attributes", [{"RescaleSlope": 0}, {"BitsStored": 17}, {"BitsAllocated": 12}, {"SamplesPerPixel": 3}]
)
def test_headers_that_make_no_sense_are_unreadable(tmp_path, attributes):
    assert reason_of(save(tmp_path, ct(stored_head(), **attributes))) is NotAnalysedReason.CANNOT_DECODE


def test_monochrome1_changes_the_display_not_the_hounsfield_units(tmp_path):
    path = save(tmp_path, ct(stored_head(), PhotometricInterpretation="MONOCHROME1"))

    np.testing.assert_array_equal(hu_of(path), head())


@pytest.mark.parametrize(
    ("padding_hu", "attributes"),
    [
        (-3024, {}),
        (-1500, {}),
        (-1010, {"PixelPaddingValue": 14}),
        (4000, {"PixelPaddingValue": 5024}),
        (-1015, {"PixelPaddingValue": 4, "PixelPaddingRangeLimit": 14}),
    ],
)
def test_padding_becomes_air(tmp_path, padding_hu, attributes):
    stored = stored_head()
    stored[:5] = padding_hu + 1024

    hu = hu_of(save(tmp_path, ct(stored, **attributes)))

    assert np.all(hu[:5] == -1000.0)
    np.testing.assert_array_equal(hu[5:], head()[5:])


def test_a_padding_value_written_with_the_other_sign_is_understood(tmp_path):
    dataset = ct(stored_head())
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    values = np.frombuffer(dataset.PixelData, "<i2").reshape(64, 48).copy()
    values[:5] = -2000
    dataset.PixelData = values.tobytes()

    assert np.all(hu_of(save(tmp_path, dataset))[:5] == -1000.0)


def test_a_padding_value_within_tissue_punches_no_holes_into_brain(tmp_path):
    path = save(tmp_path, ct(stored_head(), PixelPaddingValue=1024 + 30))

    np.testing.assert_array_equal(hu_of(path), head())


def test_the_12_bit_wrap_is_undone_and_recorded(tmp_path):
    wrapped = (head() % 4096).astype("<u2")
    path = save(tmp_path, ct(wrapped, BitsStored=12, HighBit=11, RescaleIntercept=0))

    (one,) = read_slices(path, LIMITS)

    np.testing.assert_array_equal(one.hu, head())
    assert one.facts.repairs == ("12-bit wrap",)


@pytest.mark.parametrize(
    "stored",
    [np.maximum(head(), 0).astype("<u2"), (head() + 1024).astype("<u2"), np.full((64, 48), 40, "<u2")],
    ids=["air clipped at 0", "intercept lost", "no air"],
)
def test_values_that_the_wrap_repair_would_not_make_plausible_stay_as_they_are(tmp_path, stored):
    path = save(tmp_path, ct(stored, BitsStored=12, HighBit=11, RescaleIntercept=0))

    (one,) = read_slices(path, LIMITS)

    np.testing.assert_array_equal(one.hu, stored)
    assert one.facts.repairs == ()


def test_a_normal_12_bit_image_is_not_taken_for_a_wrapped_one(tmp_path):
    path = save(tmp_path, ct(stored_head("<u2"), BitsStored=12, HighBit=11))

    (one,) = read_slices(path, LIMITS)

    np.testing.assert_array_equal(one.hu, head())
    assert one.facts.repairs == ()


# -------------------------------------------------------------------------------------------------- geometry


def test_slices_are_sorted_from_foot_to_head_whichever_way_rows_and_columns_run(tmp_path):
    for orientation in ([1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, 1, 0], [0, 1, 0, 1, 0, 0], [1, 0, 0, 0, 0.95, -0.3122]):
        slices = [
            read_slices(
                save(
                    tmp_path,
                    ct(stored_head(), ImagePositionPatient=[5, -3, z], ImageOrientationPatient=orientation),
                ),
                LIMITS,
            )[0]
            for z in (40, -20, 10, 11)
        ]
        ordered = sort_slices(slices)
        assert [one.facts.image_position_patient[2] for one in ordered] == [-20, 10, 11, 40]


def test_positions_of_a_tilted_series_are_a_slice_thickness_apart(shared_data):
    facts = [one for path in (shared_data / "ge-head-tilted").iterdir() for one in read_facts(path, LIMITS)]

    positions = np.sort([position_along_normal_mm(one) for one in facts])

    np.testing.assert_allclose(np.diff(positions)[:13], 4.0, atol=0.01)
    np.testing.assert_allclose(np.diff(positions)[14:], 7.0, atol=0.01)


def test_a_slice_without_position_cannot_be_placed(tmp_path):
    (one,) = read_slices(save(tmp_path, ct(stored_head(), ImagePositionPatient=None)), LIMITS)

    with pytest.raises(Ineligible) as caught:
        position_along_normal_mm(one.facts)
    assert caught.value.reason is NotAnalysedReason.GEOMETRY_MISSING


@settings(max_examples=30, deadline=None)
@given(positions=st.lists(st.integers(-200, 200), min_size=1, max_size=12), random=st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_change_the_order_of_slices(a_slice, positions, random):
    slices = [
        HounsfieldSlice(
            replace(a_slice.facts, sop_instance_uid=f"1.2.{number}", image_position_patient=(0.0, 0.0, float(z))),
            a_slice.hu,
        )
        for number, z in enumerate(positions)
    ]
    shuffled = list(slices)
    random.shuffle(shuffled)

    assert [id(one) for one in sort_slices(shuffled)] == [id(one) for one in sort_slices(slices)]


@pytest.fixture(scope="module")
def a_slice(tmp_path_factory) -> HounsfieldSlice:
    return read_slices(save(tmp_path_factory.mktemp("one"), ct(stored_head())), LIMITS)[0]


# --------------------------------------------------------------------------------------------- multi-frame CT


def enhanced(frames: int = 3, projected: tuple[int, ...] = ()) -> Dataset:
    """An Enhanced CT whose frames hold the head with 10, 20, 30 ... HU of brain."""
    stored = np.stack([head(10.0 * (index + 1)) + 1000 for index in range(frames)]).astype("<i2")
    dataset = ct(stored, SOPClassUID=ENHANCED_CT, NumberOfFrames=frames)
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(dataset, keyword)
    shared = Dataset()
    shared.PlaneOrientationSequence = [item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    shared.PixelMeasuresSequence = [item(PixelSpacing=[0.4, 0.6], SliceThickness=2.5)]
    shared.PixelValueTransformationSequence = [item(RescaleSlope=1, RescaleIntercept=-1000, RescaleType="HU")]
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence([Dataset() for _ in range(frames)])
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.PlanePositionSequence = [item(ImagePositionPatient=[0, 0, -2.5 * index])]
        kind = ("DERIVED", "MAXIMUM") if index in projected else ("ORIGINAL", "NONE")
        group.CTImageFrameTypeSequence = [item(FrameType=[kind[0], "PRIMARY", "VOLUME", kind[1]])]
    return dataset


def item(**attributes: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def test_every_frame_of_an_enhanced_ct_is_a_slice_with_its_own_geometry(tmp_path):
    slices = read_slices(save(tmp_path, enhanced()), LIMITS)

    assert [one.facts.frame for one in slices] == [1, 2, 3]
    assert [one.facts.image_position_patient for one in slices] == [(0, 0, 0), (0, 0, -2.5), (0, 0, -5.0)]
    assert {one.facts.pixel_spacing_mm for one in slices} == {(0.4, 0.6)}
    assert {one.facts.slice_thickness_mm for one in slices} == {2.5}
    assert [float(one.hu[32, 24]) for one in slices] == [10.0, 20.0, 30.0]
    assert [one.facts.frame for one in sort_slices(slices)] == [3, 2, 1]


def test_a_frame_s_own_rescale_values_come_before_the_shared_ones(tmp_path):
    dataset = enhanced()
    own = item(RescaleSlope=2, RescaleIntercept=-2000, RescaleType="HU")
    dataset.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence = [own]

    slices = read_slices(save(tmp_path, dataset), LIMITS)

    assert [float(one.hu[32, 24]) for one in slices] == [10.0, 40.0, 30.0]


def test_projected_frames_are_left_out_and_the_others_decoded(tmp_path):
    decoded = read_instance(save(tmp_path, enhanced(projected=(1,))), LIMITS, slice_ineligibility)

    assert decoded.state is InstanceState.DECODED
    assert [one.facts.frame for one in decoded.slices] == [1, 3]
    assert [one.tissue is not None for one in decoded.facts] == [True, False, True]


def test_a_real_enhanced_ct_is_one_slice_per_frame(shared_data):
    path = shared_data / "transfer-syntaxes" / "misc" / "pydicomdata__eCT_Supplemental.dcm"

    slices = read_slices(path, LIMITS)

    assert [one.facts.frame for one in slices] == [1, 2]
    assert all(one.facts.image_position_patient is not None for one in slices)


# ----------------------------------------------------------------------------------------- facts and declining


@pytest.mark.parametrize(
    ("keyword", "text", "head_named", "other_named"),
    [
        ("BodyPartExamined", "HEAD", True, False),
        ("StudyDescription", "1A TRAUMA/PLAIN HEAD DM", True, False),
        ("SeriesDescription", "Kopf_nativ 5mm", True, False),
        ("ProtocolName", "01_HeadRoutine", True, False),
        ("StudyDescription", "CT Schädel und Thorax", True, False),
        ("StudyDescription", "TC CRANEO SIMPLE", True, False),
        ("StudyDescription", "CT Thorax", False, True),
        ("ProtocolName", "1PETCT_WholeBody", False, True),
        ("SeriesDescription", "Lspine 2mm", False, True),
        ("BodyPartExamined", "ABDOMEN", False, True),
        ("SeriesDescription", "PRE CONTRAST THIN", False, False),
        ("SeriesDescription", "AHEAD protocol", False, False),
        ("SeriesDescription", "Axial Standard, charm, hipster", False, False),
        ("SeriesDescription", "head first supine", False, False),
    ],
)
def test_header_texts_name_the_head_or_another_part(tmp_path, keyword, text, head_named, other_named):
    dataset = ct(stored_head(), SpecificCharacterSet="ISO_IR 192", **{keyword: text})

    (facts,) = read_facts(save(tmp_path, dataset), LIMITS)

    assert (facts.names_head, facts.names_other_body_part) == (head_named, other_named)


def facts_with(folder: Path, **attributes: object) -> SliceFacts:
    (facts,) = read_facts(save(folder, ct(stored_head(), **attributes)), LIMITS)
    return facts


def test_facts_that_the_choice_of_a_series_rests_on_are_read(tmp_path):
    facts = facts_with(
        tmp_path,
        SeriesNumber=4,
        RescaleType="hu",
        ConvolutionKernel=["H31s", "3"],
        LossyImageCompression="01",
        FrameOfReferenceUID="1.2.3",
        ContrastBolusAgent=" Omnipaque ",
    )

    assert (facts.series_number, facts.rescale_type, facts.convolution_kernel) == (4, "HU", "H31s 3")
    assert (facts.lossy, facts.frame_of_reference_uid, facts.contrast_agent) == (True, "1.2.3", "Omnipaque")
    assert facts.reason is None


def test_facts_that_are_missing_are_unknown(tmp_path):
    facts = facts_with(tmp_path)

    assert (facts.series_number, facts.rescale_type, facts.convolution_kernel) == (None, "", "")
    assert (facts.lossy, facts.frame_of_reference_uid, facts.contrast_agent) == (False, "", "")
    assert (facts.patient_age_years, facts.names_bone) == (None, False)


@pytest.mark.parametrize(
    ("written", "years"),
    [
        ("034Y", 34), ("34Y", 34), ("34", 34), ("034y", 34), ("005M", 0), ("030M", 2), ("3W", 0), ("10D", 0),
        ("090Y", 90), ("101Y", 90), ("999Y", None), ("-1Y", None), ("ADULT", None), ("", None),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Invalid value for VR AS")
def test_patient_age_is_read_as_it_is_written(tmp_path, written, years):
    assert facts_with(tmp_path, PatientAge=written).patient_age_years == years


@pytest.mark.parametrize(
    ("dates", "years"),
    [
        ({"AcquisitionDate": "20240229"}, 23),
        ({"StudyDate": "20240301"}, 24),
        ({"ContentDate": "20240302", "StudyDate": "20100101"}, 24),
        ({"AcquisitionDateTime": "20240301120000"}, 24),
        ({"StudyDate": "19990101"}, None),
        ({"StudyDate": "21990101"}, None),
        ({}, None),
    ],
)
def test_without_an_age_it_is_counted_from_birth_to_the_images(tmp_path, dates, years):
    assert facts_with(tmp_path, PatientBirthDate="20000301", **dates).patient_age_years == years


@pytest.mark.filterwarnings("ignore:Invalid value for VR AS")
def test_an_impossible_age_gives_way_to_the_birth_date(tmp_path):
    facts = facts_with(tmp_path, PatientAge="999Y", PatientBirthDate="19500101", StudyDate="20240301")

    assert facts.patient_age_years == 74


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("BONE BRAIN 1MM", True),
        ("Kopf Knochen 1.0", True),
        ("CRANE OS", True),
        ("Fenêtre osseuse", True),
        ("Cranio osso", True),
        ("Craneo hueso 0.6", True),
        ("SKULL 5MM", False),
        ("STD BRAIN 5MM", False),
        ("Position", False),
    ],
)
def test_descriptions_name_bone_reconstructions(tmp_path, text, named):
    attributes = {"SpecificCharacterSet": "ISO_IR 192"}

    assert facts_with(tmp_path, SeriesDescription=text, **attributes).names_bone == named
    assert facts_with(tmp_path, ProtocolName=text, **attributes).names_bone == named


@pytest.mark.parametrize("where", ["object", "shared", "frame"])
def test_the_contrast_agent_of_an_enhanced_ct_is_found_wherever_it_stands(tmp_path, where):
    dataset = enhanced()
    place = {
        "object": dataset,
        "shared": dataset.SharedFunctionalGroupsSequence[0],
        "frame": dataset.PerFrameFunctionalGroupsSequence[1],
    }[where]
    place.ContrastBolusAgentSequence = [item(CodeMeaning="Iohexol")]

    agents = [one.contrast_agent for one in read_facts(save(tmp_path, dataset), LIMITS)]

    assert agents == (["", "Iohexol", ""] if where == "frame" else ["Iohexol"] * 3)


def test_numbers_that_are_none_count_as_missing(tmp_path):
    path = save(tmp_path, ct(stored_head(), SliceThickness="2", InstanceNumber=7))
    path.write_bytes(
        path.read_bytes().replace(b"DS\x02\x002 ", b"DS\x02\x00x ").replace(b"IS\x02\x007 ", b"IS\x02\x00? ")
    )

    (facts,) = read_facts(path, LIMITS)

    assert (facts.slice_thickness_mm, facts.instance_number) == (None, None)


def test_what_the_header_declines_costs_no_decode(tmp_path):
    not_decodable = ct(stored_head(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    not_decodable.PixelData = b"\x00\x00"

    decoded = read_instance(save(tmp_path, not_decodable), LIMITS, slice_ineligibility)

    assert (decoded.state, decoded.reason) == (InstanceState.NOT_NEEDED, NotAnalysedReason.LOCALIZER)
    assert decoded.facts[0].tissue is None
    assert decoded.slices == ()


def test_an_object_without_image_is_declined_with_its_facts(tmp_path):
    report = Dataset()
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.22"
    report.SOPInstanceUID = generate_uid()
    report.Modality = "SR"

    decoded = read_instance(save(tmp_path, report), LIMITS, slice_ineligibility)

    assert (decoded.state, decoded.reason) == (InstanceState.NOT_NEEDED, NotAnalysedReason.NOT_CT)
    assert decoded.facts[0].modality == "SR"


def test_tissue_of_a_head_is_measured(tmp_path):
    hu = np.kron(head(), np.ones((8, 8))).astype(np.float32)

    tissue = measure_tissue(hu)

    assert tissue.body_fraction == pytest.approx((hu > -300).mean(), abs=0.01)
    assert tissue.brain_median_hu == 30.0
    assert tissue.brain_fraction + tissue.bone_fraction == pytest.approx(1.0)
    assert tissue.lung_or_fat_fraction == 0.0


def test_the_brain_is_what_bone_encloses():
    hu = np.full((128, 128), 30.0, np.float32)
    hu[32:96, 32:96] = 800.0
    hu[40:88, 40:88] = 30.0

    assert measure_tissue(hu).enclosed_brain_fraction == pytest.approx((48 / 128) ** 2)


def test_tissue_of_air_alone_is_measured_without_a_warning():
    tissue = measure_tissue(np.full((512, 512), -1000.0, np.float32))

    assert tissue.body_fraction == 0.0
    assert np.isnan(tissue.brain_median_hu)


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("content", [b"", b"x", b"\x00" * 132, b"\x00" * 128 + b"DICM", b"not DICOM at all " * 100])
def test_files_that_are_no_dicom_are_unreadable(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)

    assert reason_of(path) is NotAnalysedReason.NOT_DICOM


def test_a_file_that_is_not_there_is_unreadable(tmp_path):
    assert reason_of(tmp_path / "absent") is NotAnalysedReason.FILE_GONE


@pytest.mark.parametrize("kept", [0, 1, 3000, 6142])
def test_pixel_data_that_is_too_short_is_never_filled_up(tmp_path, kept):
    dataset = ct(stored_head())
    dataset.PixelData = dataset.PixelData[: kept & ~1]

    decoded = read_instance(save(tmp_path, dataset), LIMITS, slice_ineligibility)

    assert decoded.state is InstanceState.UNREADABLE
    assert decoded.reason is NotAnalysedReason.CANNOT_DECODE
    assert decoded.facts[0].rows == 64


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_truncated_file_is_unreadable_in_every_transfer_syntax(shared_data, tmp_path, share):
    for path in syntax_files(shared_data):
        content = path.read_bytes()
        cut = tmp_path / "cut.dcm"
        cut.write_bytes(content[: int(len(content) * share)])
        assert read_instance(cut, LIMITS, decline_nothing).state is InstanceState.UNREADABLE, path.name


@pytest.mark.parametrize("missing_bytes", [8, 9, 20])
def test_a_compressed_file_that_lacks_only_its_last_bytes_is_unreadable(tmp_path, missing_bytes):
    for transfer_syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        path = save(tmp_path, compressed(ct(stored_head("<u2")), transfer_syntax), transfer_syntax)
        path.write_bytes(path.read_bytes()[:-missing_bytes])
        assert read_instance(path, LIMITS, decline_nothing).state is InstanceState.UNREADABLE


def test_a_compressed_image_without_its_end_is_unreadable(tmp_path):
    for transfer_syntax in (JPEGLSLossless, JPEG2000Lossless):
        dataset = ct(stored_head("<u2"), BitsStored=12, HighBit=11)
        compressed(dataset, transfer_syntax)
        frame = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
        dataset.PixelData = encapsulate([frame[: len(frame) // 2]])
        assert reason_of(save(tmp_path, dataset, transfer_syntax)) is NotAnalysedReason.CANNOT_DECODE


def test_a_compressed_image_of_another_size_than_its_header_is_unreadable(tmp_path):
    dataset = ct(stored_head("<u2"), BitsStored=12, HighBit=11)
    compressed(dataset, JPEG2000Lossless)
    dataset.Rows = 32

    assert reason_of(save(tmp_path, dataset, JPEG2000Lossless)) is NotAnalysedReason.CANNOT_DECODE


def test_a_codestream_that_is_none_is_unreadable(tmp_path):
    for transfer_syntax in (JPEGExtended12Bit, JPEGLSLossless, JPEG2000Lossless, HTJ2K):
        dataset = ct(stored_head())
        dataset.PixelData = encapsulate([b"\x00" * 500 + b"\xff\xd9"])
        assert reason_of(save(tmp_path, dataset, transfer_syntax)) is NotAnalysedReason.CANNOT_DECODE


@pytest.mark.parametrize(
    "attributes", [{"Rows": 65535, "Columns": 65535}, {"Rows": 2049}, {"Columns": 2049}, {"NumberOfFrames": 2001}]
)
def test_sizes_over_the_limits_are_refused_from_the_header(tmp_path, attributes):
    # The pixels do not fit the header either: a decode would end with another reason.
    assert reason_of(save(tmp_path, ct(stored_head(), **attributes))) is NotAnalysedReason.TOO_LARGE


def test_an_image_without_pixel_data_says_so(tmp_path):
    assert reason_of(save(tmp_path, ct(stored_head(), PixelData=None))) is NotAnalysedReason.NO_PIXEL_DATA
    assert reason_of(save(tmp_path, ct(stored_head(), Rows=None))) is NotAnalysedReason.NO_PIXEL_DATA


def test_a_deflate_bomb_is_refused_at_the_limit(tmp_path):
    path = save(tmp_path, ct(np.zeros((2048, 2048), "<i2")), DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 50_000

    limits = replace(LIMITS, max_inflated_bytes=1_000_000)

    assert reason_of(path, limits) is NotAnalysedReason.TOO_LARGE
    assert read_slices(path, LIMITS)[0].hu.shape == (2048, 2048)


def test_a_deflated_file_that_ends_early_is_unreadable(tmp_path):
    path = save(tmp_path, ct(stored_head()), DeflatedExplicitVRLittleEndian)
    path.write_bytes(path.read_bytes()[:-20])

    assert reason_of(path) is NotAnalysedReason.NOT_DICOM


def test_three_thousand_nested_sequences_are_unreadable(tmp_path):
    path = save(tmp_path, ct(stored_head()))
    header, pixels = path.read_bytes().split(b"\xe0\x7f\x10\x00", 1)
    opening = struct.pack("<HH2sHL", 0x7FDF, 0x1001, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    path.write_bytes(header + opening * 3000 + b"\xe0\x7f\x10\x00" + pixels)

    assert reason_of(path) is NotAnalysedReason.NOT_DICOM


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_headers_raise_nothing_but_unreadable(a_file, tmp_path_factory, data):
    content = bytearray(a_file)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(132, len(content) - 6144))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.dcm"
    path.write_bytes(bytes(content))

    decoded = read_instance(path, LIMITS, slice_ineligibility)

    assert decoded.state in (InstanceState.DECODED, InstanceState.UNREADABLE, InstanceState.NOT_NEEDED)
    assert (decoded.reason is None) == (decoded.state is InstanceState.DECODED)


@pytest.fixture(scope="module")
def a_file(tmp_path_factory) -> bytes:
    return save(
        tmp_path_factory.mktemp("file"), ct(stored_head(), SliceThickness=5, StudyDescription="HEAD")
    ).read_bytes()


def test_the_size_of_a_codestream_is_read_without_decoding_it():
    jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xc3\x00\x0b\x10\x02\x00\x01\x80\x01\x01\x11\x00"
    assert codestream_header(jpeg) == CodestreamHeader(512, 384, 1)
    jpeg_2000 = (
        b"\xff\x4f\xff\x51" + struct.pack(">HHLLLLLLLLH", 41, 0, 612, 522, 100, 10, 0, 0, 0, 0, 3) + b"\x0f\x01\x01"
    )
    assert codestream_header(jpeg_2000) == CodestreamHeader(512, 512, 3)
    for broken in (b"", b"\xff\xd8", b"\xff\xd8\xff\xd9" + b"\x00" * 20, zlib.compress(b"x" * 99)):
        with pytest.raises(ValueError, match="codestream"):
            codestream_header(broken)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("process", ["+e1", "+el +sv 1", "+el +sv 4", "+el +sv 6", "+el +sv 7"])
def test_lossless_jpeg_gives_the_values_that_were_stored(tmp_path: Path, process: str, bits: int, signed: bool) -> None:
    if not Path(DCMCJPEG).exists():
        pytest.skip(f"{DCMCJPEG} is absent: Debian's package dcmtk (scripts/setup installs it as root)")
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    drawn = np.random.default_rng(bits).integers(-40, 41, (64, 64)).cumsum(axis=1).clip(least, most)
    drawn[0, :2] = least, most
    image = pydicom.dcmread(write_series(tmp_path / "head", PhantomSettings(slices=1, rows=64))[0])
    image.BitsAllocated, image.BitsStored, image.HighBit = 8 if bits == 8 else 16, bits, bits - 1
    image.PixelRepresentation = int(signed)
    image.PixelData = (drawn & ((1 << bits) - 1)).astype(f"<u{image.BitsAllocated // 8}").tobytes()
    image.save_as(tmp_path / "raw.dcm")
    made = [DCMCJPEG, *process.split(), tmp_path / "raw.dcm", tmp_path / "jpeg.dcm"]
    subprocess.run(made, check=True, capture_output=True)
    (values,) = stored_values(pydicom.dcmread(tmp_path / "jpeg.dcm"), [0])
    assert np.array_equal(values, drawn)
