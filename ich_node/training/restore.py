"""Stored pixels → Hounsfield units, on any device: torch alone, so that fitting needs nothing else.

A grey brain window 80 HU wide holds no more than that. What lies beyond its ends, and its level, are drawn anew at each
reading: a network that sees an image often learns what the image does not say from neither.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ich_node.training.region_code import AIR, CODES, DEEPEST, DENSE, INSIDE, SCALP, SKULL, WINDOWED

WINDOW_WIDTH_HU: Final = 80.0
LEVEL_HU: Final = (30.0, 40.0)
AIR_HU: Final = -1000.0
INSIDE_HU: Final = (-10.0, 0.0)
SCALP_HU: Final = (-100.0, -60.0)
DENSE_ABOVE_LEVEL_HU: Final = (40.0, 55.0)
SKULL_EDGE_HU: Final = (300.0, 400.0)
SKULL_PEAK_HU: Final = (1000.0, 1500.0)
SKULL_PEAK_DEPTH_PX: Final = (2.0, 6.0)


@dataclass(frozen=True, slots=True, eq=False)
class Restoration:
    """What grey slices do not say of themselves: one value per slice, each (slices,) float32."""

    level_hu: Tensor
    """Center of the window."""
    air_hu: Tensor
    inside_hu: Tensor
    """Of 0 inside the skull."""
    scalp_hu: Tensor
    """Of 0 between skin and skull."""
    dense_above_level_hu: Tensor
    """Of 255 that is no skull, above the level."""
    skull_edge_hu: Tensor
    skull_peak_hu: Tensor
    skull_peak_depth_px: Tensor
    """From here on inwards bone has its peak."""


def draw_restoration(count: int, generator: torch.Generator) -> Restoration:
    """Draw the unknown values of ``count`` slices; the generator is one of the CPU."""

    def draw(low_high: tuple[float, float]) -> Tensor:
        low, high = low_high
        return low + (high - low) * torch.rand(count, generator=generator)

    return _restoration(count, draw)


def usual_restoration(count: int) -> Restoration:
    """Give the middle of every range, for validation: the same each time."""
    return _restoration(count, lambda low_high: torch.full((count,), sum(low_high) / 2))


def restore_hu(pixels: Tensor, regions: Tensor, restoration: Restoration) -> Tensor:
    """Turn grey slices and their regions, (slices, side, side) uint8 each, into float32 HU; same shape and device."""
    slices = pixels.shape[0]
    table = _values_of_codes(restoration).to(pixels.device)
    filled = table.gather(1, regions.reshape(slices, -1).long()).view(pixels.shape)
    low_hu = (restoration.level_hu - WINDOW_WIDTH_HU / 2).to(pixels.device).view(-1, 1, 1)
    windowed = low_hu + pixels.float() * (WINDOW_WIDTH_HU / 255)
    return torch.where(regions == WINDOWED, windowed, filled)


def hu_of_codes(pixels: Tensor, hu_of_code: Tensor) -> Tensor:
    """Turn codes of any shape, uint8, into float32 HU by the manifest's table (256,); same shape and device."""
    return hu_of_code.to(pixels.device, torch.float32)[pixels.long()]


def _restoration(count: int, draw: Callable[[tuple[float, float]], Tensor]) -> Restoration:
    return Restoration(
        level_hu=draw(LEVEL_HU),
        air_hu=torch.full((count,), AIR_HU),
        inside_hu=draw(INSIDE_HU),
        scalp_hu=draw(SCALP_HU),
        dense_above_level_hu=draw(DENSE_ABOVE_LEVEL_HU),
        skull_edge_hu=draw(SKULL_EDGE_HU),
        skull_peak_hu=draw(SKULL_PEAK_HU),
        skull_peak_depth_px=draw(SKULL_PEAK_DEPTH_PX),
    )


def _values_of_codes(restoration: Restoration) -> Tensor:
    """Give the HU of every region code, (slices, 80); WINDOWED is left 0."""
    table = torch.zeros(restoration.level_hu.shape[0], CODES)
    table[:, AIR] = restoration.air_hu
    table[:, INSIDE] = restoration.inside_hu
    table[:, SCALP] = restoration.scalp_hu
    table[:, DENSE] = restoration.level_hu + restoration.dense_above_level_hu
    depth_px = torch.arange(DEEPEST + 1, dtype=torch.float32)
    share = (depth_px / restoration.skull_peak_depth_px.unsqueeze(1)).clamp(max=1.0)
    rise = restoration.skull_peak_hu - restoration.skull_edge_hu
    table[:, SKULL:] = restoration.skull_edge_hu.unsqueeze(1) + rise.unsqueeze(1) * share
    return table
