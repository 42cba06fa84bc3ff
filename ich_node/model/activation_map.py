"""Where a score comes from: class activation maps, read from the network itself (Zhou et al. 2016).

Where the last layer is linear and reads the mean of a feature map over its places, the score is a mean over places
too::

    logit = bias + mean over places of (weight · feature map)

So each place has its share, and no gradient is needed. Grad-CAM (Selvaraju et al. 2017) at that feature map is the same
map: the gradient of the logit is the weight divided by the number of places, everywhere. No ReLU is applied; whoever
draws the map shows what speaks for the class and leaves out what is negative.
"""

from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_TOLERANCE: Final = 1e-3
"""Largest difference between the mean over places and the embedding, relative to the largest feature."""


class FeatureMaps(nn.Module):
    """A timm backbone that also gives the feature map behind its embedding.

    ``forward`` takes (slices, 3, size, size) and gives embeddings (slices, embedding) and maps
    (slices, embedding, rows, columns).
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        backbone = cast("Any", self.backbone)
        maps = backbone.forward_features(images)
        return backbone.forward_head(maps, pre_logits=True), maps


def has_activation_maps(backbone: nn.Module, images: Tensor) -> bool:
    """Tell whether a backbone's embedding is the mean of its last feature map over places, as measured on images.

    It is not where tokens take the place of a map, or a layer stands between the mean and the embedding.

    Args:
        backbone: In evaluation mode.
        images: (slices, 3, size, size), a few windowed slices.
    """
    with torch.inference_mode():
        maps = cast("Any", backbone).forward_features(images)
        embedding = backbone(images)
    if maps.ndim != 4 or maps.shape[:2] != embedding.shape:
        return False
    difference = (maps.mean(dim=(2, 3)) - embedding).abs().max()
    return bool(difference <= _TOLERANCE * embedding.abs().max().clamp(min=1e-6))


def activation_maps(feature_maps: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give what each place contributes to each class's logit; the mean over places plus the bias is the logit.

    Args:
        feature_maps: (slices, embedding, rows, columns).
        weight: (6, embedding), of the linear layer.

    Returns:
        (slices, 6, rows, columns), in logits.
    """
    shares: NDArray[np.float32] = np.einsum("nerc,ke->nkrc", feature_maps, weight, dtype=np.float32, optimize=True)
    return shares
