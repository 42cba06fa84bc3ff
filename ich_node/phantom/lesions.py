"""Hemorrhages of known place, shape and density."""

from collections.abc import Callable
from typing import Final

import numpy as np

from ich_node.phantom.brain import Brain
from ich_node.phantom.canvas import Array, Canvas, blend
from ich_node.phantom.settings import LESION_HU

OEDEMA_HU: Final = 20.0
FLUID_LEVEL_Y_MM: Final = 33.0
CRESCENT_MM: Final = 8.5
MIDLINE_SHIFT_MM: Final = {"epidural": 4.0, "subdural": -3.5, "intraparenchymal": 1.5}
"""To the patient's left; the midline gives way to what takes room."""


def midline_shift_mm(lesions: tuple[str, ...]) -> float:
    """Return how far the midline is pushed to the left."""
    return sum(MIDLINE_SHIFT_MM.get(lesion, 0.0) for lesion in lesions)


def draw_lesion(lesion: str, canvas: Canvas, cavity: Array, brain: Brain, ragged: Array) -> Array:
    """Paint one hemorrhage into the brain, in place, and return its cover, 0 to 1.

    ``ragged`` is unit noise for uneven borders and densities.
    """
    shapes: dict[str, Callable[[], Array]] = {
        "epidural": lambda: epidural(canvas, cavity),
        "intraparenchymal": lambda: intraparenchymal(canvas, brain, ragged),
        "intraventricular": lambda: brain.ventricles * canvas.cover(FLUID_LEVEL_Y_MM - canvas.y),
        "subarachnoid": lambda: subarachnoid(canvas, brain),
        "subdural": lambda: subdural(canvas, cavity),
    }
    cover = shapes[lesion]()
    blend(brain.hu, cover, LESION_HU[lesion] + 1.5 * ragged)
    return cover


def epidural(canvas: Canvas, cavity: Array) -> Array:
    """Return a lens: a ball from outside the skull, cut off by the inner table."""
    ball = np.sqrt((canvas.x + 91) ** 2 + (canvas.y - 8) ** 2 + (canvas.z - 46) ** 2) - 40
    return canvas.cover(np.maximum(ball, cavity))


def subdural(canvas: Canvas, cavity: Array) -> Array:
    """Return a crescent along the left convexity that ends at the falx."""
    taper = 1 - ((canvas.y - 2) / 76) ** 2 - ((canvas.z - 52) / 46) ** 2
    crescent = -cavity - CRESCENT_MM * np.sqrt(np.maximum(taper, 0))
    return canvas.cover(np.maximum(np.maximum(crescent, 4 - canvas.x), -20 * taper))


def intraparenchymal(canvas: Canvas, brain: Brain, ragged: Array) -> Array:
    """Return a ragged ellipsoid in the right basal ganglia; paint its oedema."""
    u, v, w = (canvas.x + 29) / 13, (canvas.y - 2) / 20, (canvas.z - 38) / 15
    distance = (np.sqrt(u * u + v * v + w * w) - 1) * 14 + 1.6 * ragged
    blend(brain.hu, 0.85 * np.clip(1 - distance / 6, 0, 1), OEDEMA_HU)
    return canvas.cover(distance)


def subarachnoid(canvas: Canvas, brain: Brain) -> Array:
    """Return blood in cisterns, fissures and sulci round the circle of Willis, thinning out with distance."""
    far = np.sqrt(canvas.x**2 + (canvas.y + 10) ** 2 + ((canvas.z - 16) * 1.3) ** 2)
    result: Array = np.minimum(1.35 * brain.subarachnoid, 1) * np.clip((58 - far) / 10, 0, 1)
    return result
