"""Hounsfield units in eight bits: whole numbers from -20 to 180 exactly, steps of 6 to the ends of the windows.

The brain and the subdural window (40/80, 80/200) are kept without loss, the soft tissue window (40/380) to 1.6 % of its
width; outside it the steps only have to tell air, fat and the depth of bone apart.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

HU_OF_CODE: Final = np.array(
    [
        -1000, -800, -600, -400, -290, -220, -180, *range(-146, -25, 6), *range(-20, 181), *range(186, 235, 6),
        250, 280, 320, 360, 400, 450, 500, 600, 700, 800, 900, 1000, 1200, 1400, 1600, 2000, 2500, 3000,
    ],
    dtype=np.float32,
)  # fmt: skip
"""(256,): what each code stands for."""

_LOWEST: Final = -1024
_HIGHEST: Final = 3071
_BORDERS: Final = (HU_OF_CODE[1:] + HU_OF_CODE[:-1]) / 2
_CODE_OF_HU: Final = np.searchsorted(_BORDERS, np.arange(_LOWEST, _HIGHEST + 1), side="right").astype(np.uint8)


def encode_hu(hu: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Give each value, rounded to whole HU, the code that is nearest to it; same shape."""
    whole = np.clip(np.rint(hu), _LOWEST, _HIGHEST).astype(np.int16) - _LOWEST
    codes: NDArray[np.uint8] = _CODE_OF_HU[whole]
    return codes


def decode_hu(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Give the HU of codes; same shape."""
    hu: NDArray[np.float32] = HU_OF_CODE[codes]
    return hu
