"""A bundle that stands in until a trained one exists: random weights that still tell slices apart.

Random weights in evaluation mode give the same answer to everything, which would blind every test of order and
parity. So the running statistics of the batch normalisation are taken from one pass over phantoms, and the last
layer reads the directions in which their embeddings differ most, scaled so that its scores spread.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ich_node.errors import ModelError
from ich_node.model.activation_map import has_activation_maps
from ich_node.model.bundle import write_bundle
from ich_node.model.manifest import Manifest, Thresholds
from ich_node.model.network import DEFAULT_BACKBONE, SequenceHead, SequenceHeadSettings, SliceNetwork
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.windowing import Denoise, Preprocessing, Windowing

SPREAD: Final = 0.1
"""The probability of ``any`` differs by at least this much over the phantom."""

_MOST_SLICES: Final = 16
_DIRECTIONS: Final = 3


def make_untrained_bundle(
    directory: Path,
    phantoms: Iterable[NDArray[np.floating]],
    backbone: str = DEFAULT_BACKBONE,
    size_px: int = 299,
    sequence_head: bool = False,
    seed: int = 0,
    name: str = "ich-untrained",
    denoised: bool = True,
) -> Manifest:
    """Write a bundle of random weights, declared as untrained.

    Args:
        directory: Where it goes.
        phantoms: Series of head slices in HU, each (slices, rows, columns); 16 slices of all are used.
        backbone: As timm names it.
        size_px: Side of the network's images.
        sequence_head: Add one.
        seed: The same seed gives the same weights.
        name: Of the model.
        denoised: Clean slices as the shipped model does, which costs more than a small network.

    Raises:
        ModelError: The slices of the phantoms do not differ.
    """
    preprocessing = Preprocessing(size_px=size_px, denoise=Denoise() if denoised else None)
    series = _window(phantoms, preprocessing)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network, embeddings = _settle_network(SliceNetwork(backbone), series)
        settings = SequenceHeadSettings(embedding_size=network.embedding_size, hidden_size=64, layers=1, dropout=0.0)
        head = _settle_head(SequenceHead(settings), embeddings) if sequence_head else None
        maps = has_activation_maps(network.backbone, series[0][:2])
    fields = {
        "name": name,
        "version": f"0.0.{seed}",
        "trained": False,
        "backbone": backbone,
        "preprocessing": preprocessing,
        "sequence_head": settings if head else None,
        "temperature": dict.fromkeys(HEMORRHAGE_CLASSES, 1.0),
        "thresholds": dict.fromkeys(HEMORRHAGE_CLASSES, Thresholds(low=0.4, high=0.6)),
        "activation_maps": maps,
        "thresholds_basis": "nothing: the model is not trained, the numbers only exercise the three answers",
    }
    return write_bundle(directory, fields, network.state_dict(), head.state_dict() if head else None)


def _window(phantoms: Iterable[NDArray[np.floating]], preprocessing: Preprocessing) -> list[Tensor]:
    """Window a few evenly spaced slices of each phantom: one (slices, 3, size, size) for each."""
    volumes = list(phantoms)
    if not volumes:
        raise ValueError("at least one phantom is needed")
    windowing = Windowing(preprocessing)
    share = max(2, _MOST_SLICES // len(volumes))
    series = []
    for volume in volumes:
        chosen = np.unique(np.linspace(0, len(volume) - 1, share).round().astype(int))
        with torch.inference_mode():
            series.append(windowing(torch.from_numpy(np.asarray(volume[chosen], np.float32))))
    return series


def _settle_network(network: SliceNetwork, series: list[Tensor]) -> tuple[SliceNetwork, list[Tensor]]:
    images = torch.cat(series)
    network.eval()
    _take_statistics(network, images)
    embeddings = torch.cat([network.forward_features(image) for image in torch.split(images, 1)])
    _settle_layer(network.classifier, embeddings)
    _demand_spread(network.forward_head(embeddings))
    return network, list(torch.split(embeddings, [len(part) for part in series]))


def _take_statistics(network: nn.Module, images: Tensor) -> None:
    """Make the running statistics of every batch normalisation those of these images."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    network(images)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
        norm.eval()


def _settle_head(head: SequenceHead, embeddings: list[Tensor]) -> SequenceHead:
    head.eval()
    _settle_layer(head.direct, head.norm(torch.cat(embeddings)))
    return head


def _settle_layer(layer: nn.Linear, features: Tensor) -> None:
    """Make a layer whose outputs have mean 0 and standard deviation 1 over these features (slices, features).

    Each output is a random mixture of the three principal directions. Any direction would do but for rounding: random
    ones see little of what differs and all of what bfloat16 adds (0.07 in probability instead of 0.002, measured).
    """
    centred = features - features.mean(dim=0)
    principal = torch.linalg.svd(centred, full_matrices=False).Vh[:_DIRECTIONS]
    rows = torch.randn(layer.out_features, len(principal)) @ principal
    deviation = (centred @ rows.T).std(dim=0)
    if not (deviation > 1e-4 * features.abs().amax()).all():
        raise ModelError("the slices of the phantoms look all the same to the network; draw heads that differ")
    layer.weight.copy_(rows / deviation.unsqueeze(1))
    layer.bias.copy_(-(layer.weight @ features.mean(dim=0)))


def _demand_spread(logits: Tensor) -> None:
    probability = torch.sigmoid(logits[:, HEMORRHAGE_CLASSES.index("any")])
    if float(probability.max() - probability.min()) < SPREAD:
        raise ModelError(f"the untrained model tells the phantoms' slices apart by less than {SPREAD}")
