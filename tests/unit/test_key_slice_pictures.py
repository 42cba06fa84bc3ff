"""Pictures of key slices: the map of a score lies where its slice shows the cause."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor

from ich_node.phantom import PhantomSettings, draw_volume, lesion_mask
from ich_node.pictures import PlanePixels, key_slice_pictures, pictured_slices
from ich_node.pipeline import Model
from ich_node.records import Presence, SliceKey, Triage, TriageFinding
from ich_node.report.slice_pictures import speaks_clearly
from ich_node.windowing import Preprocessing, find_head_box, pad_to_square, place_on_slice, resample
from tests.ct_series import headers, negative, not_analysed, positive

HEAD = PhantomSettings(lesion="subdural", slices=1, rows=128, slice_spacing_mm=5.0)
AIR = -1000.0

CANVASES = {
    "wide, head at the left": (140, 260, 6, 4),
    "high, head at the foot": (250, 150, 118, 14),
    "square, head in a corner": (240, 240, 0, 110),
    "the head alone": (128, 128, 0, 0),
}
"""Rows, columns, and where the head's first row and column lie."""


@pytest.fixture(scope="module")
def head() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """One slice of a phantom and its lesion, which lies at one side: (128, 128)."""
    settings = replace(HEAD, slices=24)
    volume, mask = draw_volume(settings), lesion_mask(settings)
    number = int(mask.sum(axis=(1, 2)).argmax())
    assert mask[number].sum() > 50
    return volume[number], mask[number]


def on_canvas(picture: NDArray[np.generic], canvas: str, around: float) -> Tensor:
    rows, columns, top, left = CANVASES[canvas]
    larger = np.full((rows, columns), around, np.float32)
    larger[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return torch.from_numpy(larger).unsqueeze(0)


def as_the_network_sees(picture: Tensor, hu: Tensor, settings: Preprocessing) -> Tensor:
    """Bring a mask on the slice into the network's image: (1, size, size)."""
    box = find_head_box(pad_to_square(hu), settings)
    return resample((pad_to_square(picture) > 0).float().unsqueeze(1), box, settings.size_px)[:, 0]


@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("places", [8, 64])
def test_a_map_that_is_hot_at_a_lesion_is_hot_at_it_on_the_slice(
    head: tuple[NDArray[np.float32], NDArray[np.bool_]], canvas: str, places: int
) -> None:
    settings = Preprocessing(size_px=256)
    hu, lesion = on_canvas(head[0], canvas, AIR), on_canvas(head[1], canvas, 0.0)
    seen = as_the_network_sees(lesion, hu, settings)
    maps = torch.nn.functional.avg_pool2d(seen, 256 // places)
    placed = place_on_slice(maps, hu, settings)[0].numpy()
    assert placed.shape == hu.shape[1:]
    weight = np.nan_to_num(placed)
    rows, columns = np.nonzero(lesion[0].numpy())
    grid = np.mgrid[: placed.shape[0], : placed.shape[1]]
    centre = [float((weight * axis).sum() / weight.sum()) for axis in grid]
    assert centre == pytest.approx([rows.mean(), columns.mean()], abs=3)
    hottest = np.unravel_index(weight.argmax(), weight.shape)
    assert np.hypot(rows - hottest[0], columns - hottest[1]).min() <= (2 if places == 64 else 6)


@pytest.mark.parametrize("canvas", CANVASES)
def test_what_the_network_saw_comes_back_where_it_was_and_the_rest_is_nan(
    head: tuple[NDArray[np.float32], NDArray[np.bool_]], canvas: str
) -> None:
    settings = Preprocessing(size_px=256)
    hu = on_canvas(head[0], canvas, AIR)
    body = (hu > -300).float()
    placed = place_on_slice(as_the_network_sees(body, hu, settings), hu, settings)
    unseen = placed.isnan()
    assert unseen.any()
    assert (unseen & (body > 0)).sum() < 0.02 * body.sum()  # the holder's ends
    assert not (unseen & (on_canvas(head[1], canvas, 0.0) > 0)).any()
    assert float((torch.where(unseen, 0.0, placed) - body).abs().mean()) < 0.01


def test_places_of_a_convolution_without_padding_lie_where_their_gradient_does() -> None:
    size_px = 140
    torch.manual_seed(0)
    network = timm.create_model("inception_resnet_v2", pretrained=False).eval()
    image = torch.rand(1, 3, size_px, size_px).requires_grad_()
    features = network.forward_features(image)
    assert features.shape[-1] == 3
    settings = Preprocessing(size_px=size_px, minimum_side_fraction=1.0)
    ramp = torch.arange(3.0).view(1, 3, 1).expand(1, 3, 3)
    placed = place_on_slice(ramp, torch.full((1, size_px, size_px), 40.0), settings)[0, :, size_px // 2]
    for place in range(3):
        (gradient,) = torch.autograd.grad(features[0, :, place, 1].sum(), image, retain_graph=True)
        weight = gradient.abs().sum(dim=(0, 1, 3))
        row = float((weight * torch.arange(size_px)).sum() / weight.sum())
        assert float(placed[round(row)]) == pytest.approx(place, abs=0.2)


# ------------------------------------------------------------------------------------------ which slices

EVIDENCE = headers(12)


def planes_of(finding: TriageFinding, rows: int = 96, columns: int = 64) -> dict[SliceKey, PlanePixels]:
    rng = np.random.default_rng(0)
    head = draw_volume(replace(HEAD, rows=64))[0]
    hu = np.full((rows, columns), AIR, np.float32)
    hu[16:80] = head
    return {
        (one.sop_instance_uid, one.frame): PlanePixels(hu + rng.normal(0, 5, hu.shape).astype(np.float32), (0.9, 0.8))
        for one in finding.slices
    }


def test_clear_key_slices_get_a_map_on_their_own_grid(tiny_model: Model) -> None:
    finding = positive(EVIDENCE)
    planes = planes_of(finding)
    pictures = key_slice_pictures(finding, planes, tiny_model.windowing, tiny_model.engine)
    assert [one.sop_instance_uid for one in pictures] == [one.sop_instance_uid for one in finding.key_slices["any"]]
    for picture in pictures:
        plane = planes[picture.sop_instance_uid, picture.frame]
        assert picture.hu is plane.hu
        assert picture.pixel_spacing_mm == (0.9, 0.8)
        assert picture.shares is not None
        assert picture.shares.shape == plane.hu.shape
        assert np.isfinite(picture.shares[16:80]).any()


def test_the_map_of_a_picture_is_that_of_its_own_slice(tiny_model: Model) -> None:
    finding = positive(EVIDENCE)
    planes = planes_of(finding)
    together = key_slice_pictures(finding, planes, tiny_model.windowing, tiny_model.engine)
    for picture in together:
        alone = replace(finding, key_slices={"any": (finding.slices[EVIDENCE_NUMBER[picture.sop_instance_uid]],)})
        (single,) = key_slice_pictures(alone, planes, tiny_model.windowing, tiny_model.engine)
        np.testing.assert_allclose(picture.shares, single.shares, atol=1e-4)


EVIDENCE_NUMBER = {str(header.SOPInstanceUID): number for number, header in enumerate(EVIDENCE)}


def test_a_model_without_maps_gives_pictures_without_shares(tiny_model: Model) -> None:
    finding = positive(EVIDENCE)
    engine = replace(tiny_model.engine, map_features=None)
    pictures = key_slice_pictures(finding, planes_of(finding), tiny_model.windowing, engine)
    assert [one.shares for one in pictures] == [None] * 3


def test_a_key_slice_below_the_upper_threshold_gets_no_map(tiny_model: Model) -> None:
    finding = positive(EVIDENCE)
    low = {name: min(value, 0.4) for name, value in finding.slices[4].probabilities.items()}
    unclear = replace(finding.key_slices["any"][0], probabilities=low)
    finding = replace(finding, key_slices={"any": (*finding.key_slices["any"][1:], unclear)})
    pictures = key_slice_pictures(finding, planes_of(finding), tiny_model.windowing, tiny_model.engine)
    assert [one.shares is None for one in pictures] == [False, False, True]


def test_a_slice_is_clear_by_a_subtype_only_where_that_is_present() -> None:
    finding = positive(EVIDENCE)
    one = replace(finding.slices[0], probabilities={**finding.slices[0].probabilities, "any": 0.3, "subdural": 0.9})
    one.probabilities.update(intraparenchymal=0.1, intraventricular=0.1)
    assert not speaks_clearly(one.probabilities, finding)
    assert speaks_clearly(
        one.probabilities, replace(finding, presence={**finding.presence, "subdural": Presence.PRESENT})
    )


def test_at_most_five_slices_are_pictured_and_none_where_there_is_no_result(tiny_model: Model) -> None:
    finding = replace(positive(EVIDENCE), key_slices={"any": positive(EVIDENCE).slices[:9]})
    assert len(key_slice_pictures(finding, planes_of(finding), tiny_model.windowing, tiny_model.engine)) == 5
    assert pictured_slices(not_analysed()) == ()
    assert pictured_slices(replace(finding, triage=None)) == ()
    assert not key_slice_pictures(
        replace(negative(EVIDENCE), key_slices={}), {}, tiny_model.windowing, tiny_model.engine
    )
    assert finding.triage is Triage.POSITIVE


def test_a_key_slice_whose_pixels_are_gone_has_no_picture(tiny_model: Model) -> None:
    finding = positive(EVIDENCE)
    planes = planes_of(finding)
    best = finding.key_slices["any"][0]
    del planes[best.sop_instance_uid, best.frame]
    pictures = key_slice_pictures(finding, planes, tiny_model.windowing, tiny_model.engine)
    assert len(pictures) == 2
    assert best.sop_instance_uid not in {one.sop_instance_uid for one in pictures}
