"""The two steps of scoring as modules that can be compiled: codes → images, images → embeddings."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ich_node.model.gpu.hounsfield_codes import HounsfieldCodes
from ich_node.windowing import AIR_HU, Preprocessing, Windowing


class CodesToImages(nn.Module):
    """``Windowing``, but of int16 codes (slices, side, side). In float32, as everywhere."""

    def __init__(self, codes: HounsfieldCodes, preprocessing: Preprocessing) -> None:
        super().__init__()
        self._codes = codes
        self.windowing = Windowing(preprocessing)

    def forward(self, codes: Tensor) -> Tensor:
        return cast("Tensor", self.windowing(self._codes.read(codes)))


class InBfloat16(nn.Module):
    """A backbone that computes in bf16: (slices, 3, size, size) to float32 tensors, the embeddings first.

    The weights of convolutions and linear layers are rounded once; normalisations keep theirs in float32, and autocast
    says for the rest what bf16 is enough for.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        for module in backbone.modules():
            if type(module) in (nn.Conv2d, nn.Linear):  # what is derived from them may compute with its weights first
                module.to(torch.bfloat16)
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(images.device.type, torch.bfloat16, cache_enabled=False):
            outputs = self.backbone(images)
        return tuple(one.float() for one in (outputs if isinstance(outputs, tuple) else (outputs,)))


def draw_example(side: int) -> NDArray[np.float32]:
    """Draw something like a head, (side, side) in HU, by which both steps can be tried."""
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    radius = np.hypot(rows / 0.42, columns / 0.34)
    hu = np.select([radius > 1, radius > 0.9, np.hypot(rows - 0.1, columns - 0.1) < 0.05], [AIR_HU, 1000.0, 70.0], 32.0)
    return (hu + np.random.default_rng(0).normal(0, 5, hu.shape)).astype(np.float32)
