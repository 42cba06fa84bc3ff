"""The perceptual hash of a slice: near-duplicates of one picture differ in few of its 64 bits.

The head is cut out of a brain window, so neither the field of view nor the matrix matters, and only what is between
bone and air is kept, with its contrast raised about its median: every head is a bright ring, so a hash of the whole
picture would hardly tell heads apart.
"""

from typing import Final

import numpy as np
from imagehash import phash
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ich_node.training.hu_code import HU_OF_CODE

_BODY: Final = 40
"""Grey value of the brain window above which a pixel shows the body."""
_BONE: Final = 245
_BONE_EDGE_PX: Final = 5
"""What is so near to bone (a square of this side) goes with it: how it mixes depends on the matrix."""
_LEAST_SOFT: Final = 0.06
"""Of the head; where less is neither bone nor air, there is nothing to be recognised."""
_SIDE_PX: Final = 128
_CONTRAST: Final = 3.0
_BONE_GRAY: Final = 128
_DARK_GRAY: Final = 60
_GRAY_OF_CODE: Final = (np.clip(HU_OF_CODE, 0, 80) * (255 / 80)).astype(np.uint8)


def brain_window(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Show codes of Hounsfield units in the window 40/80 as grey values; same shape."""
    gray: NDArray[np.uint8] = _GRAY_OF_CODE[codes]
    return gray


def perceptual_hash(gray: NDArray[np.uint8]) -> int | None:
    """Hash a brain window (rows, columns) into 64 bits; None where it shows no head, or nothing but bone."""
    head = _head_of(gray)
    bone = np.asarray(Image.fromarray(head).filter(ImageFilter.MaxFilter(_BONE_EDGE_PX))) >= _BONE
    soft = (head > _BODY) & ~bone
    if soft.mean() < _LEAST_SOFT:
        return None
    bits = np.packbits(phash(Image.fromarray(_normalised(head, soft, bone))).hash.ravel())
    return int.from_bytes(bits.tobytes(), "big")


def _head_of(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut the head out and bring it to (128, 128); black where there is none."""
    body = gray > _BODY
    if not body.any():
        return np.zeros((_SIDE_PX, _SIDE_PX), np.uint8)
    (top, bottom), (left, right) = (_extent(body.sum(axis=axis)) for axis in (1, 0))
    size = (_SIDE_PX, _SIDE_PX)
    return np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BILINEAR, (left, top, right, bottom)))


def _extent(counts: NDArray[np.integer]) -> tuple[float, float]:
    """Where an ellipse of the same spread begins and ends, given its pixels along one axis, cut at the borders.

    Thin things beside the head, such as its holder, or skin that is sometimes dark, hardly move it.
    """
    at = np.arange(len(counts)) + 0.5
    middle = np.average(at, weights=counts)
    radius = max(2 * float(np.sqrt(np.average((at - middle) ** 2, weights=counts))), 1.0)
    return max(0.0, middle - radius), min(float(len(counts)), middle + radius)


def _normalised(head: NDArray[np.uint8], soft: NDArray[np.bool_], bone: NDArray[np.bool_]) -> NDArray[np.uint8]:
    raised = (head.astype(np.float32) - np.median(head[soft])) * _CONTRAST + 128
    filled = np.where(soft, np.clip(raised, 0, 255), np.where(bone, _BONE_GRAY, _DARK_GRAY))
    result: NDArray[np.uint8] = filled.astype(np.uint8)
    return result
