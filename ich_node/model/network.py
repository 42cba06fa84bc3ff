"""The networks: one that looks at a slice, one that reads the slices of a series in their order."""

from typing import Any, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ich_node.records import HEMORRHAGE_CLASSES

DEFAULT_BACKBONE = "inception_resnet_v2"

_MM_PER_UNIT = 10.0
"""Spacing enters the sequence head in centimetres, near 1 like everything else there."""


class SliceNetwork(nn.Module):
    """Score one slice: a timm backbone and one linear layer.

    ``forward`` takes (slices, 3, size, size) and gives (slices, 6) logits and (slices, embedding) features.

    Args:
        backbone: Any architecture that timm knows by this name.
        pretrained: Fetch timm's weights, for training.
    """

    def __init__(self, backbone: str = DEFAULT_BACKBONE, pretrained: bool = False) -> None:
        super().__init__()
        import timm  # takes seconds and 190 MiB; an engine that reads a converted network does without

        self.backbone: nn.Module = timm.create_model(backbone, pretrained=pretrained, num_classes=0)
        self.embedding_size = int(cast("Any", self.backbone).head_hidden_size)
        self.classifier = nn.Linear(self.embedding_size, len(HEMORRHAGE_CLASSES))

    def forward_features(self, images: Tensor) -> Tensor:
        """Embed slices: (slices, 3, size, size) to (slices, embedding)."""
        return cast("Tensor", self.backbone(images))

    def forward_head(self, embedding: Tensor) -> Tensor:
        """Score embeddings: (slices, embedding) to (slices, 6)."""
        return cast("Tensor", self.classifier(embedding))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.forward_features(images)
        return self.forward_head(embedding), embedding


class SequenceHeadSettings(BaseModel):
    """The shape of a sequence head, as the manifest states it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding_size: int = Field(ge=1)
    hidden_size: int = Field(default=256, ge=1)
    layers: int = Field(default=2, ge=1, le=8)
    dropout: float = Field(default=0.3, ge=0, lt=1)


class SequenceHead(nn.Module):
    """Refine slice scores by what the neighbouring slices show, and score the study.

    Each slice enters as its embedding, the differences to the slice before and after, and the distances to them.
    A bidirectional GRU reads them in anatomical order; a direct path beside it keeps what the slice alone says.
    The study's score is a mean of the slices' scores, weighted per class by attention.
    """

    def __init__(self, settings: SequenceHeadSettings) -> None:
        super().__init__()
        classes = len(HEMORRHAGE_CLASSES)
        self.settings = settings
        self.norm = nn.LayerNorm(settings.embedding_size)
        self.project = nn.Linear(3 * settings.embedding_size + 2, settings.hidden_size)
        self.gru = nn.GRU(
            settings.hidden_size,
            settings.hidden_size,
            num_layers=settings.layers,
            dropout=settings.dropout if settings.layers > 1 else 0.0,
            bidirectional=True,
        )
        self.direct = nn.Linear(settings.embedding_size, classes)
        self.refine = nn.Linear(2 * settings.hidden_size, classes)
        self.attention = nn.Linear(2 * settings.hidden_size, classes)
        self.study = nn.Linear(2 * settings.hidden_size, classes)

    def forward(self, embeddings: Tensor, positions_mm: Tensor) -> tuple[Tensor, Tensor]:
        """Read one series.

        Args:
            embeddings: (slices, embedding), in anatomical order.
            positions_mm: (slices,), along the slice normal.

        Returns:
            Logits (slices, 6) of the slices and (6,) of the study.
        """
        embeddings = self.norm(embeddings)
        inputs = torch.cat([embeddings, *_differences(embeddings), _spacing(positions_mm)], dim=1)
        context, _ = self.gru(torch.relu(self.project(inputs)))
        slice_logits = self.direct(embeddings) + self.refine(context)
        weights = torch.softmax(self.attention(context), dim=0)
        study_logits = (weights * (slice_logits + self.study(context))).sum(dim=0)
        return slice_logits, study_logits


def _differences(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """To the slice before and to the slice after; 0 where there is none."""
    steps = embeddings[1:] - embeddings[:-1]
    nothing = torch.zeros_like(embeddings[:1])
    return torch.cat([nothing, steps]), torch.cat([-steps, nothing])


def _spacing(positions_mm: Tensor) -> Tensor:
    """Distance to the slice before and after in centimetres, 0 where there is none: (slices, 2)."""
    steps = (positions_mm[1:] - positions_mm[:-1]).abs() / _MM_PER_UNIT
    nothing = torch.zeros_like(positions_mm[:1])
    return torch.stack([torch.cat([nothing, steps]), torch.cat([steps, nothing])], dim=1)
