"""What one object may cost, checked from its header before any pixel is decoded."""

from dataclasses import dataclass

from pydicom import Dataset

from ich_node.errors import Unreadable
from ich_node.records import NotAnalysedReason

_BITS_ALLOCATED = (8, 16, 32)


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Bounds for one object; a scanner's head CT stays far below them."""

    max_rows: int = 2048
    max_columns: int = 2048
    max_frames: int = 2000
    max_inflated_bytes: int = 256 * 1024**2
    """Of a data set in the deflated transfer syntax."""
    seconds_per_object: float = 20.0
    address_space_bytes: int = 3 * 1024**3
    """Of a decoding child as a whole; libraries alone map about 0.6 GiB."""


def check_image(dataset: Dataset, limits: DecodeLimits) -> None:
    """Refuse an object whose header announces more than the limits, or what no CT slice is.

    Raises:
        Unreadable: with TOO_LARGE, NO_PIXEL_DATA or CANNOT_DECODE.
    """
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if not rows or not columns:
        raise Unreadable(NotAnalysedReason.NO_PIXEL_DATA, "Rows or Columns is missing")
    if rows > limits.max_rows or columns > limits.max_columns or frames > limits.max_frames:
        raise Unreadable(NotAnalysedReason.TOO_LARGE, f"{frames} frames of {rows} x {columns}")
    if dataset.get("SamplesPerPixel", 1) != 1:
        raise Unreadable(NotAnalysedReason.CANNOT_DECODE, f"{dataset.SamplesPerPixel} samples per pixel")
    allocated, stored = dataset.get("BitsAllocated"), dataset.get("BitsStored")
    if allocated not in _BITS_ALLOCATED or not stored or not 1 <= stored <= allocated:
        raise Unreadable(NotAnalysedReason.CANNOT_DECODE, f"{stored} bits stored in {allocated}")
