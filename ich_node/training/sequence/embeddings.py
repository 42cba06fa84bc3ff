"""Embeddings of slices, made once by a run's network and kept in its folder."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ich_node.errors import TrainingError
from ich_node.model.network import SliceNetwork
from ich_node.training.fit.checkpoint import load_state, save_state
from ich_node.training.fit.images import ImageMaker
from ich_node.training.fit.networks import FINAL, load_network
from ich_node.training.fit.processes import Processes
from ich_node.training.fit.scoring import score_slices
from ich_node.training.fit.settings import FitSettings, read_settings
from ich_node.training.fit.store import SliceStore
from ich_node.training.prepared import PreparedSet, SliceRow, series_of
from ich_node.training.run_folder import demand_data

CACHE: Final = "embeddings.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One series as the head reads it: slices in anatomical order."""

    rows: tuple[SliceRow, ...]
    embeddings: Tensor
    """(slices, embedding) float32, rounded to float16 as the node stores them."""
    logits: Tensor
    """(slices, 6): what the slice network says by itself."""

    @property
    def labels(self) -> Tensor:
        """(slices, 6)."""
        return torch.tensor([row.labels for row in self.rows], dtype=torch.float32)

    @property
    def positions_mm(self) -> Tensor:
        """(slices,)."""
        return torch.tensor([row.position_mm or 0.0 for row in self.rows])


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedRun:
    """A run's network and what it makes of the series that have an order."""

    directory: Path
    fold: int | None
    classifier_weight: Tensor
    classifier_bias: Tensor
    series: tuple[Series, ...]
    """Those held out; of a run that held nothing out, those it was trained on."""


def embed_run(directory: Path, data: Sequence[PreparedSet], device: torch.device) -> EmbeddedRun:
    """Give the series of a run with the embeddings of its network, from the cache where it has them.

    Raises:
        TrainingError: the run is not finished, shows neighbours, or no series has an order.
    """
    settings = read_settings(directory)
    demand_data(directory, data)
    if settings.neighbours:
        raise TrainingError(f"{directory}: a sequence head is for networks that see one slice; train with neighbours=0")
    rows = [row for one in data for row in one.rows]
    series = [one for one in series_of(rows).values() if settings.fold is None or rows[one[0]].fold == settings.fold]
    if not series:
        raise TrainingError("no series with known order is there to train a sequence head on (study, position_mm)")
    network = load_network(directory)
    numbers = np.concatenate(series)
    logits, embeddings = _cached(directory, network, settings, data, numbers, device)
    parts = np.split(np.arange(len(numbers)), np.cumsum([len(one) for one in series])[:-1])
    return EmbeddedRun(
        directory,
        settings.fold,
        network.classifier.weight.cpu(),
        network.classifier.bias.cpu(),
        tuple(
            Series(tuple(rows[number] for number in one), embeddings[part], logits[part])
            for one, part in zip(series, parts, strict=True)
        ),
    )


def _cached(
    directory: Path,
    network: SliceNetwork,
    settings: FitSettings,
    data: Sequence[PreparedSet],
    numbers: NDArray[np.int64],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    key = _key(directory, data, numbers)
    if (directory / CACHE).exists():
        tensors, facts = load_state(directory / CACHE)
        if facts.get("key") == key:
            return tensors["logits"], tensors["embeddings"].float()
    store = SliceStore(data, device, settings.resident_gib)
    images = ImageMaker(store, settings.preprocessing, 0)
    network = network.to(device).to(memory_format=torch.channels_last)
    logits, embeddings = score_slices(network, images, numbers, settings, Processes(0, 1, device), embed=True)
    kept = {"logits": logits.cpu(), "embeddings": embeddings.cpu().half()}
    save_state(directory / CACHE, kept, {"key": key})
    return kept["logits"], kept["embeddings"].float()


def _key(directory: Path, data: Sequence[PreparedSet], numbers: NDArray[np.int64]) -> str:
    digest = hashlib.sha256(numbers.tobytes())
    digest.update(hashlib.sha256((directory / FINAL).read_bytes()).digest())
    for one in data:
        digest.update(one.manifest.table_sha256.encode())
    return digest.hexdigest()
