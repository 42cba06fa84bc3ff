"""Score slices of prepared sets with a network, as validation and the later stages need it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ich_node.model.network import SliceNetwork
from ich_node.training.fit.images import ImageMaker
from ich_node.training.fit.processes import Processes
from ich_node.training.fit.settings import FitSettings

_BATCH = 32


def score_slices(
    network: SliceNetwork,
    images: ImageMaker,
    slices: Sequence[int] | NDArray[np.int64],
    settings: FitSettings,
    processes: Processes,
    progress: Callable[[int], None] = lambda _: None,
    *,
    embed: bool = False,
) -> tuple[Tensor, Tensor]:
    """Score slices by their numbers, spread over the processes; every process gets all.

    Returns:
        Logits (slices, 6), and where ``embed`` asks for them embeddings (slices, embedding), else (slices, 0); float32
        on the device.
    """
    numbers = np.asarray(slices, np.int64)
    start, stop = processes.part(len(numbers))
    logits = torch.zeros(len(numbers), 6, device=processes.device)
    embeddings = torch.zeros(len(numbers), network.embedding_size if embed else 0, device=processes.device)
    network.eval()
    processes.share_statistics(network)
    for first in range(start, stop, _BATCH):
        last = min(first + _BATCH, stop)
        batch = images.images(numbers[first:last], settings.used_at_px)
        with torch.inference_mode(), autocast(settings, processes.device):
            embedded = network.forward_features(batch.contiguous(memory_format=torch.channels_last)).float()
        with torch.inference_mode():  # the last layer in float32, as the node's engines compute it
            logits[first:last] = network.forward_head(embedded)
        if embed:
            embeddings[first:last] = embedded
        progress(last - first)
    return processes.sum_rows(logits), processes.sum_rows(embeddings)


def autocast(settings: FitSettings, device: torch.device) -> torch.autocast:
    """bf16 where the settings ask for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")
