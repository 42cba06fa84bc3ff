"""Heads of hundreds of slices or frames: a few drawn planes, repeated at new positions."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import UID, EnhancedCTImageStorage

from ich_node.phantom import PhantomSettings, draw_volume
from ich_node.phantom.geometry import image_orientation_patient, image_position_patient
from ich_node.phantom.series import (
    RESCALE_INTERCEPT,
    ct_object,
    describe_acquisition,
    describe_patient_and_study,
    describe_pixels,
    describe_slice,
    new_uid,
    series_uids,
    stored_values,
)

EXTENT_MM = 150.0
_DRAWN = 30
_PIXEL_DATA_OW = b"\xe0\x7f\x10\x00OW\0\0"
_OF_A_FRAME = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SliceLocation",
               "RescaleSlope", "RescaleIntercept", "RescaleType", "PixelData")  # fmt: skip


def draw_planes(rows: int) -> NDArray[np.uint16]:
    """Return the planes that heads are made of: stored values, (slices, rows, columns), 5 mm apart."""
    spacing_mm = EXTENT_MM / _DRAWN
    return stored_values(
        draw_volume(PhantomSettings(lesion="subdural", slices=_DRAWN, rows=rows, slice_spacing_mm=spacing_mm))
    )


def write_thin_series(directory: Path, slices: int, planes: NDArray[np.uint16]) -> list[Path]:
    """Write a head of 150 mm as single CT images."""
    settings, uids = _settings(slices, planes), series_uids(PhantomSettings())
    begun = datetime.now().astimezone()
    directory.mkdir(parents=True)
    paths = []
    for index in range(slices):
        instance = ct_object(new_uid(settings, "slice"))
        describe_patient_and_study(instance, settings, uids, begun)
        describe_acquisition(instance, settings, begun)
        describe_slice(instance, settings, index)
        describe_pixels(instance, planes[index * _DRAWN // slices])
        paths.append(directory / f"{index:04d}.dcm")
        instance.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_enhanced_ct(directory: Path, frames: int, planes: NDArray[np.uint16]) -> Path:
    """Write a head of 150 mm as one Enhanced CT object (PS3.3 A.38), frame by frame."""
    settings, uids = _settings(frames, planes), series_uids(PhantomSettings())
    begun = datetime.now().astimezone()
    image = ct_object(new_uid(settings, "object"))
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = UID(EnhancedCTImageStorage)
    describe_patient_and_study(image, settings, uids, begun)
    describe_acquisition(image, settings, begun)
    describe_slice(image, settings, 0)
    describe_pixels(image, planes[0])
    image.NumberOfFrames = frames
    for keyword in _OF_A_FRAME:
        delattr(image, keyword)
    image.PerFrameFunctionalGroupsSequence = [_functional_groups(settings, index) for index in range(frames)]
    directory.mkdir(parents=True)
    path = directory / "enhanced.dcm"
    image.save_as(path, enforce_file_format=True)
    with path.open("ab") as file:
        file.write(_PIXEL_DATA_OW + (frames * planes[0].nbytes).to_bytes(4, "little"))
        for index in range(frames):
            file.write(planes[index * _DRAWN // frames].astype("<u2").tobytes())
    return path


def _functional_groups(settings: PhantomSettings, index: int) -> Dataset:
    """Position, orientation, spacing and rescale of one frame (PS3.3 C.7.6.16)."""
    spacing = f"{settings.pixel_spacing_mm:.8g}"
    groups = Dataset()
    groups.PlanePositionSequence = [
        _item(ImagePositionPatient=[f"{value:.6f}" for value in image_position_patient(settings, index)])
    ]
    groups.PlaneOrientationSequence = [_item(ImageOrientationPatient=list(image_orientation_patient(settings)))]
    groups.PixelMeasuresSequence = [
        _item(PixelSpacing=[spacing, spacing], SliceThickness=f"{settings.slice_spacing_mm:g}")
    ]
    groups.PixelValueTransformationSequence = [
        _item(RescaleSlope="1", RescaleIntercept=str(RESCALE_INTERCEPT), RescaleType="HU")
    ]
    return groups


def _item(**attributes: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def _settings(slices: int, planes: NDArray[np.uint16]) -> PhantomSettings:
    return PhantomSettings(slices=slices, rows=planes.shape[1], slice_spacing_mm=EXTENT_MM / slices)
