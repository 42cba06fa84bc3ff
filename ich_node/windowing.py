"""The only preprocessing: Hounsfield units to the images that the network sees.

Each slice is treated by itself, so it can be scored as it arrives, and whatever else is in its batch. Everything is
torch with shapes that depend on shapes alone, so that it exports together with the network.
"""

import math
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

AIR_HU: Final = -1000.0

_GRID: Final = 128
"""Cells along each side of the reduced mask in which the head is searched."""

_FLOOD_ROUNDS: Final = 8
"""A round carries a label along whole rows and whole columns, so this is the number of turns a shape may take."""

_REGAINED_CELLS: Final = 8

_NOISE_OF_WHITE: Final = math.sqrt(math.pi / 2) / 6
"""Mean absolute response to white noise of standard deviation 1 is the inverse of this (Immerkaer 1996)."""

_NOISE_STEP: Final = 3

NOISE_TISSUE_HU: Final = (-20.0, 100.0)
"""Soft tissue, in which noise is measured."""

_ROBUST_LIMIT: Final = 3.0
"""Responses above this many first estimates are edges, not noise, and are cut off there."""


class Window(BaseModel):
    """A window in Hounsfield units (PS3.3 C.11.2.1.2, but with sharp ends)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    center_hu: float
    width_hu: float = Field(gt=0)

    @property
    def low_hu(self) -> float:
        return self.center_hu - self.width_hu / 2

    @property
    def high_hu(self) -> float:
        return self.center_hu + self.width_hu / 2


class Denoise(BaseModel):
    """Smoothing whose strength follows the noise measured in the slice.

    White noise of standard deviation ``n`` smoothed by a Gaussian of ``s`` pixels keeps ``n / (2 s sqrt(pi))``.
    So ``s = min(n / (2 sqrt(pi) target_noise_hu), maximum_sigma_px)`` where ``n`` exceeds the target, else nothing is
    done (at the target ``s`` is 0.28, which hardly differs from nothing).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target_noise_hu: float = Field(default=5.0, gt=0)
    maximum_sigma_px: float = Field(default=1.5, gt=0, le=3.0)


class Preprocessing(BaseModel):
    """How pixels become numbers, as the model bundle's manifest states it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head_threshold_hu: float = -300.0
    margin_fraction: float = Field(default=0.05, ge=0, le=0.5)
    """Of the head's longer side, on each side of it."""
    minimum_side_fraction: float = Field(default=0.6, gt=0, le=1)
    """Of the padded image's side."""
    denoise: Denoise | None = Denoise()
    """None: off."""
    windows: tuple[Window, Window, Window] = (
        Window(center_hu=40, width_hu=80),
        Window(center_hu=80, width_hu=200),
        Window(center_hu=40, width_hu=380),
    )
    """Brain, subdural, soft tissue: one channel each."""
    size_px: int = Field(default=299, ge=32, le=1024)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Per channel, of the window's 0 to 1."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def limits_hu(self) -> tuple[float, float]:
        """The ends of all windows together."""
        return min(window.low_hu for window in self.windows), max(window.high_hu for window in self.windows)

    @model_validator(mode="after")
    def _has_usable_spread(self) -> "Preprocessing":
        if min(self.std) <= 0:
            raise ValueError("std must be above 0")
        return self


class Windowing(nn.Module):
    """Turn slices in Hounsfield units into the network's input.

    Called with (slices, rows, columns) float32 in HU, gives (slices, 3, size, size) float32. Rows and columns may
    differ; at least 16 of each.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        low = torch.tensor([window.low_hu for window in preprocessing.windows])
        width = torch.tensor([window.width_hu for window in preprocessing.windows])
        self.register_buffer("low_hu", low.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("width_hu", width.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)

    low_hu: Tensor
    width_hu: Tensor
    mean: Tensor
    std: Tensor

    def forward(self, hu: Tensor) -> Tensor:
        square = pad_to_square(hu)
        box = find_head_box(square, self.preprocessing)
        if self.preprocessing.denoise is not None:
            square = denoise(square, self.preprocessing.denoise, self.preprocessing.limits_hu)
        channels = apply_windows(square, self.low_hu, self.width_hu)
        image = resample(channels, box, self.preprocessing.size_px)
        return (image - self.mean) / self.std


def pad_to_square(hu: Tensor) -> Tensor:
    """Centre each slice in a square of air: (slices, rows, columns) to (slices, side, side)."""
    rows, columns = hu.shape[-2:]
    side, top, left = place_in_square(rows, columns)
    return functional.pad(hu, (left, side - columns - left, top, side - rows - top), value=AIR_HU)


def place_in_square(rows: int, columns: int) -> tuple[int, int, int]:
    """Give the side of the square that a slice is centred in, and its first row and column there."""
    side = max(rows, columns)
    return side, (side - rows) // 2, (side - columns) // 2


def find_head_box(hu: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Find the square around the head in square slices.

    The head is the largest connected component above the threshold, on a grid of 128 cells a side. It is sought in
    the mask eroded by one cell, so what is thin (the shell of a head holder, even where it touches) neither joins
    the head nor wins over a small section near the vertex; then it regains nose, ears and chin, eight cells far.

    Returns:
        (slices, 3): centre row, centre column, side, each as a fraction of the image's side. The whole image where
        no component is found.
    """
    body = functional.adaptive_avg_pool2d((hu > preprocessing.head_threshold_hu).float(), _GRID) >= 0.5
    head = _largest_component(~_widen(~body))
    for _ in range(_REGAINED_CELLS):
        head = _widen(head) & body
    top, bottom = _extent(head.any(dim=-1))
    left, right = _extent(head.any(dim=-2))
    longer = torch.maximum(bottom - top, right - left) / _GRID
    side = (longer * (1 + 2 * preprocessing.margin_fraction)).clamp(preprocessing.minimum_side_fraction, 1.0)
    box = torch.stack([(top + bottom) / (2 * _GRID), (left + right) / (2 * _GRID), side], dim=-1)
    whole = torch.tensor([0.5, 0.5, 1.0], dtype=box.dtype, device=box.device)
    return torch.where(head.flatten(1).any(dim=-1, keepdim=True), box, whole)


def _widen(mask: Tensor) -> Tensor:
    """Add the eight neighbours of every cell of a (slices, rows, columns) mask."""
    padded = functional.pad(mask, (1, 1))
    mask = padded[:, :, :-2] | mask | padded[:, :, 2:]
    padded = functional.pad(mask, (0, 0, 1, 1))
    return padded[:, :-2] | mask | padded[:, 2:]


def _largest_component(mask: Tensor) -> Tensor:
    """Keep the largest 4-connected component of each (slices, rows, columns) mask."""
    labels = _flood(mask)
    sizes = torch.zeros(mask.shape[0], _GRID * _GRID + 1, dtype=torch.float32, device=mask.device)
    sizes = sizes.scatter_add(1, labels.flatten(1).long(), mask.flatten(1).float())
    return mask & (labels == sizes.argmax(dim=-1).view(-1, 1, 1))


def _flood(mask: Tensor) -> Tensor:
    """Give each component the largest of its cells' numbers; cells are numbered from 1, the background is 0."""
    numbers = torch.arange(1, _GRID * _GRID + 1, dtype=torch.float32, device=mask.device).view(1, _GRID, _GRID)
    labels = numbers * mask
    lifts = [_lift(mask, axis, backwards) for axis in (2, 1) for backwards in (False, True)]
    for _ in range(_FLOOD_ROUNDS):
        for axis in (2, 1):
            for backwards in (False, True):
                labels = _running_maximum(labels, lifts[2 * (2 - axis) + backwards], axis, backwards)
    return labels


def _lift(mask: Tensor, axis: int, backwards: bool) -> Tensor:
    """Count the gaps before each cell, times more than any label.

    Added to the labels it makes a running maximum start again after every gap. Exact in float32: 128 gaps of 2**15
    and the labels stay below 2**24.
    """
    gaps = (~mask).float() * 2.0**15
    return gaps.flip(axis).cumsum(axis).flip(axis) if backwards else gaps.cumsum(axis)


def _running_maximum(labels: Tensor, lift: Tensor, axis: int, backwards: bool) -> Tensor:
    """Carry the largest label along each unbroken run of cells; gaps keep 0."""
    lifted = labels + lift
    if backwards:
        return lifted.flip(axis).cummax(axis).values.flip(axis) - lift
    return lifted.cummax(axis).values - lift


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First occupied cell and the one after the last, of (slices, cells)."""
    cells = torch.arange(_GRID, dtype=torch.float32, device=occupied.device)
    first = torch.where(occupied, cells, float(_GRID)).amin(dim=-1)
    return first, torch.where(occupied, cells + 1, 0.0).amax(dim=-1)


def apply_windows(hu: Tensor, low_hu: Tensor, width_hu: Tensor) -> Tensor:
    """Map each window to 0 to 1: (slices, rows, columns) to (slices, windows, rows, columns).

    ``low_hu`` and ``width_hu`` are (1 or slices, windows, 1, 1).
    """
    return torch.sub(hu.unsqueeze(1), low_hu).div_(width_hu).clamp_(0.0, 1.0)


def denoise(hu: Tensor, settings: Denoise, limits_hu: tuple[float, float]) -> Tensor:
    """Smooth each slice as much as its own noise asks for.

    Values are first clipped to ``limits_hu``, the ends of all windows together, so that bone of 1000 HU and air do
    not bleed into the brain beside them.
    """
    clipped = hu.clamp(*limits_hu)
    noise_hu = measure_noise(hu)
    sigma_px = noise_hu / (2 * math.sqrt(math.pi) * settings.target_noise_hu)
    sigma_px = sigma_px.clamp(max=settings.maximum_sigma_px) * (noise_hu > settings.target_noise_hu)
    radius = math.ceil(2.5 * settings.maximum_sigma_px)
    return smooth(clipped, sigma_px, radius)


def measure_noise(hu: Tensor) -> Tensor:
    """Estimate the noise of each slice in HU, from soft tissue only: (slices,).

    Immerkaer's filter (Computer Vision and Image Understanding 64, 1996) answers noise and neither planes nor
    straight edges. It is read on every third pixel, because a smooth kernel gives neighbours the same noise; only
    where all nine pixels are from -20 to 100 HU; and its mean is taken a second time with answers above three first
    estimates cut off there, which leaves the edges out.
    """
    sparse = hu[:, ::_NOISE_STEP, ::_NOISE_STEP]
    rows = sparse[:, :, :-2] - 2 * sparse[:, :, 1:-1] + sparse[:, :, 2:]
    answer = (rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]).abs()
    softest, hardest = NOISE_TISSUE_HU
    hard = ((sparse < softest) | (sparse > hardest)).float()
    inside = 1 - functional.max_pool2d(hard, 3, stride=1)
    count = inside.sum(dim=(1, 2)).clamp(min=1.0)
    first = (answer * inside).sum(dim=(1, 2)) / count
    limit = (_ROBUST_LIMIT * first).view(-1, 1, 1)
    return (answer.minimum(limit) * inside).sum(dim=(1, 2)) / count * _NOISE_OF_WHITE


def smooth(image: Tensor, sigma_px: Tensor, radius: int) -> Tensor:
    """Gaussian along both axes, one sigma per slice; 0 leaves a slice as it is."""
    steps = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    weights = torch.exp(-0.5 * (steps / sigma_px.clamp(min=1e-3).unsqueeze(-1)) ** 2)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    slices = image.shape[0]
    padded = functional.pad(image, (radius, radius, radius, radius), mode="replicate").unsqueeze(0)
    smoothed = functional.conv2d(padded, weights.view(slices, 1, 1, -1), groups=slices)
    return functional.conv2d(smoothed, weights.view(slices, 1, -1, 1), groups=slices).squeeze(0)


def resample(channels: Tensor, box: Tensor, size_px: int, motion: Tensor | None = None) -> Tensor:
    """Cut each box out and resize it: (slices, channels, side, side) to (slices, channels, size, size).

    Sampled bilinearly at twice the size, then averaged two by two, against aliasing. Outside the image lies 0, the
    low end of every window, which is what air is.

    Args:
        channels: Windowed, 0 to 1.
        box: (slices, 3), as ``find_head_box`` gives it.
        size_px: Side of the result.
        motion: (slices, 2, 3), for training: an affine map of (column, row, 1), each from -0.5 to 0.5 of the box, to
            where in the box to look.
    """
    steps = (torch.arange(2 * size_px, dtype=channels.dtype, device=channels.device) + 0.5) / (2 * size_px) - 0.5
    shape = (-1, 2 * size_px, 2 * size_px)
    if motion is None:
        rows = (2 * (box[:, 0:1] + box[:, 2:3] * steps) - 1).unsqueeze(2)
        columns = (2 * (box[:, 1:2] + box[:, 2:3] * steps) - 1).unsqueeze(1)
    else:
        places = motion[:, :, 0, None, None] * steps + motion[:, :, 1, None, None] * steps.unsqueeze(1)
        places = box[:, 2, None, None, None] * (places + motion[:, :, 2, None, None])
        rows = 2 * (box[:, 0, None, None] + places[:, 1]) - 1
        columns = 2 * (box[:, 1, None, None] + places[:, 0]) - 1
    grid = torch.stack([columns.expand(shape), rows.expand(shape)], dim=-1)
    doubled = functional.grid_sample(channels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return functional.avg_pool2d(doubled, 2)


def place_on_slice(maps: Tensor, hu: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Bring maps over the network's images back to the grids of the slices: the inverse of padding, box and resizing.

    The places of a map lie a power of two of pixels apart and in the middle of the network's image. They do not reach
    to its edge where convolutions without padding stand before them, as in Inception-ResNet-V2: of its 299 pixels
    the eight places see 37, 69 ... 261, as measured by the gradient.

    Args:
        maps: (slices, map rows, map columns).
        hu: (slices, rows, columns), as ``Windowing`` got them.
        preprocessing: Of the model that the maps are of.

    Returns:
        (slices, rows, columns), bilinear between the places; nan outside of what the network saw.
    """
    rows, columns = hu.shape[-2:]
    box = find_head_box(pad_to_square(hu), preprocessing)
    down = _along_box(rows, max(rows, columns), box[:, 0:1], box[:, 2:3])
    across = _along_box(columns, max(rows, columns), box[:, 1:2], box[:, 2:3])
    seen = (down.abs() <= 0.5).unsqueeze(2) & (across.abs() <= 0.5).unsqueeze(1)
    down = 2 * down * _spread(preprocessing.size_px, maps.shape[-2])
    across = 2 * across * _spread(preprocessing.size_px, maps.shape[-1])
    shape = (-1, rows, columns)
    grid = torch.stack([across.unsqueeze(1).expand(shape), down.unsqueeze(2).expand(shape)], dim=-1)
    placed = functional.grid_sample(maps.unsqueeze(1), grid, padding_mode="border", align_corners=False).squeeze(1)
    return torch.where(seen, placed, torch.nan)


def _along_box(count: int, side: int, centre: Tensor, box_side: Tensor) -> Tensor:
    """Give the pixels of one axis of a slice as fractions of its box, from -0.5 to 0.5 inside it: (slices, count)."""
    first = (side - count) // 2
    pixels = torch.arange(first, first + count, dtype=centre.dtype, device=centre.device)
    return ((pixels + 0.5) / side - centre) / box_side


def _spread(size_px: int, places: int) -> float:
    """Give the share of the image that the places of a map stand for, as if they lay side by side."""
    step_px = math.ldexp(1.0, math.floor(math.log2(size_px / places)))
    return size_px / (step_px * places)
