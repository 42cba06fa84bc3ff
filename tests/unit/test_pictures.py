"""Planes from files, slices at hand, and whether two versions of an object show the same picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from ich_node.decode import DecodedPlane, DecodeLimits, DecoderPool, PlaneTask, make_plane, read_slices
from ich_node.decode.identity import patient_marks, show_the_same_picture
from ich_node.decode.plane import read_plane
from ich_node.phantom import PhantomSettings, write_series
from ich_node.plane_reader import MOST_BYTES, PlaneReader
from ich_node.records import HounsfieldSlice, NotAnalysedReason
from tests.enhanced_ct import write_enhanced_ct

LIMITS = DecodeLimits()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_series(tmp_path_factory.mktemp("head"), PhantomSettings(slices=6, rows=64, slice_spacing_mm=2.0))


def hu_of(path: Path) -> np.ndarray:
    return read_slices(path, LIMITS)[0].hu


# ------------------------------------------------------------------------------------------------- planes


def test_a_plane_is_the_mean_of_its_members(files: list[Path]) -> None:
    plane = read_plane([(path, None) for path in files[:3]], LIMITS)

    assert plane.hu == pytest.approx(np.mean([hu_of(path) for path in files[:3]], axis=0), abs=1e-3)
    assert plane.tissue is not None
    assert not plane.unreadable


@pytest.mark.parametrize("transfer_syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("offset_table", [True, False])
def test_frames_of_one_object_are_read_each_by_itself(
    tmp_path: Path, files: list[Path], transfer_syntax: object, offset_table: bool
) -> None:
    path = write_enhanced_ct(tmp_path / "1.dcm", files, transfer_syntax, offset_table=offset_table)

    for number in (5, 1, 6):
        assert read_plane([(path, number)], LIMITS).hu == pytest.approx(hu_of(files[number - 1]), abs=1e-3)


def test_a_member_that_cannot_be_read_is_named_and_no_pixels_are_given(tmp_path: Path, files: list[Path]) -> None:
    path = write_enhanced_ct(tmp_path / "1.dcm", files, RLELossless, broken=(2,))

    plane = read_plane([(path, 1), (path, 2), (tmp_path / "absent.dcm", None)], LIMITS)

    assert plane.hu.size == 0
    assert [(one.index, one.reason) for one in plane.unreadable] == [
        (1, NotAnalysedReason.CANNOT_DECODE),
        (2, NotAnalysedReason.FILE_GONE),
    ]


def test_a_file_that_ends_within_a_frame_gives_the_frames_before_it(tmp_path: Path, files: list[Path]) -> None:
    path = write_enhanced_ct(tmp_path / "1.dcm", files)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 64 * 64 * 2 - 10])

    assert read_plane([(path, 6)], LIMITS).unreadable


# ---------------------------------------------------------------------------------------- slices at hand


def test_slices_at_hand_are_averaged_without_reading_them_again(files: list[Path], decoder: DecoderPool) -> None:
    reader = PlaneReader(decoder)
    members = [(path, None) for path in files[:3]]
    for path, _ in members:
        reader.remember(path, read_slices(path, LIMITS))

    at_hand, read_again = reader.read(members), reader.read(members)

    assert not isinstance(at_hand, PlaneTask)
    assert isinstance(read_again, PlaneTask), "slices at hand are used up"
    assert at_hand.result().hu == pytest.approx(read_again.result().hu, abs=1e-3)


def test_the_oldest_slices_are_forgotten_and_their_memory_with_them(files: list[Path], decoder: DecoderPool) -> None:
    reader = PlaneReader(decoder)
    (facts,) = (one.facts for one in read_slices(files[0], LIMITS))
    large = HounsfieldSlice(facts, np.zeros((1024, 1024), np.float32))
    kept = MOST_BYTES // large.hu.nbytes
    for number in range(3 * kept):
        reader.remember(Path(str(number)), (large,))
        reader.remember(Path(str(number)), (large,))

    assert not isinstance(reader.read([(Path(str(3 * kept - 1)), None)]), PlaneTask)
    assert not isinstance(reader.read([(Path(str(2 * kept)), None)]), PlaneTask), "as many as there is room for"
    forgotten = reader.read([(Path(str(2 * kept - 1)), None)])
    assert isinstance(forgotten, PlaneTask)
    assert forgotten.result().unreadable


def test_slices_of_another_size_are_left_out_of_a_plane() -> None:
    plane: DecodedPlane = make_plane([np.full((8, 8), 10, np.float32), np.zeros((4, 4), np.float32)])

    assert (plane.hu == 10).all()


# ------------------------------------------------------------------------------------- the same picture


def copy(path: Path, folder: Path, change: Callable[..., None]) -> Path:
    dataset = dcmread(path)
    change(dataset)
    dataset.save_as(folder / "copy.dcm")
    return folder / "copy.dcm"


def paint(dataset: object) -> None:
    dataset.PixelData = b"\0\0" * 50 + dataset.PixelData[100:]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda one: setattr(one, "PatientName", "Another^Name"), True),
        (lambda one: one.compress(RLELossless, generate_instance_uid=False), True),
        (lambda one: setattr(one, "InstitutionName", "X"), True),
        (lambda one: setattr(one, "ImagePositionPatient", [0, 0, 77]), False),
        (lambda one: setattr(one, "PixelSpacing", [1, 2]), False),
        (lambda one: setattr(one, "RescaleIntercept", "-1000"), False),
        (paint, False),
    ],
    ids=["name", "transcoded", "institution", "position", "spacing", "intercept", "pixels"],
)
def test_pixels_in_hu_and_geometry_make_the_picture(
    tmp_path: Path, files: list[Path], change: Callable[..., None], same: bool
) -> None:
    assert show_the_same_picture(copy(files[3], tmp_path, change), files[3], LIMITS) is same


def test_a_frame_that_cannot_be_decoded_contradicts_nothing_and_the_others_still_speak(
    tmp_path: Path, files: list[Path]
) -> None:
    whole = write_enhanced_ct(tmp_path / "1.dcm", files, RLELossless)
    broken = write_enhanced_ct(tmp_path / "2.dcm", files, RLELossless, broken=(3,))
    other = write_enhanced_ct(tmp_path / "3.dcm", [*files[:-1], files[0]], RLELossless, broken=(3,))
    fewer = write_enhanced_ct(tmp_path / "4.dcm", files[:-1], RLELossless)

    assert show_the_same_picture(broken, whole, LIMITS)
    assert show_the_same_picture(whole, broken, LIMITS)
    assert not show_the_same_picture(other, whole, LIMITS)
    assert not show_the_same_picture(fewer, whole, LIMITS)


def test_what_was_no_dicom_file_contradicts_nothing(tmp_path: Path, files: list[Path]) -> None:
    (tmp_path / "older.dcm").write_bytes(b"nothing")

    assert show_the_same_picture(files[0], tmp_path / "older.dcm", LIMITS)


def test_marks_tell_patients_apart_and_cannot_be_read(files: list[Path]) -> None:
    header = dcmread(files[0])
    marks = patient_marks(header)
    header.PatientName = "PHÄNTOM^TEST^^"
    assert patient_marks(header) == marks, "capitals and empty components are no other name"
    header.IssuerOfPatientID = "OTHER"
    assert patient_marks(header).patient_id != marks.patient_id
    assert "PHANTOM" not in repr(marks).upper()
    header.PatientID = ""
    assert patient_marks(header).patient_id == ""
