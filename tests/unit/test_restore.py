"""Grey brain windows back to Hounsfield units: what the ends stand for, and that they are drawn anew."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ich_node.training.hu_code import HU_OF_CODE, decode_hu
from ich_node.training.prepare.regions import find_regions
from ich_node.training.region_code import AIR, CODES, DENSE, INSIDE, SCALP, SKULL, WINDOWED
from ich_node.training.restore import draw_restoration, hu_of_codes, restore_hu, usual_restoration
from tests.training_sources import gray_window, head_hu

IMAGES = arrays(np.uint8, (2, 5, 5))
REGIONS = arrays(
    np.uint8, (2, 5, 5), elements=st.sampled_from([WINDOWED, AIR, INSIDE, SCALP, DENSE, *range(SKULL, CODES)])
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def restored(gray: np.ndarray, restoration: object = None) -> np.ndarray:
    """Restore one slice with the usual values, or others."""
    regions = torch.from_numpy(find_regions(gray)).unsqueeze(0)
    return restore_hu(torch.from_numpy(gray).unsqueeze(0), regions, restoration or usual_restoration(1))[0].numpy()


# ------------------------------------------------------------------------------------------- properties


@settings(max_examples=60, deadline=None)
@given(IMAGES, REGIONS, st.integers(0, 1000))
def test_every_region_lies_in_its_range(images: np.ndarray, regions: np.ndarray, seed: int) -> None:
    drawn = draw_restoration(2, generator(seed))
    level = drawn.level_hu.numpy()[:, None, None]

    hu = restore_hu(torch.from_numpy(images), torch.from_numpy(regions), drawn).numpy()

    assert np.isfinite(hu).all()
    assert ((level >= 30) & (level <= 40)).all()
    assert (np.abs(hu - (level - 40 + images * (80 / 255)))[regions == WINDOWED] < 1e-3).all()
    assert (hu[regions == AIR] == -1000).all()
    assert (np.abs(hu[regions == INSIDE] + 5) <= 5).all()
    assert (np.abs(hu[regions == SCALP] + 80) <= 20).all()
    above = (hu - level)[regions == DENSE]
    assert ((above >= 40 - 1e-3) & (above <= 55 + 1e-3)).all()
    bone = hu[regions >= SKULL]
    assert ((bone >= 300) & (bone <= 1500)).all()


@settings(max_examples=30, deadline=None)
@given(IMAGES, REGIONS, st.integers(0, 1000))
def test_a_batch_is_restored_as_its_slices_are_one_by_one(images: np.ndarray, regions: np.ndarray, seed: int) -> None:
    drawn = draw_restoration(2, generator(seed))
    pixels, codes = torch.from_numpy(images), torch.from_numpy(regions)

    together = restore_hu(pixels, codes, drawn)

    for index in range(2):
        fields = {name: getattr(drawn, name)[index : index + 1] for name in drawn.__slots__}
        alone = restore_hu(pixels[index : index + 1], codes[index : index + 1], type(drawn)(**fields))
        assert torch.equal(alone[0], together[index])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_bone_rises_with_depth(seed: int) -> None:
    codes = torch.arange(SKULL, CODES, dtype=torch.uint8).view(1, 8, 8)

    hu = restore_hu(torch.zeros_like(codes), codes, draw_restoration(1, generator(seed))).flatten()

    assert (hu.diff() >= 0).all()
    assert 300 <= hu[0] <= 400
    assert 1000 <= hu[-1] <= 1500


def test_values_are_drawn_anew_and_the_usual_ones_are_always_the_same() -> None:
    one, other = draw_restoration(4, source := generator()), draw_restoration(4, source)

    assert len({float(level) for level in (*one.level_hu, *other.level_hu)}) == 8
    assert torch.equal(draw_restoration(4, generator()).level_hu, one.level_hu)
    assert usual_restoration(2).level_hu.tolist() == [35, 35]
    assert usual_restoration(1).inside_hu.tolist() == [-5]
    assert usual_restoration(1).scalp_hu.tolist() == [-80]


def test_codes_become_hounsfield_units_by_the_table() -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)

    assert np.array_equal(hu_of_codes(codes, torch.from_numpy(HU_OF_CODE)).numpy(), decode_hu(codes.numpy()))


def test_restoring_needs_torch_alone() -> None:
    others = ("pydicom", "scipy", "PIL", "sklearn", "imagehash", "openvino", "highdicom")
    program = f"import sys; import ich_node.training.restore; print([one for one in {others} if one in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert done.stdout.strip() == "[]"


# -------------------------------------------------------------------------------------------- a whole head


@pytest.mark.parametrize("level_hu", [30, 35, 40])
def test_a_head_in_its_own_brain_window_is_near_its_true_values(level_hu: float) -> None:
    hu = head_hu(1, rows=256)
    known = usual_restoration(1)
    known.level_hu.fill_(level_hu)

    again = restored(gray_window(hu, level_hu), known)

    brain = (hu > level_hu - 38) & (hu < level_hu + 38)
    assert np.abs(again - hu)[brain].max() < 0.5
    assert np.median(again[hu > 400]) > 300
    assert (again[hu < -900] == -1000).mean() > 0.98
    fat = (hu < -60) & (hu > -120)
    assert np.median(again[fat]) == -80


def test_another_level_shifts_the_brain_and_no_more() -> None:
    gray = gray_window(head_hu(1), 35)
    levels = [usual_restoration(1), usual_restoration(1)]
    levels[1].level_hu.fill_(40)

    low, high = (restored(gray, one) for one in levels)

    regions = find_regions(gray)
    assert (high - low)[regions == WINDOWED] == pytest.approx(5, abs=1e-3)
    assert np.array_equal(low[regions >= SKULL], high[regions >= SKULL])


# ------------------------------------------------------------------------------------------------ regions


def ring(side: int = 96, gap: int = 0) -> np.ndarray:
    """Draw a head: skin, fat, skull, and brain with a black ventricle; the skull may have a gap in front."""
    rows, columns = np.mgrid[:side, :side] - side // 2
    radius = np.hypot(rows, columns)
    gray = np.zeros((side, side), np.uint8)
    gray[radius < 42] = 120
    gray[radius < 40] = 0
    gray[radius < 35] = 255
    gray[radius < 29] = 110
    gray[(np.abs(columns) <= gap // 2) & (rows < 0) & (radius >= 29) & (radius < 35)] = 110 if gap else 255
    gray[radius < 5] = 1
    return gray


def test_black_is_air_fluid_or_fat_by_where_it_lies() -> None:
    regions = find_regions(ring())

    assert regions[0, 0] == AIR
    assert regions[48, 48] == INSIDE
    assert regions[48, 48 + 37] == SCALP
    assert regions[48, 48 + 20] == WINDOWED


@pytest.mark.parametrize("gap", [3, 11])
def test_an_open_skull_still_has_an_inside(gap: int) -> None:
    regions = find_regions(ring(gap=gap))

    assert regions[48, 48] == INSIDE


def test_white_is_bone_in_the_skull_and_dense_elsewhere() -> None:
    gray = ring()
    gray[60:66, 40:46] = 255

    regions = find_regions(gray)

    assert (regions[60:66, 40:46] == DENSE).all()
    skull = regions[48, 48 + 29 : 48 + 35].astype(int) - SKULL
    assert skull.min() == 0
    assert skull.max() == 2
    assert skull[0] == skull[-1] == 0


def test_what_lossy_compression_makes_of_black_and_white_is_black_and_white() -> None:
    gray = ring()
    noisy = np.clip(gray.astype(int) + np.random.default_rng(0).integers(-3, 4, gray.shape), 0, 255).astype(np.uint8)

    ends = (gray <= 1) | (gray == 255)
    assert (find_regions(np.where(ends & (gray > 100) | (gray == 0), noisy, gray)) == find_regions(gray))[ends].all()


def test_an_empty_image_is_air_and_a_white_one_bone() -> None:
    assert (find_regions(np.zeros((64, 64), np.uint8)) == AIR).all()
    assert (find_regions(np.full((64, 64), 255, np.uint8)) >= SKULL).all()
    assert (find_regions(np.full((64, 64), 99, np.uint8)) == WINDOWED).all()
