"""The networks: one that looks at a slice, one that reads the slices of a series in their order."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ich_node.records import HEMORRHAGE_CLASSES

DEFAULT_BACKBONE = "inception_resnet_v2"

_MM_PER_UNIT = 10.0
"""Spacing enters the sequence head in centimetres, near 1 like everything else there."""


class SliceNetwork(nn.Module):
    """Score one slice: a timm backbone and one linear layer.

    ``forward`` takes (slices, channels, size, size) and gives (slices, 6) logits and (slices, embedding) features.

    Args:
        backbone: Any architecture that timm knows by this name.
        pretrained: Fetch timm's weights, for training.
        channels: Of the images; 9 where the slice before and after are shown too, for research.
        dropout: Of the embedding, in training.
    """

    def __init__(
        self, backbone: str = DEFAULT_BACKBONE, pretrained: bool = False, channels: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        import timm  # takes seconds and 190 MiB; an engine that reads a converted network does without

        self.backbone: nn.Module = timm.create_model(
            backbone, pretrained=pretrained, num_classes=0, in_chans=channels, drop_rate=dropout
        )
        self.embedding_size = int(cast("Any", self.backbone).head_hidden_size)
        self.classifier = nn.Linear(self.embedding_size, len(HEMORRHAGE_CLASSES))

    def forward_features(self, images: Tensor) -> Tensor:
        """Embed slices: (slices, channels, size, size) to (slices, embedding)."""
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
    The study's score is a mean of the slices' scores, weighted per class by these scores themselves and by attention:
    untaught, it follows the highest slices as a smooth maximum does.
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
            batch_first=True,
        )
        self.dropout = nn.Dropout(settings.dropout)
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
        slice_logits, study_logits = self.forward_batch(embeddings[None], positions_mm[None], [len(embeddings)])
        return slice_logits[0], study_logits[0]

    def forward_batch(self, embeddings: Tensor, positions_mm: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Read several series, the shorter ones filled up with anything at their end.

        Args:
            embeddings: (series, slices, embedding), in anatomical order.
            positions_mm: (series, slices), along the slice normal.
            lengths: Slices of each series.

        Returns:
            Logits (series, slices, 6), 0 where a series has ended, and (series, 6) of the studies.
        """
        there = torch.arange(embeddings.shape[1], device=embeddings.device) < torch.tensor(
            lengths, device=embeddings.device
        ).unsqueeze(1)
        embeddings = self.norm(embeddings).masked_fill(~there.unsqueeze(2), 0.0)
        pairs = there[:, 1:]
        inputs = torch.cat([embeddings, *_differences(embeddings, pairs), _spacing(positions_mm, pairs)], dim=2)
        projected = self.dropout(torch.relu(self.project(self.dropout(inputs))))
        packed = pack_padded_sequence(projected, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        context, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=embeddings.shape[1])
        context = self.dropout(context)
        slice_logits = (self.direct(embeddings) + self.refine(context)).masked_fill(~there.unsqueeze(2), 0.0)
        attention = (self.attention(context) + slice_logits).masked_fill(~there.unsqueeze(2), -torch.inf)
        study_logits = (torch.softmax(attention, dim=1) * (slice_logits + self.study(context))).sum(dim=1)
        return slice_logits, study_logits


def _differences(embeddings: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """To the slice before and to the slice after; 0 where there is none.

    ``pairs`` (series, slices - 1) tells whether a slice and the next are both there.
    """
    steps = (embeddings[:, 1:] - embeddings[:, :-1]).masked_fill(~pairs.unsqueeze(2), 0.0)
    nothing = torch.zeros_like(embeddings[:, :1])
    return torch.cat([nothing, steps], dim=1), torch.cat([-steps, nothing], dim=1)


def _spacing(positions_mm: Tensor, pairs: Tensor) -> Tensor:
    """Distance to the slice before and after in centimetres, 0 where there is none: (series, slices, 2)."""
    steps = ((positions_mm[:, 1:] - positions_mm[:, :-1]).abs() / _MM_PER_UNIT).masked_fill(~pairs, 0.0)
    nothing = torch.zeros_like(positions_mm[:, :1])
    return torch.stack([torch.cat([nothing, steps], dim=1), torch.cat([steps, nothing], dim=1)], dim=2)
