from pathlib import Path

import numpy as np
import pytest
import torch

from ich_node.errors import ModelError
from ich_node.model.bundle import load_bundle, verify_bundle
from ich_node.model.engine import open_engine
from ich_node.model.untrained import SPREAD, make_untrained_bundle
from ich_node.windowing import Windowing
from tests.unit.heads import draw_heads


@pytest.mark.parametrize("backbone", ["test_resnet", "mobilenetv3_small_050", "test_vit"])
def test_an_untrained_model_tells_slices_apart(tmp_path: Path, backbone: str) -> None:
    size_px = 160 if backbone == "test_vit" else 64
    make_untrained_bundle(tmp_path, [draw_heads(), draw_heads(6)], backbone, size_px)
    bundle = load_bundle(tmp_path)
    images = Windowing(bundle.manifest.preprocessing)(torch.from_numpy(draw_heads()))
    logits, _ = open_engine(bundle, "torch", threads=1).score(images)
    probability = 1 / (1 + np.exp(-logits))
    assert (np.ptp(probability, axis=0) >= SPREAD).all()
    assert probability.mean() == pytest.approx(0.5, abs=0.2)


def test_an_untrained_bundle_says_that_it_is(tmp_path: Path) -> None:
    manifest = make_untrained_bundle(tmp_path, [draw_heads()], "test_resnet", 64)
    assert not manifest.trained
    assert not load_bundle(tmp_path).identity.trained
    assert "nothing" in manifest.thresholds_basis
    assert verify_bundle(tmp_path) == []


def test_the_seed_decides_the_weights_and_nothing_else_is_touched(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = make_untrained_bundle(tmp_path / "a", [draw_heads()], "test_resnet", 64, seed=1)
    assert torch.rand(1) == expected
    again = make_untrained_bundle(tmp_path / "b", [draw_heads()], "test_resnet", 64, seed=1)
    other = make_untrained_bundle(tmp_path / "c", [draw_heads()], "test_resnet", 64, seed=2)
    assert first == again
    assert first.files != other.files


def test_phantoms_that_do_not_differ_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="look all the same"):
        make_untrained_bundle(tmp_path, [np.full((4, 64, 64), -1000.0)], "test_resnet", 64)
    assert not (tmp_path / "manifest.json").exists()
