"""Simple heads for the tests of windowing and model: ellipses of skull, brain, ventricle and now and then blood."""

import numpy as np
from numpy.typing import NDArray


def draw_heads(slices: int = 8, side: int = 160, noise_hu: float = 4.0) -> NDArray[np.float32]:
    """Draw a series (slices, side, side) in HU whose slices all differ."""
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    volume = np.full((slices, side, side), -1000.0)
    for number, hu in enumerate(volume):
        scale = 0.95 - 0.5 * number / slices
        radius = np.hypot(rows / (0.42 * scale), columns / (0.34 * scale))
        hu[radius < 1] = 1000
        hu[radius < 0.9] = 32
        hu[np.hypot((rows + 0.05) / 0.03, columns / (0.06 * scale)) < 1] = 5
        if number % 3 == 0:
            hu[np.hypot((rows - 0.05) / (0.02 + 0.05 * scale), (columns - 0.1) / 0.05) < 1] = 70
    noise = np.random.default_rng(0).normal(0, noise_hu, volume.shape)
    return (volume + noise).astype(np.float32)
