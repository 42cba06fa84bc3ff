"""A key slice as people see it: in the brain window, of the right proportions, with or without its heat."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ich_node.records import KeySlicePicture, Presence, TriageFinding
from ich_node.report.drawing import resized

CENTER_HU: Final = 40.0
WIDTH_HU: Final = 80.0

_STOPS: Final = (0.0, 0.35, 0.7, 1.0)
_COLOURS: Final = ((130, 0, 60), (215, 50, 20), (255, 150, 0), (255, 240, 130))
"""From dark red to light yellow: brightness rises all the way, so it can be read without seeing colours."""
_AIR_HU: Final = -300.0
_FAINTEST: Final = 0.3
"""Of the highest share: below it nothing is drawn."""
_DENSEST: Final = 0.6
_DENSEST_FROM: Final = 0.75

Rgb = NDArray[np.uint8]


def plain_slice(picture: KeySlicePicture, longest_px: int) -> Rgb:
    """Draw a slice in the brain window: (rows, columns, 3), its longer side of this many pixels."""
    rows, columns = _size(picture, longest_px)
    grey = _brain_window(resized(_windowed(picture.hu), rows, columns))
    return np.repeat(grey[..., np.newaxis], 3, axis=2)


def heated_slice(picture: KeySlicePicture, longest_px: int, highest: float) -> Rgb:
    """Draw a slice and over it what speaks for hemorrhage; what speaks against it is left out.

    Args:
        highest: The share that gets the last colour.
    """
    plain = plain_slice(picture, longest_px)
    if picture.shares is None or highest <= 0:
        return plain
    shares = resized(positive_shares(picture), *plain.shape[:2])
    return heated(plain, np.clip(shares / highest, 0, 1))


def heated(plain: Rgb, strength: NDArray[np.float32]) -> Rgb:
    """Lay heat over a picture (rows, columns, 3); ``strength`` (rows, columns) is from 0 to 1."""
    colour = np.stack(
        [np.interp(strength, _STOPS, [stop[channel] for stop in _COLOURS]) for channel in range(3)], axis=-1
    )
    density = _DENSEST * np.clip((strength - _FAINTEST) / (_DENSEST_FROM - _FAINTEST), 0, 1)[..., np.newaxis]
    mixed: Rgb = np.rint((1 - density) * plain + density * colour).astype(np.uint8)
    return mixed


def speaks_clearly(probabilities: Mapping[str, float], finding: TriageFinding) -> bool:
    """Tell a slice that by itself reaches the upper threshold of ``any`` or of a subtype that is present."""
    names = ["any", *(name for name, presence in finding.presence.items() if presence is Presence.PRESENT)]
    return any(
        probabilities.get(name, 0.0) >= finding.thresholds[name].high for name in names if name in finding.thresholds
    )


def positive_shares(picture: KeySlicePicture) -> NDArray[np.float32]:
    """Give what speaks for hemorrhage, 0 elsewhere: (rows, columns) in logits.

    A place of the map is large, and reaches into the air round the head, where nothing can bleed.
    """
    if picture.shares is None:
        return np.zeros_like(picture.hu)
    positive = np.maximum(np.nan_to_num(picture.shares, nan=0.0), 0)
    return np.where(picture.hu > _AIR_HU, positive, 0).astype(np.float32)


def _windowed(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut off what the window does not show, before resizing mixes bone and brain; not finite is air."""
    low, high = CENTER_HU - WIDTH_HU / 2, CENTER_HU + WIDTH_HU / 2
    cut: NDArray[np.float32] = np.clip(np.nan_to_num(hu, nan=low, posinf=high, neginf=low), low, high)
    return cut.astype(np.float32)


def _brain_window(hu: NDArray[np.float32]) -> NDArray[np.uint8]:
    share = (hu - CENTER_HU) / WIDTH_HU + 0.5
    grey: NDArray[np.uint8] = np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)
    return grey


def _size(picture: KeySlicePicture, longest_px: int) -> tuple[int, int]:
    """Choose rows and columns so that a millimetre is as long down as across."""
    between_rows, between_columns = picture.pixel_spacing_mm
    if not (between_rows > 0 and between_columns > 0):
        between_rows = between_columns = 1.0
    high, wide = picture.hu.shape[0] * between_rows, picture.hu.shape[1] * between_columns
    scale = longest_px / max(high, wide)
    return max(1, round(high * scale)), max(1, round(wide * scale))
