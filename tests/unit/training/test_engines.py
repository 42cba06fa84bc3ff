"""One network, whatever runs it: eager, compiled, and as it was exported."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ich_node.model.bundle import load_bundle, write_bundle
from ich_node.model.engine import build_network, open_engine
from ich_node.model.network import SliceNetwork
from ich_node.phantom import PhantomSettings, draw_volume
from ich_node.windowing import Windowing


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler, and there is none (g++)")
def test_eager_compiled_and_exported_networks_agree(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    eager = build_network(bundle)
    eager.classifier.weight.mul_(0.3)  # an untrained last layer magnifies what bf16 rounds off
    eager.classifier.bias.mul_(0.3)
    head = draw_volume(PhantomSettings(lesion="subdural", slices=8, rows=64, slice_spacing_mm=16))
    with torch.inference_mode():
        images = Windowing(bundle.manifest.preprocessing)(torch.from_numpy(head))
        expected, _ = eager(images)
    compiled = SliceNetwork(bundle.manifest.backbone).eval()
    compiled.load_state_dict(eager.state_dict())
    with torch.inference_mode():
        answers = {"compiled": torch.compile(compiled)(images)[0].numpy()}
    fields = bundle.manifest.model_dump(exclude={"files"})
    write_bundle(tmp_path / "bundle", fields, eager.state_dict(), stored="float16")
    for engine in ("torch", "openvino"):
        logits, _ = open_engine(load_bundle(tmp_path / "bundle"), engine, threads=1).score(images)
        answers[engine] = logits
    probability = torch.sigmoid(expected).numpy()
    assert probability[:, 0].max() - probability[:, 0].min() > 0.03, "the network tells these images apart"
    for name, logits in answers.items():
        difference = np.abs(1 / (1 + np.exp(-logits)) - probability).max()
        assert difference <= 0.01, f"{name}: {difference}"
