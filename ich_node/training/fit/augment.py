"""Change slices at each reading, batched on the device: what to change is drawn first, then done."""

import math
from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar, cast

import torch
from torch import Tensor

from ich_node.training.fit.settings import Augmentation
from ich_node.windowing import smooth

_LEAST_BLUR_PX: Final = 0.3
"""A Gaussian below this changes nothing."""
_CORRELATION_PX: Final = (0.85, 1.3)
"""Standard deviation of the smoothing that makes noise hang together over 2 to 3 px."""
_ERASED: Final = (0.02, 0.10)


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """What is done to each slice of a batch; every tensor has one entry per slice."""

    rotation: Tensor
    """Radians."""
    scale: Tensor
    shift: Tensor
    """(slices, 2): columns, rows, of the box's side."""
    flip: Tensor
    """-1 or 1."""
    erase: Tensor
    """(slices, 4): top, bottom, left, right, of the image's side; top = bottom where nothing is erased."""
    level_hu: Tensor
    width: Tensor
    """Factor."""
    noise_hu: Tensor
    correlated: Tensor
    """Share of the noise's variance that hangs together."""
    correlation_px: Tensor
    noise_seed: Tensor
    blur_px: Tensor
    brain_only: Tensor
    """(slices, 2): the subdural, the soft tissue channel shows the brain window."""
    reverse: Tensor
    """The neighbours change places."""


Record = TypeVar("Record")


def select(record: Record, slices: slice | Tensor) -> Record:
    """Take some slices of a record of tensors that have one entry per slice each."""
    tensors = {one.name: getattr(record, one.name)[slices] for one in fields(cast("Any", record))}
    return type(record)(**tensors)


def to_device(draws: Draws, device: torch.device) -> Draws:
    """Bring draws to where the slices are; the noise's seeds stay, they are read one by one."""
    moved = {one.name: getattr(draws, one.name).to(device) for one in fields(draws) if one.name != "noise_seed"}
    return Draws(**moved, noise_seed=draws.noise_seed)


def draw(count: int, settings: Augmentation, generator: torch.Generator) -> Draws:
    """Draw what is done to ``count`` slices, on the processor, so that it is the same whatever the device."""

    def evenly(low: float, high: float, width: int = 0) -> Tensor:
        shape = (count, width) if width else (count,)
        return low + (high - low) * torch.rand(shape, generator=generator)

    def either(probability: float, width: int = 0) -> Tensor:
        return evenly(0, 1, width) < probability

    angle = math.radians(settings.rotation_degrees)
    return Draws(
        rotation=evenly(-angle, angle),
        scale=evenly(1 - settings.scale, 1 + settings.scale),
        shift=evenly(-settings.shift_fraction, settings.shift_fraction, 2),
        flip=1.0 - 2.0 * either(settings.flip),
        erase=_rectangles(either(settings.erase), evenly(*_ERASED), evenly(0.5, 2.0), evenly(0, 1, 2)),
        level_hu=evenly(-settings.level_hu, settings.level_hu),
        width=evenly(1 - settings.width_fraction, 1 + settings.width_fraction),
        noise_hu=evenly(0, settings.noise_hu),
        correlated=evenly(0, 1),
        correlation_px=evenly(*_CORRELATION_PX),
        noise_seed=torch.randint(2**62, (count,), generator=generator),
        blur_px=evenly(0, settings.blur_px),
        brain_only=either(settings.brain_for_other_windows, 2),
        reverse=either(0.5),
    )


def _rectangles(used: Tensor, area: Tensor, aspect: Tensor, corner: Tensor) -> Tensor:
    height, width = (area * aspect).sqrt(), (area / aspect).sqrt()
    top, left = corner[:, 0] * (1 - height), corner[:, 1] * (1 - width)
    return torch.stack([top, top + height * used, left, left + width], dim=1)


def motion(draws: Draws) -> Tensor:
    """The affine map that ``windowing.resample`` looks along: (slices, 2, 3)."""
    cos, sin = draws.rotation.cos() / draws.scale, draws.rotation.sin() / draws.scale
    rows = torch.stack([draws.flip * cos, -draws.flip * sin, draws.shift[:, 0]], dim=1)
    columns = torch.stack([sin, cos, draws.shift[:, 1]], dim=1)
    return torch.stack([rows, columns], dim=1)


def blur(hu: Tensor, blur_px: Tensor, limits_hu: tuple[float, float]) -> Tensor:
    """Blur slices (slices, side, side) that are to be; values are first cut to the windows' ends, as denoising does."""
    soft = blur_px >= _LEAST_BLUR_PX
    if not soft.any():
        return hu
    blurred = hu.clone()
    blurred[soft] = smooth(hu[soft].clamp(*limits_hu), blur_px[soft], math.ceil(2.5 * float(blur_px.max())))
    return blurred


def add_noise(hu: Tensor, draws: Draws) -> Tensor:
    """Add noise with a given standard deviation in HU to slices (slices, side, side).

    Part of it is white, part the same smoothed by s px to hang together over 2 to 3 px and brought back to its standard
    deviation: a Gaussian leaves 1 / (2 s sqrt(pi)) of white noise. The two correlate by 1 / (s sqrt(pi)), which their
    sum is divided by. Each slice's noise comes from its own seed, so it does not depend on what else is in the batch.
    """
    if not draws.noise_hu.any():
        return hu
    white = _white_noise(hu, draws.noise_seed)
    hanging = smooth(white, draws.correlation_px, math.ceil(2.5 * _CORRELATION_PX[1]))
    regained = 2 * math.sqrt(math.pi) * draws.correlation_px
    of_white, of_hanging = (1 - draws.correlated).sqrt(), draws.correlated.sqrt()
    variance = 1 + 2 * of_white * of_hanging / (math.sqrt(math.pi) * draws.correlation_px)
    strength = draws.noise_hu / variance.sqrt()
    weight_of_white, weight_of_hanging = strength * of_white, strength * of_hanging * regained
    return hu + weight_of_white[:, None, None] * white + weight_of_hanging[:, None, None] * hanging


def _white_noise(hu: Tensor, seeds: Tensor) -> Tensor:
    noise = torch.empty_like(hu)
    generator = torch.Generator(hu.device)
    for one, seed in zip(noise, seeds.tolist(), strict=True):
        one.normal_(generator=generator.manual_seed(seed))
    return noise


def erase(images: Tensor, rectangles: Tensor) -> Tensor:
    """Blacken a rectangle of each image (slices, channels, size, size)."""
    steps = (torch.arange(images.shape[-1], device=images.device) + 0.5) / images.shape[-1]
    top, bottom, left, right = rectangles.T.unsqueeze(-1)
    inside = ((steps >= top) & (steps < bottom)).unsqueeze(2) & ((steps >= left) & (steps < right)).unsqueeze(1)
    return images.masked_fill(inside.unsqueeze(1), 0.0)
