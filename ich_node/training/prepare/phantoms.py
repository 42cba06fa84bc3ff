"""Synthetic heads as a source: for tests that always run, and to train before real data are at hand.

Each head has at most one hemorrhage, so that the truth of every slice is exact; every second head has none.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ich_node.errors import TrainingError
from ich_node.phantom import LESIONS, PhantomSettings, draw_volume, lesion_mask
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.hu_code import encode_hu
from ich_node.training.prepare.entries import Entry
from ich_node.training.prepare.lot import Item, Labels, Lot, ReadSlice, Source
from ich_node.training.prepare.picture import brain_window, perceptual_hash
from ich_node.training.prepare.square import spacing_after, to_square_hu
from ich_node.training.prepared import Pixels

SOURCE: Final = "phantom"
SLICES_PER_HEAD: Final = 24
DEFAULT_SIDE_PX: Final = 256
_SMALLEST_LESION_MM2: Final = 10.0
"""Less of it in a slice is not labelled."""
_LARGEST_SEED: Final = 2**31


@dataclass(frozen=True, slots=True)
class PhantomReader:
    """Draw heads; equal settings give equal slices."""

    count: int
    """Slices in all; the last head is cut short."""
    seed: int
    side_px: int

    def read(self, item: Item) -> tuple[ReadSlice, ...]:
        """Draw the slices of one head."""
        number = int(item.at.name)
        settings = settings_of_head(self.seed, number, self.side_px)
        volume, mask = draw_volume(settings), lesion_mask(settings)
        area_mm2 = mask.sum(axis=(1, 2)) * settings.pixel_spacing_mm**2
        wanted = min(settings.slices, self.count - number * SLICES_PER_HEAD)
        return tuple(
            _slice(
                item.image_id,
                settings,
                index,
                encode_hu(to_square_hu(volume[index], self.side_px)),
                float(area_mm2[index]),
            )
            for index in range(wanted)
        )

    def settings(self) -> str:
        return f"phantom {self.count} {self.seed} {self.side_px}"


def find_phantoms(count: int, seed: int = 0, side_px: int = DEFAULT_SIDE_PX) -> Source:
    """Make a source of ``count`` synthetic slices.

    Raises:
        TrainingError: count or side is out of range.
    """
    if count < 1 or not 32 <= side_px <= 512 or seed < 0:
        raise TrainingError("phantoms: give a count of at least 1, a side of 32 to 512 px, and a seed of at least 0")
    heads = -(-count // SLICES_PER_HEAD)
    items = [Item(f"phantom-{seed}-{number}", Entry(str(number)), _labels(None)) for number in range(heads)]
    reader = PhantomReader(count, seed, side_px)
    lot = Lot(SOURCE, "phantom", Pixels.HU, side_px, reader, items, min(SLICES_PER_HEAD, count))
    return Source((lot,), (), (f"{count} synthetic slices of {heads} heads",))


def settings_of_head(seed: int, number: int, side_px: int) -> PhantomSettings:
    """Draw what varies from head to head."""
    rng = np.random.default_rng([seed, number])
    lesion = str(rng.choice(LESIONS)) if number % 2 else None
    return PhantomSettings(
        lesion=lesion,
        slices=SLICES_PER_HEAD,
        rows=int(rng.choice((side_px, max(32, side_px * 3 // 4)))),
        seed=int(rng.integers(_LARGEST_SEED)),
        slice_spacing_mm=float(rng.choice((4.0, 5.0, 6.0))),
        gantry_tilt_degrees=float(np.round(rng.uniform(-20, 20), 1)),
        noise_hu=float(np.round(rng.uniform(2, 8), 1)),
    )


def _slice(head: str, settings: PhantomSettings, index: int, pixels: NDArray[np.uint8], area: float) -> ReadSlice:
    shape = (settings.rows, settings.rows)
    return ReadSlice(
        image_id=f"{head}-{index:02d}",
        labels=_labels(settings.lesions[0] if area >= _SMALLEST_LESION_MM2 else None),
        pixels=pixels,
        perceptual_hash=perceptual_hash(brain_window(pixels)),
        patient_id=head,
        study=head,
        position_mm=index * settings.slice_spacing_mm,
        spacing_mm=spacing_after(settings.pixel_spacing_mm, shape, len(pixels)),
        lesion_mm2=round(area, 2),
    )


def _labels(lesion: str | None) -> Labels:
    return tuple(int(lesion is not None and name in (HEMORRHAGE_CLASSES[0], lesion)) for name in HEMORRHAGE_CLASSES)
