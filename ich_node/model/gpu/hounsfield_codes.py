"""Hounsfield units as 16-bit integers: half of what has to be moved to a GPU.

A code is a step of 1/32 Hounsfield unit where the windows of the model allow it, which they usually do. So whole units
are exact, and so is the mean of 2, 4, 8, 16 or 32 slices; in the mean of others, or with a RescaleSlope that is no
whole number, a pixel is off by 1/64 HU at most, where the noise of head CT is 3 HU and more. Codes then reach from
-1024 to 1023.97 HU; what lies beyond is cut off there, where every window has ended before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ich_node.errors import ModelError
from ich_node.windowing import AIR_HU, NOISE_TISSUE_HU, Preprocessing, place_in_square


@dataclass(frozen=True, slots=True)
class HounsfieldCodes:
    """How Hounsfield units are written as int16."""

    steps_per_hu: int

    @classmethod
    def for_preprocessing(cls, preprocessing: Preprocessing) -> HounsfieldCodes:
        """Take the finest steps whose range holds every value at which a model's windowing changes.

        Raises:
            ModelError: a window ends beyond what 16 bits hold.
        """
        needed = (*preprocessing.limits_hu, preprocessing.head_threshold_hu, AIR_HU, *NOISE_TISSUE_HU)
        for steps in (32, 16, 8, 4, 2, 1):
            codes = cls(steps)
            if codes.lowest_hu < min(needed) and max(needed) < codes.highest_hu:
                return codes
        raise ModelError(f"a window of the model ends at {max(needed, key=abs):g} HU, beyond what CT can be")

    @property
    def lowest_hu(self) -> float:
        """The lowest value that can be written."""
        return -(2.0**15) / self.steps_per_hu

    @property
    def highest_hu(self) -> float:
        """The highest value that can be written."""
        return (2.0**15 - 1) / self.steps_per_hu

    def write(self, hu: NDArray[np.float32], square: NDArray[np.int16]) -> None:
        """Write a slice into the middle of a square of air, as ``pad_to_square`` places it.

        Args:
            hu: (rows, columns).
            square: (side, side), the longer of both.

        Raises:
            ValueError: a pixel is no number.
        """
        rows, columns = hu.shape
        _, top, left = place_in_square(rows, columns)
        if rows != columns:
            square.fill(round(AIR_HU * self.steps_per_hu))
        steps = np.multiply(hu, np.float32(self.steps_per_hu))
        np.rint(steps, out=steps)
        np.clip(steps, -(2**15), 2**15 - 1, out=steps)
        with np.errstate(invalid="raise"):
            try:
                np.copyto(square[top : top + rows, left : left + columns], steps, casting="unsafe")
            except FloatingPointError:
                raise ValueError("a slice has pixels that are no number of Hounsfield units") from None

    def read(self, codes: Tensor) -> Tensor:
        """Give the float32 Hounsfield units of int16 codes."""
        return codes.to(torch.float32) / self.steps_per_hu
