"""The inside of the skull: cortex and white matter, nuclei, ventricles, cisterns, falx, tentorium, cerebellum."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from ich_node.phantom.canvas import Array, Canvas, Point, Station, blend

GREY_HU: Final = 37.0
WHITE_HU: Final = 29.0
CSF_HU: Final = 7.0
DURA_HU: Final = 50.0
VENOUS_HU: Final = 54.0
CORTEX_MM: Final = 3.6
SULCUS_DEPTH_MM: Final = 15.0
GYRUS_MM: Final = 25.0
"""Wavelength of the folding noise."""
FOLIUM_MM: Final = 6.5

VENTRICLES: Final[tuple[tuple[Station, ...], ...]] = (
    ((13.0, -38.0, 36.0, 2.5), (8.5, -26.0, 40.0, 5.0), (6.0, -10.0, 46.0, 4.5), (9.0, 8.0, 51.0, 4.8)),
    ((9.0, 8.0, 51.0, 4.8), (15.0, 24.0, 49.0, 5.5), (23.0, 37.0, 42.0, 6.5)),
    ((23.0, 37.0, 42.0, 6.5), (27.0, 50.0, 38.0, 5.0), (26.0, 66.0, 35.0, 2.0)),
    ((23.0, 37.0, 42.0, 6.5), (31.0, 24.0, 27.0, 3.0), (33.0, 2.0, 14.0, 1.8), (30.0, -12.0, 12.0, 2.2)),
)
THIRD_VENTRICLE: Final = ((0.0, 2.0, 28.0), (2.2, 15.0, 10.0))
FOURTH_VENTRICLE: Final = ((0.0, 33.0, -3.0), (7.0, 4.5, 9.0))
CISTERNS: Final[tuple[tuple[Point, Point], ...]] = (
    ((0.0, 1.0, -4.0), (13.0, 5.0, 13.0)),  # before the pons
    ((18.0, 11.0, -6.0), (8.0, 4.0, 8.0)),  # cerebellopontine angle
    ((0.0, 78.0, -18.0), (11.0, 7.0, 13.0)),  # cisterna magna
    ((0.0, 50.0, 22.0), (7.0, 9.0, 6.0)),  # over the cerebellum
    ((0.0, 29.0, 22.0), (8.0, 4.0, 6.0)),  # quadrigeminal
)
NUCLEI: Final[tuple[tuple[Point, Point, float], ...]] = (
    ((14.5, -21.0, 38.0), (5.0, 9.0, 9.0), 38.0),  # head of the caudate
    ((26.0, -6.0, 33.0), (7.0, 17.0, 11.0), 38.0),  # lentiform
    ((11.0, 9.0, 35.0), (8.5, 14.0, 11.0), 36.5),  # thalamus
)
BRAIN_STEM: Final[tuple[Station, ...]] = (
    (0.0, 13.0, 24.0, 12.0),
    (0.0, 13.0, 10.0, 14.0),
    (0.0, 17.0, -6.0, 13.0),
    (0.0, 20.0, -28.0, 8.0),
    (0.0, 26.0, -60.0, 7.0),
)
CALCIFICATIONS: Final[tuple[tuple[Point, Point], ...]] = (
    ((23.0, 38.0, 43.0), (2.0, 2.8, 3.0)),  # choroid plexus
    ((0.0, 24.0, 28.0), (1.8, 1.8, 2.5)),  # pineal gland
)


@dataclass(frozen=True, eq=False)
class Brain:
    """The brain and the spaces that blood runs into; all (slices, rows, columns)."""

    hu: Array
    ventricles: Array
    """Cover of the lateral ventricles, 0 to 1."""
    subarachnoid: Array
    """Cover of cisterns, fissures and sulci, 0 to 1."""


@dataclass(frozen=True, eq=False)
class Build:
    """How one person's brain differs from another's."""

    folding: Array
    """Unit noise whose zero lines are the sulci."""
    folia: Array
    sulcus_mm: float
    """Half width of a sulcus at the surface."""
    ventricle_factor: float


def draw_brain(canvas: Canvas, cavity: Array, build: Build) -> Brain:
    """Draw everything inside the inner table; ``cavity`` is the distance to it in mm, negative inside."""
    below_tentorium = tentorium(canvas)
    subarachnoid = subarachnoid_cover(canvas, cavity, below_tentorium, build)
    hu = draw_cerebrum(canvas, cavity, build)
    for centre, radii, value in NUCLEI:
        box, distance = canvas.ellipsoid(centre, radii)
        blend(hu[box], canvas.cover(distance * 0.6), value)
    draw_posterior_fossa(canvas, cavity, below_tentorium, build, hu)
    blend(hu, subarachnoid, CSF_HU)
    draw_brain_stem(canvas, below_tentorium, subarachnoid, hu)
    ventricles = lateral_ventricles(canvas, build.ventricle_factor)
    blend(hu, ventricles, CSF_HU)
    for centre, radii in (THIRD_VENTRICLE, FOURTH_VENTRICLE):
        box, distance = canvas.ellipsoid(centre, radii)
        blend(hu[box], canvas.cover(distance), CSF_HU)
    draw_dura(canvas, cavity, below_tentorium, hu)
    for centre, radii in CALCIFICATIONS:
        box, distance = canvas.ellipsoid(centre, radii)
        blend(hu[box], canvas.cover(distance), 170.0)
    return Brain(hu=hu, ventricles=ventricles, subarachnoid=subarachnoid)


def tentorium(canvas: Canvas) -> Array:
    """Return distances to the tentorium, negative in the posterior fossa."""
    surface = np.float32(30) - np.float32(0.42) * canvas.side - np.float32(0.12) * np.maximum(canvas.y - 40, 0)
    behind = np.float32(0) - canvas.y + np.float32(0.5) * canvas.side
    result: Array = np.maximum(np.float32(0.9) * (canvas.z - surface), behind)
    return result


def fissure_of_hemispheres(canvas: Canvas, reach_y_mm: float, reach_z_mm: float) -> Array:
    """Return distances to the midline outside the corpus callosum, large where the hemispheres are joined."""
    joined = np.sqrt(((canvas.y - 2) / reach_y_mm) ** 2 + ((canvas.z - 36) / reach_z_mm) ** 2)
    result: Array = np.maximum(canvas.side, (1 - joined) * 30).astype(np.float32)
    return result


def sulcus_distance(build: Build) -> Array:
    """Return distances to the nearest sulcus, from the folding noise and its mean slope."""
    result: Array = np.abs(build.folding) * np.float32(GYRUS_MM / (2 * np.pi))
    return result


def draw_cerebrum(canvas: Canvas, cavity: Array, build: Build) -> Array:
    """Return white matter under a folded cortex."""
    medial = fissure_of_hemispheres(canvas, 44.0, 25.0) - 1
    depth = np.minimum(-cavity - 1.5, medial)
    folds = sulcus_distance(build) + np.maximum(0, depth - SULCUS_DEPTH_MM)
    box, insula = sylvian_fissure(canvas, build)
    cortex = np.minimum(depth, folds)
    np.minimum(cortex[box], insula, out=cortex[box])
    grey = canvas.cover((cortex - CORTEX_MM) * 0.7)
    result: Array = WHITE_HU + grey * (GREY_HU - WHITE_HU)
    return result


def sylvian_fissure(canvas: Canvas, build: Build) -> tuple[tuple[slice, slice, slice], Array]:
    """Return the box of the Sylvian fissures and the distances to them: curved walls of CSF."""
    box = canvas.box((0.0, -28.0, 4.0), (66.0, 34.0, 46.0))
    lift = np.clip((canvas.z[box[0], box[1]] - 24) / 20, -1, 1)
    x, y = canvas.side[box] + 1.8 * build.folding[box], canvas.y[:, box[1]] - 8 * lift
    nodes = ((66.0, -24.0), (47.0, -19.0), (38.0, -12.0), (38.0, 10.0), (45.0, 24.0))
    distance = np.full(x.shape, 1e3, dtype=np.float32)
    for (x0, y0), (x1, y1) in pairwise(nodes):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        np.minimum(distance, np.hypot(x - x0 - along * dx, y - y0 - along * dy), out=distance)
    result: Array = np.maximum(distance, np.abs(canvas.z[box[0], box[1]] - 24) - 17)
    return box, result


def subarachnoid_cover(canvas: Canvas, cavity: Array, below_tentorium: Array, build: Build) -> Array:
    """Return the cover of CSF round the brain: rim, sulci, fissures and cisterns."""
    depth = -cavity
    narrowing = np.clip(1.25 - depth / SULCUS_DEPTH_MM, 0, 1)
    sulci = sulcus_distance(build) - build.sulcus_mm * narrowing
    sulci = np.maximum(sulci, depth - SULCUS_DEPTH_MM)
    sulci = np.maximum(sulci, -below_tentorium)
    rim = depth - (0.9 + 0.6 * build.sulcus_mm)
    fissure = np.maximum(fissure_of_hemispheres(canvas, 50.0, 29.0) - 1.5, -below_tentorium)
    distance = np.minimum(np.minimum(sulci, rim), fissure)
    box, sylvian = sylvian_fissure(canvas, build)
    np.minimum(distance[box], sylvian - 0.9 - 0.7 * build.sulcus_mm, out=distance[box])
    for centre, radii in CISTERNS:
        box, cistern = canvas.ellipsoid(centre, radii)
        np.minimum(distance[box], cistern, out=distance[box])
    box, star = suprasellar_cistern(canvas, build)
    np.minimum(distance[box], star, out=distance[box])
    box, ambient = canvas.tube(((0.0, 12.0, 20.0, 15.2), (0.0, 12.0, 8.0, 16.5)))
    ambient = np.maximum(ambient + 0.8 * build.folding[box], np.abs(canvas.z[box[0], box[1]] - 14) - 8)
    np.minimum(distance[box], ambient, out=distance[box])
    return canvas.cover(distance)


def suprasellar_cistern(canvas: Canvas, build: Build) -> tuple[tuple[slice, slice, slice], Array]:
    """Return the five-pointed cistern over the sella."""
    box = canvas.box((-22.0, -34.0, 6.0), (22.0, 8.0, 20.0))
    x, y = canvas.side[box], canvas.y[:, box[1]] + 12
    radius = np.hypot(x, y) + 1.5 * build.folding[box]
    points = 9.5 + 4.0 * np.cos(5 * np.arctan2(x, -y))
    result: Array = np.maximum(radius - points, np.abs(canvas.z[box[0], box[1]] - 13) - 7).astype(np.float32)
    return box, result


def draw_posterior_fossa(canvas: Canvas, cavity: Array, below_tentorium: Array, build: Build, hu: Array) -> None:
    """Draw the cerebellum with its folia."""
    depth = -np.maximum(cavity, below_tentorium)
    layers = np.cos((depth + 2.5 * build.folding + 0.8 * build.folia) * np.float32(2 * np.pi / FOLIUM_MM))
    leaves = 36 - 34 * np.maximum(layers - 0.55, 0) * np.clip(1.1 - depth / 24, 0, 1)
    blend(hu, canvas.cover(below_tentorium), leaves)
    box, distance = canvas.ellipsoid((19.0, 44.0, -6.0), (14.0, 14.0, 12.0))
    blend(hu[box], canvas.cover(distance * 0.4), 31.0)


def draw_brain_stem(canvas: Canvas, below_tentorium: Array, subarachnoid: Array, hu: Array) -> None:
    """Draw midbrain, pons and medulla, and what joins them to the cerebellum, into their cisterns."""
    box, distance = canvas.tube(BRAIN_STEM)
    distance = np.maximum(distance, canvas.z[box[0], box[1]] - 23)
    blend(hu[box], canvas.cover(distance), 32.0)
    blend(subarachnoid[box], canvas.cover(distance), 0.0)
    box, distance = canvas.ellipsoid((14.0, 27.0, -4.0), (9.0, 12.0, 9.0))
    blend(hu[box], canvas.cover(np.maximum(distance, below_tentorium[box])), 32.0)


def lateral_ventricles(canvas: Canvas, factor: float) -> Array:
    """Return the cover of both lateral ventricles."""
    cover = canvas.everywhere(0.0)
    for stations in VENTRICLES:
        box, distance = canvas.tube([(x, y, z, radius * factor) for x, y, z, radius in stations])
        septum = 1.0 - canvas.side[box]
        np.maximum(cover[box], canvas.cover(np.maximum(distance, septum)), out=cover[box])
    return cover


def draw_dura(canvas: Canvas, cavity: Array, below_tentorium: Array, hu: Array) -> None:
    """Draw falx, tentorium and the sagittal sinus."""
    falx = np.maximum(fissure_of_hemispheres(canvas, 56.0, 34.0) - 0.6, -1 - below_tentorium)
    blend(hu, canvas.cover(falx) * np.clip((canvas.z - 4) / 10, 0, 1), DURA_HU)
    sheet = np.maximum(np.abs(below_tentorium) - 0.5, 12 - canvas.y)
    blend(hu, 0.7 * canvas.cover(sheet), DURA_HU)
    posterior = np.maximum(58 - canvas.z, 40 - canvas.y)
    sinus = np.maximum(canvas.side * 0.9 - (4.8 + cavity), np.minimum(posterior, 88 - canvas.z))
    blend(hu, canvas.cover(sinus), VENOUS_HU)
