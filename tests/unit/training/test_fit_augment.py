"""How slices are changed at each reading."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ich_node.training.fit import augment
from ich_node.training.fit.images import ImageMaker, draw_batch
from ich_node.training.fit.sampling import seed_step
from ich_node.training.fit.settings import NO_AUGMENTATION, Augmentation
from ich_node.training.fit.store import SliceStore
from ich_node.training.prepared import PreparedSet
from ich_node.windowing import Preprocessing
from tests.unit.training.prepared_sets import make_prepared

CPU = torch.device("cpu")
SLICES = np.array([3, 11, 42, 90])


def _maker(data: PreparedSet, augmentation: Augmentation, neighbours: int = 0) -> tuple[SliceStore, ImageMaker]:
    store = SliceStore([data], CPU, resident_gib=1)
    return store, ImageMaker(store, Preprocessing(size_px=64), neighbours)


def _training_images(data: PreparedSet, augmentation: Augmentation, slices: np.ndarray = SLICES) -> torch.Tensor:
    store, maker = _maker(data, augmentation)
    draws, restoration = draw_batch(len(SLICES), augmentation, seed_step(0, 7))
    count = len(slices)
    return maker.training_images(
        slices,
        store.fetch(maker.numbers(slices)),
        augment.select(draws, slice(count)),
        augment.select(restoration, slice(count)),
        64,
    )


def test_without_augmentation_training_sees_what_the_node_sees(phantoms: PreparedSet) -> None:
    _, maker = _maker(phantoms, NO_AUGMENTATION)
    seen = _training_images(phantoms, NO_AUGMENTATION)
    assert torch.allclose(seen, maker.images(SLICES, 64), atol=1e-5)


def test_a_slice_is_changed_alike_whatever_else_is_in_its_batch(phantoms: PreparedSet) -> None:
    together = _training_images(phantoms, Augmentation())
    alone = _training_images(phantoms, Augmentation(), SLICES[:1])
    assert torch.allclose(together[:1], alone, atol=1e-5)


def test_augmentation_changes_what_is_seen_and_keeps_its_range(phantoms: PreparedSet) -> None:
    seen = _training_images(phantoms, Augmentation())
    assert (seen - _training_images(phantoms, NO_AUGMENTATION)).abs().mean() > 0.02
    assert seen.min() >= -1 - 1e-5
    assert seen.max() <= 1 + 1e-5


def test_the_streamed_set_gives_the_same_images_as_the_resident_one(phantoms: PreparedSet) -> None:
    resident, streamed = SliceStore([phantoms], CPU, 1), SliceStore([phantoms], CPU, 0)
    assert (resident.resident, streamed.resident) == (True, False)
    for one, other in zip(resident.fetch(SLICES), streamed.fetch(SLICES), strict=True):
        assert torch.equal(one.pixels, other.pixels)


def _draws(count: int, **changed: torch.Tensor) -> augment.Draws:
    return replace(augment.draw(count, NO_AUGMENTATION, torch.Generator().manual_seed(1)), **changed)


@pytest.mark.parametrize("correlated", [0.0, 0.5, 1.0])
def test_noise_has_the_standard_deviation_that_was_drawn(correlated: float) -> None:
    draws = _draws(2, noise_hu=torch.tensor([4.0, 12.0]), correlated=torch.full((2,), correlated))
    noise = augment.add_noise(torch.zeros(2, 256, 256), draws)
    assert noise.std(dim=(1, 2)).tolist() == pytest.approx([4.0, 12.0], rel=0.06)


def test_correlated_noise_hangs_together_over_neighbours() -> None:
    def likeness(share: float) -> float:
        draws = _draws(1, noise_hu=torch.tensor([10.0]), correlated=torch.tensor([share]))
        noise = augment.add_noise(torch.zeros(1, 256, 256), draws)[0]
        return float(torch.corrcoef(torch.stack([noise[:, 1:].flatten(), noise[:, :-1].flatten()]))[0, 1])

    assert abs(likeness(0.0)) < 0.02
    assert likeness(1.0) > 0.6


def test_blur_leaves_slices_alone_that_are_to_stay_sharp() -> None:
    hu = torch.randn(2, 64, 64) * 20
    blurred = augment.blur(hu, torch.tensor([0.0, 1.0]), (-150.0, 230.0))
    assert torch.equal(blurred[0], hu[0])
    assert blurred[1].std() < 0.5 * hu[1].std()


def test_a_flip_shows_left_for_right(phantoms: PreparedSet) -> None:
    plain = _training_images(phantoms, NO_AUGMENTATION)
    flipped = _training_images(phantoms, NO_AUGMENTATION.model_copy(update={"flip": 1.0}))
    assert torch.allclose(flipped, plain.flip(3), atol=1e-4)


def test_erasing_blackens_a_rectangle_of_two_to_ten_percent() -> None:
    settings = NO_AUGMENTATION.model_copy(update={"erase": 1.0})
    draws = augment.draw(50, settings, torch.Generator().manual_seed(0))
    erased = augment.erase(torch.ones(50, 3, 100, 100), draws.erase)
    share = 1 - erased.mean(dim=(1, 2, 3))
    assert share.min() > 0.015
    assert share.max() < 0.105


def test_other_windows_show_the_brain_window_where_that_was_drawn(phantoms: PreparedSet) -> None:
    seen = _training_images(phantoms, NO_AUGMENTATION.model_copy(update={"brain_for_other_windows": 1.0}))
    assert torch.equal(seen[:, 0], seen[:, 1])
    assert torch.equal(seen[:, 0], seen[:, 2])


def _marked_head(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A head of slices that each hold one value, which tells their place."""
    values = 10.0 * np.arange(1, 7)
    hu = np.full((6, 64, 64), -1000.0, np.float32)
    hu[:, 8:56, 8:56] = values[:, None, None]
    return hu, np.zeros((6, 6), np.uint8)


@pytest.mark.parametrize("reverse", [False, True])
def test_neighbours_are_the_slices_before_and_after_in_anatomical_order(tmp_path: object, reverse: bool) -> None:
    data = make_prepared(tmp_path / "marked", 2, _marked_head)
    store, maker = _maker(data, NO_AUGMENTATION, neighbours=1)
    slices = np.array([0, 3, 5])
    draws, restoration = draw_batch(3, NO_AUGMENTATION, seed_step(0, 0))
    draws = replace(draws, reverse=torch.full((3,), reverse))
    images = maker.training_images(slices, store.fetch(maker.numbers(slices)), draws, restoration, 64)
    assert images.shape == (3, 9, 64, 64)
    centre_hu = (images[:, ::3, 32, 32] * 0.5 + 0.5) * 80  # brain window of before, itself, after
    expected = torch.tensor([[10.0, 10, 20], [30, 40, 50], [50, 60, 60]])
    assert torch.allclose(centre_hu, expected.flip(1) if reverse else expected, atol=0.5)
    if not reverse:
        assert torch.allclose(images, maker.images(slices, 64), atol=1e-5)
