"""Enhanced CT objects made from a classic series: position, orientation and rescale stand in functional groups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import UID, EnhancedCTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid

LOCALIZER, SAGITTAL = "localizer", "sagittal"
_PER_FRAME = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SliceLocation",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "PixelPaddingValue",
)


def write_enhanced_ct(
    path: Path,
    files: Sequence[Path],
    transfer_syntax: UID = ExplicitVRLittleEndian,
    *,
    offset_table: bool = True,
    others: Sequence[str] = (),
    broken: Sequence[int] = (),
) -> Path:
    """Write the slices of a series, in the order given, as the frames of one object.

    Args:
        others: LOCALIZER and SAGITTAL frames that follow the slices.
        broken: numbers (from 1) of frames whose compressed image is cut off.
    """
    slices = [dcmread(one) for one in files]
    frames = [(one, "") for one in slices] + [(slices[0], kind) for kind in others]
    dataset = _common(slices[0], transfer_syntax)
    dataset.NumberOfFrames = len(frames)
    dataset.PerFrameFunctionalGroupsSequence = [
        _groups(one, kind, _intercept(index)) for index, (one, kind) in enumerate(frames)
    ]
    stored = [_stored(one, _intercept(index)) for index, (one, _) in enumerate(frames)]
    dataset.PixelData = _pixel_data(stored, transfer_syntax, offset_table, broken)
    dataset["PixelData"].VR = "OB" if transfer_syntax.is_encapsulated else "OW"
    dataset["PixelData"].is_undefined_length = transfer_syntax.is_encapsulated
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _common(first: Dataset, transfer_syntax: UID) -> Dataset:
    dataset = dcmread(first.filename)
    for keyword in _PER_FRAME:
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.SOPClassUID, dataset.SOPInstanceUID = EnhancedCTImageStorage, generate_uid()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)]
    dataset.SharedFunctionalGroupsSequence = [shared]
    return dataset


def _groups(one: Dataset, kind: str, intercept: int) -> Dataset:
    orientation = [0, 1, 0, 0, 0, -1] if kind == SAGITTAL else one.ImageOrientationPatient
    group = Dataset()
    group.PlanePositionSequence = [_item(ImagePositionPatient=one.ImagePositionPatient)]
    group.PlaneOrientationSequence = [_item(ImageOrientationPatient=orientation)]
    group.PixelValueTransformationSequence = [_item(RescaleSlope=1, RescaleIntercept=intercept, RescaleType="HU")]
    volume = "LOCALIZER" if kind == LOCALIZER else "VOLUME"
    group.CTImageFrameTypeSequence = [_item(FrameType=["ORIGINAL", "PRIMARY", volume, "NONE"])]
    return group


def _intercept(index: int) -> int:
    """Frames differ in it, so that one read with another's shows."""
    return -1024 + 100 * (index % 3)


def _stored(one: Dataset, intercept: int) -> NDArray[np.int16]:
    hu = one.pixel_array.astype(np.int32) * int(one.RescaleSlope) + int(one.RescaleIntercept)
    return (hu - intercept).astype("<i2")


def _pixel_data(
    stored: Sequence[NDArray[np.int16]], transfer_syntax: UID, offset_table: bool, broken: Sequence[int]
) -> bytes:
    if not transfer_syntax.is_encapsulated:
        return b"".join(one.tobytes() for one in stored)
    encode = {RLELossless: _rle, JPEG2000Lossless: _jpeg_2000}[transfer_syntax]
    codestreams = [encode(one) for one in stored]
    for number in broken:
        codestreams[number - 1] = codestreams[number - 1][: len(codestreams[number - 1]) // 4 * 2]
    return encapsulate(codestreams, has_bot=offset_table)


def _rle(stored: NDArray[np.int16]) -> bytes:
    rows, columns = stored.shape
    return RLELosslessEncoder.encode(
        stored.tobytes(), rows=rows, columns=columns, samples_per_pixel=1, number_of_frames=1, bits_allocated=16,
        bits_stored=16, pixel_representation=1, photometric_interpretation="MONOCHROME2",
    )  # fmt: skip


def _jpeg_2000(stored: NDArray[np.int16]) -> bytes:
    return bytes(encode_array(stored, bits_stored=16))


def _item(**attributes: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset
