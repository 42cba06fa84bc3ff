"""Images of three windows (brain 40/80, subdural 80/200, soft tissue 40/380) → Hounsfield units."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ich_node.decode.hounsfield import AIR_HU
from ich_node.training.prepare.regions import depth_px, joined_to_border

_LOW_AND_WIDTH_HU: Final = ((0.0, 80.0), (-20.0, 200.0), (-150.0, 380.0))
_FAT_OR_GAS_HU: Final = -200.0
_BONE_HU: Final = (300.0, 1500.0)
_BONE_STEP_HU: Final = 300.0
"""Bone rises by so much with each pixel of depth."""


def hu_of_three_windows(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn an image (rows, columns, 3) into HU (rows, columns): each pixel by the narrowest window that it lies in.

    What lies below all three is air where it is joined to the border, else -200 HU; what lies above is bone, by depth.
    """
    hu = np.zeros(image.shape[:2], np.float32)
    for channel, (low_hu, width_hu) in reversed(list(enumerate(_LOW_AND_WIDTH_HU))):
        values = image[..., channel]
        within = (values > 0) & (values < 255)
        hu[within] = low_hu + values[within] * np.float32(width_hu / 255)
    below, above = (image == 0).all(axis=2), (image == 255).all(axis=2)
    hu[below] = _FAT_OR_GAS_HU
    hu[joined_to_border(below)] = AIR_HU
    low, high = _BONE_HU
    hu[above] = np.minimum(low + _BONE_STEP_HU * depth_px(above)[above], high)
    return hu
