"""Train one sequence head on series, and have it read others."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from ich_node.model.network import SequenceHead
from ich_node.training.fit.objective import class_weights
from ich_node.training.sequence.embeddings import EmbeddedRun, Series
from ich_node.training.sequence.settings import SequenceSettings

_FEWEST_SLICES = 2


def train_head(run: EmbeddedRun, series: Sequence[Series], settings: SequenceSettings) -> SequenceHead:
    """Train a head from where it says what the slice network says."""
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    head = _begin(run, series, settings)
    optimizer = torch.optim.AdamW(head.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    batches = max(1, math.ceil(len(series) / settings.batch))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * batches, pct_start=0.1
    )
    weights = class_weights(2.0)
    head.train()
    for _ in range(settings.epochs):
        order = torch.randperm(len(series), generator=generator).tolist()
        for first in range(0, len(series), settings.batch):
            chosen = [_vary(series[number], settings, generator) for number in order[first : first + settings.batch]]
            loss = _loss(head, chosen, weights, settings.study_weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch annotates most
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return head.eval()


def read_series(head: SequenceHead, series: Series) -> tuple[Tensor, Tensor]:
    """Logits (slices, 6) of the slices and (6,) of the study."""
    with torch.inference_mode():
        slices, study = head(series.embeddings, series.positions_mm)
    return slices, study


def _begin(run: EmbeddedRun, series: Sequence[Series], settings: SequenceSettings) -> SequenceHead:
    """A head whose direct path repeats the slice network's last layer and whose other paths say nothing yet."""
    head = SequenceHead(settings.head(run.classifier_weight.shape[1]))
    every = torch.cat([one.embeddings for one in series])
    with torch.no_grad():
        head.norm.weight.fill_(float(every.std(dim=1, correction=0).mean()))
        head.norm.bias.fill_(float(every.mean()))
        head.direct.weight.copy_(run.classifier_weight)
        head.direct.bias.copy_(run.classifier_bias)
        for layer in (head.refine, head.study, head.attention):
            layer.weight.mul_(0.1)
            layer.bias.zero_()
    return head


Reading = tuple[Tensor, Tensor, Tensor]
"""Embeddings, positions in mm, labels of one series as it is shown."""


def _vary(series: Series, settings: SequenceSettings, generator: torch.Generator) -> Reading:
    """Show a series with some slices left out, and from the other end half of the time."""
    kept = torch.rand(len(series.rows), generator=generator) >= settings.skip
    if int(kept.sum()) < _FEWEST_SLICES:
        kept[:] = True
    order = torch.nonzero(kept).flatten()
    if torch.rand(1, generator=generator) < 0.5:
        order = order.flip(0)
    return series.embeddings[order], series.positions_mm[order], series.labels[order]


def _loss(head: SequenceHead, readings: Sequence[Reading], weights: Tensor, study_weight: float) -> Tensor:
    embeddings, positions, labels = zip(*readings, strict=True)
    lengths = [len(one) for one in labels]
    slices, studies = head.forward_batch(
        pad_sequence(list(embeddings), batch_first=True), pad_sequence(list(positions), batch_first=True), lengths
    )
    there = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    truth = torch.cat(list(labels))
    each = functional.binary_cross_entropy_with_logits(slices[there], truth, reduction="none")
    of_studies = torch.stack([one.amax(dim=0) for one in labels])
    whole = functional.binary_cross_entropy_with_logits(studies, of_studies, reduction="none")
    return (each * weights).sum(dim=1).mean() + study_weight * (whole * weights).sum(dim=1).mean()
