"""Stored values → Hounsfield units: rescale, padding, and the one known wrap."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

AIR_HU: Final = -1000.0
_LOWEST_HU = -1024.0  # the CT scale's own end; scanners write padding (-1500, -2000, -3024) below it
_HIGHEST_HU = 3071.0  # the other end of the 12-bit scale
_WRAP_REPAIR = "12-bit wrap"


@dataclass(frozen=True, slots=True)
class StoredValueMeaning:
    """How the stored values of one frame become Hounsfield units (PS3.3 C.11.1, C.7.5.1.1.2)."""

    rescale_slope: float
    rescale_intercept: float
    padding: tuple[float, float] | None
    """First and last stored value that mean "no pixel here"."""
    bits_stored: int
    signed: bool


def to_hounsfield(stored: NDArray[Any], meaning: StoredValueMeaning) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Turn stored values (rows, columns) into HU; return them and the names of the repairs made.

    Padding and whatever lies below -1024 HU become air (-1000 HU): no tissue is there, only a scanner's marks.

    Raises:
        ValueError: slope or intercept is no usable number.
    """
    slope, intercept = meaning.rescale_slope, meaning.rescale_intercept
    if not (np.isfinite(slope) and np.isfinite(intercept)) or slope == 0.0:
        raise ValueError("RescaleSlope or RescaleIntercept is no usable number")
    hu = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    if unwrapped := _unwrap_12_bit(stored, hu, meaning):
        return unwrapped[0], (_WRAP_REPAIR,)
    if meaning.padding and _lies_outside_tissue(meaning):
        first, last = meaning.padding
        hu[(stored >= first) & (stored <= last)] = AIR_HU
    hu[hu < _LOWEST_HU] = AIR_HU
    return hu, ()


def _lies_outside_tissue(meaning: StoredValueMeaning) -> bool:
    """A padding value within the tissue range is a mistake of the header: obeying it would punch holes into brain."""
    if meaning.padding is None:
        return False
    ends = sorted(value * meaning.rescale_slope + meaning.rescale_intercept for value in meaning.padding)
    return ends[1] <= -900.0 or ends[0] > _HIGHEST_HU


def _unwrap_12_bit(
    stored: NDArray[Any], hu: NDArray[np.float32], meaning: StoredValueMeaning
) -> tuple[NDArray[np.float32]] | None:
    """Undo signed 12-bit samples that were written as unsigned: -1000 became 3096 (seen in RSNA 2019).

    Only where the slice has no air as it stands and has air afterwards; a true series with intercept 0 stays untouched.
    """
    suspicious = meaning.bits_stored == 12 and not meaning.signed and meaning.rescale_intercept > -100.0
    if not suspicious or _has_air(hu):
        return None
    # The scale goes from -1000 upwards: 1000 more, cut to 12 bits, and back.
    unwrapped = ((stored.astype(np.int32) + 1000) % 4096 - 1000).astype(np.float32)
    unwrapped = unwrapped * np.float32(meaning.rescale_slope)
    return (unwrapped,) if _has_air(unwrapped) else None


def _has_air(hu: NDArray[np.float32]) -> bool:
    """Air surrounds every head: at least 2 % of the pixels lie between -1100 and -800 HU."""
    sample = hu[::4, ::4]
    return float(((sample > -1100.0) & (sample < -800.0)).mean()) >= 0.02
