from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ich_node.errors import ModelError
from ich_node.model.gpu import HounsfieldCodes
from ich_node.windowing import Denoise, Preprocessing, Window, Windowing, pad_to_square
from tests.unit.heads import draw_heads

SETTINGS = Preprocessing(size_px=64)
CODES = HounsfieldCodes.for_preprocessing(SETTINGS)


def there_and_back(hu: NDArray[np.float32], codes: HounsfieldCodes = CODES) -> NDArray[np.float32]:
    square = np.empty((max(hu.shape),) * 2, np.int16)
    codes.write(hu, square)
    return codes.read(torch.from_numpy(square)).numpy()


def test_whole_hounsfield_units_are_exact() -> None:
    every = np.arange(-1024, 1024, dtype=np.float32).reshape(32, 64).repeat(2, axis=0)
    assert np.array_equal(there_and_back(every), every)


@pytest.mark.parametrize("slices", [2, 4, 8])
def test_the_mean_of_two_four_or_eight_slices_is_exact(slices: int) -> None:
    mean = np.mean(np.rint(draw_heads(8))[:slices], axis=0, dtype=np.float32).clip(-1024, 1023)
    assert np.array_equal(there_and_back(mean), mean)


def test_no_pixel_of_another_mean_is_off_by_more_than_a_64th() -> None:
    mean = np.mean(np.rint(draw_heads(8))[:5], axis=0, dtype=np.float32).clip(-1024, 1023)
    assert 0 < np.abs(there_and_back(mean) - mean).max() <= 1 / 64


@pytest.mark.parametrize("smoothing", [None, Denoise()])
def test_what_is_beyond_the_codes_changes_no_image(smoothing: Denoise | None) -> None:
    hu = np.rint(draw_heads(1))[0]
    hu[60:64, 60:90] = 3071  # metal
    hu[:5] = -3000
    windowing = Windowing(SETTINGS.model_copy(update={"denoise": smoothing}))
    images = [windowing(torch.from_numpy(one).unsqueeze(0)) for one in (hu, there_and_back(hu))]
    assert torch.equal(*images)


@pytest.mark.parametrize("shape", [(100, 160), (160, 101), (160, 160)])
def test_a_slice_is_placed_in_its_square_as_windowing_places_it(shape: tuple[int, int]) -> None:
    hu = np.rint(draw_heads(1))[0][: shape[0], : shape[1]].clip(-1024, 1023)
    expected = pad_to_square(torch.from_numpy(hu).unsqueeze(0))[0].numpy()
    assert np.array_equal(there_and_back(hu), expected)


def test_a_pixel_that_is_no_number_is_an_error() -> None:
    hu = draw_heads(1)[0]
    hu[80, 80] = np.nan
    with pytest.raises(ValueError, match="no number"):
        there_and_back(hu)


def test_wider_windows_make_coarser_steps() -> None:
    def windows(high_hu: float) -> Preprocessing:
        bone = Window(center_hu=high_hu / 2, width_hu=high_hu)
        return Preprocessing(windows=(bone, *SETTINGS.windows[1:]))

    assert CODES.steps_per_hu == 32
    assert HounsfieldCodes.for_preprocessing(windows(3000)).steps_per_hu == 8
    assert HounsfieldCodes.for_preprocessing(windows(30000)).steps_per_hu == 1
    with pytest.raises(ModelError, match="40000 HU"):
        HounsfieldCodes.for_preprocessing(windows(40000))
