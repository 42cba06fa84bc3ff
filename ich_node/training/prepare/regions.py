"""Tell what the ends of a grey brain window stand for: 0 is air, fluid or fat, 255 is bone or blood.

WebP is lossy: what was 0 comes as 0 to 3, what was 255 as 252 to 255.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ich_node.training.region_code import AIR, DEEPEST, DENSE, INSIDE, SCALP, SKULL, WINDOWED

Mask = NDArray[np.bool_]

DARKEST: Final = 3
BRIGHTEST: Final = 252
_LEAK_PX: Final = 2
"""Air does not pass gaps of the skin that are narrower than twice this (and a pixel)."""
_AROUND: Final = np.ones((3, 3), np.bool_)
"""Pieces of bone that are at most two pixels apart are one."""
_COARSE: Final = 4
"""The cavity is sought on a grid so many times coarser."""
_GAP_CELLS: Final = 7
"""A skull is closed over gaps of twice so many cells: sinuses, orbits, the foramen magnum."""
_RIM_CELLS: Final = 2
"""What lies no deeper in the closed skull than so many cells, and only there, is outside of it."""
_BONE_SHARE: Final = 0.02
"""A further piece of bone has at least this share of the largest piece."""
_RIM_PX: Final = 5
"""And reaches the rim of the cavity, where the skull has a gap, to so many pixels; blood behind bone does not."""


def find_regions(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give each pixel of a grey image (side, side) its code of ``region_code``; same shape."""
    dark, bright = gray <= DARKEST, gray >= BRIGHTEST
    regions = np.full(gray.shape, WINDOWED, np.uint8)
    skull, inside = find_skull(bright)
    air = joined_to_border(dark)
    regions[dark] = SCALP
    regions[dark & inside] = INSIDE
    regions[air] = AIR
    regions[bright] = DENSE
    depth = depth_px(skull)
    regions[skull] = SKULL + np.minimum(depth[skull], DEEPEST)
    return regions


def depth_px(mask: Mask) -> NDArray[np.uint8]:
    """Give whole pixels from the edge of a mask (rows, columns) inwards, from 0; 0 outside too."""
    distance = ndimage.distance_transform_edt(mask)
    depth: NDArray[np.uint8] = np.clip(np.rint(distance) - 1, 0, 255).astype(np.uint8)
    return depth


def joined_to_border(dark: Mask) -> Mask:
    """Give the part of a mask that reaches the border of the image, not through narrow gaps."""
    core = ndimage.binary_erosion(dark, iterations=_LEAK_PX, border_value=1)
    labels, _ = ndimage.label(core)
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    outer = np.isin(labels, rim[rim > 0])
    air: Mask = ndimage.binary_dilation(outer, iterations=_LEAK_PX + 1) & dark
    return air


def find_skull(bright: Mask) -> tuple[Mask, Mask]:
    """Give the pixels of the skull, and what it encloses (the cavity with all that is in it)."""
    pieces, count = ndimage.label(ndimage.binary_dilation(bright, _AROUND))
    if not count:
        return bright, bright
    labels = pieces * bright
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    largest = labels == sizes.argmax()
    inside = cavity_of(largest)
    rim = ndimage.binary_dilation(~inside & ~largest, iterations=_RIM_PX)
    reaches_rim = np.bincount(labels.ravel(), weights=rim.ravel(), minlength=count + 1) > 0
    bone = (sizes >= _BONE_SHARE * sizes.max()) & reaches_rim
    bone[sizes.argmax()] = True
    bone[0] = False
    skull: Mask = bone[labels]
    return skull, inside & ~skull


def cavity_of(skull: Mask) -> Mask:
    """Give what lies within a skull (rows, columns) that may have gaps."""
    holes = ndimage.binary_fill_holes(skull) & ~skull
    rows, columns = (size - size % _COARSE for size in skull.shape)
    cells = skull[:rows, :columns].reshape(rows // _COARSE, _COARSE, -1, _COARSE)
    closed = _close(np.any(cells, axis=(1, 3)))
    whole, core = np.zeros_like(skull), np.zeros_like(skull)
    whole[:rows, :columns] = _finer(closed)
    core[:rows, :columns] = _finer(ndimage.binary_erosion(closed, _AROUND, _RIM_CELLS))
    labels, _ = ndimage.label((whole | holes) & ~skull)
    within = np.unique(labels[core | holes])
    cavity: Mask = np.isin(labels, within[within > 0])
    return cavity


def _close(cells: Mask) -> Mask:
    """Close gaps of a coarse skull and fill it."""
    wide = np.pad(cells, _GAP_CELLS)
    reach = ndimage.distance_transform_edt(~wide) <= _GAP_CELLS
    closed: Mask = ndimage.distance_transform_edt(ndimage.binary_fill_holes(reach)) > _GAP_CELLS
    return closed[_GAP_CELLS:-_GAP_CELLS, _GAP_CELLS:-_GAP_CELLS]


def _finer(cells: Mask) -> Mask:
    return cells.repeat(_COARSE, axis=0).repeat(_COARSE, axis=1)
