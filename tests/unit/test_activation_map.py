from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from ich_node.errors import ModelError
from ich_node.model.activation_map import activation_maps, has_activation_maps
from ich_node.model.bundle import ModelBundle, load_bundle
from ich_node.model.engine import EngineName, build_network, open_engine
from ich_node.model.network import SliceNetwork
from ich_node.model.untrained import make_untrained_bundle
from ich_node.windowing import Windowing
from tests.unit.heads import draw_heads

HERE: list[EngineName] = ["torch", "openvino", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    make_untrained_bundle(directory, [draw_heads()], "test_resnet", size_px=96)
    return load_bundle(directory)


@pytest.fixture(scope="module")
def images(bundle: ModelBundle) -> Tensor:
    return Windowing(bundle.manifest.preprocessing)(torch.from_numpy(draw_heads(5)))


def settled_network(backbone: str, images: Tensor) -> SliceNetwork:
    """Random weights whose features are not all but zero: the statistics are those of the images."""
    torch.manual_seed(0)
    network = SliceNetwork(backbone)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
    return network.eval()


@pytest.mark.parametrize(("backbone", "size_px"), [("test_resnet", 96), ("inception_resnet_v2", 140)])
def test_grad_cam_at_the_last_feature_map_is_the_plain_map(backbone: str, size_px: int) -> None:
    torch.manual_seed(1)
    images = torch.rand(2, 3, size_px, size_px) * 2 - 1
    network = settled_network(backbone, images)
    features = network.backbone.forward_features(images)
    features.retain_grad()
    logits = network.forward_head(network.backbone.forward_head(features, pre_logits=True))
    weight = network.classifier.weight.detach().numpy()
    plain = activation_maps(features.detach().numpy(), weight)
    assert plain.shape[2] > 1
    for number in range(6):
        (gradient,) = torch.autograd.grad(logits[:, number].sum(), features, retain_graph=True)
        channel_weights = gradient.mean(dim=(2, 3), keepdim=True)
        grad_cam = torch.relu((channel_weights * features).sum(dim=1)).detach().numpy()
        places = plain.shape[2] * plain.shape[3]
        expected = np.maximum(plain[:, number], 0) / places
        assert np.abs(grad_cam - expected).max() <= 1e-5 * np.abs(plain[:, number]).max()


@pytest.mark.parametrize("name", HERE)
def test_the_mean_over_places_and_the_bias_are_the_score(bundle: ModelBundle, images: Tensor, name: EngineName) -> None:
    engine = open_engine(bundle, name, threads=1)
    logits, _ = engine.score(images)
    maps = engine.activation_maps(images)
    assert maps.shape == (5, 6, 3, 3)
    tolerance = 1e-3 if "f32" in engine.device else 0.05
    assert np.abs(maps.mean(axis=(2, 3)) + engine.bias - logits).max() <= tolerance


def test_engines_agree_on_the_maps(bundle: ModelBundle, images: Tensor) -> None:
    reference = open_engine(bundle, "torch", threads=1).activation_maps(images)
    for name in HERE[1:]:
        maps = open_engine(bundle, name, threads=1).activation_maps(images)
        assert np.abs(maps - reference).max() <= 0.02 * np.abs(reference).max()


def test_asking_for_maps_changes_no_score(bundle: ModelBundle, images: Tensor) -> None:
    plain = replace(bundle, manifest=bundle.manifest.model_copy(update={"activation_maps": False}))
    for name in HERE:
        with_maps, without = open_engine(bundle, name, threads=1), open_engine(plain, name, threads=1)
        with_maps.activation_maps(images)
        assert np.abs(with_maps.score(images)[0] - without.score(images)[0]).max() <= 1e-3


def test_a_kept_conversion_without_maps_is_not_taken_for_one_with_them(
    tmp_path: Path, bundle: ModelBundle, images: Tensor
) -> None:
    plain = replace(bundle, manifest=bundle.manifest.model_copy(update={"activation_maps": False}))
    open_engine(plain, "openvino", threads=1, cache_directory=tmp_path)
    engine = open_engine(bundle, "openvino", threads=1, cache_directory=tmp_path)
    assert engine.activation_maps(images).shape == (5, 6, 3, 3)
    again = open_engine(bundle, "openvino", threads=1, cache_directory=tmp_path)
    assert np.array_equal(again.activation_maps(images), engine.activation_maps(images))


def test_a_model_without_maps_says_so(bundle: ModelBundle, images: Tensor) -> None:
    plain = replace(bundle, manifest=bundle.manifest.model_copy(update={"activation_maps": False}))
    with pytest.raises(ModelError, match="no class activation maps"):
        open_engine(plain, "torch", threads=1).activation_maps(images)


@pytest.mark.parametrize(
    ("backbone", "size_px", "expected"),
    [
        ("test_resnet", 96, True),
        ("test_efficientnet", 96, True),
        ("test_vit", 160, False),
        ("test_convnext", 96, False),
    ],
)
def test_only_a_mean_over_places_has_maps(backbone: str, size_px: int, expected: bool) -> None:
    network = timm.create_model(backbone, num_classes=0).eval()
    assert has_activation_maps(network, torch.randn(2, 3, size_px, size_px)) is expected


def test_the_network_of_a_bundle_is_the_one_that_draws(bundle: ModelBundle, images: Tensor) -> None:
    assert bundle.manifest.activation_maps
    assert has_activation_maps(build_network(bundle).backbone, images)
