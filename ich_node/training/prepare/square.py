"""Slices of any shape become squares of one side."""

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ich_node.decode.hounsfield import AIR_HU

Pixel = TypeVar("Pixel", bound=np.generic)


def to_square_hu(hu: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """Pad a slice (rows, columns) with air to a square and bring it to (side, side), averaged or interpolated."""
    square = _padded(hu, np.float32(AIR_HU))
    return square if len(square) == side_px else np.asarray(_resized(Image.fromarray(square), side_px))


def to_square_gray(gray: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Pad a grey image (rows, columns) with black to a square and bring it to (side, side)."""
    square = _padded(gray, np.uint8(0))
    return square if len(square) == side_px else np.asarray(_resized(Image.fromarray(square), side_px))


def spacing_after(spacing_mm: float | None, shape: tuple[int, ...], side_px: int) -> float | None:
    """Give the pixel spacing after a slice of this shape was brought to a square of ``side_px``."""
    return None if spacing_mm is None else round(spacing_mm * max(shape) / side_px, 6)


def mean_spacing_mm(spacing_mm: tuple[float, float] | None) -> float | None:
    """Give one spacing for rows and columns; they hardly ever differ."""
    return math.sqrt(spacing_mm[0] * spacing_mm[1]) if spacing_mm and min(spacing_mm) > 0 else None


def _padded(image: NDArray[Pixel], fill: Pixel) -> NDArray[Pixel]:
    rows, columns = image.shape
    if rows == columns:
        return np.ascontiguousarray(image)
    side = max(rows, columns)
    square = np.full((side, side), fill, image.dtype)
    top, left = (side - rows) // 2, (side - columns) // 2
    square[top : top + rows, left : left + columns] = image
    return square


def _resized(image: Image.Image, side_px: int) -> Image.Image:
    smaller = side_px < image.size[0]
    return image.resize((side_px, side_px), Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR)
