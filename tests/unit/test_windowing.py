from pathlib import Path

import numpy as np
import pydicom
import pytest
import timm
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ich_node.windowing import (
    Denoise,
    Preprocessing,
    Window,
    Windowing,
    denoise,
    find_head_box,
    measure_noise,
    pad_to_square,
)
from tests.unit.heads import draw_heads

SETTINGS = Preprocessing(size_px=64)


def disc(side: int, row: float, column: float, radius: float) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(side * 1.0), torch.arange(side * 1.0), indexing="ij")
    return torch.hypot(rows - row, columns - column) < radius


def box_px(hu: Tensor, settings: Preprocessing = SETTINGS) -> list[float]:
    return (find_head_box(hu.unsqueeze(0), settings)[0] * hu.shape[-1]).tolist()


def air(side: int = 512) -> Tensor:
    return torch.full((side, side), -1000.0)


def test_the_head_box_is_the_square_around_the_head_with_its_margin() -> None:
    hu = air()
    hu[disc(512, 240, 270, 200)] = 40
    row, column, side = box_px(hu)
    assert (row, column) == pytest.approx((240, 270), abs=4)
    assert side == pytest.approx(400 * 1.1, abs=10)


def test_a_table_below_the_head_is_not_part_of_it() -> None:
    hu = air()
    hu[disc(512, 230, 256, 180)] = 40
    without_table = box_px(hu)
    hu[440:460, 20:490] = 200
    assert box_px(hu) == without_table


def test_a_thin_holder_that_touches_is_not_part_of_the_head() -> None:
    hu = air()
    hu[disc(512, 230, 256, 180)] = 40
    alone = box_px(hu)
    hu[408:413, 10:500] = 200
    touched = box_px(hu)
    assert touched[2] - alone[2] < 0.1 * 512


def test_the_head_wins_over_a_longer_holder() -> None:
    hu = air()
    hu[disc(512, 200, 250, 30)] = 40
    hu[440:446, 5:505] = 200
    row, column, side = box_px(hu)
    assert (row, column) == pytest.approx((200, 250), abs=4)
    assert side == pytest.approx(0.6 * 512)


def test_a_winding_shape_is_one_component() -> None:
    hu = air()
    for top in range(40, 440, 80):
        hu[top : top + 24, 40:460] = 40
    for number, top in enumerate(range(40, 360, 80)):
        left = 436 if number % 2 else 40
        hu[top : top + 104, left : left + 24] = 40
    row, column, side = box_px(hu)
    assert (row, column) == pytest.approx((212, 250), abs=4)
    assert side == pytest.approx(420 * 1.1, abs=10)


def test_air_alone_gives_the_whole_image() -> None:
    assert box_px(air()) == [256, 256, 512]
    image = Windowing(SETTINGS)(air().unsqueeze(0))
    assert torch.equal(image, torch.full((1, 3, 64, 64), -1.0))


def test_padding_of_a_scanner_is_air() -> None:
    head = torch.from_numpy(draw_heads(2))
    padded = torch.where(head < -500, -3024.0, head)
    assert torch.equal(Windowing(SETTINGS)(head), Windowing(SETTINGS)(padded))


def test_a_small_head_is_not_enlarged_beyond_the_limit() -> None:
    hu = air()
    hu[disc(512, 256, 256, 60)] = 40
    assert box_px(hu)[2] == pytest.approx(0.6 * 512)


def test_windows_map_their_hounsfield_units_to_each_channel() -> None:
    image = Windowing(Preprocessing(size_px=64, mean=(0, 0, 0), std=(1, 1, 1)))(torch.full((1, 512, 512), 60.0))
    middle = image[0, :, 32, 32].tolist()
    assert middle == pytest.approx([60 / 80, 80 / 200, 210 / 380], abs=1e-5)


def test_values_are_clipped_before_they_are_resampled() -> None:
    stripes = torch.full((1, 512, 512), 40.0)
    stripes[:, :, ::2] = 3000.0
    settings = Preprocessing(size_px=64, mean=(0, 0, 0), std=(1, 1, 1), denoise=None)
    assert Windowing(settings)(stripes)[0, 0, 32, 32].item() == pytest.approx(0.75, abs=0.02)


def test_a_slice_that_is_not_square_is_centred_in_air() -> None:
    square = pad_to_square(torch.zeros(1, 100, 60))
    assert square.shape == (1, 100, 100)
    assert square[0, :, 20:80].eq(0).all()
    assert square[0, :, :20].eq(-1000).all()
    assert square[0, :, 80:].eq(-1000).all()


def test_the_picture_stays_upright() -> None:
    hu = air()
    hu[disc(512, 256, 256, 200)] = 40
    hu[disc(512, 150, 300, 20)] = 200
    image = Windowing(Preprocessing(size_px=128))(hu.unsqueeze(0))[0, 2]
    row, column = divmod(int(image.argmax()), 128)
    assert row < 56
    assert column > 68


@pytest.mark.parametrize("noise_hu", [3.0, 8.0, 15.0])
def test_noise_is_measured_in_the_tissue(noise_hu: float) -> None:
    head = torch.from_numpy(draw_heads(2, side=512, noise_hu=noise_hu))
    assert measure_noise(head).tolist() == pytest.approx([noise_hu] * 2, rel=0.15)


def test_noise_of_a_smooth_kernel_is_measured_too() -> None:
    noise = torch.randn(1, 1, 512, 512, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.avg_pool2d(noise, 3, stride=1, padding=1)[0]
    smooth = 30 + 5 * smooth / smooth.std()
    assert measure_noise(smooth).item() == pytest.approx(5, rel=0.15)


def test_denoising_follows_the_noise_of_the_slice() -> None:
    noise = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0))
    hu = 35 + noise * torch.tensor([3.0, 12.0]).view(2, 1, 1)
    quiet, loud = denoise(hu, Denoise(target_noise_hu=5.0), (-150, 230))
    assert torch.allclose(quiet, hu[0], atol=1e-4)
    assert loud.std().item() == pytest.approx(5.0, rel=0.2)


def test_bone_does_not_bleed_into_the_brain() -> None:
    hu = 35 + 12 * torch.randn(1, 256, 256, generator=torch.Generator().manual_seed(0))
    hu[:, :, :128] = 2000
    smoothed = denoise(hu, Denoise(), (-150, 230))
    assert smoothed.max() <= 230.001
    assert smoothed[:, 20:-20, 136:].mean().item() == pytest.approx(35, abs=1)


def test_denoising_can_be_off() -> None:
    noisy = torch.from_numpy(draw_heads(2, noise_hu=15))
    plain = Windowing(Preprocessing(size_px=64, denoise=None))(noisy)
    smooth = Windowing(SETTINGS)(noisy)
    assert (plain - smooth).abs().mean() > 0.005


def test_a_slice_is_windowed_alike_alone_and_in_a_batch() -> None:
    heads = torch.from_numpy(draw_heads(6))
    windowing = Windowing(SETTINGS)
    alone = torch.cat([windowing(hu.unsqueeze(0)) for hu in heads])
    assert (alone[0] - alone[3]).abs().max() > 0.1
    assert torch.allclose(windowing(heads), alone, atol=1e-6)


def test_exported_windowing_gives_the_same_numbers() -> None:
    heads = torch.from_numpy(draw_heads(5))[:, :, :140]
    windowing = Windowing(SETTINGS)
    slices = torch.export.Dim("slices", min=1, max=64)
    program = torch.export.export(windowing, (heads[:2],), dynamic_shapes=({0: slices},))
    assert torch.allclose(program.module()(heads), windowing(heads), atol=1e-6)


def test_windowing_and_network_export_as_one_program() -> None:
    heads = torch.from_numpy(draw_heads(3))
    model = nn.Sequential(Windowing(SETTINGS), timm.create_model("test_resnet", num_classes=6)).eval()
    slices = torch.export.Dim("slices", min=1, max=64)
    with torch.no_grad():
        program = torch.export.export(model, (heads[:2],), dynamic_shapes=({0: slices},))
        assert torch.allclose(program.module()(heads), model(heads), atol=1e-5)


def test_settings_survive_json_and_reject_what_they_do_not_know() -> None:
    settings = Preprocessing(denoise=None, windows=(Window(center_hu=50, width_hu=100),) * 3)
    assert Preprocessing.model_validate_json(settings.model_dump_json()) == settings
    with pytest.raises(ValidationError, match="sharpen"):
        Preprocessing.model_validate({"sharpen": True})
    with pytest.raises(ValidationError, match="width_hu"):
        Window(center_hu=40, width_hu=0)
    with pytest.raises(ValidationError, match="std"):
        Preprocessing(std=(0.5, 0, 0.5))


def test_boxes_of_a_real_series_follow_the_head(shared_data: Path) -> None:
    slices = sorted(
        (pydicom.dcmread(path) for path in (shared_data / "ge-head-tilted").glob("*.dcm")),
        key=lambda dataset: float(dataset.ImagePositionPatient[2]),
    )
    volume = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in slices])
    sides = find_head_box(torch.from_numpy(volume.astype(np.float32)), Preprocessing())[:, 2]
    assert sides.max() < 1.0
    assert sides[len(sides) // 2] > 0.8
    assert (sides[1:] - sides[:-1]).abs().max() < 0.08
