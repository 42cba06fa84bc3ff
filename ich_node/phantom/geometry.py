"""Where the slices of a phantom lie in the patient (PS3.3 C.7.6.2): x to the left, y to the back, z to the top."""

from math import cos, radians, sin
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ich_node.phantom.settings import FIELD_OF_VIEW_MM, PhantomSettings

MIDDLE_OF_BRAIN_Z_MM: Final = 40.0
"""A short series is centred here, so that it still shows every lesion."""


def image_orientation_patient(settings: PhantomSettings) -> tuple[float, float, float, float, float, float]:
    """Return the direction of a row, then of a column."""
    tilt = radians(settings.gantry_tilt_degrees)
    return (1.0, 0.0, 0.0, 0.0, cos(tilt), -sin(tilt))


def image_position_patient(settings: PhantomSettings, index: int) -> tuple[float, float, float]:
    """Return the centre of the first pixel of slice ``index``, counted from the bottom, in mm.

    As in a scanner only the table moves between slices, so with a tilt the stack is sheared.
    """
    tilt = radians(settings.gantry_tilt_degrees)
    first_mm = -FIELD_OF_VIEW_MM / 2 + settings.pixel_spacing_mm / 2
    return (first_mm, first_mm * cos(tilt), slice_centre_z_mm(settings, index) - first_mm * sin(tilt))


def slice_centre_z_mm(settings: PhantomSettings, index: int) -> float:
    """Return z of the middle of slice ``index`` in mm, which is also the table position."""
    table_step_mm = settings.slice_spacing_mm / cos(radians(settings.gantry_tilt_degrees))
    return MIDDLE_OF_BRAIN_Z_MM + (index - (settings.slices - 1) / 2) * table_step_mm


def patient_coordinates(
    settings: PhantomSettings, rows: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return x (1, 1, columns), y (1, rows, 1) and z (slices, rows, 1) in mm of a matrix of ``rows`` pixels."""
    tilt = radians(settings.gantry_tilt_degrees)
    along = ((np.arange(rows, dtype=np.float32) + 0.5) / rows - 0.5) * FIELD_OF_VIEW_MM
    centres = np.array([slice_centre_z_mm(settings, index) for index in range(settings.slices)])
    x = along[None, None, :]
    y = (along * cos(tilt))[None, :, None]
    z = centres[:, None, None] - (along * sin(tilt))[None, :, None]
    return x.astype(np.float32), y.astype(np.float32), z.astype(np.float32)
