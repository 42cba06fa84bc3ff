"""The line around the hottest region of a map."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_SHARE_OF_HIGHEST: Final = 0.5
_MOST_POINTS: Final = 120

Point = tuple[float, float]
"""Column and row; the top left corner of the image is (0, 0), the centre of its first pixel (0.5, 0.5)."""


def hottest_region(shares: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Find the connected pixels round the highest share that have at least half of it: (rows, columns)."""
    hot: NDArray[np.bool_] = (shares >= _SHARE_OF_HIGHEST * float(shares.max())) & (shares > 0)
    region: NDArray[np.bool_] = np.zeros_like(hot)
    region[np.unravel_index(shares.argmax(), shares.shape)] = hot.any()
    while True:
        grown = region.copy()
        grown[1:] |= region[:-1]
        grown[:-1] |= region[1:]
        grown[:, 1:] |= region[:, :-1]
        grown[:, :-1] |= region[:, 1:]
        grown &= hot
        if np.array_equal(grown, region):
            return region
        region = grown


def outline(region: NDArray[np.bool_]) -> list[Point]:
    """Walk round a connected region, outside along its pixels' edges; the last point is the first again.

    The middles of the edges are taken, which rounds the steps, and no more than some hundred of them.
    """
    edges = _walk(region)
    middles = [((x + dx / 2), (y + dy / 2)) for (x, y), (dx, dy) in edges]
    kept = middles[:: max(1, -(-len(middles) // _MOST_POINTS))]
    return [*kept, kept[0]] if kept else []


def _walk(region: NDArray[np.bool_]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Give the edges as corner and direction (column, row), with the region always to the right."""
    if not region.any():
        return []
    inside = np.pad(region, 1)
    row = int(region.any(axis=1).argmax())
    start = corner = (int(region[row].argmax()), row)
    direction = (1, 0)  # along the top of the first pixel
    edges: list[tuple[tuple[int, int], tuple[int, int]]] = []
    while not edges or corner != start:
        edges.append((corner, direction))
        corner = corner[0] + direction[0], corner[1] + direction[1]
        direction = _turn(inside, corner, direction)
    return edges


def _turn(inside: NDArray[np.bool_], corner: tuple[int, int], direction: tuple[int, int]) -> tuple[int, int]:
    """Turn right where the region ends ahead, left where it begins on that side, else go on."""
    (x, y), (dx, dy) = corner, direction
    # the pixels ahead, to the left and to the right of the way, in the padded region
    right = inside[y + 1 + (dy + dx - 1) // 2, x + 1 + (dx - dy - 1) // 2]
    left = inside[y + 1 + (dy - dx - 1) // 2, x + 1 + (dx + dy - 1) // 2]
    if not right:
        return -dy, dx
    return (dy, -dx) if left else direction
