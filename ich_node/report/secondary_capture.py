"""Pages and pictures as Secondary Capture images, which every PACS shows (PS3.3 A.8.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from ich_node.records import ReportReference, ReportRequest, ResultObject
from ich_node.report import codes, wording
from ich_node.report.result_header import MANUFACTURER, MODEL_NAME, ResultSeries, result_header, result_object
from ich_node.report.study_attributes import valid_text

ENCODING: Final = "SecondaryCapture"
_MOST_COMMENT: Final = 10240  # characters of VR LT, PS3.5 6.2


@dataclass(frozen=True, slots=True, eq=False)
class Capture:
    """One image to be written."""

    kind: str
    instance_number: int
    conversion_type: Literal["SYN", "WSD"]
    """SYN: a synthetic image; WSD: made of images at a workstation (PS3.3 C.8.6.1)."""
    rgb: NDArray[np.uint8]
    """(rows, columns, 3)."""
    derivation: str
    source_images: Sequence[Dataset]
    replaced_images: Sequence[Dataset]
    replaced: Sequence[ReportReference]


def secondary_capture(request: ReportRequest, series: ResultSeries, capture: Capture) -> ResultObject:
    """Write one image as an object.

    Args:
        request: In the zone of the images.
    """
    content = result_header(request, series)
    content.InstanceNumber = capture.instance_number
    for part in (_general_image(request, capture), _lossy(request.study.speaker), _pixels(capture.rgb)):
        content.update(part)
    return result_object(content, request, capture.kind, ENCODING, SecondaryCaptureImageStorage)


def revision_text(request: ReportRequest, replaced: Sequence[ReportReference]) -> str:
    """Say which revision an object is of, and which objects it replaces."""
    revision = f"Revision {request.identity.revision}."
    if not replaced:
        return revision
    uids = ", ".join(one.sop_instance_uid for one in replaced)
    return f"{revision} Replaces revision {request.identity.revision - 1}: {uids}."


def _general_image(request: ReportRequest, capture: Capture) -> Dataset:
    """Build the modules General Image, General Reference, SC Equipment and SC Image (PS3.3 C.7.6.1, C.8.6)."""
    image = Dataset()
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.BodyPartExamined = "HEAD"  # else Laterality is required, type 2C
    image.PatientOrientation = None
    image.ConversionType = capture.conversion_type
    image.SecondaryCaptureDeviceManufacturer = MANUFACTURER
    image.SecondaryCaptureDeviceManufacturerModelName = MODEL_NAME
    image.ContentDate = image.DateOfSecondaryCapture = request.created_at.strftime("%Y%m%d")
    image.ContentTime = image.TimeOfSecondaryCapture = request.created_at.strftime("%H%M%S.%f")
    image.BurnedInAnnotation = "YES"
    image.DerivationDescription = capture.derivation
    image.SourceImageSequence = list(capture.source_images)
    if capture.replaced_images:
        image.ReferencedImageSequence = list(capture.replaced_images)
    image.ImageComments = _comments(request, capture)
    image.CodingSchemeIdentificationSequence = codes.coding_schemes()
    return image


def _comments(request: ReportRequest, capture: Capture) -> str:
    mark = f"{wording.TEST_MODEL}. " if request.finding.test_model else ""
    return f"{mark}{revision_text(request, capture.replaced)} {wording.DISCLAIMER}"[:_MOST_COMMENT]


def _lossy(source: Dataset) -> Dataset:
    """Say that the images were compressed with loss: it stays true of what is made of them (PS3.3 C.7.6.1.1.5)."""
    lossy = Dataset()
    ratio = valid_text(source, "LossyImageCompressionRatio")
    if valid_text(source, "LossyImageCompression") == "01" and ratio:
        lossy.LossyImageCompression = "01"
        lossy.LossyImageCompressionRatio = ratio
    return lossy


def _pixels(rgb: NDArray[np.uint8]) -> Dataset:
    """Build the Image Pixel module (PS3.3 C.7.6.3)."""
    pixels = Dataset()
    pixels.SamplesPerPixel = 3
    pixels.PhotometricInterpretation = "RGB"
    pixels.PlanarConfiguration = 0
    pixels.Rows, pixels.Columns = rgb.shape[:2]
    pixels.BitsAllocated = pixels.BitsStored = 8
    pixels.HighBit = 7
    pixels.PixelRepresentation = 0
    data = rgb.tobytes()
    pixels.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))
    return pixels
