"""The full network on every engine of this machine."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ich_node.model.bundle import ModelBundle, load_bundle
from ich_node.model.engine import EngineName, open_engine
from ich_node.model.untrained import SPREAD, make_untrained_bundle
from ich_node.windowing import Windowing
from tests.unit.heads import draw_heads

OTHERS: list[EngineName] = ["openvino", *(["cuda"] if torch.cuda.is_available() else [])]


def score(bundle: ModelBundle, engine: EngineName, images: Tensor) -> NDArray[np.float32]:
    logits, _ = open_engine(bundle, engine).score(images)
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("engine", OTHERS)
def test_inception_resnet_v2_agrees_with_torch_float32(tmp_path: Path, engine: EngineName) -> None:
    manifest = make_untrained_bundle(tmp_path, [draw_heads(12, side=256)])
    assert manifest.backbone == "inception_resnet_v2"
    assert manifest.preprocessing.size_px == 299
    bundle = load_bundle(tmp_path)
    with torch.inference_mode():
        images = Windowing(manifest.preprocessing)(torch.from_numpy(draw_heads(8, side=256, noise_hu=5)))
    reference = score(bundle, "torch", images)
    assert np.ptp(reference[:, 0]) >= SPREAD
    assert np.abs(score(bundle, engine, images) - reference).max() <= 0.01
