"""Stored slices → what the network sees: changed at each reading in training, as the node does it in validation."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ich_node.training.fit import augment
from ich_node.training.fit.augment import Draws
from ich_node.training.fit.settings import Augmentation
from ich_node.training.fit.store import SliceStore, StoredSlices, neighbours_of
from ich_node.training.hu_code import HU_OF_CODE
from ich_node.training.restore import Restoration, draw_restoration, hu_of_codes, restore_hu, usual_restoration
from ich_node.windowing import Preprocessing, Windowing, apply_windows, denoise, find_head_box, resample


class ImageMaker:
    """Makes images of slices on the store's device.

    Args:
        store: Of the slices.
        preprocessing: But for the size.
        neighbours: Show the slice before and the one after too: 9 channels, before, itself, after.
    """

    def __init__(self, store: SliceStore, preprocessing: Preprocessing, neighbours: int) -> None:
        self._store = store
        self._device = store.device
        self._preprocessing = preprocessing
        self._windowing = Windowing(preprocessing).to(self._device)
        self._around = neighbours_of(store.rows) if neighbours else np.arange(len(store.rows))[:, None]
        self._boxes = torch.zeros(len(store.rows), 3, device=self._device)
        self._boxed = np.zeros(len(store.rows), np.bool_)

    def numbers(self, slices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of all slices that an image of each of these needs, flat."""
        return self._around[np.asarray(slices, np.int64)].reshape(-1)

    @torch.no_grad()
    def training_images(
        self,
        slices: NDArray[np.int64],
        stored: list[StoredSlices],
        draws: Draws,
        restoration: Restoration,
        size_px: int,
    ) -> Tensor:
        """Change slices as drawn: (slices, channels, size, size).

        Args:
            slices: Numbers, (slices,).
            stored: Of ``numbers(slices)``.
            draws: One for each slice; its neighbours are changed alike, but for their noise.
        """
        around = self._around.shape[1]
        each = torch.arange(len(slices)).repeat_interleave(around)
        wide = _with_noise_of_its_own(augment.select(draws, each), around)
        restoration = augment.select(restoration, each)
        boxes = self._find_boxes(self.numbers(slices), stored)
        boxes = boxes.view(len(slices), around, 3)[:, around // 2].repeat_interleave(around, dim=0)
        images: Tensor | None = None
        for one in stored:
            part = self._change(
                one,
                augment.select(wide, one.places),
                augment.select(restoration, one.places),
                boxes[one.places],
                size_px,
            )
            images = part.new_empty(len(boxes), *part.shape[1:]) if images is None else images
            images[one.places] = part
        assert images is not None, "a batch has slices"
        images = augment.erase(images, wide.erase.to(self._device))
        images = (images - self._windowing.mean) / self._windowing.std
        return _join(images, around, draws.reverse.to(self._device))

    @torch.no_grad()
    def images(self, slices: NDArray[np.int64], size_px: int) -> Tensor:
        """The images of slices as the node makes them: (slices, channels, size, size)."""
        numbers = self.numbers(slices)
        if self._windowing.preprocessing.size_px != size_px:
            self._windowing = Windowing(self._preprocessing.model_copy(update={"size_px": size_px})).to(self._device)
        images = torch.empty(len(numbers), 3, size_px, size_px, device=self._device)
        for one in self._store.fetch(numbers):
            images[one.places] = self._windowing(hounsfield(one, usual_restoration(len(one.places))))
        return _join(images, self._around.shape[1], None)

    def _change(
        self, stored: StoredSlices, draws: Draws, restoration: Restoration, boxes: Tensor, size_px: int
    ) -> Tensor:
        windowing, limits_hu = self._windowing, self._preprocessing.limits_hu
        draws = augment.to_device(draws, self._device)
        hu = hounsfield(stored, restoration)
        hu = augment.add_noise(augment.blur(hu, draws.blur_px, limits_hu), draws)
        if self._preprocessing.denoise is not None:
            hu = denoise(hu, self._preprocessing.denoise, limits_hu)
        width = draws.width.view(-1, 1, 1, 1) * windowing.width_hu
        low = windowing.low_hu + (windowing.width_hu - width) / 2 - draws.level_hu.view(-1, 1, 1, 1)
        channels = apply_windows(hu, low, width)
        for number in (1, 2):
            alike = draws.brain_only[:, number - 1]
            channels[alike, number] = channels[alike, 0]
        return resample(channels, boxes, size_px, augment.motion(draws))

    def _find_boxes(self, numbers: NDArray[np.int64], stored: list[StoredSlices]) -> Tensor:
        """Head boxes (slices, 3), found once: what is drawn at a reading moves nothing across the head's threshold."""
        for one in stored:
            of_these = numbers[one.places.numpy()]
            missing = torch.from_numpy(np.flatnonzero(~self._boxed[of_these]))
            if len(missing):
                regions = None if one.regions is None else one.regions[missing]
                some = StoredSlices(one.places[missing], one.pixels[missing], regions)
                hu = hounsfield(some, usual_restoration(len(missing)))
                found = of_these[missing.numpy()]
                self._boxes[torch.from_numpy(found)] = find_head_box(hu, self._preprocessing)
                self._boxed[found] = True
        return self._boxes[torch.from_numpy(numbers)]


def hounsfield(stored: StoredSlices, restoration: Restoration) -> Tensor:
    """Slices in HU: (slices, side, side) float32, where the pixels are."""
    if stored.regions is None:
        return hu_of_codes(stored.pixels, torch.from_numpy(HU_OF_CODE))
    return restore_hu(stored.pixels, stored.regions, restoration)


def draw_batch(count: int, augmentation: Augmentation, generator: torch.Generator) -> tuple[Draws, Restoration]:
    """Draw everything random of a batch, on the processor."""
    return augment.draw(count, augmentation, generator), draw_restoration(count, generator)


def _with_noise_of_its_own(draws: Draws, around: int) -> Draws:
    """Give neighbours, which share all else, another noise."""
    return replace(draws, noise_seed=draws.noise_seed + torch.arange(len(draws.noise_seed)) % around)


def _join(images: Tensor, around: int, reverse: Tensor | None) -> Tensor:
    """Put the channels of a slice and its neighbours beside each other; reversed where asked for."""
    if around == 1:
        return images
    series = images.view(-1, around, *images.shape[1:])
    if reverse is not None:
        series = torch.where(reverse.view(-1, 1, 1, 1, 1), series.flip(1), series)
    return series.flatten(1, 2)
