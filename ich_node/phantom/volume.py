"""A whole head in Hounsfield units, and where its hemorrhages are."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ich_node.phantom.brain import GYRUS_MM, Build, draw_brain
from ich_node.phantom.canvas import Array, Canvas, blend, random_field
from ich_node.phantom.geometry import patient_coordinates
from ich_node.phantom.lesions import draw_lesion, midline_shift_mm
from ich_node.phantom.settings import PhantomSettings
from ich_node.phantom.skull import draw_skull

LARGEST_DRAWING: Final = 256
"""Rows drawn at most; finer matrices are interpolated, as smooth as a soft kernel leaves them."""
UNCLEAR_MM: Final = 1.0
"""The truth keeps this far from bone, where a voxel holds some of both."""
LOWEST_HU: Final = -1024.0
HIGHEST_HU: Final = 3071.0


def draw_volume(settings: PhantomSettings) -> NDArray[np.float32]:
    """Return the head in Hounsfield units, (slices, rows, columns), the lowest slice first."""
    drawn, _ = draw(settings)
    hu = refine(drawn, settings.rows)
    hu += scanner_noise(settings) * np.where(hu > -700, np.float32(1), np.float32(0.6))
    return np.clip(hu, LOWEST_HU, HIGHEST_HU).astype(np.float32, copy=False)


def lesion_mask(settings: PhantomSettings) -> NDArray[np.bool_]:
    """Return where hemorrhage is, (slices, rows, columns); nowhere without a lesion."""
    if not settings.lesions:
        return np.zeros((settings.slices, settings.rows, settings.rows), dtype=np.bool_)
    _, cover = draw(settings)
    mask: NDArray[np.bool_] = refine(cover, settings.rows) > 0.5
    return mask


def draw(settings: PhantomSettings) -> tuple[Array, Array]:
    """Return the head without noise in HU, and the cover of its lesions, both at the size of drawing."""
    rng = np.random.default_rng([settings.seed, 0])
    size = rng.uniform(0.96, 1.03)
    x, y, z = plain = scaled_coordinates(settings, np.float32(size))
    waviness, texture, streaks, folding, folia, ragged, bend = (
        random_field(rng, x, y, z, wavelength) for wavelength in (42.0, 5.5, 26.0, GYRUS_MM, 8.0, 22.0, 90.0)
    )
    build = Build(folding, folia, sulcus_mm=rng.uniform(0.7, 1.1), ventricle_factor=rng.uniform(1.0, 1.35))
    pixel_mm = settings.pixel_spacing_mm * settings.rows / x.shape[2] / size
    head = draw_skull(warped(x, y, z, 0.7 * bend, pixel_mm), plain, texture, streaks, waviness)
    shift = midline_shift_mm(settings.lesions) * np.exp(-(((z - 44) / 42) ** 2) - ((y - 2) / 52) ** 2)
    canvas = warped(x, y, z, 0.7 * bend + 0.6 * waviness - shift, pixel_mm)
    brain = draw_brain(canvas, head.cavity, build)
    cover = np.zeros_like(head.hu)
    for lesion in settings.lesions:
        np.maximum(cover, draw_lesion(lesion, canvas, head.cavity, brain, ragged), out=cover)
    inside = canvas.cover(head.cavity)
    cupping = np.clip(5 * np.exp(np.minimum(head.cavity, 0) / 4), 0, 5)
    blend(head.hu, inside, brain.hu + cupping)
    return head.hu, cover * canvas.cover(head.cavity + UNCLEAR_MM)


def scaled_coordinates(settings: PhantomSettings, head_size: np.float32) -> tuple[Array, Array, Array]:
    """Return x, y and z in mm of a head of average size."""
    x, y, z = patient_coordinates(settings, min(settings.rows, LARGEST_DRAWING))
    return x / head_size, y / head_size, z / head_size


def warped(x: Array, y: Array, z: Array, bend: Array, pixel_mm: float) -> Canvas:
    """Return a canvas whose midline is bent sideways by ``bend`` mm."""
    bent = (x + bend).astype(np.float32)
    return Canvas(x=bent, y=y, z=z, side=np.abs(bent), pixel_mm=pixel_mm)


def refine(volume: Array, rows: int) -> Array:
    """Return the volume interpolated linearly to ``rows`` rows and columns over the same field of view."""
    drawn = volume.shape[1]
    if rows == drawn:
        return volume.copy()
    at = np.clip((np.arange(rows) + 0.5) * drawn / rows - 0.5, 0, drawn - 1)
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(drawn)[None, :])).astype(np.float32)
    result: Array = np.matmul(np.matmul(weights, volume), weights.T)
    return result


def scanner_noise(settings: PhantomSettings) -> Array:
    """Return noise in HU with the grain of a smooth kernel, (slices, rows, columns)."""
    rng = np.random.default_rng([settings.seed, 1])
    noise = rng.standard_normal((settings.slices, settings.rows + 2, settings.rows + 2), dtype=np.float32)
    noise = noise[:, :-2] + 2 * noise[:, 1:-1] + noise[:, 2:]
    noise = noise[:, :, :-2] + 2 * noise[:, :, 1:-1] + noise[:, :, 2:]
    result: Array = noise * np.float32(settings.noise_hu / 6)
    return result
