"""The synthetic head: its anatomy, its lesions of known truth, and its DICOM objects."""

import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from ich_node.phantom import (
    LESION_HU,
    LESIONS,
    PhantomSettings,
    draw_volume,
    lesion_mask,
    make_series,
    write_series,
)
from ich_node.phantom.geometry import patient_coordinates

SMALL = PhantomSettings(slices=16, rows=128, slice_spacing_mm=10.0, uid_seed="phantom test")


@pytest.fixture(scope="module")
def healthy() -> NDArray[np.float32]:
    return draw_volume(SMALL)


def around(volume: NDArray[np.float32], x_mm: float, y_mm: float, z_mm: float) -> NDArray[np.float32]:
    """The 5 by 5 pixels round a point of the patient, in the nearest slice of SMALL."""
    x, y, z = patient_coordinates(SMALL, SMALL.rows)
    index = int(np.abs(z[:, 0, 0] - z_mm).argmin())
    row = int(np.abs(y[0, :, 0] - y_mm).argmin())
    column = int(np.abs(x[0, 0] - x_mm).argmin())
    return volume[index, row - 2 : row + 3, column - 2 : column + 3]


def normal_of(instance: Dataset) -> NDArray[np.float64]:
    orientation = np.array([float(value) for value in instance.ImageOrientationPatient])
    return np.cross(orientation[:3], orientation[3:])


def position_of(instance: Dataset) -> NDArray[np.float64]:
    return np.array([float(value) for value in instance.ImagePositionPatient])


def test_volume_and_mask_have_slices_rows_columns(healthy: NDArray[np.float32]) -> None:
    assert healthy.shape == (16, 128, 128)
    assert healthy.dtype == np.float32
    assert lesion_mask(SMALL).shape == healthy.shape
    assert lesion_mask(SMALL).dtype == np.bool_


def test_a_head_without_a_lesion_has_an_empty_mask() -> None:
    assert not lesion_mask(SMALL).any()


def test_most_of_what_lies_inside_the_skull_is_brain(healthy: NDArray[np.float32]) -> None:
    _, _, z = patient_coordinates(SMALL, SMALL.rows)
    middle = int(np.abs(z[:, 0, 0] - 55).argmin())
    inside = healthy[middle][32:96, 40:88]
    assert 20 < np.median(inside) < 45
    assert np.mean((inside > 15) & (inside < 50)) > 0.8


def test_white_matter_is_darker_than_the_thalamus_and_csf_darker_still(healthy: NDArray[np.float32]) -> None:
    white = around(healthy, 30, 15, 65).mean()
    thalamus = around(healthy, 11, 9, 35).mean()
    ventricle = around(healthy, 24, 40, 45).min()
    assert 25 < white < 33
    assert 33 < thalamus < 41
    assert ventricle < 15


def test_the_skull_encloses_the_brain(healthy: NDArray[np.float32]) -> None:
    middle = healthy[8]
    for line in (middle[64, :64], middle[64, 64:], middle[:64, 64], middle[64:, 64]):
        assert line.max() > 300


def test_the_corners_are_air(healthy: NDArray[np.float32]) -> None:
    assert np.abs(healthy[:, :6, :6] + 1000).max() < 24
    assert healthy.min() >= -1024
    assert healthy.max() <= 3071


def test_the_orbits_and_sinuses_lie_low_in_the_head(healthy: NDArray[np.float32]) -> None:
    assert around(healthy, 31, -84, -2).mean() < 30
    assert around(healthy, 0, -66, -4).min() < -300


def test_the_noise_has_the_deviation_asked_for() -> None:
    still, loud = (draw_volume(replace(SMALL, noise_hu=noise)) for noise in (0.0, 8.0))
    difference = (loud - still)[4:12, 48:80, 48:80]
    assert difference.std() == pytest.approx(8.0, rel=0.05)


@pytest.mark.parametrize("lesion", LESIONS)
def test_a_lesion_has_its_documented_density_and_changes_little_else(lesion: str, healthy: NDArray[np.float32]) -> None:
    settings = replace(SMALL, lesion=lesion)
    volume, mask = draw_volume(settings), lesion_mask(settings)
    assert mask.sum() > 100
    assert volume[mask].mean() == pytest.approx(LESION_HU[lesion], abs=8)
    assert (volume[mask] - healthy[mask]).mean() > 15
    assert np.median(np.abs(volume - healthy)[~mask]) < 0.5


@pytest.mark.parametrize(
    ("lesion", "centre", "tolerance_mm"),
    [
        ("epidural", (-62, 8, 46), 8),
        ("subdural", (62, 0, 52), 12),
        ("intraparenchymal", (-29, 2, 38), 6),
        ("subarachnoid", (0, -10, 16), 14),
    ],
)
def test_a_lesion_lies_where_the_table_says(
    lesion: str, centre: tuple[float, float, float], tolerance_mm: float
) -> None:
    settings = replace(SMALL, lesion=lesion, slices=32, slice_spacing_mm=5.0)
    mask = lesion_mask(settings)
    for axis, expected in zip(patient_coordinates(settings, settings.rows), centre, strict=True):
        assert np.broadcast_to(axis, mask.shape)[mask].mean() == pytest.approx(expected, abs=tolerance_mm)


def test_blood_in_the_ventricles_lies_in_both_and_under_a_level() -> None:
    settings = replace(SMALL, lesion="intraventricular", slices=32, slice_spacing_mm=5.0)
    x, y, _ = patient_coordinates(settings, settings.rows)
    mask = lesion_mask(settings)
    assert (mask & (x > 5)).any()
    assert (mask & (x < -5)).any()
    assert np.broadcast_to(y, mask.shape)[mask].min() > 28


def test_several_lesions_are_drawn_together() -> None:
    both = lesion_mask(replace(SMALL, lesion=("epidural", "subdural")))
    assert both[..., :64].any()
    assert both[..., 64:].any()


def test_ten_slices_still_show_every_lesion() -> None:
    for lesion in LESIONS:
        assert lesion_mask(replace(SMALL, lesion=lesion, slices=10, rows=64, slice_spacing_mm=5.0)).any()


def test_a_seed_always_gives_the_same_head_and_another_seed_another() -> None:
    settings = replace(SMALL, rows=64, lesion="subdural")
    assert np.array_equal(draw_volume(settings), draw_volume(settings))
    assert not np.array_equal(draw_volume(settings), draw_volume(replace(settings, seed=1)))


def test_small_and_full_matrices_show_the_same_head() -> None:
    small = draw_volume(replace(SMALL, slices=1, rows=64, noise_hu=0.0))
    full = draw_volume(replace(SMALL, slices=1, rows=512, noise_hu=0.0))
    reduced = full.reshape(1, 64, 8, 64, 8).mean(axis=(2, 4))
    brain = (reduced > 0) & (reduced < 60)
    assert np.median(np.abs(reduced - small)[brain]) < 3


@pytest.mark.parametrize(
    "wrong",
    [{"lesion": "epidurall"}, {"rows": 8}, {"slices": 0}, {"gantry_tilt_degrees": 80.0}, {"slice_spacing_mm": 0.0}],
)
def test_settings_that_cannot_be_drawn_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"lesion|rows|positive|tilt"):
        PhantomSettings(**wrong)


@pytest.mark.parametrize("tilt", [0.0, 18.5, -12.0])
def test_positions_along_the_normal_are_evenly_spaced_whatever_the_tilt(tilt: float) -> None:
    settings = replace(SMALL, slices=6, rows=32, slice_spacing_mm=5.0, gantry_tilt_degrees=tilt)
    series = make_series(settings)
    along = [position_of(instance) @ normal_of(instance) for instance in series]
    assert np.allclose(np.diff(along), 5.0, atol=1e-4)
    table = np.diff([position_of(instance) for instance in series], axis=0)
    assert np.allclose(table[:, :2], 0)
    assert float(series[0].GantryDetectorTilt) == tilt
    assert normal_of(series[0])[1] == pytest.approx(np.sin(np.radians(tilt)), abs=1e-6)


def test_a_tilted_head_is_the_same_head_cut_at_an_angle() -> None:
    straight = replace(SMALL, lesion="intraparenchymal", slices=40, slice_spacing_mm=5.0)
    tilted = replace(straight, gantry_tilt_degrees=20.0)
    centres = []
    for settings in (straight, tilted):
        mask = lesion_mask(settings)
        axes = patient_coordinates(settings, settings.rows)
        centres.append([np.broadcast_to(axis, mask.shape)[mask].mean() for axis in axes])
    assert np.allclose(centres[0], centres[1], atol=2.0)


def test_coordinates_in_the_header_are_those_drawn() -> None:
    settings = replace(SMALL, slices=3, rows=32, gantry_tilt_degrees=15.0)
    x, y, z = patient_coordinates(settings, settings.rows)
    for index, instance in enumerate(make_series(settings)):
        orientation = np.array([float(value) for value in instance.ImageOrientationPatient])
        spacing = float(instance.PixelSpacing[0])
        far_corner = position_of(instance) + 31 * spacing * (orientation[:3] + orientation[3:])
        assert np.allclose(far_corner, [x[0, 0, -1], y[0, -1, 0], z[index, -1, 0]], atol=1e-3)


def test_pixels_and_rescale_give_back_the_volume() -> None:
    settings = replace(SMALL, slices=2, rows=64, lesion="epidural")
    stored = np.stack([instance.pixel_array for instance in make_series(settings)])
    assert np.abs(stored.astype(np.float32) - 1024 - draw_volume(settings)).max() <= 0.5


def test_uids_are_fresh_unless_seeded_or_given() -> None:
    settings = PhantomSettings(slices=2, rows=32)
    first, second = make_series(settings), make_series(settings)
    assert len({instance.SOPInstanceUID for instance in first + second}) == 4
    assert first[0].StudyInstanceUID != second[0].StudyInstanceUID
    seeded = replace(settings, uid_seed="a", study_instance_uid="1.2.3", series_instance_uid="1.2.3.4")
    assert [instance.SOPInstanceUID for instance in make_series(seeded)] == [
        instance.SOPInstanceUID for instance in make_series(seeded)
    ]
    assert make_series(seeded)[1].StudyInstanceUID == "1.2.3"
    assert make_series(seeded)[1].SeriesInstanceUID == "1.2.3.4"


def test_everything_given_makes_the_same_bytes(tmp_path: Path) -> None:
    settings = replace(SMALL, slices=2, rows=32, acquired_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    first, second = write_series(tmp_path / "a", settings), write_series(tmp_path / "b", settings)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_file_on_disk_is_what_a_scanner_sends(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "new" / "series", replace(SMALL, slices=2, rows=32))
    instance = dcmread(paths[1])
    assert str(instance.PatientName) == "Phäntom^Test"
    assert instance.SpecificCharacterSet == "ISO_IR 100"
    assert list(instance.ImageType) == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert instance.BodyPartExamined == "HEAD"
    assert instance.InstanceNumber == 2
    assert instance.RescaleIntercept == -1024


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is absent (Debian package dicom3tools)")
@pytest.mark.parametrize("tilt", [0.0, 18.5])
def test_dciodvfy_finds_no_error(tmp_path: Path, tilt: float) -> None:
    settings = PhantomSettings(slices=2, rows=64, lesion="subdural", gantry_tilt_degrees=tilt)
    for path in write_series(tmp_path, settings):
        answer = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
        assert "CTImage" in answer.stderr
        assert "Error" not in answer.stdout + answer.stderr
