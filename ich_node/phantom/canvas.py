"""Paint soft-edged shapes into a volume, given in mm of the patient."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Box = tuple[slice, slice, slice]
Point = tuple[float, float, float]
Station = tuple[float, float, float, float]
"""A point of a tube's axis, and the tube's radius there, in mm."""

MARGIN_MM: Final = 14.0
"""How far outside a shape its distances are wanted: the bone round a cavity, warp, soft edges."""
SOFTEST_EDGE_MM: Final = 1.3


@dataclass(frozen=True, eq=False)
class Canvas:
    """The coordinates of every voxel, warped so that no head is its own mirror image. All in mm."""

    x: Array
    """(slices, rows, columns)."""
    y: Array
    """(1, rows, 1)."""
    z: Array
    """(slices, rows, 1)."""
    side: Array
    """|x|: a shape in it is drawn on both sides. (slices, rows, columns)."""
    pixel_mm: float

    @property
    def shape(self) -> tuple[int, int, int]:
        slices, rows, columns = self.x.shape
        return slices, rows, columns

    def everywhere(self, value: float) -> Array:
        """Return a volume filled with ``value``."""
        return np.full(self.shape, value, dtype=np.float32)

    def box(self, low: Point, high: Point) -> Box:
        """Return the indices of a box, mirrored over the midline, that holds ``low`` to ``high`` and a margin."""
        column_x = self.x[self.x.shape[0] // 2, self.x.shape[1] // 2]
        reach = max(abs(low[0]), abs(high[0]))
        z_ok = (self.z > low[2] - MARGIN_MM) & (self.z < high[2] + MARGIN_MM)
        y_ok = (self.y[0, :, 0] > low[1] - MARGIN_MM) & (self.y[0, :, 0] < high[1] + MARGIN_MM)
        return (
            span(np.any(z_ok[:, :, 0] & y_ok, axis=1)),
            span(y_ok),
            span(np.abs(column_x) < reach + MARGIN_MM),
        )

    def cover(self, distance: Array) -> Array:
        """Return how much of each voxel lies inside, 0 to 1, from its distance to the border (negative inside)."""
        width = max(self.pixel_mm, SOFTEST_EDGE_MM)
        covered: Array = np.clip(np.float32(0.5) - distance / np.float32(width), 0, 1)
        return covered

    def ellipsoid(self, centre: Point, radii: Point) -> tuple[Box, Array]:
        """Return the box of an ellipsoid (on both sides where its centre is off the midline), and distances in it."""
        low = tuple(c - r for c, r in zip(centre, radii, strict=True))
        high = tuple(c + r for c, r in zip(centre, radii, strict=True))
        box = self.box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        u = (self.side[box] - centre[0]) / np.float32(radii[0])
        v = (self.y[:, box[1]] - centre[1]) / np.float32(radii[1])
        w = (self.z[box[0], box[1]] - centre[2]) / np.float32(radii[2])
        distance: Array = (np.sqrt(u * u + v * v + w * w) - 1) * np.float32(min(radii))
        return box, distance

    def tube(self, stations: Sequence[Station]) -> tuple[Box, Array]:
        """Return the box of a bent tube of changing radius (on both sides), and the distances in it."""
        reach = [(tuple(c - s[3] for c in s[:3]), tuple(c + s[3] for c in s[:3])) for s in stations]
        low = [min(edge[0][axis] for edge in reach) for axis in range(3)]
        high = [max(edge[1][axis] for edge in reach) for axis in range(3)]
        box = self.box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        x, y, z = self.side[box], self.y[:, box[1]], self.z[box[0], box[1]]
        distance = np.full(x.shape, 1e3, dtype=np.float32)
        for start, end in pairwise(stations):
            np.minimum(distance, piece_distance(x, y, z, start, end), out=distance)
        return box, distance


def piece_distance(x: Array, y: Array, z: Array, start: Station, end: Station) -> Array:
    """Return distances to a straight piece of a tube."""
    dx, dy, dz, dr = (np.float32(b - a) for a, b in zip(start, end, strict=True))
    px, py, pz = x - np.float32(start[0]), y - np.float32(start[1]), z - np.float32(start[2])
    along = np.clip((px * dx + (py * dy + pz * dz)) / (dx * dx + dy * dy + dz * dz), 0, 1)
    px, py, pz = px - along * dx, py - along * dy, pz - along * dz
    result: Array = np.sqrt(px * px + py * py + pz * pz) - (np.float32(start[3]) + along * dr)
    return result


def span(inside: NDArray[np.bool_]) -> slice:
    """Return the slice from the first to the last True; an empty one where there is none."""
    indices = np.flatnonzero(inside)
    return slice(int(indices[0]), int(indices[-1]) + 1) if indices.size else slice(0, 0)


def blend(volume: Array, cover: Array, value: Array | float) -> None:
    """Replace what ``volume`` holds by ``value`` where covered, in place."""
    volume += cover * (value - volume)


def random_field(rng: np.random.Generator, x: Array, y: Array, z: Array, wavelength_mm: float) -> Array:
    """Return a smooth Gaussian field of unit variance, made of plane waves of nearly one wavelength.

    ``x`` is (1, 1, columns), ``y`` (1, rows, 1), ``z`` (slices, rows, 1); the result (slices, rows, columns).
    """
    waves = 40
    direction = rng.normal(size=(waves, 3))
    direction *= (2 * np.pi / wavelength_mm * rng.uniform(0.8, 1.2, waves) / np.linalg.norm(direction, axis=1))[:, None]
    phase = (y * direction[:, 1] + z * direction[:, 2] + rng.uniform(0, 2 * np.pi, waves)).astype(np.float32)
    along = (x[0, 0, :, None] * direction[:, 0]).astype(np.float32).T
    left = np.concatenate([np.cos(phase), -np.sin(phase)], axis=2)
    right = np.concatenate([np.cos(along), np.sin(along)], axis=0)
    result: Array = np.matmul(left, right) * np.float32(np.sqrt(2 / waves))
    return result
