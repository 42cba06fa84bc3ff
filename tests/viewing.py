"""Pictures for the tests of what viewers show, and how its objects are read back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from ich_node.records import KeySlicePicture, ReportReference, ReportRequest, ResultObject
from tests.report_reading import read

HOT = (20, 44)
"""Row and column of the highest share."""


def picture(request: ReportRequest, number: int = 0, rows: int = 64, columns: int = 80) -> KeySlicePicture:
    """Draw a head with a bright spot, and shares that are highest there."""
    one = request.finding.key_slices["any"][number]
    down, across = np.mgrid[:rows, :columns]
    hu = np.where(np.hypot(down - rows / 2, across - columns / 2) < 28, 30.0, -1000.0)
    far = np.hypot(down - HOT[0], across - HOT[1])
    hu[far < 5] = 70.0
    shares = 12.0 - far
    shares[:4] = np.nan
    return KeySlicePicture(
        sop_instance_uid=one.sop_instance_uid,
        frame=one.frame,
        position_mm=one.position_mm,
        hu=hu.astype(np.float32),
        pixel_spacing_mm=(3.0, 3.0),
        shares=shares.astype(np.float32),
        probabilities=one.probabilities,
    )


def pictures(request: ReportRequest) -> tuple[KeySlicePicture, ...]:
    """Draw all key slices of a request."""
    count = len(request.finding.key_slices.get("any", ()))
    return tuple(picture(request, number) for number in range(count))


def without_maps(shown: tuple[KeySlicePicture, ...]) -> tuple[KeySlicePicture, ...]:
    return tuple(replace(one, shares=None) for one in shown)


def pixels(result: ResultObject) -> NDArray[np.uint8]:
    """Read the pixels (rows, columns, 3) of an image that the node made."""
    data = read(result.part10)
    assert (data.SamplesPerPixel, data.BitsAllocated, data.PhotometricInterpretation) == (3, 8, "RGB")
    size = data.Rows * data.Columns * 3
    return np.frombuffer(data.PixelData[:size], np.uint8).reshape(data.Rows, data.Columns, 3)


def referred(items: list[Dataset] | None) -> list[str]:
    return [str(item.ReferencedSOPInstanceUID) for item in items or ()]


def next_revision(request: ReportRequest, results: tuple[ResultObject, ...]) -> ReportRequest:
    """Ask for the revision that replaces these objects."""
    before = tuple(
        ReportReference(one.encoding, one.sop_class_uid, one.sop_instance_uid, one.series_instance_uid, one.kind)
        for one in results
    )
    identity = replace(request.identity, revision=request.identity.revision + 1)
    return replace(request, identity=identity, predecessors=before)
