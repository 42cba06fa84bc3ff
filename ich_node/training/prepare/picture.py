"""The perceptual hash of a slice: near-duplicates of one picture differ in few of its 64 bits.

The head is cut out of a brain window, so neither the field of view nor the matrix matters, and only what is between
bone and air is kept, with its contrast raised about its median: every head is a bright ring, so a hash of the whole
picture would hardly tell heads apart.
"""

from typing import Final

import numpy as np
from imagehash import phash
from numpy.typing import NDArray
from PIL import Image

_BODY: Final = 40
"""Grey value of the brain window above which a pixel shows the body."""
_BONE: Final = 245
_SHARE: Final = 0.02
"""A row or column of the picture belongs to the head where so much of it shows the body."""
_LEAST_SOFT: Final = 0.06
"""Of the head; where less is neither bone nor air, there is nothing to be recognised."""
_SIDE_PX: Final = 128
_CONTRAST: Final = 3.0
_BONE_GRAY: Final = 128
_DARK_GRAY: Final = 60


def brain_window(hu: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Show Hounsfield units in the window 40/80 as grey values; same shape."""
    gray: NDArray[np.uint8] = (np.clip(hu, 0, 80) * np.float32(255 / 80)).astype(np.uint8)
    return gray


def perceptual_hash(gray: NDArray[np.uint8]) -> int | None:
    """Hash a brain window (rows, columns) into 64 bits; None where it shows no head, or nothing but bone."""
    head = _head_of(gray)
    soft = (head > _BODY) & (head < _BONE)
    if soft.mean() < _LEAST_SOFT:
        return None
    bits = np.packbits(phash(Image.fromarray(_normalised(head, soft))).hash.ravel())
    return int.from_bytes(bits.tobytes(), "big")


def _head_of(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut the head out and bring it to (128, 128); black where there is none."""
    body = gray > _BODY
    rows, columns = (np.flatnonzero(body.mean(axis=axis) > _SHARE) for axis in (1, 0))
    if not rows.size or not columns.size:
        return np.zeros((_SIDE_PX, _SIDE_PX), np.uint8)
    head = Image.fromarray(gray[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return np.asarray(head.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX))


def _normalised(head: NDArray[np.uint8], soft: NDArray[np.bool_]) -> NDArray[np.uint8]:
    raised = (head.astype(np.float32) - np.median(head[soft])) * _CONTRAST + 128
    filled = np.where(soft, np.clip(raised, 0, 255), np.where(head >= _BONE, _BONE_GRAY, _DARK_GRAY))
    result: NDArray[np.uint8] = filled.astype(np.uint8)
    return result
