"""Everything but the brain: scalp, skull, skull base, sinuses, orbits, muscles, and the holder the head lies in."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from ich_node.phantom.canvas import Array, Canvas, Point, Station, blend

AIR_HU: Final = -1000.0
FAT_HU: Final = -90.0
MUSCLE_HU: Final = 52.0
SKIN_HU: Final = 30.0
TABLE_HU: Final = 1450.0
DIPLOE_HU: Final = 620.0
SPONGE_HU: Final = 700.0
CENTRE: Final = (0.0, 4.0, 26.0)
INNER_RADII_MM: Final = (67.0, 84.0, 82.0)
EXPONENT: Final = 2.25

MUSCLES: Final[tuple[tuple[Point, Point], ...]] = (
    ((68.5, -22.0, 2.0), (6.0, 25.0, 30.0)),  # temporalis
    ((50.0, -34.0, -38.0), (9.0, 20.0, 26.0)),  # masseter and pterygoids
    ((20.0, 84.0, -42.0), (19.0, 22.0, 30.0)),  # neck
    ((46.0, 62.0, -46.0), (17.0, 26.0, 28.0)),
)
BONES: Final[tuple[tuple[Station, ...], ...]] = (
    ((13.0, 2.0, -8.0, 8.0), (34.0, 12.0, -7.0, 8.0), (60.0, 25.0, -6.0, 9.0)),  # petrous ridge
    ((0.0, -4.0, 2.0, 7.0), (0.0, 12.0, -30.0, 8.0)),  # clivus
    ((8.0, -38.0, 8.0, 4.5), (28.0, -46.0, 10.0, 4.5), (56.0, -40.0, 18.0, 4.0)),  # sphenoid wing
    ((46.0, -72.0, 14.0, 3.5), (50.0, -68.0, -6.0, 4.0), (46.0, -74.0, -26.0, 5.5)),  # orbital rim
    ((46.0, -74.0, -24.0, 5.0), (66.0, -46.0, -20.0, 3.0), (70.0, -8.0, -14.0, 3.0)),  # zygomatic arch
    ((2.5, -97.0, 8.0, 2.2), (3.0, -103.0, -12.0, 1.8)),  # nasal bone
    ((14.0, -30.0, -14.0, 2.5), (15.0, -34.0, -44.0, 2.0)),  # pterygoid plate
    ((54.0, -4.0, -14.0, 5.0), (53.0, -12.0, -28.0, 4.0), (52.0, -16.0, -48.0, 4.5)),  # mandible
    ((15.0, 24.0, -34.0, 7.0), (19.0, 28.0, -44.0, 8.0)),  # condyle and atlas
    ((0.0, 8.0, -36.0, 5.0), (0.0, 10.0, -50.0, 6.0)),  # dens
    ((0.0, -88.0, -30.0, 1.2), (0.0, -40.0, -30.0, 1.2)),  # nasal septum
    ((14.0, -88.0, -30.0, 2.0), (26.0, -88.0, -34.0, 2.5), (44.0, -72.0, -34.0, 2.5), (30.0, -50.0, -34.0, 2.0)),
    ((58.0, 36.0, -14.0, 11.0), (54.0, 34.0, -34.0, 9.0)),  # mastoid
)
AIR_SPACES: Final[tuple[tuple[Station, ...], ...]] = (
    ((52.0, 12.0, -12.0, 3.0), (84.0, 10.0, -12.0, 3.5)),  # ear canal
    ((3.0, -90.0, -26.0, 3.0), (5.0, -60.0, -26.0, 4.0), (5.0, -36.0, -28.0, 5.0)),  # nasal cavity
)
MAXILLARY_SINUS: Final = ((29.0, -68.0, -36.0), (13.0, 17.0, 15.0))
SPHENOID_SINUS: Final = ((7.0, -26.0, -6.0), (8.0, 11.0, 10.0))
FRONTAL_SINUS: Final = ((8.0, -83.5, 20.0), (10.0, 2.8, 10.0))
EAR: Final = ((85.0, 22.0, -6.0), (5.0, 13.0, 27.0))


@dataclass(frozen=True, eq=False)
class Head:
    """A head without its brain."""

    hu: Array
    """(slices, rows, columns)."""
    cavity: Array
    """Distance to the inner table in mm, negative inside. (slices, rows, columns)."""


def draw_skull(
    canvas: Canvas, plain: tuple[Array, Array, Array], texture: Array, streaks: Array, waviness: Array
) -> Head:
    """Draw holder, scalp, skull and face.

    ``plain`` are the unwarped x, y, z; ``texture``, ``streaks`` and ``waviness`` are unit noise, fine to coarse.
    """
    outline = head_outline(canvas, plain)
    cavity = brain_cavity(canvas, plain)
    hu = canvas.everywhere(AIR_HU)
    draw_holder(canvas, plain, hu)
    draw_soft_tissue(canvas, outline, streaks, hu)
    draw_base(canvas, texture, outline, hu)
    draw_orbits(canvas, hu)
    draw_vault(canvas, cavity, texture, waviness, hu)
    draw_air_cells(canvas, texture, hu)
    return Head(hu=hu, cavity=cavity)


def egg(plain: tuple[Array, Array, Array], grow_mm: float, lower_mm: float) -> Array:
    """Return distances to a head-shaped solid: broad at the back, its lower half ``lower_mm`` high."""
    x, y, z = (axis - np.float32(middle) for axis, middle in zip(plain, CENTRE, strict=True))
    across, along, up = (radius + grow_mm for radius in INNER_RADII_MM)
    breadth = across * (1 + 0.11 * np.clip(y / along, -1, 1) - 0.05 * np.clip(y / along, 0, 1) ** 2)
    height = np.where(z > 0, up, lower_mm)
    radius = np.abs(x) ** EXPONENT * breadth**-EXPONENT + np.abs(y / along) ** EXPONENT
    radius = (radius + np.abs(z / height) ** EXPONENT) ** np.float32(1 / EXPONENT)
    from_centre = np.sqrt(x * x + (y * y + z * z))
    result: Array = (from_centre * (1 - 1 / np.maximum(radius, np.float32(1e-3)))).astype(np.float32)
    return result


def head_outline(canvas: Canvas, plain: tuple[Array, Array, Array]) -> Array:
    """Return distances to the skin, negative inside."""
    outline = egg(plain, grow_mm=11.5, lower_mm=135.0)
    for shape in (
        canvas.ellipsoid((0.0, -40.0, -34.0), (62.0, 64.0, 74.0)),
        canvas.tube(((0.0, -92.0, 10.0, 8.0), (0.0, -103.0, -12.0, 7.0), (0.0, -106.0, -34.0, 9.0))),
        canvas.ellipsoid((70.0, -22.0, -2.0), (8.0, 32.0, 36.0)),
    ):
        box, distance = shape
        np.minimum(outline[box], distance, out=outline[box])
    return outline


def brain_cavity(canvas: Canvas, plain: tuple[Array, Array, Array]) -> Array:
    """Return distances to the inner table, negative inside: a vault over three pairs of fossae."""
    x, y, z = plain
    behind_petrous_ridge = y - np.float32(0.52) * np.abs(x)
    floor = np.interp(behind_petrous_ridge, (-72.0, -46.0, -36.0, -9.0, -2.0), (12.0, 12.0, 7.0, 3.0, -50.0))
    orbital_roof = 6 * np.exp(-(((np.abs(x) - 30) / 14) ** 2) - ((y + 60) / 20) ** 2)
    cavity: Array = np.maximum(egg(plain, grow_mm=0.0, lower_mm=58.0), (floor + orbital_roof).astype(np.float32) - z)
    for shape in (
        canvas.ellipsoid((40.0, -22.0, 2.0), (23.0, 30.0, 22.0)),  # middle cranial fossa
        canvas.ellipsoid((0.0, 46.0, -4.0), (52.0, 38.0, 30.0)),  # posterior fossa
        canvas.tube(((0.0, 22.0, -24.0, 13.0), (0.0, 28.0, -60.0, 11.0))),  # foramen magnum
    ):
        box, distance = shape
        np.minimum(cavity[box], distance, out=cavity[box])
    return cavity


def draw_holder(canvas: Canvas, plain: tuple[Array, Array, Array], hu: Array) -> None:
    """Draw a carbon trough with foam round the back of the head."""
    x, y, z = plain
    ring = np.sqrt((x / 101) ** 2 + ((y - 2) / 108) ** 2)
    distance = (np.maximum((ring - 1) * 104, 18 - y) + 0 * z).astype(np.float32)
    blend(hu, canvas.cover(distance), -975.0)
    shell = np.maximum(np.abs(distance + 1.2) - 1.2, 20 - y)
    blend(hu, canvas.cover(shell), 160.0)


def draw_soft_tissue(canvas: Canvas, outline: Array, texture: Array, hu: Array) -> None:
    """Fill the head with fat and muscle under a skin."""
    blend(hu, canvas.cover(outline), SKIN_HU)
    below = np.clip((2 - canvas.z) / 12, 0, 1)
    muscle = np.clip(np.abs(texture) * 8 - 0.6, 0, 1) * below
    blend(hu, canvas.cover(outline + 2.2), FAT_HU + muscle * (MUSCLE_HU - FAT_HU))
    for centre, radii in MUSCLES:
        box, distance = canvas.ellipsoid(centre, radii)
        blend(hu[box], canvas.cover(np.maximum(distance, outline[box] + 2.2)), MUSCLE_HU)
    box, distance = canvas.ellipsoid(*EAR)
    blend(hu[box], canvas.cover(np.maximum(distance, -ear_hollow(canvas, box))), SKIN_HU)


def ear_hollow(canvas: Canvas, box: tuple[slice, slice, slice]) -> Array:
    """Return distances to the hollow of the ear, in the box of the ear."""
    u = (canvas.side[box] - np.float32(EAR[0][0] + 1.5)) / np.float32(EAR[1][0] * 0.7)
    v = (canvas.y[:, box[1]] - np.float32(EAR[0][1] - 2)) / np.float32(EAR[1][1] * 0.8)
    result: Array = (np.sqrt(u * u + v * v) - 1) * np.float32(2.5)
    return result


def draw_base(canvas: Canvas, texture: Array, outline: Array, hu: Array) -> None:
    """Draw the bones below the brain and the air in them."""
    sponge = SPONGE_HU + 160 * texture
    box, distance = canvas.ellipsoid((0.0, -22.0, -6.0), (27.0, 22.0, 15.0))
    blend(hu[box], canvas.cover(distance), sponge[box])
    for stations in BONES:
        box, distance = canvas.tube(stations)
        distance = np.maximum(distance, outline[box] + 3)
        blend(hu[box], canvas.cover(distance), sponge[box] + 350)
    for stations in AIR_SPACES:
        box, distance = canvas.tube(stations)
        blend(hu[box], canvas.cover(distance), AIR_HU)
    for centre, radii in (MAXILLARY_SINUS, SPHENOID_SINUS):
        box, distance = canvas.ellipsoid(centre, radii)
        blend(hu[box], canvas.cover(np.abs(distance) - 1.2), SPONGE_HU)
        blend(hu[box], canvas.cover(distance), AIR_HU)


def draw_air_cells(canvas: Canvas, texture: Array, hu: Array) -> None:
    """Draw the ethmoid labyrinth, the mastoid cells and the frontal sinus: air with thin walls."""
    box, distance = canvas.ellipsoid(*FRONTAL_SINUS)
    blend(hu[box], canvas.cover(distance), AIR_HU)
    box, distance = canvas.ellipsoid((0.0, -66.0, -4.0), (12.5, 24.0, 15.0))
    walls = np.minimum(np.abs(np.sin(canvas.y[:, box[1]] * 0.42 + texture[box] * 0.5)), canvas.side[box] / 4)
    blend(hu[box], canvas.cover(distance), AIR_HU + 1500 * np.exp(-((walls / 0.3) ** 2)))
    box, distance = canvas.ellipsoid((61.0, 28.0, -14.0), (7.5, 11.0, 15.0))
    blend(hu[box], canvas.cover(distance) * np.clip(texture[box] * 2 + 0.5, 0, 1), AIR_HU)


def draw_orbits(canvas: Canvas, hu: Array) -> None:
    """Draw fat, eyeballs with lens, optic nerves and straight muscles."""
    fat: tuple[Station, ...] = ((31.0, -82.0, -2.0, 15.5), (24.0, -58.0, 0.0, 11.0), (16.0, -46.0, 2.0, 5.0))
    strings: tuple[tuple[Station, ...], ...] = (
        ((31.0, -70.0, -2.0, 2.2), (14.0, -42.0, 2.0, 2.0)),
        ((43.0, -82.0, -2.0, 1.6), (36.0, -64.0, -1.0, 2.4), (18.0, -44.0, 2.0, 1.4)),
        ((18.5, -82.0, -2.0, 1.6), (17.0, -62.0, -1.0, 2.2), (14.0, -44.0, 2.0, 1.4)),
    )
    box, distance = canvas.tube(fat)
    wall = np.maximum(np.abs(distance - 0.8) - 1.0, -80 - canvas.y[:, box[1]])
    blend(hu[box], canvas.cover(wall), SPONGE_HU)
    blend(hu[box], canvas.cover(distance), FAT_HU)
    for stations in strings:
        box, distance = canvas.tube(stations)
        blend(hu[box], canvas.cover(distance), 40.0)
    box, distance = canvas.ellipsoid((31.0, -84.0, -2.0), (12.2, 12.2, 12.2))
    blend(hu[box], canvas.cover(distance), 45.0)
    blend(hu[box], canvas.cover(distance + 1.4), 8.0)
    box, distance = canvas.ellipsoid((31.0, -92.0, -2.0), (4.6, 2.2, 4.6))
    blend(hu[box], canvas.cover(distance), 85.0)


def draw_vault(canvas: Canvas, cavity: Array, texture: Array, waviness: Array, hu: Array) -> None:
    """Draw the bone round the brain: outer table, diploe, inner table."""
    thickness = 6.6 + 0.7 * waviness + 2.0 * np.exp(-(((canvas.y - 84) / 14) ** 2))
    squama = np.clip((45 - canvas.z) / 20, 0, 1) * np.clip((canvas.side - 38) / 15, 0, 1)
    thickness = thickness - 2.4 * np.exp(-(((canvas.y + 18) / 22) ** 2)) * squama
    thickness = thickness - 2.5 * np.clip((4 - canvas.z) / 8, 0, 1) * np.clip((20 - canvas.y) / 20, 0, 1)
    thickness = np.maximum(thickness, 1.5)
    bone = canvas.cover(np.maximum(-cavity, cavity - thickness))
    tables = np.minimum(cavity, thickness - cavity)
    dense = np.clip((2.2 - tables) / 0.9, 0, 1)
    blend(hu, bone, DIPLOE_HU + 130 * texture + dense * (TABLE_HU - DIPLOE_HU))
